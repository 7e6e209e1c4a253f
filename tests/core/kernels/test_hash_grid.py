"""The hash encoding: every backend against float64, finite differences, and the paper's own rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch
from core.kernels.hash_grid import HashGridSpec, compiled, hash_grid, reference

SPEC = HashGridSpec(levels=5, features=2, log2_table=12, base_resolution=4, finest=64)  # 2 dense levels, 3 hashed
HERE = [b.name for b in dispatch.backends("hash_grid") if b.runs_on("cpu") and b.available()[0]]
FAST = [name for name in HERE if name != "reference"]


def data(spec: HashGridSpec = SPEC, count: int = 3000, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    table = torch.randn(spec.table_shape, generator=generator, dtype=torch.float64)
    gout = torch.randn(count, spec.width, generator=generator, dtype=torch.float64)
    # In float32 first, so that all precisions see the same points, in the same cells.
    return tuple(x.float().to(dtype) for x in (points, table, gout))


def run(points: Tensor, table: Tensor, gout: Tensor, backend: str, spec: HashGridSpec = SPEC) -> tuple[Tensor, ...]:
    """Features, gradient of the table, gradient of the points."""
    points, table = points.clone().requires_grad_(), table.clone().requires_grad_()
    out = hash_grid(points, table, spec.resolutions, backend=backend)
    return (out.detach(), *torch.autograd.grad(out, (table, points), gout))


def off(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth.double()).abs().max() / truth.double().abs().max())


def test_resolutions_grow_geometrically_from_base_to_finest() -> None:
    spec = HashGridSpec(levels=16, base_resolution=16, finest=512)
    growth = np.exp((np.log(512) - np.log(16)) / 15)
    assert spec.resolutions == tuple(int(16 * growth**i + 1e-6) for i in range(16))
    assert spec.resolutions[0] == 16 and spec.resolutions[-1] == 512
    assert HashGridSpec(levels=1).resolutions == (16,)


def test_an_affine_field_is_reproduced_exactly_by_a_dense_level() -> None:
    r, slope = 5, torch.tensor([0.3, -0.7, 1.1])
    z, y, x = torch.meshgrid(*[torch.arange(r + 1.0) / r] * 3, indexing="ij")
    vertices = torch.stack([x, y, z], -1).reshape(-1, 3)  # x fastest
    table = torch.zeros(1, 256, 1)
    table[0, : len(vertices), 0] = vertices @ slope
    points = torch.cat([torch.rand(100, 3, generator=torch.Generator().manual_seed(0)), vertices])
    for backend in HERE:
        found = hash_grid(points, table, (r,), backend=backend)[:, 0]
        torch.testing.assert_close(found, points @ slope, atol=1e-6, rtol=0)


def test_a_vertex_reads_the_row_of_the_papers_hash() -> None:
    r, rows = 64, 1 << 12
    table = torch.arange(rows, dtype=torch.float32).reshape(1, rows, 1)
    vertex = np.array([[3, 17, 60], [64, 0, 1], [31, 32, 33]], np.uint64)
    expected = (vertex[:, 0] ^ (vertex[:, 1] * 2654435761 % 2**32) ^ (vertex[:, 2] * 805459861 % 2**32)) % rows
    points = torch.from_numpy(vertex.astype(np.float32)) / r
    for backend in HERE:
        found = hash_grid(points, table, (r,), backend=backend)[:, 0]
        assert found.tolist() == expected.astype(float).tolist()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("features", [2, 3])
def test_values_and_gradients_agree_with_float64(backend: str, features: int) -> None:
    spec = HashGridSpec(levels=5, features=features, log2_table=12, base_resolution=4, finest=64)
    truth = run(*data(spec, dtype=torch.float64), backend="reference", spec=spec)
    for found, true in zip(run(*data(spec), backend=backend, spec=spec), truth, strict=True):
        assert off(found, true) < 1e-5


@pytest.mark.parametrize("backend", FAST)
def test_float64_agrees_to_the_last_digits(backend: str) -> None:
    both = [run(*data(dtype=torch.float64), backend=name) for name in (backend, "reference")]
    for found, true in zip(*both, strict=True):
        assert off(found, true) < 1e-13


@pytest.mark.parametrize("backend", FAST)
def test_the_shipped_size_agrees_with_float64(backend: str) -> None:
    spec = HashGridSpec()
    truth = run(*data(spec, 5000, torch.float64), backend="reference", spec=spec)
    found = run(*data(spec, 5000), backend=backend, spec=spec)
    assert max(off(a, b) for a, b in zip(found, truth, strict=True)) < 1e-5


@pytest.mark.parametrize("backend", HERE)
def test_gradients_are_the_finite_differences(backend: str) -> None:
    points, table, _ = data(count=6, dtype=torch.float64)
    rows = table[:, :16].clone().requires_grad_()

    def encode(x: Tensor, some: Tensor) -> Tensor:
        return hash_grid(x, torch.cat([some, table[:, 16:]], 1), SPEC.resolutions, backend=backend)

    assert torch.autograd.gradcheck(encode, (points.clone().requires_grad_(), rows), eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("backend", HERE)
def test_second_derivatives_are_the_finite_differences(backend: str) -> None:
    spec = HashGridSpec(levels=2, features=2, log2_table=6, base_resolution=2, finest=5)
    points, table, gout = data(spec, 4, torch.float64)
    inputs = [x.clone().requires_grad_() for x in (points, table)]

    def encode(x: Tensor, rows: Tensor) -> Tensor:
        return hash_grid(x, rows, spec.resolutions, backend=backend)

    assert torch.autograd.gradgradcheck(encode, inputs, gout.clone().requires_grad_(), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("backend", FAST)
def test_an_eikonal_loss_has_the_references_gradient(backend: str) -> None:
    grads = []
    for name, dtype in ((backend, torch.float32), ("reference", torch.float64)):
        points, table, gout = data(dtype=dtype)
        points.requires_grad_(), table.requires_grad_()
        field = (hash_grid(points, table, SPEC.resolutions, backend=name) * gout).sum(-1)
        (normal,) = torch.autograd.grad(field.sum(), points, create_graph=True)
        grads.append(torch.autograd.grad(((normal.norm(dim=-1) - 1) ** 2).mean(), table)[0])
    assert off(*grads) < 1e-5


@pytest.mark.parametrize("backend", HERE)
def test_outside_is_clamped_and_nan_stays_nan(backend: str) -> None:
    _, table, _ = data()
    points = torch.tensor([[1.5, 0.5, -2.0], [1.0, 0.5, 0.0], [float("nan"), 0.5, 0.5]], requires_grad=True)
    out = hash_grid(points, table, SPEC.resolutions, backend=backend)
    assert torch.equal(out[0], out[1]) and bool(out[2].isnan().all())
    (grad,) = torch.autograd.grad(out[:2].sum(), points)
    assert grad[0, 0] == 0 and grad[0, 2] == 0 and grad[0, 1] != 0


@pytest.mark.parametrize("backend", HERE)
def test_no_points_give_no_features(backend: str) -> None:
    out, table, points = run(torch.rand(0, 3), data()[1], torch.rand(0, SPEC.width), backend)
    assert out.shape == (0, SPEC.width) and points.shape == (0, 3) and not table.any()


@pytest.mark.parametrize("backend", FAST)
def test_bits_do_not_depend_on_the_run_or_the_number_of_threads(backend: str) -> None:
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(*data(count=20_000), backend=backend))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("backend", HERE)
def test_half_precision_is_computed_in_float32(backend: str) -> None:
    points, table, _ = data()
    assert hash_grid(points.half(), table.half(), SPEC.resolutions, backend=backend).dtype == torch.float32


def test_the_compiled_shell_differentiates_once_and_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.encode, "_fast", reference.encode)  # the shell, without the wait
    points, table, gout = data(count=50, dtype=torch.float64)
    points.requires_grad_(), table.requires_grad_()
    found, true = [], []
    for encode, grads in ((compiled.encode, found), (reference.encode, true)):
        out = encode(points, table, SPEC.resolutions)
        grads += torch.autograd.grad(out, (points, table), gout, retain_graph=True)
        (normal,) = torch.autograd.grad(out, points, gout, create_graph=True)
        grads += torch.autograd.grad(normal.square().sum(), (points, table))
    for a, b in zip(found, true, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("points", "table", "resolutions", "words"),
    [
        (torch.rand(4, 2), torch.rand(1, 64, 2), (3,), "points must be"),
        (torch.rand(4, 3), torch.rand(2, 64, 2), (3,), "1 resolutions"),
        (torch.rand(4, 3), torch.rand(1, 100, 2), (9,), "power of two"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    points: Tensor, table: Tensor, resolutions: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        hash_grid(points, table, resolutions)


def test_a_spec_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match="log2_table is 40"):
        HashGridSpec(log2_table=40)
    with pytest.raises(UserError, match="finest 8"):
        HashGridSpec(base_resolution=16, finest=8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["tinycudann", "compiled", "reference"])
def test_cuda_backends_agree_with_float64(backend: str) -> None:
    available, why = {b.name: b for b in dispatch.backends("hash_grid")}[backend].available()
    if not available:
        pytest.skip(why)
    truth = run(*data(dtype=torch.float64), backend="reference")
    found = run(*(x.cuda() for x in data()), backend=backend)
    # The features are float32 sums in another order; the points' gradient jumps at cell borders, where
    # rounding may choose the other side, so a few rows may differ.
    assert off(found[0].cpu(), truth[0]) < 1e-3 and off(found[1].cpu(), truth[1]) < 1e-3
    wrong = (found[2].cpu().double() - truth[2]).abs().amax(-1) > 1e-3 * truth[2].abs().max()
    assert wrong.double().mean() < 0.01
