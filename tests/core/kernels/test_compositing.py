"""Compositing: closed forms, finite differences, float64, and every backend against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.kernels import dispatch
from core.kernels.compositing import composite

BACKENDS = [b.name for b in dispatch.backends("composite") if b.runs_on("cpu") and b.available()[0]]
LENGTHS = [0, 5, 1, 0, 17, 40, 3, 0]


def data(lengths: list[int] = LENGTHS, dtype: torch.dtype = torch.float32, channels: int = 3) -> tuple[Tensor, ...]:
    """sigmas, values, t_starts, t_ends, offsets of random samples with gaps."""
    generator = torch.Generator().manual_seed(2)
    count = sum(lengths)
    sigmas = torch.rand(count, generator=generator) * 8
    values = torch.rand(count, channels, generator=generator)
    widths = torch.rand(count, generator=generator) * 0.1 + 0.01
    t_starts = 1 + torch.arange(count) * 0.12
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return (*(x.to(dtype) for x in (sigmas, values, t_starts, t_starts + widths)), offsets)


def gradients(backend: str, dtype: torch.dtype, early_stop: float = 0.0) -> list[Tensor]:
    """All outputs and the gradients of a loss in which each of them takes part."""
    sigmas, values, *rest = data([300, 0, 200, 50, 1], dtype)
    sigmas.requires_grad_(), values.requires_grad_()
    out = composite(sigmas, values, *rest, early_stop=early_stop, backend=backend)
    generator = torch.Generator().manual_seed(9)
    mix = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(dtype) for x in out]
    loss = sum((x * m).sum() + (x * x).sum() for x, m in zip(out, mix, strict=True))
    return [*(x.detach() for x in out), *torch.autograd.grad(loss, (sigmas, values))]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigma", [1e-4, 0.3, 2.0, 60.0])
def test_a_slab_of_constant_density_has_the_closed_form(backend: str, sigma: float) -> None:
    near, length, count = 1.5, 1.2, 400
    edges = torch.linspace(near, near + length, count + 1, dtype=torch.float64)
    sigmas, values = torch.full((count,), sigma, dtype=torch.float64), torch.ones(count, 2, dtype=torch.float64)
    out = composite(sigmas, values, edges[:-1], edges[1:], torch.tensor([0, count]), backend=backend)
    opacity = 1 - math.exp(-sigma * length)
    assert float(out.opacity) == pytest.approx(opacity, rel=1e-10)
    assert out.values[0].tolist() == pytest.approx([opacity, opacity], rel=1e-10)
    # Integral of t * sigma * exp(-sigma * (t - near)) over the slab, by parts; midpoints are second order in the step.
    depth = near + 1 / sigma - (near + length + 1 / sigma) * math.exp(-sigma * length)
    assert float(out.depth) == pytest.approx(depth, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_the_finite_differences(backend: str) -> None:
    sigmas, values, *rest = data(dtype=torch.float64)
    inputs = (sigmas.requires_grad_(), values.requires_grad_())

    def run(s: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return tuple(composite(s, v, *rest, backend=backend))

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_are_the_finite_differences(backend: str) -> None:
    sigmas, values, *rest = data([3, 0, 2], torch.float64, channels=2)

    def run(s: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return tuple(composite(s, v, *rest, backend=backend))

    assert torch.autograd.gradgradcheck(run, (sigmas.requires_grad_(), values.requires_grad_()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("early_stop", [0.0, 1e-2])
def test_float32_agrees_with_the_float64_reference(backend: str, early_stop: float) -> None:
    truth = gradients("reference", torch.float64, early_stop)
    for found, true in zip(gradients(backend, torch.float32, early_stop), truth, strict=True):
        assert float((found.double() - true).abs().max() / true.abs().max()) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_add_up_to_the_opacity_and_to_less_than_one(backend: str) -> None:
    sigmas, values, t_starts, t_ends, offsets = data()
    out = composite(sigmas, values, t_starts, t_ends, offsets, backend=backend)
    ray = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    torch.testing.assert_close(torch.zeros(len(LENGTHS)).index_add(0, ray, out.weights), out.opacity)
    assert bool((out.opacity <= 1 + 1e-6).all()) and bool((out.opacity[torch.tensor(LENGTHS) == 0] == 0).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wall_hides_what_is_behind_it(backend: str) -> None:
    edges = torch.arange(4.0)
    sigmas = torch.tensor([0.0, 1e6, 1e6], requires_grad=True)
    values = torch.eye(3, requires_grad=True)
    out = composite(sigmas, values, edges[:-1], edges[1:], torch.tensor([0, 3]), backend=backend)
    assert out.values.tolist() == [[0.0, 1.0, 0.0]] and float(out.depth.detach()) == 1.5
    grads = torch.autograd.grad(out.values[0, 1], (sigmas, values))
    assert all(bool(g.isfinite().all()) for g in grads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stopping_early_drops_only_what_is_dark(backend: str) -> None:
    sigmas, values, t_starts, t_ends, offsets = data([60])
    sigmas.requires_grad_()
    out = composite(sigmas, values, t_starts, t_ends, offsets, early_stop=0.05, backend=backend)
    tau = (sigmas * (t_ends - t_starts)).detach()
    dark = torch.exp(-(tau.cumsum(0) - tau)) < 0.05
    assert 5 < int(dark.sum()) < 55
    assert torch.equal(out.weights == 0, dark)
    (grad,) = torch.autograd.grad(out.values.sum(), sigmas)
    assert torch.equal(grad == 0, dark)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_samples_and_no_rays(backend: str) -> None:
    none = torch.zeros(0)
    out = composite(none, torch.zeros(0, 3), none, none, torch.zeros(5, dtype=torch.int64), backend=backend)
    assert out.values.tolist() == [[0.0] * 3] * 4 and out.opacity.tolist() == [0.0] * 4
    out = composite(none, torch.zeros(0, 3), none, none, torch.zeros(1, dtype=torch.int64), backend=backend)
    assert out.values.shape == (0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bits_do_not_depend_on_the_run_or_the_number_of_threads(backend: str) -> None:
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(gradients(backend, torch.float32))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_shapes_that_do_not_fit_are_named() -> None:
    sigmas, values, t_starts, t_ends, offsets = data()
    with pytest.raises(UserError, match="values"):
        composite(sigmas, values[:-1], t_starts, t_ends, offsets)
    with pytest.raises(UserError, match="t_starts"):
        composite(sigmas, values, t_starts[:-1], t_ends, offsets)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["nerfacc", "reference"])
def test_cuda_backends_agree_with_float64(backend: str) -> None:
    available, why = {b.name: b for b in dispatch.backends("composite")}[backend].available()
    if not available:
        pytest.skip(why)
    sigmas, values, *rest = data([300, 0, 200, 50, 1])
    out = composite(sigmas.cuda(), values.cuda(), *(x.cuda() for x in rest), backend=backend)
    truth = composite(*data([300, 0, 200, 50, 1], torch.float64), backend="reference")
    for found, true in zip(out, truth, strict=True):
        torch.testing.assert_close(found.cpu().double(), true, atol=1e-5, rtol=1e-4)
