"""The references through ``torch.compile``, as GPUs without a library get them, against the references as they are."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from core.kernels import dispatch
from core.kernels.compiled import Compiled
from core.kernels.compositing import compiled as compositing
from core.kernels.marching import compiled as marching
from core.kernels.mesh_raster import compiled as mesh_raster
from core.kernels.splatting import compiled as splatting

D = torch.float64


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are traced and cut into forward and backward as for a GPU, and run as they are: no compiler, no wait."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    for kernel in (compositing.composite, marching.steps, mesh_raster.nearer, splatting.blend):
        monkeypatch.setattr(kernel, "_fast", None)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def test_every_kernel_that_a_gpu_library_may_lack_has_one() -> None:
    for kernel in ("hash_grid", "march", "composite", "splat", "mesh_raster"):
        names = [b.name for b in dispatch.backends(kernel)]
        assert names[-2:] == ["compiled", "reference"], kernel
        assert not dispatch.backends(kernel)[-2].runs_on("cpu")


def test_compositing_once_and_twice(traced: None) -> None:
    starts = torch.arange(12, dtype=D) / 12
    rest = (starts, starts + 1 / 12, torch.tensor([0, 5, 5, 12]), 0.0)

    def all_of(composite: Any) -> list[Tensor]:
        sigmas, values = (numbers(12) * 5).requires_grad_(), numbers(12, 3, seed=1).requires_grad_()
        out = composite(sigmas, values, *rest)
        loss = sum((o * o).sum() for o in out)
        first = torch.autograd.grad(loss, (sigmas, values), retain_graph=True)
        (slope,) = torch.autograd.grad(loss, sigmas, create_graph=True)
        return [*out, *first, *torch.autograd.grad(slope.square().sum(), (sigmas, values))]

    for found, true in zip(all_of(compositing.composite), all_of(compositing.reference.composite), strict=True):
        torch.testing.assert_close(found, true)


def splats() -> list[Tensor]:
    means, turn = numbers(1, 9, 2) * 8, numbers(1, 9, seed=2) - 0.5
    conics = torch.stack([0.3 + 0 * turn, 0.2 * turn, 0.2 + 0 * turn], -1)
    return [means, conics, numbers(1, 9, seed=3), numbers(1, 9, 3, seed=4)]


def pictures(rasterize: Any) -> list[Tensor]:
    inputs, absolute = [x.requires_grad_() for x in splats()], torch.zeros(1, 9, 2, dtype=D)
    out = rasterize(*inputs, numbers(1, 9, seed=5) + 1, 7, 8, absolute)
    return [*out, *torch.autograd.grad(sum((o * o).sum() for o in out), inputs), absolute]


def test_splatting_with_the_absolute_gradients(traced: None) -> None:
    for found, true in zip(pictures(splatting.rasterize), pictures(splatting.reference.rasterize), strict=True):
        torch.testing.assert_close(found, true)


def test_marching_and_meshes(traced: None) -> None:
    starts, moves = numbers(6, 3) * 4, numbers(6, 3, seed=1) - 0.3
    ones = torch.ones(6, dtype=D)
    rays = (
        starts,
        moves,
        numbers(4, 4, 4, seed=2) > 0.4,
        0 * ones,
        3 * ones,
        torch.full((6,), 12),
        0.25,
        0.5 * ones,
        9,
    )
    for found, true in zip(marching.march(*rays), marching.reference.march(*rays), strict=True):
        assert torch.equal(found, true)
    corners = torch.cat([numbers(1, 12, 2, seed=3) * 8, numbers(1, 12, 1, seed=4) + 1], -1)
    faces = torch.arange(12).view(4, 3)
    found = mesh_raster.visible(corners, faces, 6, 7, 0.1)
    assert torch.equal(found, mesh_raster.reference.visible(corners, faces, 6, 7, 0.1)) and int(found.max()) >= 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_machines_own_compiler_gives_the_same() -> None:
    kernel = Compiled(splatting.reference.blend)
    fast = partial(splatting.reference.rasterize, blending=kernel)
    for found, true in zip(pictures(fast), pictures(splatting.reference.rasterize), strict=True):
        torch.testing.assert_close(found, true)
