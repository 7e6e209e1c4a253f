"""Ray marching against a sample-by-sample brute force, and occupancy grids against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch
from core.kernels.marching import march
from core.kernels.occupancy import OccupancyGrid

BACKENDS = [b.name for b in dispatch.backends("march") if b.runs_on("cpu") and b.available()[0]]
BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def rays(count: int = 300, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 2.5
    origins[: count // 10] *= 0.2  # some start inside the box
    aims = torch.rand(count, 3, generator=generator) * 2.6 - 1.3  # some miss it
    return origins.to(dtype), torch.nn.functional.normalize(aims - origins, dim=-1).to(dtype)


def cells(share: float = 0.2, shape: tuple[int, int, int] = (13, 16, 9)) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(4)) < share


def brute(o: Tensor, d: Tensor, binary: Tensor, step: float, near: float, far: float, shift: float) -> list[float]:
    """Kept intervals of one ray, in Python floats: (start, end) pairs in one list."""
    spans = [sorted((s - float(o[i])) / float(d[i]) for s in (-1.0, 1.0)) for i in range(3)]
    t0, t1 = max(near, *(s[0] for s in spans)), min(far, *(s[1] for s in spans))
    kept: list[float] = []
    for k in range(math.ceil(max(0.0, (t1 - t0) / step) + 1)):
        low, high = t0 + max(k - shift, 0) * step, min(t0 + (k + 1 - shift) * step, t1)
        if high <= low:
            continue
        at = [float(o[i]) + float(d[i]) * (low + high) / 2 for i in range(3)]
        index = [min(max(int((at[i] + 1) / 2 * n), 0), n - 1) for i, n in enumerate(binary.shape)]
        if binary[tuple(index)]:
            kept += [low, high]
    return kept


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("jittered", [False, True])
def test_samples_are_those_of_the_brute_force(backend: str, jittered: bool) -> None:
    origins, directions = rays(dtype=torch.float64)
    jitter = torch.rand(len(origins), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shifts = jitter if jittered else torch.zeros_like(jitter)
    found = march(origins, directions, BOX, cells(), 0.07, 0.4, 3.0, jitter if jittered else None, backend=backend)
    assert found.offsets.shape == (len(origins) + 1,) and found.offsets[-1] == len(found.t_starts) > 500
    for n, (o, d) in enumerate(zip(origins, directions, strict=True)):
        mine = slice(int(found.offsets[n]), int(found.offsets[n + 1]))
        expected = torch.tensor(brute(o, d, cells(), 0.07, 0.4, 3.0, float(shifts[n])), dtype=torch.float64)
        pairs = torch.stack([found.t_starts[mine], found.t_ends[mine]], -1).reshape(-1)
        torch.testing.assert_close(pairs, expected, atol=1e-12, rtol=0)
        assert bool((found.ray_ids[mine] == n).all())


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_backends_agree_to_the_bit(share: float) -> None:
    origins, directions = rays(2000)
    jitter = torch.rand(len(origins), generator=torch.Generator().manual_seed(5))
    grid = cells(share, (32, 32, 32))
    results = [march(origins, directions, BOX, grid, 0.013, jitter=jitter, backend=name) for name in BACKENDS]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_grid_loses_no_length_whatever_the_jitter(backend: str) -> None:
    origins = torch.tensor([[-3.0, 0.1, 0.2], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    directions = torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    for jitter in (None, torch.tensor([0.0, 0.37, 0.5]), torch.ones(3)):
        found = march(origins, directions, BOX, cells(2.0), 0.03, jitter=jitter, backend=backend)
        length = torch.zeros(3).index_add(0, found.ray_ids, found.t_ends - found.t_starts)
        torch.testing.assert_close(length, torch.tensor([2.0, 1.0, 0.0]), atol=1e-5, rtol=0)
        assert bool((found.t_ends > found.t_starts).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_nearest_samples_are_kept(backend: str) -> None:
    origins, directions = rays()
    every = march(origins, directions, BOX, cells(0.5), 0.05, backend=backend)
    some = march(origins, directions, BOX, cells(0.5), 0.05, max_samples=7, backend=backend)
    assert torch.equal(some.offsets.diff(), every.offsets.diff().clamp(max=7))
    place = torch.arange(len(every.t_starts)) - every.offsets[every.ray_ids]
    assert torch.equal(some.t_starts, every.t_starts[place < 7])


@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_rays_give_nothing_and_break_nothing(backend: str) -> None:
    nan, inf = float("nan"), float("inf")
    origins = torch.tensor([[nan, 0, 0], [0.0, 0, 0], [0, 0, 0], [inf, 0, 0]])
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 0], [nan, 0, 1], [1, 0, 0]])
    assert march(origins, directions, BOX, cells(2.0), 0.1, backend=backend).offsets.tolist() == [0] * 5
    assert march(torch.rand(0, 3), torch.rand(0, 3), BOX, cells(), 0.1, backend=backend).offsets.tolist() == [0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_marching_again_gives_the_same_bits(backend: str) -> None:
    results = [march(*rays(), BOX, cells(), 0.02, backend=backend) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_positions_are_the_middles() -> None:
    origins, directions = rays(20)
    samples = march(origins, directions, BOX, cells(2.0), 0.1)
    n = int(samples.ray_ids[5])
    expected = origins[n] + directions[n] * (samples.t_starts[5] + samples.t_ends[5]) / 2
    torch.testing.assert_close(samples.positions(origins, directions)[5], expected)


def test_mistakes_are_named() -> None:
    origins, directions = rays(4)
    with pytest.raises(UserError, match="step_size is 0"):
        march(origins, directions, BOX, cells(), 0.0)
    with pytest.raises(UserError, match="bool"):
        march(origins, directions, BOX, cells().float(), 0.1)
    with pytest.raises(UserError, match=r"jitter must be \[N\] = \[4\]"):
        march(origins, directions, BOX, cells(), 0.1, jitter=torch.rand(3))


def ball(points: Tensor) -> Tensor:
    return 50.0 * (points.norm(dim=-1) < 0.5)


def test_everything_is_occupied_until_the_warm_up_ends() -> None:
    grid = OccupancyGrid([[-1.0] * 3, [1.0] * 3], resolution=16, step_size=0.02, warmup=32)
    generator = torch.Generator().manual_seed(0)
    assert grid.update(ball, 0, generator) and not grid.update(ball, 5, generator)
    assert grid.update(ball, 16, generator) and bool(grid.binary.all())
    assert grid.update(ball, 32, generator)
    # Cells that touch the ball may count, cells wholly outside never, cells wholly inside always.
    axis = (torch.arange(16) + 0.5) / 8 - 1
    centre = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).norm(dim=-1)
    half = math.sqrt(3) / 16
    assert bool(grid.binary[centre < 0.5 - half].all()) and not bool(grid.binary[centre > 0.5 + half].any())


def test_estimates_decay_as_a_moving_maximum() -> None:
    grid = OccupancyGrid([[-1.0] * 3, [1.0] * 3], resolution=4, warmup=10**6, decay=0.9, every=1)
    for step, density in enumerate((2.0, 1.0, 5.0, 0.0, 0.0)):
        grid.update(lambda p, value=density: torch.full((len(p), 1), value), step)
    torch.testing.assert_close(grid.density, torch.full((4, 4, 4), 5.0 * 0.9**2))


def test_an_empty_scene_stays_visible_and_updates_repeat_with_the_seed() -> None:
    grids = [OccupancyGrid([[-1.0] * 3, [1.0] * 3], resolution=8, warmup=0, every=1) for _ in range(2)]
    grids[0].update(lambda p: p.new_zeros(len(p)), 0)
    assert bool(grids[0].binary.all())
    grids[0].occupy_all()
    for grid in grids:
        generator = torch.Generator().manual_seed(7)
        for step in range(6):
            grid.update(lambda p: 100 * p[:, 0].clamp(min=0), step, generator)
    assert torch.equal(grids[0].density, grids[1].density) and torch.equal(grids[0].binary, grids[1].binary)
    again = OccupancyGrid([[-1.0] * 3, [1.0] * 3], resolution=8)
    again.load_state_dict(grids[0].state_dict())
    assert torch.equal(again.binary, grids[0].binary) and not bool(again.binary.all())


def test_a_grid_marches_with_its_own_step() -> None:
    grid = OccupancyGrid([[-1.0] * 3, [1.0] * 3], resolution=8, step_size=0.25)
    samples = grid.march(torch.tensor([[-3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]))
    torch.testing.assert_close(samples.t_starts, 2 + 0.25 * torch.arange(8.0))


def test_a_wrong_grid_is_refused() -> None:
    with pytest.raises(UserError, match="lowest to its highest"):
        OccupancyGrid([[1.0] * 3, [-1.0] * 3])
    with pytest.raises(UserError, match="resolution=0"):
        OccupancyGrid([[-1.0] * 3, [1.0] * 3], resolution=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_marches_the_same_samples() -> None:
    origins, directions = rays(dtype=torch.float64)
    here = march(origins, directions, BOX, cells(), 0.07)
    there = march(origins.cuda(), directions.cuda(), BOX.cuda(), cells().cuda(), 0.07)
    assert torch.equal(here.ray_ids, there.ray_ids.cpu())
    torch.testing.assert_close(here.t_starts, there.t_starts.cpu())
