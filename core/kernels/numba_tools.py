"""What every Numba kernel shares: threads, a lock, and word that compiling takes a moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba.core import event
from torch import Tensor

log = logging.getLogger("maquette")
MOST_THREADS: int = numba.get_num_threads()  # as launched: NUMBA_NUM_THREADS, or the machine's cores

# Numba's fallback threading layer ends the process when two Python threads enter it at once (the live view
# renders while a job trains), so one kernel runs at a time; each uses all threads anyway.
_lock = threading.RLock()


class _Announcer(event.Listener):
    """Says once per process that kernels are being compiled; loading them from the cache says nothing."""

    told = False

    def on_start(self, event: event.Event) -> None:
        module = getattr(event.data.get("dispatcher"), "__module__", "")
        if not self.told and module.startswith("core.kernels"):
            self.told = True
            log.info("Compiling the CPU kernels with Numba: some seconds, once per machine.")

    def on_end(self, event: event.Event) -> None:
        """Nothing to say: the first result says it."""


event.register("numba:compile", _Announcer())


def run(kernel: Callable[..., Any], *args: Any) -> Any:
    """Call a compiled kernel on as many threads as PyTorch uses, one kernel at a time."""
    with _lock:
        numba.set_num_threads(max(1, min(torch.get_num_threads(), MOST_THREADS)))
        return kernel(*args)


def array(tensor: Tensor) -> np.ndarray:
    """A C-contiguous NumPy view of a CPU tensor (a copy only where it is not contiguous)."""
    return tensor.detach().contiguous().numpy()
