"""Task ``textual-inversion``: a new word whose embedding makes a text-to-image prior draw what a picture shows.

Gal et al. 2023, eq. 2: nothing but the one embedding is optimised, by the prior's own denoising loss on changed copies
of the picture. A later stage's priors know the word (``learned_tokens``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from core.asked import PictureConfig, read_given, resized
from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Step, Task
from core.diffusion.latent import LatentPrior
from core.errors import UserError
from core.types import Condition
from plugins.realfusion.augment import augmented

TEMPLATES = (
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}", "a photo of one {}",
    "a photo of a clean {}", "a photo of my {}", "a close-up photo of a {}", "a bright photo of the {}",
    "a good photo of {}",
)  # fmt: skip


class TextualInversion(Task):
    """One embedding, started from that of a word the prior knows."""

    class Config(BaseConfig):
        image: Path
        """The picture."""
        picture: PictureConfig = PictureConfig()
        """What in it is the object."""
        prior: Annotated[ComponentSpec, Slot("prior")]
        """A latent text-to-image prior."""
        placeholder: str = Field("<object>", min_length=1, pattern=r"^\S+$")
        """The new word."""
        start: str = "object"
        """A word that the embedding starts from; one that the prior knows."""
        templates: tuple[str, ...] = Field(TEMPLATES, min_length=1)
        """Sentences, ``{}`` for the word, of which each picture hears one."""
        batch: int = Field(4, ge=1)
        """Changed copies of the picture in each step."""
        grey: float = Field(1.0, ge=0, le=1)
        """The grey level that the object is laid over."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        prior = context.build(options.prior)  # type: ignore[misc]
        if not isinstance(prior, LatentPrior):
            raise UserError(f"prior: '{options.prior.name}' has no text tower that could learn a word")
        self._prior = [prior.to(context.device).eval().requires_grad_(False)]  # its weights are files already
        begin = self._known(options.start)
        prior.add_token(options.placeholder, begin)
        self.embedding = nn.Parameter(begin.clone())
        self._rgb: Tensor | None = None

    @property
    def prior(self) -> LatentPrior:
        """The frozen prior, which has the new word."""
        return self._prior[0]

    def _known(self, word: str) -> Tensor:
        """[D] mean embedding of a word's tokens."""
        ids = self.prior.tokenizer(word, add_special_tokens=False).input_ids
        if not ids:
            raise UserError(f"start: '{word}' is no word")
        table: Tensor = self.prior.text_encoder.get_input_embeddings().weight
        return table[ids].mean(0).detach()

    @property
    def learned_tokens(self) -> dict[str, Tensor]:
        """What later stages' priors learn from this one."""
        return {self.options.placeholder: self.embedding.detach()}

    @property
    def rgb(self) -> Tensor:
        """[S, S, 3] the picture at the prior's size."""
        if self._rgb is None:
            views = resized(read_given(self.options.image, self.options.picture), self.prior.image_size)
            self._rgb = views.over(self.options.grey)[0].to(self.context.device)
        return self._rgb

    def training_step(self, step: Step) -> dict[str, Tensor]:
        o = self.options
        rgb = augmented(self.rgb, o.batch, step.generator("augment"), o.grey)
        chosen = torch.randint(len(o.templates), (o.batch,), generator=step.generator("template")).tolist()
        texts = [o.templates[k].format(o.placeholder) for k in chosen]
        return {"denoising": self.loss(rgb, texts, step)}

    def loss(self, rgb: Tensor, texts: list[str], step: Step) -> Tensor:
        """The prior's denoising loss of pictures [B, S, S, 3] under ``texts``, differentiable in the embedding."""
        process = self.prior.process
        with torch.no_grad():
            x0 = self.prior.encode(rgb)
        noise = torch.randn(x0.shape, generator=step.generator("noise")).to(x0)
        t = process.timestep(torch.rand(len(x0), generator=step.generator("level"))).to(x0.device)
        told = self.prior.condition([""] * len(texts))
        told = Condition(text=self._read(texts), camera=told.camera)
        output = self.prior.predict(process.add_noise(x0, noise, t), t, told)
        return F.mse_loss(output, process.target(x0, noise, t))

    def _read(self, texts: list[str]) -> Tensor:
        """[B, L, D] token states, with the learned embedding in its row of the table."""
        tower = self.prior.text_encoder
        name = next(n for n, p in tower.named_parameters() if p is tower.get_input_embeddings().weight)
        table = tower.get_input_embeddings().weight
        row = self.prior.tokenizer.convert_tokens_to_ids(self.options.placeholder)
        changed = torch.cat([table[:row], self.embedding[None], table[row + 1 :]])
        states: Tensor = functional_call(tower, {name: changed}, (self.prior.token_ids(texts),)).last_hidden_state
        return states

    def leave(self, run: Any) -> None:
        self.finish(run)

    def finish(self, run: Any) -> None:
        """Save ``learned_embeds.safetensors``: the word and its embedding."""
        if run is not None:
            run.assets.mkdir(parents=True, exist_ok=True)
            save_file({k: v.cpu() for k, v in self.learned_tokens.items()}, run.assets / "learned_embeds.safetensors")
