"""How fast each backend is here: forward and backward, against plain PyTorch in the same run."""

from __future__ import annotations

import importlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from core.errors import UserError

from . import dispatch
from .compositing import composite
from .hash_grid import HashGridSpec, hash_grid
from .marching import RaySamples, march
from .mesh_distance import closest_face, winding_number
from .mesh_raster import Fragments, antialias, interpolate, neighbours, rasterise
from .splatting import rasterize

LONG = 10.0  # seconds after which a backend is not run again
Job = Callable[[str], object]  # a backend's name -> one forward and backward


def bench(
    kernels: Sequence[str] | None = None,
    threads: int = 2,
    repeats: int = 5,
    points: int = 131_072,
    rays: int = 4096,
    splats: int = 10_000,
    device: str | None = None,
    faces: int = 20_000,
    peers: Sequence[str] = (),
) -> list[dict[str, object]]:
    """Time every available backend, the backends taking turns so that a busy machine slows all alike.

    Args:
        kernels: names; None for all that have a job here.
        threads: of PyTorch and Numba (which cannot exceed ``NUMBA_NUM_THREADS``).
        repeats: timed runs of each, after one untimed.
        points: of the hash grid.
        rays: of marching and compositing; and the points whose distance to a mesh is asked.
        splats: Gaussians of splatting; its reference takes half a minute a run with 10,000.
        device: ``cpu`` or ``cuda``; None for ``cuda`` where there is one.
        faces: of the rasterised mesh, about.
        peers: ``KERNEL=MODULE`` each: a module of yours to time beside the backends, with the functions of the
            kernel's reference and their signatures.

    Returns:
        dicts with ``kernel``, ``backend``, ``shape``, ``ms`` (median), ``ratio`` (median time of the reference over
        this one's: above 1 is faster than plain PyTorch), ``threads`` and ``device``.

    Raises:
        UserError: an unknown kernel, a peer that does not import, or no repeats.
    """
    if repeats < 1 or threads < 1:
        raise UserError(f"bench: repeats ({repeats}) and threads ({threads}) must be at least 1.")
    device = device or ("cuda" if dispatch.cuda_present() else "cpu")
    jobs = {
        "hash_grid": lambda: _hash_grid(points, device),
        "march": lambda: _march(rays, device),
        "composite": lambda: _composite(rays, device),
        "splat": lambda: _splat(splats, device),
        "mesh_raster": lambda: _mesh_raster(faces, device),
        "mesh_distance": lambda: _mesh_distance(rays, faces, device),
    }
    beside = [_peer(peer) for peer in peers]
    wanted = list(jobs) if kernels is None else [k for k in kernels if dispatch.backends(k) and k in jobs]
    rows: list[dict[str, object]] = []
    with _threads(threads), _beside(beside):
        for kernel in wanted:
            shape, job = jobs[kernel]()
            names = [b.name for b in dispatch.backends(kernel) if b.runs_on(device) and b.available()[0]]
            times = _interleaved(job, names, repeats, device)
            base = times["reference"]
            rows += [
                {
                    "kernel": kernel,
                    "backend": name,
                    "shape": shape,
                    "ms": round(1e3 * times[name], 3),
                    "ratio": round(base / times[name], 2),
                    "threads": threads,
                    "device": device,
                }
                for name in names
            ]
    return rows


