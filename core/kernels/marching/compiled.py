"""The reference with its steps through ``torch.compile``: see :mod:`core.kernels.compiled`."""

from __future__ import annotations

from functools import partial

from core.kernels.compiled import Compiled

from . import reference

steps = Compiled(reference.steps_of)
march = partial(reference.march, stepping=steps)
