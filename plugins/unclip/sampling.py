"""Ancestral sampling of the three networks over respaced timesteps, with classifier-free guidance.

Every draw comes from the generator that is handed in, in the order of diffusers' ``UnCLIPPipeline``: with one candidate
and that pipeline's settings both give the same picture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.diffusion.guidance import combine
from plugins.unclip.tower import Told


def context_mask(mask: Tensor, projection: Any) -> Tensor:
    """[B, K + L] bool: the K tokens of the picture embedding, in front of the text's, are never padding."""
    return F.pad(mask, (projection.clip_extra_context_tokens, 0), value=True)


def respaced(scheduler: Any, steps: int, start: float = 1.0) -> list[tuple[Tensor, Tensor | None]]:
    """Pairs of a timestep and the next, from the last one to 0 and None; the scheduler works out the betas between.

    With ``start`` below 1 they begin at that share of the timesteps.
    """
    scheduler.set_timesteps(steps)
    times = list(scheduler.timesteps)
    if start < 1:
        times = list(torch.linspace(start * int(times[0]), 0, steps).round().long())
    return list(zip(times, [*times[1:], None], strict=True))


@torch.no_grad()
def sample_embedding(
    prior: Any, scheduler: Any, told: Told, empty: Told, scale: float, steps: int, generator: torch.Generator
) -> Tensor:
    """[B, D] picture embeddings drawn for texts ``told``; ``empty`` has as many rows."""
    x = torch.randn((len(told), prior.config.embedding_dim), generator=generator).to(told.embedding)
    both = Told.cat([empty, told])
    for t, after in respaced(scheduler, steps):
        guess = prior(
            torch.cat([x, x]), t.to(x.device), both.embedding, both.states, both.mask
        ).predicted_image_embedding
        away, led = guess.chunk(2)
        guess = combine(away, led, scale)
        x = scheduler.step(guess, t, x, prev_timestep=after, generator=generator).prev_sample
    return prior.post_process_latents(x)


def best_of(candidates: Tensor, text: Tensor) -> Tensor:
    """[B, D] of ``candidates`` [N, B, D] the one nearest to its text embedding [B, D] (section 2.2)."""
    likeness = F.cosine_similarity(candidates, text[None].expand_as(candidates), dim=-1)
    return candidates[likeness.argmax(0), torch.arange(candidates.shape[1], device=candidates.device)]


def guided(output: Tensor, scale: float) -> Tensor:
    """Noise led away from the first half of ``output`` [2B, 6, H, W]; the variance is the second half's own."""
    (away, _), (told, share) = (half.chunk(2, 1) for half in output.chunk(2))
    return torch.cat([combine(away, told, scale), share], 1)


class Decoder:
    """The decoder as a function of noisy pictures, for given embeddings and texts.

    Args:
        text_proj, unet: the networks.  embedding: [B, D].  told, empty: texts, and "" as often.
    """

    def __init__(self, text_proj: Any, unet: Any, embedding: Tensor, told: Told, empty: Told, scale: float) -> None:
        self.unet, self.scale = unet, scale
        both = Told.cat([empty, told])
        self.states, self.added = text_proj(
            image_embeddings=embedding, prompt_embeds=both.embedding, text_encoder_hidden_states=both.states,
            do_classifier_free_guidance=True,
        )  # fmt: skip
        self.mask = context_mask(both.mask, text_proj)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """[B, 6, H, W]: guided noise, and the variance's share."""
        output = self.unet(
            torch.cat([x, x]), t.to(x.device), self.states, class_labels=self.added, attention_mask=self.mask
        ).sample
        return guided(output, self.scale)


@torch.no_grad()
def sample_small(decoder: Decoder, scheduler: Any, shape: Any, steps: int, generator: torch.Generator) -> Tensor:
    """[B, 3, h, h] pictures in [-1, 1]."""
    x = torch.randn(shape, generator=generator).to(decoder.added)
    for t, after in respaced(scheduler, steps):
        x = scheduler.step(decoder(x, t), t, x, prev_timestep=after, generator=generator).prev_sample
    return x.clamp(-1, 1)


@torch.no_grad()
def sample_large(
    first: Any, last: Any, scheduler: Any, small: Tensor, steps: int, generator: torch.Generator, start: float = 1.0
) -> Tensor:
    """[B, 3, S, S] pictures in [-1, 1] of small ones [B, 3, h, h]; the last step is another network's (Karlo).

    Args:
        start: below 1, the share of the timesteps that the enlarged picture is noised to, in place of noise alone.
    """
    size = first.config.sample_size
    x = torch.randn((*small.shape[:2], size, size), generator=generator).to(small)
    beside, times = enlarge(small, size), respaced(scheduler, steps, start)
    if start < 1:
        bar = scheduler.alphas_cumprod[times[0][0]].to(small)
        x = bar.sqrt() * beside + (1 - bar).sqrt() * x
    for t, after in times:
        network = last if after is None else first
        noise = network(torch.cat([x, beside], 1), t.to(x.device)).sample
        x = scheduler.step(noise, t, x, prev_timestep=after, generator=generator).prev_sample
    return x.clamp(-1, 1)


def enlarge(pictures: Tensor, size: int) -> Tensor:
    """[B, 3, size, size] by bicubic interpolation."""
    return F.interpolate(pictures, size=[size, size], mode="bicubic", align_corners=False, antialias=True)
