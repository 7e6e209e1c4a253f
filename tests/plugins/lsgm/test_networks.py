"""The autoencoder, the score network, the pixels' distributions and the smoothness penalty, against references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import Tensor, nn

from plugins.lsgm.cells import Cell, Conv
from plugins.lsgm.ncsnpp import Ncsnpp, ScoreConfig, resample
from plugins.lsgm.pixels import Logistic, Mixture, bits_per_value, levels, log_probability
from plugins.lsgm.spectral import SpectralNorms
from plugins.lsgm.vae import Posterior, Vae, VaeConfig


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_of(seed: int):  # type: ignore[no-untyped-def]
    generator = seeded(seed)
    return lambda shape: torch.randn(shape, generator=generator)


def test_filters_have_the_lengths_that_are_learned() -> None:
    conv = Conv(3, 4, 3)
    with torch.no_grad():
        conv.log_weight_norm.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]).view(4, 1, 1, 1))
        conv.weight.mul_(7)
    torch.testing.assert_close(
        conv.effective.flatten(1).norm(dim=1), torch.tensor([0.0, 1.0, -1.0, 2.0]).exp(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("expand", [0, 3])
@pytest.mark.parametrize(("stride", "side"), [(1, 8), (2, 4), (-1, 16)])
def test_cells_change_the_resolution(stride: int, side: int, expand: int) -> None:
    cell = Cell(8, 8 if stride == 1 else 12, stride, expand)  # type: ignore[arg-type]
    x = torch.randn(2, 8, 8, 8, generator=seeded())
    assert cell(x).shape == (2, 8 if stride == 1 else 12, side, side)
    if stride == 1:  # the branch is a tenth of what it says
        with torch.no_grad():
            cell.se.se[2].bias.fill_(-100.0)
        torch.testing.assert_close(cell(x), x)


@pytest.mark.parametrize("change", [0.5, 2.0])
def test_smoothed_resampling_is_upfirdn(change: float) -> None:
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, generator=seeded())
    line, up, down = np.array([1.0, 3, 3, 1]) / 8, *((2, 1) if change > 1 else (1, 2))
    found = resample(x, change, fir=True).numpy()
    for c in range(2):
        rows = upfirdn(line * up, x[0, c].numpy(), up, 1, axis=0)
        full = upfirdn(line * up, rows, up, 1, axis=1)
        first = 2 if change < 1 else 1  # padded by one on either side before every second one is kept
        size = found.shape[-1]
        wanted = full[first : first + size * down : down, first : first + size * down : down]
        np.testing.assert_allclose(found[0, c], wanted, atol=1e-12)


def test_pixels_probabilities_sum_to_one() -> None:
    values = torch.linspace(-1, 1, 256)
    for mean, log_scale in ((0.3, -2.0), (-1.4, -1.0), (0.99, -4.0), (0.0, -7.0)):
        each = log_probability(values, torch.tensor(mean), torch.tensor(log_scale))
        assert float(each.double().exp().sum()) == pytest.approx(1, abs=2e-3)


def test_the_mixture_is_a_distribution_over_colours() -> None:
    """Summed over green and blue, it is the mixture of red alone; its parts depend on one another."""
    output = torch.randn(1, Mixture.channels, 1, 1, generator=seeded())
    output[:, 10:] = output[:, 10:] * 0.5 - 0.7
    mixture, values = Mixture(output), torch.linspace(-1, 1, 256)
    red = float(values[100])
    rest = torch.cartesian_prod(values, values)
    x = torch.cat([torch.full((len(rest), 1), red), rest], 1).view(-1, 3, 1, 1)
    many = Mixture(output.expand(len(x), -1, -1, -1))
    total = float(many.log_prob(x).double().exp().sum())
    own = log_probability(torch.tensor(red), mixture.means[0, 0, :, 0, 0], mixture.log_scale[0, 0, :, 0, 0])
    wanted = float(torch.logsumexp(own + mixture.logits[0, :, 0, 0].log_softmax(0), 0).exp())
    assert total == pytest.approx(wanted, rel=0.01)
    assert mixture.mean().shape == (1, 3, 1, 1) and float(mixture.mean().abs().max()) <= 1


def test_a_shared_scale_leaves_the_object_its_gradient() -> None:
    """Small scales on a flat background take nearly all of the mean's gradient; one scale for all shares it out."""
    x = torch.zeros(1, 3, 4, 4)
    x[..., 2:, 2:] = 0.8  # the object
    mean = torch.where(x > 0, 0.0, 0.02).expand(1, 3, 4, 4).clone()
    log_scale = torch.where(x > 0, -0.5, -6.0)
    share = {}
    for own in (0.0, 1.0):
        wanted = mean.clone().requires_grad_()
        pixels = Logistic(torch.cat([wanted, log_scale], 1), own)
        pixels.log_prob(levels_of(x)).sum().backward()
        grad = wanted.grad.abs()  # type: ignore[union-attr]
        share[own] = float(grad[x > 0].sum() / grad.sum())
        uniform = log_scale.mean() if own == 0 else log_scale
        torch.testing.assert_close(pixels.log_scale, uniform.expand_as(log_scale).contiguous())
    assert share[1.0] < 0.001 and share[0.0] > 0.25, "of a quarter of the picture"
    mixture = Mixture(torch.randn(2, Mixture.channels, 3, 3, generator=seeded()), 0.0)
    assert (
        float(mixture.log_scale[0].std()) < 1e-6
        and mixture.log_scale[0, 0, 0, 0, 0] != mixture.log_scale[1, 0, 0, 0, 0]
    )


