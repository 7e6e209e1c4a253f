"""unCLIP's first half (Ramesh et al. 2022, section 2.2): a text to an embedding of the picture it might describe.

The second half, a UNet told that embedding, is the prior that scores ask; the embedding is drawn once for each text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.diffusion.guidance import combine
from core.diffusion.texts import padded_ids

KINDS = {
    "prior": "diffusers.PriorTransformer",
    "text_encoder": "transformers.CLIPTextModelWithProjection",
    "tokenizer": "transformers.CLIPTokenizer",
}
"""The parts that are needed and what reads them; the scheduler's name depends on the pipeline."""


@dataclass(frozen=True)
class Heard:
    """One text as CLIP hears it: ``embedding`` [1, D] (projected), ``states`` [1, L, W], ``mask`` [1, L], bool."""

    embedding: Tensor
    states: Tensor
    mask: Tensor

    @classmethod
    def by(cls, tower: Any, tokenizer: Any, text: str, device: torch.device) -> Heard:
        """A text longer than the transformer's fixed number of tokens is cut, with a warning."""
        ids, mask = padded_ids(tokenizer, text, tokenizer.model_max_length)
        found = tower(ids.to(device))
        return cls(found.text_embeds, found.last_hidden_state, mask.bool().to(device))


@torch.no_grad()
def draw_embedding(
    prior: Any, scheduler: Any, told: Heard, untold: Heard, scale: float, steps: int, generator: torch.Generator
) -> Tensor:
    """A picture's CLIP embedding [1, D] by ``steps`` of ancestral sampling (UnCLIPScheduler).

    Args:
        prior: the PriorTransformer, which answers with the embedding itself.
        scale: of classifier-free guidance.
        generator: on the CPU; start and steps are drawn from it in this order, as the pipelines draw them.
    """
    from diffusers.utils.torch_utils import randn_tensor

    ends = [untold, told]
    embedding, states, mask = (torch.cat([getattr(e, n) for e in ends]) for n in ("embedding", "states", "mask"))
    shape = (1, int(prior.config.embedding_dim))
    x = randn_tensor(shape, generator=generator, device=embedding.device, dtype=embedding.dtype)
    scheduler.set_timesteps(steps, device=x.device)
    times = scheduler.timesteps
    for k, t in enumerate(times):
        found = prior(
            torch.cat([x, x]), timestep=t, proj_embedding=embedding, encoder_hidden_states=states, attention_mask=mask
        )
        low, high = found.predicted_image_embedding.chunk(2)
        guided = combine(low, high, scale)
        after = times[k + 1] if k + 1 < len(times) else None
        x = scheduler.step(guided, timestep=t, sample=x, generator=generator, prev_timestep=after).prev_sample
    drawn: Tensor = prior.post_process_latents(x)
    return drawn
