"""Both drops of the decoder, its learned variance, and guidance that leaves the variance alone."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import norm
from torch import nn

from core.diffusion.process import DiffusionProcess
from plugins.unclip.folder import Family
from plugins.unclip.networks import DecoderConfig, build_decoder, plain_attention
from plugins.unclip.objectives import blurred, coarse_error, decoder_loss, noise_weight, upsampler_loss
from plugins.unclip.sampling import Decoder, guided
from plugins.unclip.variance import log_variance, variational_bound

from .conftest import Options

COUNT = 600


class Silent(nn.Module):
    """A decoder that answers zeros; what it was told is what is looked at."""

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(sample=torch.cat([x, x], 1) * 0)


def test_embedding_and_text_are_dropped_apart_from_one_another(family: Family) -> None:
    projection = family.networks["text_proj"]
    told: dict[str, Any] = {}
    handle = projection.register_forward_pre_hook(lambda _m, _a, kw: told.update(kw), with_kwargs=True)
    networks = nn.ModuleDict({"text_proj": projection, "decoder": Silent()})
    options = DecoderConfig(**Options.decoder.model_dump() | {"embedding_drop": 0.2, "text_drop": 0.5, "vlb": 0.0})
    embedding, empty = torch.randn(COUNT, 16), family.tower.tell([""])
    decoder_loss(
        networks, family.schedulers["decoder_scheduler"], options, torch.zeros(COUNT, 3, 8, 8), embedding,
        family.tower.tell(["a red mug"] * COUNT), empty, torch.Generator().manual_seed(0),
    )
    handle.remove()
    null = projection.learned_classifier_free_guidance_embeddings
    no_image = (told["image_embeddings"] == null).all(1)
    no_text = (told["prompt_embeds"] == empty.embedding).all(1)
    assert torch.equal(no_text, (told["text_encoder_hidden_states"] == empty.states).all(2).all(1))
    assert torch.equal(told["image_embeddings"][~no_image], embedding[~no_image])
    assert not null.eq(0).any()  # a vector of its own, not zeros
    shares = [float(x.float().mean()) for x in (no_image, no_text, no_image & no_text)]
    assert shares[0] == pytest.approx(0.2, abs=0.06) and shares[1] == pytest.approx(0.5, abs=0.08)
    assert shares[2] == pytest.approx(shares[0] * shares[1], abs=0.04)


def test_the_null_embedding_learns(family: Family) -> None:
    networks = nn.ModuleDict({n: family.networks[n] for n in ("text_proj", "decoder")}).requires_grad_(True)
    options = DecoderConfig(**Options.decoder.model_dump() | {"embedding_drop": 0.5})
    losses = decoder_loss(
        networks, family.schedulers["decoder_scheduler"], options, torch.randn(8, 3, 8, 8).clamp(-1, 1),
        torch.randn(8, 16), family.tower.tell(["a red mug"] * 8), family.tower.tell([""]), torch.Generator().manual_seed(0),
    )
    assert set(losses) == {"noise", "variance"}
    sum(losses.values()).backward()
    assert networks["text_proj"].learned_classifier_free_guidance_embeddings.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in networks.parameters())


def test_tokens_of_the_embedding_run_over_channels_first(family: Family) -> None:
    projection = family.networks["text_proj"]
    told, z = family.tower.tell(["a red mug"]), torch.randn(1, 16)
    states, _ = projection(image_embeddings=z, prompt_embeds=told.embedding, text_encoder_hidden_states=told.states, do_classifier_free_guidance=False)
    flat = projection.clip_extra_context_tokens_proj(z)[0]
    assert states.shape == (1, 4 + 24, 8)
    for token in range(4):
        torch.testing.assert_close(states[0, token], flat[token::4])


def test_guidance_leaves_the_variance_alone() -> None:
    away, told = torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4)
    out = guided(torch.cat([away, told]), 3.0)
    torch.testing.assert_close(out[:, :3], away[:, :3] + 3 * (told[:, :3] - away[:, :3]))
    assert torch.equal(out[:, 3:], told[:, 3:])


@torch.no_grad()
def test_guidance_leads_from_the_null_and_the_empty_text(family: Family) -> None:
    told, empty = family.tower.tell(["a red mug"]), family.tower.tell([""])
    parts = (family.networks["text_proj"], family.networks["decoder"])
    null = parts[0].learned_classifier_free_guidance_embeddings[None]
    z, x, t = torch.randn(1, 16), torch.randn(1, 3, 8, 8), torch.tensor(400)
    plain = [Decoder(*parts, e, words, empty, 1.0)(x, t) for e, words in ((null, empty), (z, told))]
    torch.testing.assert_close(
        Decoder(*parts, z, told, empty, 2.5)(x, t), guided(torch.cat(plain), 2.5), rtol=1e-4, atol=1e-5
    )


def test_variance_lies_between_the_posterior_and_the_forward_step(family: Family) -> None:
    scheduler = family.schedulers["decoder_scheduler"]
    for t in (1, 40, 999):
        for v in (-1.0, 0.3, 1.0):
            share = torch.full((1, 1, 1, 1), v, dtype=torch.float64)
            peer = scheduler._get_variance(t, predicted_variance=share)
            torch.testing.assert_close(log_variance(scheduler, share, torch.tensor([t])), peer.double(), rtol=1e-3, atol=2e-3)


def test_the_bound_is_the_divergence_of_two_gaussians(family: Family) -> None:
    scheduler = family.schedulers["decoder_scheduler"]
    torch.manual_seed(0)
    t = torch.tensor([5, 300, 900])
    x0, noise, guess, share = (torch.randn(3, 2, 4, 4, dtype=torch.float64) for _ in range(4))
    x0 = x0.clamp(-1, 1)
    alpha_bar = (1 - scheduler.betas.double()).cumprod(0)
    ab, before = (alpha_bar[k].view(3, 1, 1, 1) for k in (t, t - 1))
    beta = scheduler.betas.double()[t].view(3, 1, 1, 1)
    noisy = ab.sqrt() * x0 + (1 - ab).sqrt() * noise

    def step(x: torch.Tensor) -> torch.Tensor:
        """Mean of q(x_{t-1} | x_t, x0) by the product of two Gaussians in x_{t-1}."""
        first, second = 1 / (1 - before), (1 - beta) / beta
        return (before.sqrt() * x * first + noisy * second / (1 - beta).sqrt()) / (first + second)

    clean = (noisy - (1 - ab).sqrt() * guess) / ab.sqrt()
    variance = 1 / (1 / (1 - before) + (1 - beta) / beta)
    q = torch.distributions.Normal(step(x0), variance.sqrt())
    p = torch.distributions.Normal(step(clean), (0.5 * log_variance(scheduler, share, t)).exp())
    expected = torch.distributions.kl_divergence(q, p).flatten(1).mean(1) / torch.tensor(2.0).log()
    torch.testing.assert_close(variational_bound(scheduler, x0, noisy, t, guess, share), expected, rtol=1e-6, atol=1e-9)
    perfect = variational_bound(scheduler, x0, noisy, t, noise, torch.full_like(share, -1.0))
    torch.testing.assert_close(perfect, torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_first_step_is_a_likelihood_of_8_bit_values(family: Family) -> None:
    scheduler = family.schedulers["decoder_scheduler"]
    x0 = torch.tensor([-1.0, 0.5, 1.0], dtype=torch.float64).view(1, 1, 1, 3)
    noise, guess = torch.full_like(x0, 0.4), torch.full_like(x0, 0.1)
    t, ab = torch.tensor([0]), float(1 - scheduler.betas.double()[0])
    noisy = ab**0.5 * x0 + (1 - ab) ** 0.5 * noise
    share = torch.full_like(x0, 0.5)
    # q(x_0 | x_1, x0) is all on the estimate of x0.
    mean = ((noisy - (1 - ab) ** 0.5 * guess) / ab**0.5).flatten().numpy()
    scale = float((0.5 * log_variance(scheduler, share, t)).exp().flatten()[0])
    edges = [(-float("inf"), -1 + 1 / 255), (0.5 - 1 / 255, 0.5 + 1 / 255), (1 - 1 / 255, float("inf"))]
    bits = [-math.log2(norm(m, scale).cdf(b) - norm(m, scale).cdf(a)) for m, (a, b) in zip(mean, edges, strict=True)]
    expected = sum(bits) / 3
    found = variational_bound(scheduler, x0, noisy, t, guess, share)
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_the_bound_teaches_the_variance_alone(family: Family) -> None:
    x = torch.randn(2, 3, 4, 4)
    guess, share = torch.randn_like(x).requires_grad_(), torch.zeros_like(x).requires_grad_()
    variational_bound(family.schedulers["decoder_scheduler"], x, x, torch.tensor([3, 600]), guess, share).sum().backward()
    assert guess.grad is None and share.grad.abs().max() > 0


def test_the_weight_holds_the_error_on_the_picture(family: Family) -> None:
    process = DiffusionProcess.from_scheduler(family.schedulers["decoder_scheduler"])
    t = torch.tensor([1, 200, 900])
    snr = (process.alphas_cumprod / (1 - process.alphas_cumprod))[t].float()
    assert snr[0] > 5 > snr[2]
    weight = noise_weight(process, t, 5.0)
    torch.testing.assert_close(weight * snr, snr.clamp(max=5.0))  # the weight of the error on the picture
    assert torch.equal(noise_weight(process, t, None), torch.ones(3))


def test_the_coarse_error_has_the_unit_of_white_noise() -> None:
    noise = torch.randn(4000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(coarse_error(noise).mean()) == pytest.approx(1.0, abs=0.05)
    tint = torch.full((1, 3, 8, 8), 0.1)  # a mean of 0.1 at every scale: 64, 16 and 4 pixels' worth
    torch.testing.assert_close(coarse_error(tint), torch.tensor([0.01 * (64 + 16 + 4) / 3]))
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1  # nothing but grain
    assert float(coarse_error(checks.expand(1, 3, 8, 8)).abs().max()) < 1e-12


@torch.no_grad()
def test_the_coarsest_resolutions_attend(family: Family) -> None:
    sizes = {"size": 16, "channels": (8, 16, 16), "head": 8, "context": 8, "groups": 4}
    found = {}
    for attended in (None, 1, 9):
        unet = build_decoder(DecoderConfig(**sizes, attended=attended), 16)["decoder"]
        found[attended] = [b.startswith("SimpleCrossAttn") for b in unet.config.down_block_types]
        assert [b.startswith("SimpleCrossAttn") for b in unet.config.up_block_types] == found[attended][::-1]
    assert found == {None: [False, True, True], 1: [False, False, True], 9: [False, True, True]}


@torch.no_grad()
def test_plain_attention_is_the_same_attention(family: Family) -> None:
    parts = (family.networks["text_proj"], family.networks["decoder"])
    told, empty = family.tower.tell(["a red mug"] * 2), family.tower.tell([""] * 2)
    z, x, t = torch.randn(2, 16), torch.randn(2, 3, 8, 8), torch.tensor(400)
    fused = Decoder(*parts, z, told, empty, 2.0)(x, t)
    plain_attention(parts[1])
    torch.testing.assert_close(Decoder(*parts, z, told, empty, 2.0)(x, t), fused, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_clip_reads_alike_under_autocast(family: Family) -> None:
    rgb = torch.rand(2, 16, 16, 3)
    text, seen = family.tower.tell(["a green mug"]).embedding, family.tower.see(rgb)
    family.tower._texts.clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(family.tower.tell(["a green mug"]).embedding, text)
        assert torch.equal(family.tower.see(rgb), seen)


def test_blur_keeps_flat_pictures_and_softens_edges() -> None:
    flat = torch.full((2, 3, 8, 8), 0.3)
    torch.testing.assert_close(blurred(flat, (0.4, 0.8), torch.Generator()), flat)
    edge = torch.zeros(2, 3, 8, 8)
    edge[..., 4:] = 1
    soft = blurred(edge, (0.5, 0.5), torch.Generator().manual_seed(0))
    side = torch.tensor(-0.5 / 0.25).exp()
    torch.testing.assert_close(soft[..., 3], torch.full_like(soft[..., 3], float(side / (1 + 2 * side))))
    assert torch.equal(soft[..., :3], edge[..., :3])


def test_the_upsampler_is_shown_the_small_picture(family: Family) -> None:
    seen: list[torch.Tensor] = []

    class Watch(nn.Module):
        def forward(self, x: torch.Tensor, _t: torch.Tensor) -> Any:
            seen.append(x)
            return SimpleNamespace(sample=torch.zeros_like(x[:, :3]))

    flat = torch.tensor([-0.5, 0.0, 0.7]).view(1, 3, 1, 1).expand(4, 3, 16, 16)
    loss = upsampler_loss(nn.ModuleDict({"super_res_first": Watch()}), family.schedulers["super_res_scheduler"], Options.upsampler, flat, 8, torch.Generator().manual_seed(0))
    assert seen[0].shape == (4, 6, 8, 8)  # crops of half the side
    torch.testing.assert_close(seen[0][:, 3:], flat[..., :8, :8])
    assert float(loss["upsampler"]) == pytest.approx(1.0, abs=0.15)  # the noise's own variance