def machine() -> dict[str, str]:
    """What the figures were measured on: processor, cores, GPU, PyTorch, Numba."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        numba = version("numba")
    except PackageNotFoundError:
        numba = "none"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "gpu": gpu,
        "torch": torch.__version__,
        "numba": numba,
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _peer(text: str) -> tuple[str, dispatch.Backend]:
    kernel, _, module = text.partition("=")
    dispatch.backends(kernel)
    try:
        importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise UserError(f"bench: the peer '{text}' must be KERNEL=MODULE, a module that imports: {error}.") from None
    return kernel, dispatch.Backend(module, module, opt_in=True)


@contextmanager
def _beside(peers: Sequence[tuple[str, dispatch.Backend]]) -> Iterator[None]:
    """Peers are backends of their kernels, first in the list, for as long as this lasts."""
    before = {kernel: dispatch.backends(kernel) for kernel, _ in peers}
    for kernel, backend in peers:
        dispatch.register(kernel, [backend, *dispatch.backends(kernel)])
    try:
        yield
    finally:
        for kernel, backends in before.items():
            dispatch.register(kernel, backends)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _interleaved(job: Job, names: Sequence[str], repeats: int, device: str) -> dict[str, float]:
    """Median seconds of each backend; the first round compiles and warms up, or is all for one that takes long."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 1):
        for name in names:
            if sum(times[name]) > LONG:
                continue
            _wait(device)
            start = time.perf_counter()
            job(name)
            _wait(device)
            spent = time.perf_counter() - start
            if turn or (name == "reference" and spent > LONG):  # which compiles nothing
                times[name].append(spent)
    return {name: statistics.median(seen) for name, seen in times.items()}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _hash_grid(points: int, device: str) -> tuple[str, Job]:
    generator = torch.Generator().manual_seed(0)
    spec = HashGridSpec()
    table = spec.table(generator).to(device).requires_grad_()
    x = torch.rand(points, 3, generator=generator).to(device)
    gout = torch.rand(points, spec.width, generator=generator).to(device)

    def job(name: str) -> tuple[Tensor, ...]:
        return torch.autograd.grad(hash_grid(x, table, spec.resolutions, name), table, gout)

    return f"{points} points x {spec.levels} levels x {spec.features}, forward + backward to the table", job


