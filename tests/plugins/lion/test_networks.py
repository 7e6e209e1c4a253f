"""The autoencoder and the priors' networks, against closed forms and permutations."""

from __future__ import annotations

import pytest
import torch
from tiny_lion import POINTS, UNET, VAE, random, silence, vae

from plugins.lion.priors import GlobalConfig, GlobalPrior, LocalConfig, LocalPrior, ResidualBlock
from plugins.lion.vae import Decoded, PointVae, Posterior


def test_it_starts_as_the_identity_with_hardly_any_noise() -> None:
    net, x = vae(), random(2, POINTS, 3)
    with torch.no_grad():
        made, shape, latent = net(x, silence)
    moved = float((made.points - x).abs().max())
    assert 0 < moved < 0.1 and shape.mean.shape == (2, 5)
    torch.testing.assert_close(latent.mean[..., :3], x, atol=0.05, rtol=0)
    assert float(latent.log_std.max()) < -4 and latent.mean.shape == (2, POINTS, 4)
    assert made.normals is not None
    torch.testing.assert_close(made.normals.norm(dim=-1), torch.ones(2, POINTS))
    assert isinstance(made, Decoded) and vae(normals=False).decode(latent.mean, shape.mean).normals is None


def test_points_in_another_order_give_the_same_shape() -> None:
    net, x, order = vae(), random(2, POINTS, 3), torch.randperm(POINTS)
    with torch.no_grad():
        one, shape, latent = net(x, silence)
        two, same, other = net(x[:, order], silence)
    torch.testing.assert_close(same.mean, shape.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.mean, latent.mean[:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(two.points, one.points[:, order], rtol=1e-4, atol=1e-5)


def test_every_part_hears_the_global_latent() -> None:
    net, x = vae(), random(2, POINTS, 3)
    z = random(2, 5, seed=1).requires_grad_()
    h = net.encode_points(x, z, silence)
    (heard,) = torch.autograd.grad(h.mean.square().sum() + h.log_std.sum(), z)
    (decoded,) = torch.autograd.grad(net.decode(h.mean.detach(), z).points.square().sum(), z)
    assert heard.abs().min() > 0 and decoded.abs().min() > 0


def test_the_divergence_is_that_of_gaussians() -> None:
    mean, log_std = random(2, 6, 4), 0.3 * random(2, 6, 4, seed=1)
    found = Posterior.draw(mean, log_std, lambda shape: random(*shape, seed=2))
    q = torch.distributions.Normal(mean, log_std.exp())
    p = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    torch.testing.assert_close(found.kl(), torch.distributions.kl_divergence(q, p).sum((1, 2)))
    torch.testing.assert_close((found.sample - mean) / log_std.exp(), random(2, 6, 4, seed=2))


def test_without_a_global_latent_there_is_none() -> None:
    torch.manual_seed(0)
    net, x = PointVae(VAE, hierarchical=False).eval(), random(2, POINTS, 3)
    found = net.encode_shape(x, lambda shape: random(*shape))
    assert net.style_encoder is None and float(found.sample.abs().max()) == 0 and float(found.kl().abs().max()) == 0


def test_the_residual_block_is_written_out() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(16, told=False, dropout=0.0)
    x, time = random(3, 16), random(3, 16, seed=1)
    y = torch.relu(torch.relu((x + time) @ block.conv1.weight.T + block.conv1.bias) @ block.conv2.weight.T
                   + block.conv2.bias)  # fmt: skip
    narrow, wide = block.SE.fc[0], block.SE.fc[2]
    assert isinstance(narrow, torch.nn.Linear) and isinstance(wide, torch.nn.Linear)
    gate = torch.sigmoid(torch.relu(y @ narrow.weight.T) @ wide.weight.T)
    torch.testing.assert_close(block(x, time, None), x + y * gate)


@pytest.mark.parametrize("condition", [0, 3])
def test_priors_hear_time_and_condition(condition: int) -> None:
    torch.manual_seed(0)
    shape = GlobalPrior(GlobalConfig(width=16, blocks=2, time=8), 5, condition).eval()
    points = LocalPrior(LocalConfig(time=8, mlps={1: (16,)}), UNET, 1, 5, condition).eval()
    z, h, t = random(2, 5), random(2, POINTS, 4), torch.tensor([5.0, 900.0])
    told = random(2, condition) if condition else None
    with torch.no_grad():
        for out, other, away in (
            (shape(z, t, told), shape(z, t.flip(0), told), None if told is None else shape(z, t, -told)),
            (points(h, t, z, told), points(h, t.flip(0), z, told), None if told is None else points(h, t, z, -told)),
        ):
            assert (out - other).abs().max() > 1e-3
            assert away is None or (out - away).abs().max() > 1e-4
        assert (points(h, t, z, told) - points(h, t, -z, told)).abs().max() > 1e-4
    assert points.sa_layers[1][1].mlps[0].layers[0].out_channels == 16  # type: ignore[index,union-attr]
