"""What a family draws: a sentence, a picture again, the way between two pictures, a picture changed by words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.base import Config as BaseConfig
from core.errors import UserError
from plugins.unclip.folder import Family
from plugins.unclip.sampling import Decoder, best_of, sample_embedding, sample_large, sample_small

if TYPE_CHECKING:
    from core.asked import Asked

BACKGROUND = 0.5
"""The grey behind given pictures, as behind those of training."""


class SamplingConfig(BaseConfig):
    """How pictures are drawn."""

    prior_steps: int = Field(default=25, ge=2)
    """Steps of the prior."""
    prior_scale: float = Field(default=4.0, ge=0)
    """Guidance of the prior; 1 is none."""
    candidates: int = Field(default=2, ge=1)
    """Embeddings drawn for each picture, of which the nearest to the text's is kept."""
    decoder_steps: int = Field(default=25, ge=2)
    """Steps of the decoder."""
    decoder_scale: float = Field(default=2.0, ge=0)
    """Guidance of the decoder; 1 is none."""
    text: bool = True
    """Whether the decoder hears the sentence beside the embedding."""
    upsampler_steps: int = Field(default=7, ge=2)
    """Steps of the upsampler."""
    upsampler_start: float = Field(default=1.0, gt=0, le=1)
    """Share of its timesteps that it starts from, on the small picture enlarged and noised; 1 is noise alone, as
    published. A short training tints pictures there."""
    batch: int = Field(default=16, ge=1)
    """Pictures drawn at once."""
    image: Path | None = None
    """A picture to draw again (variations), or to start from."""
    image_to: Path | None = None
    """A second picture: those drawn lead from the first to it."""
    text_from: str = ""
    """What the picture shows now; those drawn lead towards the sentence instead (text diff)."""
    turn: float = Field(default=0.5, gt=0, le=1)
    """How far a text diff turns the embedding at most, as a share of the way (0.25 to 0.5 in the paper)."""


def picture(
    family: Family, o: SamplingConfig, count: int, asked: Asked | None, generator: torch.Generator
) -> list[Tensor]:
    """``count`` pictures [H, W, 3] in [0, 1].

    Raises:
        UserError: a network is missing, or what was asked for makes no sense.
    """
    prompt = asked.prompt if asked is not None else ""
    given = _given(o.image, asked)
    check(family, o, prompt, given is not None)
    family.tower.check(f"{prompt} {o.text_from}")
    if given is None:
        made = _in_batches(count, o.batch, lambda n: from_text(family, o, [prompt] * n, generator))
    elif o.image_to is None and not o.text_from:
        embedding = family.tower.see(given)
        made = _in_batches(count, o.batch, lambda n: decoded(family, o, embedding.expand(n, -1), [""] * n, generator))
    else:
        path = lead(family, o, count, prompt, given)
        seed = int(torch.randint(2**62, (), generator=generator))
        # The same noise for all: what differs between two pictures is the embedding alone.
        made = [decoded(family, o, z[None], [""], torch.Generator().manual_seed(seed)) for z in path]
    return list((torch.cat(made).movedim(1, -1) * 0.5 + 0.5).clamp(0, 1).cpu())


def check(family: Family, o: SamplingConfig, prompt: str, given: bool) -> None:
    """Refuse what cannot be drawn, before anything is.

    Raises:
        UserError: with the reason.
    """
    needed = {"decoder": "decoder", "super_res_first": "upsampler"} | ({} if given else {"prior": "prior"})
    missing = [part for name, part in needed.items() if name not in family.networks]
    if missing:
        raise UserError(f"the {' and the '.join(missing)} of this unCLIP has not been trained yet, so it draws nothing")
    if (o.image_to is not None or o.text_from) and not given:
        what = "sampling.image_to" if o.image_to is not None else "sampling.text_from"
        raise UserError(f"{what} changes a picture, and none is given; set sampling.image=FILE")
    if o.text_from and not prompt.strip():
        raise UserError("sampling.text_from says what the picture shows; set prompt to what it should show instead")
    if given and family.tower.vision is None:
        raise UserError("this family has no image_encoder, so it cannot look at pictures; give it a sentence")


