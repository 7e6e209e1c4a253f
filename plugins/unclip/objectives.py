"""What each network is trained on: the clean embedding, the noise and its variance, the noise of a larger picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.diffusion.process import DiffusionProcess
from plugins.unclip.networks import DecoderConfig, PriorConfig, UpsamplerConfig
from plugins.unclip.sampling import context_mask, enlarge
from plugins.unclip.tower import Told
from plugins.unclip.variance import variational_bound


def draw(shape: Any, process: DiffusionProcess, generator: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
    """Timesteps [B] and noise of ``shape``, on the device of ``like``."""
    t = torch.randint(process.steps, (shape[0],), generator=generator)
    return t.to(like.device), torch.randn(shape, generator=generator).to(like)


def keep(share: float, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """[count] bool, False for about ``share`` of them."""
    return (torch.rand(count, generator=generator) >= share).to(device)


def prior_loss(
    networks: nn.ModuleDict, scheduler: Any, o: PriorConfig, embedding: Tensor, told: Told, empty: Told,
    generator: torch.Generator,
) -> dict[str, Tensor]:  # fmt: skip
    """Mean squared error on the clean, whitened embedding (section 2.2, eq. 2).

    Args:
        embedding: [B, D] of pictures.  told: their texts; ``empty``: the text "" (one row).
    """
    prior: Any = networks["prior"]
    process = DiffusionProcess.from_scheduler(scheduler)
    clean = (embedding - prior.clip_mean) / prior.clip_std
    t, noise = draw(clean.shape, process, generator, clean)
    heard = told.where(keep(o.text_drop, len(clean), generator, clean.device), empty)
    guess = prior(
        process.add_noise(clean, noise, t), t, heard.embedding, heard.states, heard.mask
    ).predicted_image_embedding
    return {"prior": F.mse_loss(guess, clean)}


def decoder_loss(
    networks: nn.ModuleDict, scheduler: Any, o: DecoderConfig, pictures: Tensor, embedding: Tensor, told: Told,
    empty: Told, generator: torch.Generator,
) -> dict[str, Tensor]:  # fmt: skip
    """Mean squared error on the noise, and the variational bound of the variance.

    Args:
        pictures: [B, 3, size, size] in [-1, 1].  embedding: [B, D] of them.
        told: their texts; ``empty``: the text "" (one row).
    """
    projection: Any = networks["text_proj"]
    process = DiffusionProcess.from_scheduler(scheduler)
    t, noise = draw(pictures.shape, process, generator, pictures)
    # The two are dropped apart from one another, so that guidance may lead away from either.
    seen = keep(o.embedding_drop, len(pictures), generator, pictures.device)
    heard = told.where(keep(o.text_drop, len(pictures), generator, pictures.device), empty)
    null = projection.learned_classifier_free_guidance_embeddings
    with torch.autocast(pictures.device.type, enabled=False):  # embeddings lie close together: eight bits blur them
        states, added = projection(
            image_embeddings=torch.where(seen[:, None], embedding, null), prompt_embeds=heard.embedding,
            text_encoder_hidden_states=heard.states, do_classifier_free_guidance=False,
        )  # fmt: skip
    noisy = process.add_noise(pictures, noise, t)
    output = networks["decoder"](
        noisy, t, states, class_labels=added, attention_mask=context_mask(heard.mask, projection)
    ).sample.float()
    guess, share = output.chunk(2, 1)
    weight = noise_weight(process, t, o.min_snr)
    losses = {"noise": ((guess - noise).square().flatten(1).mean(1) * weight).mean()}
    if o.coarse:
        losses["coarse"] = o.coarse * (coarse_error(guess - noise) * weight).mean()
    if o.vlb:
        bound = variational_bound(scheduler, pictures, noisy, t, guess, share).mean()
        losses["variance"] = o.vlb * process.steps * bound
    return losses


def noise_weight(process: DiffusionProcess, t: Tensor, most: float | None) -> Tensor:
    """[B] weights in (0, 1] of the squared errors on the noise at timesteps ``t`` [B].

    A network that tells the noise has an error on the picture of weight SNR; it is held at ``most`` (min-SNR, Hang et
    al. 2023), without which short training is spent on grain.
    """
    if most is None:
        return torch.ones_like(t, dtype=torch.float32)
    bar = process.alphas_cumprod.to(t.device)[t]
    return (most * (1 - bar) / bar).clamp(max=1).float()


COARSE = (1, 2, 4)
"""Sides of the grids of means that :func:`coarse_error` looks at."""


def coarse_error(error: Tensor) -> Tensor:
    """[B] mean squares of ``error`` [B, C, H, W] after pooling to coarse grids, white noise of variance 1 having 1.

    After the multi-scale loss of Hoogeboom et al. 2023 ("simple diffusion"), whose scales are not brought to one unit.
    """
    scales = []
    for side in COARSE:
        pooled = F.adaptive_avg_pool2d(error, side)
        scales.append(pooled.square().flatten(1).mean(1) * (error.shape[-2] * error.shape[-1] / side**2))
    return torch.stack(scales).mean(0)


def upsampler_loss(
    networks: nn.ModuleDict, scheduler: Any, o: UpsamplerConfig, pictures: Tensor, small: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:  # fmt: skip
    """Mean squared error on the noise of crops, beside the picture that was made small, blurred and enlarged again.

    Args:
        pictures: [B, 3, S, S] in [-1, 1].  small: the side that the decoder works at.
    """
    process = DiffusionProcess.from_scheduler(scheduler)
    with torch.autocast(pictures.device.type, enabled=False):  # no processor makes bfloat16 larger
        low = F.interpolate(pictures, size=(small, small), mode="bilinear", antialias=True, align_corners=False)
        wide = torch.cat([pictures, enlarge(blurred(low, o.blur, generator), pictures.shape[-1])], 1)
    wide = cropped(wide, round(o.crop * pictures.shape[-1]), generator)
    clean, beside = wide.chunk(2, 1)
    t, noise = draw(clean.shape, process, generator, clean)
    noisy = process.add_noise(clean, noise, t)
    guess = networks["super_res_first"](torch.cat([noisy, beside], 1), t).sample.float()
    return {"upsampler": F.mse_loss(guess, noise)}


def blurred(pictures: Tensor, sigmas: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Each picture under a 3 x 3 Gaussian of its own width: what a decoder's picture lacks."""
    low, high = sigmas
    sigma = low + (high - low) * torch.rand(len(pictures), generator=generator)
    side = torch.exp(-0.5 / sigma.square().clamp(min=1e-6))
    kernel = torch.stack([side, torch.ones_like(side), side], 1)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(pictures)
    window = (kernel[:, :, None] * kernel[:, None, :]).repeat_interleave(pictures.shape[1], 0)[:, None]
    flat = F.pad(pictures, (1, 1, 1, 1), mode="replicate").reshape(1, -1, *(s + 2 for s in pictures.shape[2:]))
    return F.conv2d(flat, window, groups=flat.shape[1]).view_as(pictures)


def cropped(pictures: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """[B, C, side, side], one place for the whole batch, even so that the UNet's halvings fit."""
    side = min(pictures.shape[-1], max(8, side // 8 * 8))
    y, x = (int(torch.randint(pictures.shape[-1] - side + 1, (), generator=generator)) for _ in range(2))
    return pictures[:, :, y : y + side, x : x + side]
