"""From a checked spec to a component."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from core.config.base import ComponentSpec

if TYPE_CHECKING:
    from core.contracts import Context
    from core.registry import Registry


def build(spec: ComponentSpec, context: Context, registry: Registry) -> Any:
    """The component that ``spec`` describes, as ``Class(options, context)``; a function is returned as it is.

    ``context.build`` is set, so that the component can build what stands in its own slots. The device, the seed and
    the parts built before are the caller's to set in ``context``; nothing is added to ``context.parts``.

    Raises:
        UserError: the name is unknown to ``registry`` or its module cannot be imported.
    """
    target = registry.find(spec.kind, spec.name).load()
    if not isinstance(target, type):
        return target
    if context.build is None or getattr(context.build, "func", None) is build:  # a copied context builds for itself
        context.build = partial(build, context=context, registry=registry)
    return target(spec.options, context)
