"""The reference through ``torch.compile``: see :mod:`core.kernels.compiled`."""

from __future__ import annotations

from core.kernels.compiled import Compiled

from . import reference

composite = Compiled(reference.composite, inputs=2)
