"""The reference with its blending through ``torch.compile``: see :mod:`core.kernels.compiled`."""

from __future__ import annotations

from functools import partial

from core.kernels.compiled import Compiled

from . import reference

blend = Compiled(reference.blend)
rasterize = partial(reference.rasterize, blending=blend)
