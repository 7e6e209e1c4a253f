"""Thread settings that only count if they are made before torch and numba are imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def physical_cores() -> int:
    """Cores this process may use: without hyper-threads, within its affinity and its container's quota."""
    try:
        allowed = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux: logical processors are all that can be asked for
        return os.cpu_count() or 1
    siblings = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(siblings), _quota()))


def _siblings(cpu: int) -> str:
    try:
        return (_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Whole processors that the control group grants; a large number where there is no limit."""
    try:
        granted, period = _QUOTA.read_text().split()
        return max(1, int(granted) // int(period))
    except (OSError, ValueError):  # no such file, or "max 100000"
        return 1 << 16


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set thread counts and waiting policy unless the user did.

    Passive waiting: torch and numba bring an OpenMP pool each, and a pool that spins starves the other.
    """
    cores = str(physical_cores())
    defaults = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "OMP_NUM_THREADS": cores,
        "NUMBA_NUM_THREADS": cores,
    }
    for name, value in defaults.items():
        environ.setdefault(name, value)