def levels_of(x: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in [-1, 1], of 8 bits."""
    return levels(((x + 1) / 2).permute(0, 2, 3, 1))


def test_bits_of_uniform_pixels_are_eight() -> None:
    assert bits_per_value(12 * math.log(256), (3, 2, 2)) == pytest.approx(8)
    wide = Logistic(torch.cat([torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.0)], 1))
    nats = -wide.log_prob(levels(torch.full((1, 2, 2, 3), 0.5)))
    assert float(nats) == pytest.approx(-12 * math.log(0.25 * 2 / 255), rel=1e-3), "a sum in nats, not a mean"


def test_divergences_are_those_of_gaussians() -> None:
    mean, log_std = torch.randn(2, 3, 4, 4, generator=seeded()), 0.3 * torch.randn(2, 3, 4, 4, generator=seeded(1))
    own = Posterior(mean, log_std, mean)
    q = torch.distributions.Normal(mean, log_std.exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(own.kl(), torch.distributions.kl_divergence(q, p).sum((1, 2, 3)))
    torch.testing.assert_close(own.entropy(), q.entropy().sum((1, 2, 3)))


@pytest.fixture(scope="module")
def vae() -> Vae:
    torch.manual_seed(0)
    options = VaeConfig(channels=4, widths=(1, 2, 2), scales=2, groups=2, latent_channels=3, outer_cells=2)
    return Vae(options, 16).eval()


def test_groups_stand_at_their_resolutions(vae: Vae) -> None:
    x = torch.rand(2, 3, 16, 16, generator=seeded()) * 2 - 1
    with torch.no_grad():
        pixels, posteriors = vae(x, noise_of(1))
    assert [tuple(p.sample.shape[1:]) for p in posteriors] == [(3, 4, 4), (3, 4, 4), (3, 8, 8), (3, 8, 8)]
    assert vae.top([p.sample for p in posteriors]).shape == (2, vae.top_channels, vae.side, vae.side)
    assert pixels.mean().shape == x.shape and pixels.log_prob(x).shape == (2,)
    assert all(float(p.mean.abs().max()) < 5 and float(p.log_std.abs().max()) < 5 for p in posteriors)


def test_later_groups_hear_of_earlier_ones(vae: Vae) -> None:
    x = torch.rand(2, 3, 16, 16, generator=seeded()) * 2 - 1
    (_, one), (_, two) = vae(x, noise_of(1)), vae(x, noise_of(2))
    torch.testing.assert_close(one[0].mean, two[0].mean)
    assert all(float((a.mean - b.mean).abs().max()) > 1e-4 for a, b in zip(one[1:], two[1:], strict=True))


def test_decoding_repeats_the_forward_pass(vae: Vae) -> None:
    x = torch.rand(2, 3, 16, 16, generator=seeded()) * 2 - 1
    pixels, posteriors = vae(x, noise_of(1))
    finer = [p.sample for p in posteriors[2:]]
    again = vae.decode(vae.top([p.sample for p in posteriors]), lambda shape: finer.pop(0))
    torch.testing.assert_close(again.log_prob(x), pixels.log_prob(x))
    drawn = vae.decode(vae.top([p.sample for p in posteriors]), noise_of(5))
    assert not torch.allclose(drawn.mean(), pixels.mean(), atol=1e-4), "finer groups are drawn"


def test_the_score_network_starts_at_nothing_and_is_told_the_time() -> None:
    torch.manual_seed(0)
    net = Ncsnpp(ScoreConfig(channels=8, widths=(1, 2), blocks=1, attention=(8,), dropout=0.0, fir=True), 3, 8)
    x, t = torch.randn(2, 3, 8, 8, generator=seeded()), torch.tensor([100.0, 900.0])
    assert net(x, t).shape == x.shape and float(net(x, t).abs().max()) < 1e-3
    with torch.no_grad():
        for module in net.modules():  # the zeroed layers, as if trained
            if isinstance(module, nn.Conv2d) and float(module.weight.abs().max()) < 1e-3:
                module.weight.normal_(0, 0.1)
    assert float((net(x, t) - net(x, t.flip(0))).abs().max()) > 1e-3
    torch.testing.assert_close(net(x, t)[1:], net(x[1:], t[1:]), rtol=1e-4, atol=1e-5)  # no sample hears of another


def test_the_penalty_is_the_largest_singular_values() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Conv(3, 4), nn.BatchNorm2d(4), Conv(3, 4), nn.Conv2d(4, 5, 1))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([0.5, -3.0, 1.0, 2.0]))
    norms = SpectralNorms(network, seeded())
    for _ in range(60):
        found = norms()
    matrices: list[Tensor] = [network[0].effective, network[2].effective, network[3].weight]
    wanted = 3 + sum(float(torch.linalg.svdvals(m.flatten(1).detach())[0]) for m in matrices)
    assert float(found) == pytest.approx(wanted, rel=1e-4)
    found.backward()
    assert network[0].log_weight_norm.grad is not None and not list(norms.parameters())