def _rays(rays: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rays from outside towards a hollow ball in [-1, 1]^3: origins, directions, box, occupied cells."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=-1) * 3
    aims = torch.rand(rays, 3, generator=generator) * 1.6 - 0.8
    axis = (torch.arange(64) + 0.5) / 32 - 1
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    directions = torch.nn.functional.normalize(aims - origins, dim=-1)
    box = torch.tensor([[-1.0] * 3, [1.0] * 3])
    return origins.to(device), directions.to(device), box.to(device), ((radius - 0.6).abs() < 0.1).to(device)


def _march(rays: int, device: str) -> tuple[str, Job]:
    origins, directions, box, binary = _rays(rays, device)

    def job(name: str) -> RaySamples:
        return march(origins, directions, box, binary, 0.01, backend=name)

    return f"{rays} rays -> {len(job('reference').t_starts)} samples in 64^3 cells, forward", job


def _composite(rays: int, device: str) -> tuple[str, Job]:
    origins, directions, box, binary = _rays(rays, device)
    samples = march(origins, directions, box, binary, 0.01, backend="reference")
    generator = torch.Generator().manual_seed(0)
    count = len(samples.t_starts)
    sigmas = (torch.rand(count, generator=generator) * 10).to(device).requires_grad_()
    values = torch.rand(count, 3, generator=generator).to(device).requires_grad_()

    def job(name: str) -> tuple[Tensor, ...]:
        out = composite(sigmas, values, samples.t_starts, samples.t_ends, samples.offsets, backend=name)
        ones = [torch.ones_like(x) for x in out]
        return torch.autograd.grad(out, (sigmas, values), ones)

    return f"{count} samples on {rays} rays x 3 channels, forward + backward", job


def _ball(rings: int, device: str) -> tuple[Tensor, Tensor]:
    """A unit ball of 4 rings (rings - 1) faces: vertices [V, 3], faces [F, 3]."""
    row, col = torch.meshgrid(torch.arange(rings + 1), torch.arange(2 * rings), indexing="ij")
    polar, round_ = row * (torch.pi / rings), col * (torch.pi / rings)
    vertices = torch.stack([polar.sin() * round_.cos(), polar.sin() * round_.sin(), polar.cos()], -1).view(-1, 3)
    a, b = row[:-1] * 2 * rings + col[:-1], row[:-1] * 2 * rings + (col[:-1] + 1) % (2 * rings)
    c, d = a + 2 * rings, b + 2 * rings
    upper, lower = torch.stack([a, c, d], -1)[1:], torch.stack([a, d, b], -1)[1:]
    cap, foot = torch.stack([a, c, d], -1)[:1], torch.stack([a, d, b], -1)[-1:]
    kept = [x.reshape(-1, 3) for x in (cap, upper[:-1], lower[:-1], foot)]
    return vertices.to(device), torch.cat(kept).to(device)


def _mesh_raster(faces: int, device: str, size: int = 256) -> tuple[str, Job]:
    vertices, triangles = _ball(max(2, round((faces / 4) ** 0.5)), device)
    scale, w = 0.45 * size * 3, (3 - vertices[:, 2:])
    points = torch.cat([vertices[:, :2] * scale + w * size / 2, w], -1)[None].contiguous().requires_grad_()
    values = torch.rand(len(vertices), 3, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    across = neighbours(triangles)

    def job(name: str) -> tuple[Tensor, ...]:
        seen: Fragments = rasterise(points, triangles, size, size, backend=name)
        picture = antialias(interpolate(values, triangles, seen, name), seen, points, triangles, across, backend=name)
        return torch.autograd.grad(picture.square().sum() + seen.depth.sum(), (points, values))

    return f"{len(triangles)} faces at {size}x{size}, antialiased, forward + backward", job


def _mesh_distance(count: int, faces: int, device: str) -> tuple[str, Job]:
    vertices, triangles = _ball(max(2, round((faces / 4) ** 0.5)), device)
    points = (torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 3 - 1.5).to(device)

    def job(name: str) -> tuple[Tensor, ...]:
        return (*closest_face(points, vertices, triangles, name), winding_number(points, vertices, triangles, name))

    return f"{count} points, {len(triangles)} faces, closest face and winding number", job


def _splat(count: int, device: str, size: int = 128) -> tuple[str, Job]:
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(1, count, 2, generator=generator) * size
    deviations = torch.rand(1, count, 2, generator=generator) * 11 + 2
    turn = torch.rand(1, count, generator=generator) * torch.pi
    axes = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], -1).unflatten(-1, (2, 2))
    inverse = axes @ torch.diag_embed((deviations.square() + 0.3).reciprocal()) @ axes.mT
    conics = torch.stack([inverse[..., 0, 0], inverse[..., 0, 1], inverse[..., 1, 1]], -1)
    # Thin enough that nearly every pair counts: no pixel is closed before its last Gaussian.
    opacities = torch.rand(1, count, generator=generator) * 0.02 + 0.02
    values = torch.rand(1, count, 3, generator=generator)
    inputs = [x.to(device).requires_grad_() for x in (means, conics, opacities, values)]
    depths = (torch.rand(1, count, generator=generator) + 1).to(device)
    pairs = _pairs(means[0], conics[0], opacities[0], size)

    def job(name: str) -> tuple[Tensor, ...]:
        means, conics, opacities, values = inputs
        out = rasterize(means, conics, opacities, values, depths, size, size, backend=name)
        return torch.autograd.grad(out.values.sum() + out.opacity.sum(), inputs)

    shape = f"{count} Gaussians at {size}x{size}, {pairs:.0f} pairs a pixel, 3 channels, forward + backward"
    return shape, job


def _pairs(means: Tensor, conics: Tensor, opacities: Tensor, size: int) -> float:
    """Mean number of Gaussians with an alpha of at least 1/255 at a pixel: the area of their ellipses."""
    a, b, c = conics.unbind(-1)
    area = 2 * torch.pi * torch.log(opacities * 255).clamp(min=0) / (a * c - b * b).sqrt()
    return float(area.detach().sum() / size**2)