def from_text(family: Family, o: SamplingConfig, texts: list[str], generator: torch.Generator) -> Tensor:
    """[B, 3, S, S] in [-1, 1]: embeddings drawn for the texts, and pictures for the embeddings."""
    embedding = draw_embeddings(family, o, texts, generator)
    return decoded(family, o, embedding, texts if o.text else [""] * len(texts), generator)


def draw_embeddings(family: Family, o: SamplingConfig, texts: list[str], generator: torch.Generator) -> Tensor:
    """[B, D]: of ``candidates`` the nearest to the text."""
    prior, n = family.networks["prior"], o.candidates
    told = family.tower.to(prior.device).tell(texts * n)
    empty = family.tower.tell([""] * len(told))
    drawn = sample_embedding(
        prior, family.schedulers["prior_scheduler"], told, empty, o.prior_scale, o.prior_steps, generator
    )
    return best_of(drawn.view(n, len(texts), -1), told.embedding[: len(texts)]) if n > 1 else drawn


def decoded(
    family: Family, o: SamplingConfig, embedding: Tensor, texts: list[str], generator: torch.Generator
) -> Tensor:
    """[B, 3, S, S] in [-1, 1] of embeddings [B, D]."""
    return large_pictures(family, o, small_pictures(family, o, embedding, texts, generator), generator)


def small_pictures(
    family: Family, o: SamplingConfig, embedding: Tensor, texts: list[str], generator: torch.Generator
) -> Tensor:
    """[B, 3, h, h] in [-1, 1] of embeddings [B, D]."""
    unet = family.networks["decoder"]
    tower = family.tower.to(unet.device)
    told, empty = tower.tell(texts), tower.tell([""] * len(texts))
    decoder = Decoder(family.networks["text_proj"], unet, embedding.to(unet.device), told, empty, o.decoder_scale)
    side = unet.config.sample_size
    shape = (len(texts), unet.config.in_channels, side, side)
    return sample_small(decoder, family.schedulers["decoder_scheduler"], shape, o.decoder_steps, generator)


def large_pictures(family: Family, o: SamplingConfig, small: Tensor, generator: torch.Generator) -> Tensor:
    """[B, 3, S, S] in [-1, 1] of small ones."""
    first = family.networks["super_res_first"]
    last = family.networks.get("super_res_last", first)
    steps, start = o.upsampler_steps, o.upsampler_start
    return sample_large(first, last, family.schedulers["super_res_scheduler"], small, steps, generator, start)


def lead(family: Family, o: SamplingConfig, count: int, prompt: str, given: Tensor) -> Tensor:
    """[count, D] embeddings from the given picture's to another's (section 3.2), or towards a change of words (3.3)."""
    tower = family.tower
    start = tower.see(given)[0]
    if o.image_to is not None:
        other, most = tower.see(_read(o.image_to))[0], 1.0
    else:
        told = F.normalize(tower.tell([prompt, o.text_from]).embedding, dim=1)
        other, most = told[0] - told[1], o.turn
    return torch.stack([slerp(start, other, float(w)) for w in torch.linspace(0, most, count)])


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """[D] on the great circle from ``a`` to the direction of ``b``; the length stays that of ``a`` where b is a
    difference, and goes to ``b``'s where both are embeddings of much the same length."""
    u, v = F.normalize(a, dim=0), F.normalize(b, dim=0)
    angle = torch.acos((u @ v).clamp(-1, 1))
    if float(angle) < 1e-4:
        return a
    turned = (torch.sin((1 - weight) * angle) * u + torch.sin(weight * angle) * v) / torch.sin(angle)
    return turned * a.norm()


def _in_batches(count: int, size: int, make: Callable[[int], Tensor]) -> list[Tensor]:
    return [make(min(size, count - k)) for k in range(0, count, size)]


def _given(path: Path | None, asked: Any) -> Tensor | None:
    """[1, H, W, 3] the picture that is given, if any."""
    if path is not None:
        return _read(path)
    views = asked.views if asked is not None else None
    return None if views is None else views.over(BACKGROUND)[:1]


def _read(path: Path) -> Tensor:
    from core.asked import PictureConfig, read_given

    return read_given(path, PictureConfig()).over(BACKGROUND)[:1]
