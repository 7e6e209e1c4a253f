"""Generator ``unclip``: text to a CLIP picture embedding to a picture (Ramesh et al. 2022).

Three networks over one frozen CLIP, each trained by a stage of its own: the *prior* draws a picture embedding for a
text, the *decoder* a small picture for an embedding, the *upsampler* a larger one for a small one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Generator, Step
from core.ema import Average
from core.errors import UserError
from plugins.unclip.draw import SamplingConfig, draw_embeddings, large_pictures, picture, small_pictures
from plugins.unclip.folder import Family, check_folder, load_family, save_family
from plugins.unclip.networks import (
    PARTS,
    DecoderConfig,
    PriorConfig,
    UpsamplerConfig,
    build_part,
    build_schedulers,
    plain_attention,
    whiten,
)
from plugins.unclip.objectives import decoder_loss, prior_loss, upsampler_loss
from plugins.unclip.tower import BATCH, Tower

log = logging.getLogger("maquette")


class Unclip(Generator):
    """One of the three networks in training, the others as earlier stages or a folder left them."""

    class Config(BaseConfig):
        data: Annotated[ComponentSpec | None, Slot("data")] = None
        """Captioned pictures; only training needs them."""
        family: str = "built-in"
        """Folder of the embedded family whose CLIP is used, or `built-in`."""
        weights: Path | None = None
        """A trained family in Karlo's layout, with its CLIP: what a run left in `assets/unclip`, or public weights."""
        train: Literal["prior", "decoder", "upsampler"] = "prior"
        """Which network this stage trains."""
        prior: PriorConfig = PriorConfig()
        """The text-to-embedding network."""
        decoder: DecoderConfig = DecoderConfig()
        """The embedding-to-picture network."""
        upsampler: UpsamplerConfig = UpsamplerConfig()
        """The small-to-large network."""
        sampling: SamplingConfig = SamplingConfig()
        """How pictures are drawn."""
        average: float = Field(0.999, ge=0, lt=1)
        """Decay of the moving average of the weights that pictures are drawn with."""

    def __init__(self, options: Config, context: Context) -> None:
        super().__init__(options, context)
        self.data = context.build(options.data) if options.data is not None else None  # type: ignore[misc]
        family = self._start()
        self._tower = [family.tower.to(context.device)]  # in a list: files already, not for checkpoints
        self.schedulers = family.schedulers
        self._check_data()
        known = {n: family.networks.pop(n) for n in PARTS[options.train] if n in family.networks}
        self._new = not known
        self.live = nn.ModuleDict(known).requires_grad_(True) if known else self._fresh(options.train)
        self.live.train()
        if "decoder" in self.live and context.device.type == "cpu":
            plain_attention(self.live["decoder"])
        if "prior" in self.live:  # statistics, not weights
            self.live["prior"].clip_mean.requires_grad_(False)
            self.live["prior"].clip_std.requires_grad_(False)
        self.average = Average(self.live, options.average)
        self.finished = nn.ModuleDict(family.networks).requires_grad_(False).eval()
        previous: Any = context.parts.get("previous")
        self._embeddings: Tensor | None = getattr(previous, "_embeddings", None)

    def _start(self) -> Family:
        """What this stage begins with: the stage before it, a folder, or a CLIP alone."""
        o, previous = self.options, self.context.parts.get("previous")
        if isinstance(previous, Unclip):
            return previous.family()
        if o.weights is not None:
            check_folder(o.weights)
            return load_family(o.weights)
        return Family(Tower.of_family(o.family), {}, build_schedulers(o.prior.clip))

    def _fresh(self, part: str) -> nn.ModuleDict:
        """Random weights, from the part's own stream."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.context.generator(f"unclip-{part}").initial_seed() % 2**32)
            return build_part(part, self.options, self.tower.width, self.tower.length)

    def _check_data(self) -> None:
        """Refuse too few pictures before they are made.

        Raises:
            UserError: fewer than twice an embedding's numbers, whose spread could not be told.
        """
        images, least = getattr(getattr(self.data, "options", None), "images", None), 2 * self.tower.width
        if images is not None and images < least:
            raise UserError(
                f"data.images={images} is too little: the spread of embeddings of {self.tower.width} numbers needs "
                f"at least {least} pictures"
            )

    @property
    def tower(self) -> Tower:
        """The frozen CLIP."""
        return self._tower[0]

    def family(self) -> Family:
        """CLIP, networks (moving averages) and schedules, as a folder holds them."""
        average: Any = self.average.model
        return Family(self.tower, dict(self.finished.items()) | dict(average.items()), self.schedulers)

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.live.parameters() if p.requires_grad]}]

    def update(self, step: Step) -> None:
        if step.index:
            self.average.update(self.live)
        elif self._new and self.options.train != "upsampler":  # which hears no embedding
            embeddings = self.embeddings()
            for networks in (self.live, self.average.model):
                whiten(networks, embeddings.mean(0), embeddings.std(0))

    @torch.no_grad()
    def embeddings(self) -> Tensor:
        """[N, D] of every picture of the data."""
        if self.data is None:
            raise UserError("data: captioned pictures are needed to train unclip, for instance data=procedural")
        if self._embeddings is None:
            pool = self.data.pool["rgb"]
            log.info("embedding %d pictures", len(pool))
            rows = [torch.from_numpy(pool[k : k + BATCH]).float() / 255 for k in range(0, len(pool), BATCH)]
            self._embeddings = torch.cat([self.tower.to(self.device).see(rgb) for rgb in rows])
        return self._embeddings

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return next(self.live.parameters()).device

    def training_step(self, step: Step) -> dict[str, Tensor]:
        o, embeddings = self.options, self.embeddings()
        batch, generator = self.data.batch(step), step.generator("unclip")  # type: ignore[union-attr]
        if o.train == "upsampler":
            pictures = self._pictures(batch["rgb"], o.upsampler.size)
            return upsampler_loss(
                self.live, self.schedulers["super_res_scheduler"], o.upsampler, pictures, o.decoder.size, generator
            )
        seen = embeddings[torch.from_numpy(batch["index"]).to(embeddings.device)]
        told, empty = self.tower.tell(batch["caption"]), self.tower.tell([""])
        if o.train == "prior":
            return prior_loss(self.live, self.schedulers["prior_scheduler"], o.prior, seen, told, empty, generator)
        pictures = self._pictures(batch["rgb"], o.decoder.size)
        return decoder_loss(
            self.live, self.schedulers["decoder_scheduler"], o.decoder, pictures, seen, told, empty, generator
        )

    def _pictures(self, rgb: Tensor, size: int) -> Tensor:
        """[B, 3, size, size] in [-1, 1]."""
        x = rgb.movedim(-1, 1).to(self.device) * 2 - 1
        if x.shape[-1] == size:
            return x
        return F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)

    @torch.no_grad()
    def sample(self, count: int, asked: Any, generator: torch.Generator) -> list[Any]:
        """``count`` pictures [H, W, 3] in [0, 1] of the sentence, or of what ``sampling`` says of given pictures.

        Raises:
            UserError: a network that is needed has not been trained.
        """
        self._check_kind(getattr(asked, "prompt", ""))
        return picture(self.family(), self.options.sampling, count, asked, generator)

    def _check_kind(self, prompt: str) -> None:
        """Warn of a sentence about no kind that the training pictures show: CLIP knows more of them."""
        kinds, nouns = getattr(getattr(self.data, "options", None), "categories", ()), getattr(self.data, "nouns", {})
        if prompt and kinds and not any(noun in prompt.lower() for kind in kinds for noun in nouns[kind]):
            log.warning("this unCLIP was trained on %s alone, and '%s' names none of them", ", ".join(kinds), prompt)

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Eight captions: the known pictures nearest to drawn embeddings, small pictures, or large ones."""
        o, family, generator = self.options, self.family(), torch.Generator().manual_seed(0)
        if self.data is None:
            return {}
        captions = list(dict.fromkeys(self.data.pool["caption"][:64]))[:8]
        if "prior" not in family.networks:
            known = self.embeddings()[: len(captions)]
            embedding = known
        else:
            embedding = draw_embeddings(family, o.sampling, captions, generator)
        if o.train == "prior":
            nearest = F.normalize(embedding, dim=1) @ F.normalize(self.embeddings(), dim=1).T
            rgb = torch.from_numpy(self.data.pool["rgb"][nearest.argmax(1).cpu().numpy()])
            return {"nearest": torch.cat(list(rgb), 1).numpy()}
        small = small_pictures(family, o.sampling, embedding, captions, generator)
        shown = small if o.train == "decoder" else large_pictures(family, o.sampling, small, generator)
        rgb = (shown.movedim(1, -1) * 0.5 + 0.5).clamp(0, 1)
        return {"samples": (torch.cat(list(rgb), 1) * 255).byte().cpu().numpy()}

    def finish(self, run: Any) -> None:
        """Write the family into the run's assets."""
        run.say(f"wrote {save_family(self.family(), run.assets / 'unclip')}")
