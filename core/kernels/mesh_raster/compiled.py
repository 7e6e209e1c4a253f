"""The reference with its search for the nearest face through ``torch.compile``: see :mod:`core.kernels.compiled`."""

from __future__ import annotations

from functools import partial

from core.kernels.compiled import Compiled

from . import reference
from .reference import interpolate, silhouettes, weights

__all__ = ["interpolate", "silhouettes", "visible", "weights"]

nearer = Compiled(reference.nearer)
visible = partial(reference.visible, nearer_of=nearer)
