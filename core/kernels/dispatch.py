"""Which implementation of a kernel runs: by what is installed, by where the tensors are, or by the user's word.

Order of say: the ``backend=`` argument, then the environment variable ``MAQUETTE_KERNELS``, then the first backend
of the kernel's list that is available for the device. ``MAQUETTE_KERNELS`` is one name for every kernel that has
such a backend (``reference``), or pairs (``hash_grid=reference,march=numba``). PyTorch is not imported here unless
a CUDA library is installed and a driver is present.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from core.errors import UserError, did_you_mean

log = logging.getLogger("maquette")
VARIABLE = "MAQUETTE_KERNELS"
_broken: dict[str, str] = {}  # module -> why it could not be imported, found out on first use


@dataclass(frozen=True)
class Backend:
    """One implementation of a kernel.

    Attributes:
        name: what users write (``reference``, ``numba`` ...).
        module: where it lives; imported on first use.
        devices: torch device types it runs on; empty means any.
        needs: modules that must be importable.
        install: the command that would add it, where one would.
        gain: what it adds, in a few words.
        opt_in: never chosen unless asked for by name (a licence that not everyone can accept).
    """

    name: str
    module: str
    devices: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    install: str = ""
    gain: str = ""
    opt_in: bool = False

    def available(self) -> tuple[bool, str]:
        """Whether it can run on this machine, and why (not)."""
        missing = [name for name in self.needs if not _installed(name)]
        if missing:
            return False, f"{', '.join(missing)} not installed"
        if self.module in _broken:
            return False, _broken[self.module]
        if self.devices and "cpu" not in self.devices and not cuda_present():
            return False, "no CUDA device"
        return True, f"{', '.join(self.needs)} installed" if self.needs else "always there"

    def runs_on(self, device: str) -> bool:
        """Whether it takes tensors on this type of device (``cpu``, ``cuda`` ...)."""
        return not self.devices or device in self.devices


def _numba(module: str, gain: str) -> Backend:
    return Backend("numba", module, ("cpu",), ("numba",), "pip install numba", gain)


def _compiled(module: str) -> Backend:
    gain = "the reference through torch.compile, on GPUs without a library of their own"
    return Backend("compiled", module, ("cuda",), ("triton",), "pip install triton", gain)


_TCNN = "pip install git+https://github.com/NVlabs/tiny-cuda-nn#subdirectory=bindings/torch"

# Best first.
_kernels: dict[str, tuple[Backend, ...]] = {
    "hash_grid": (
        _numba("core.kernels.hash_grid.numba_cpu", "the fast hash grid on the CPU"),
        Backend(
            "tinycudann",
            "core.kernels.hash_grid.tcnn",
            devices=("cuda",),
            needs=("tinycudann",),
            install=_TCNN,
            gain="the fastest hash grid on NVIDIA GPUs",
        ),
        _compiled("core.kernels.hash_grid.compiled"),
        Backend("reference", "core.kernels.hash_grid.reference", gain="plain PyTorch, any device, any float type"),
    ),
    "march": (
        _numba("core.kernels.marching.numba_cpu", "fast ray marching on the CPU"),
        _compiled("core.kernels.marching.compiled"),
        Backend("reference", "core.kernels.marching.reference", gain="plain PyTorch, any device, any float type"),
    ),
    "composite": (
        _numba("core.kernels.compositing.numba_cpu", "fast compositing on the CPU"),
        Backend(
            "nerfacc",
            "core.kernels.compositing.nerfacc_cuda",
            devices=("cuda",),
            needs=("nerfacc",),
            install="pip install nerfacc",
            gain="packed scans on NVIDIA GPUs",
        ),
        _compiled("core.kernels.compositing.compiled"),
        Backend("reference", "core.kernels.compositing.reference", gain="plain PyTorch, any device, any float type"),
    ),
    "splat": (
        _numba("core.kernels.splatting.numba_cpu", "fast Gaussian splatting on the CPU"),
        Backend(
            "gsplat",
            "core.kernels.splatting.gsplat_cuda",
            devices=("cuda",),
            needs=("gsplat",),
            install="pip install gsplat",
            gain="tile-based splatting on NVIDIA GPUs",
        ),
        _compiled("core.kernels.splatting.compiled"),
        Backend("reference", "core.kernels.splatting.reference", gain="plain PyTorch, any device, any float type"),
    ),
    "mesh_distance": (
        _numba("core.kernels.mesh_distance.numba_cpu", "fast closest points and winding numbers on the CPU"),
        Backend("reference", "core.kernels.mesh_distance.reference", gain="plain PyTorch, any device, any float type"),
    ),
    "mesh_raster": (
        _numba("core.kernels.mesh_raster.numba_cpu", "fast mesh rasterisation on the CPU"),
        Backend(
            "pytorch3d",
            "core.kernels.mesh_raster.pytorch3d_backend",
            needs=("pytorch3d",),
            install="pip install git+https://github.com/facebookresearch/pytorch3d",
            gain="mesh rasterisation on NVIDIA GPUs",
        ),
        Backend(
            "nvdiffrast",
            "core.kernels.mesh_raster.nvdiffrast_cuda",
            devices=("cuda",),
            needs=("nvdiffrast",),
            install="pip install git+https://github.com/NVlabs/nvdiffrast",
            gain="only when asked for: its licence forbids commercial use",
            opt_in=True,
        ),
        _compiled("core.kernels.mesh_raster.compiled"),
        Backend("reference", "core.kernels.mesh_raster.reference", gain="plain PyTorch, any device, any float type"),
    ),
}


def register(kernel: str, backends: Sequence[Backend]) -> None:
    """Add a kernel, or replace the backends of one; best first."""
    _kernels[kernel] = tuple(backends)


def kernels() -> list[str]:
    """Names of all kernels."""
    return list(_kernels)


def backends(kernel: str) -> list[Backend]:
    """All backends of a kernel, best first.

    Raises:
        UserError: there is no such kernel.
    """
    if kernel not in _kernels:
        raise UserError(f"There is no kernel '{kernel}'.{did_you_mean(kernel, _kernels)}")
    return list(_kernels[kernel])


def choose(kernel: str, device: str, force: str | None = None) -> Backend:
    """The backend that will run.

    Args:
        kernel: ``hash_grid``, ``march``, ``composite``, ``splat`` ...
        device: torch device type of the tensors: ``cpu``, ``cuda`` ...
        force: a backend's name; None lets the environment or the machine decide.

    Raises:
        UserError: an unknown kernel or backend, or a forced backend that cannot run here.
    """
    offered = backends(kernel)
    asked = force or _from_environment(kernel)
    if asked:
        return _forced(kernel, offered, asked, device)
    for backend in offered:
        if not backend.opt_in and backend.runs_on(device) and backend.available()[0]:
            return backend
    raise UserError(f"No backend of the kernel '{kernel}' runs on '{device}' here.")


def resolve(kernel: str, device: str, force: str | None = None) -> ModuleType:
    """The module of the chosen backend; one that fails to import is reported once and passed over unless forced.

    Raises:
        UserError: as :func:`choose`, or a forced backend's library does not import.
    """
    backend = choose(kernel, device, force)
    loaded = sys.modules.get(backend.module)
    if loaded is not None:
        return loaded
    try:
        return importlib.import_module(backend.module)
    except (ImportError, OSError) as error:
        if backend.name == "reference":
            raise
        _broken[backend.module] = f"does not import: {error}"
        log.warning("Kernel %s: backend '%s' %s; using another.", kernel, backend.name, _broken[backend.module])
        return resolve(kernel, device, force)


def report() -> list[dict[str, object]]:
    """One row per kernel and backend of this machine, for ``doctor``.

    Returns:
        dicts with ``kernel``, ``backend``, ``chosen_for`` (device types it is used on here), ``available``,
        ``why``, ``gain`` and ``install`` (empty where it is there already).
    """
    here = ["cpu", "cuda"] if cuda_present() else ["cpu"]
    rows: list[dict[str, object]] = []
    for kernel in _kernels:
        chosen = {device: choose(kernel, device).name for device in here if _settled(kernel, device)}
        for backend in _kernels[kernel]:
            available, why = backend.available()
            rows.append(
                {
                    "kernel": kernel,
                    "backend": backend.name,
                    "chosen_for": [device for device, name in chosen.items() if name == backend.name],
                    "available": available,
                    "why": why,
                    "gain": backend.gain,
                    "install": "" if available else backend.install,
                }
            )
    return rows


def check_environment() -> None:
    """Hold ``MAQUETTE_KERNELS`` against what there is, before a run needs it.

    Raises:
        UserError: an unknown kernel or backend, or a backend that is not installed.
    """
    for kernel, offered in _kernels.items():
        asked = _from_environment(kernel)
        if asked:
            _named(kernel, list(offered), asked)


def cuda_present() -> bool:
    """Whether a CUDA device can be used; PyTorch is asked only where a driver shows."""
    if "torch" not in sys.modules:
        devices = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
        driver = shutil.which("nvidia-smi") or any(path.exists() for path in devices)
        if not driver or not _installed("torch"):
            return False
    import torch

    return torch.cuda.is_available()


@cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


def _settled(kernel: str, device: str) -> bool:
    """Whether a choice is possible: the environment may force something that this device cannot run."""
    try:
        choose(kernel, device)
    except UserError:
        return False
    return True


def _named(kernel: str, offered: list[Backend], asked: str) -> Backend:
    named = {backend.name: backend for backend in offered}
    if asked not in named:
        raise UserError(f"The kernel '{kernel}' has no backend '{asked}'.{did_you_mean(asked, named)}")
    backend = named[asked]
    available, why = backend.available()
    if not available:
        hint = f" To add it: {backend.install}." if backend.install else ""
        raise UserError(f"Backend '{asked}' of the kernel '{kernel}' cannot run here: {why}.{hint}")
    return backend


def _forced(kernel: str, offered: list[Backend], asked: str, device: str) -> Backend:
    backend = _named(kernel, offered, asked)
    if not backend.runs_on(device):
        raise UserError(
            f"Backend '{asked}' of the kernel '{kernel}' runs on {', '.join(backend.devices)}; "
            f"the tensors are on '{device}'."
        )
    return backend


def _from_environment(kernel: str) -> str | None:
    """What ``MAQUETTE_KERNELS`` says about one kernel."""
    value = os.environ.get(VARIABLE, "").strip()
    return _wishes(value).get(kernel) if value else None


@lru_cache(maxsize=8)
def _wishes(value: str) -> dict[str, str]:
    everything = {backend.name for offered in _kernels.values() for backend in offered}
    wishes: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in value.split(","))):
        kernel, pair, name = (p.strip() for p in part.partition("="))
        if pair:
            if kernel not in _kernels:
                raise UserError(f"{VARIABLE}: there is no kernel '{kernel}'.{did_you_mean(kernel, _kernels)}")
            wishes[kernel] = name
            continue
        if kernel not in everything:
            raise UserError(f"{VARIABLE}: there is no backend '{kernel}'.{did_you_mean(kernel, everything)}")
        having = [k for k, offered in _kernels.items() if kernel in {b.name for b in offered}]
        wishes.update({k: kernel for k in having if k not in wishes})
    return wishes
