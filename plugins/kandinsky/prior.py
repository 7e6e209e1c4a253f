"""Prior ``kandinsky``: Kandinsky 2.2 (Razzhigaev et al. 2023), unCLIP in the latents of a MoVQ autoencoder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from core.contracts import Context, stream_seed
from core.diffusion import unclip
from core.diffusion.folder import network_config, open_pipeline
from core.diffusion.latent import pixels_per_latent, resolved
from core.diffusion.pretrained import Pretrained, PretrainedConfig
from core.diffusion.texts import Said
from core.types import Condition


class Kandinsky(Pretrained):
    """The UNet hears one picture embedding, which another model draws from the text, once for each text and seed.

    The empty text is the embedding of a black picture, as in the pipeline; any other text that guidance leads away from
    gets a drawn embedding of its own. The UNet answers with the noise and a variance of its own, which is not taken.

    Raises:
        UserError: a folder lacks a part, is damaged or another pipeline's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = (
        "KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline", "KandinskyV22CombinedPipeline",
    )  # fmt: skip
    kinds: ClassVar[dict[str, str]] = {
        "movq": "diffusers.VQModel", "unet": "diffusers.UNet2DConditionModel", "scheduler": "diffusers.DDPMScheduler",
    }  # fmt: skip
    text_kinds: ClassVar[dict[str, str]] = {
        **unclip.KINDS, "image_encoder": "transformers.CLIPVisionModelWithProjection",
        "scheduler": "diffusers.UnCLIPScheduler",
    }  # fmt: skip
    guidance_scale = 4.0

    class Config(PretrainedConfig):
        model: str = Field("kandinsky22", min_length=1)
        """The decoder: a local folder, an alias, or a name on the hub."""
        text_prior: str = Field("kandinsky22-prior", min_length=1)
        """The model that draws picture embeddings from texts: a folder, an alias, or a name on the hub."""
        embedding_steps: int = Field(25, ge=2)
        """Steps in which an embedding is drawn."""
        embedding_scale: float = 4.0
        """Classifier-free guidance while it is drawn."""

    def __init__(self, options: Any, context: Context) -> None:
        source = resolved(options.text_prior, context)
        # Before the decoder is loaded, so that what is missing is told at once.
        self.text_pipeline = open_pipeline(source, self.text_kinds, ("KandinskyV22PriorPipeline",), context)
        super().__init__(options, context)

    def load_networks(self, pipeline: Any, options: Any) -> dict[str, Any]:
        return super().load_networks(pipeline, options) | {
            "vae": pipeline.load("movq", getattr(torch, options.vae_precision))
        }

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        source = resolved(options.model, context)
        movq = network_config(source, "movq", options.revision)
        side = cls.native_size(network_config(source, "unet", options.revision))
        if options.image_size is not None:
            side = options.image_size // pixels_per_latent(movq)
        return int(movq["latent_channels"]), side, side

    def encode(self, rgb: Tensor) -> Tensor:
        found = self.vae.encode(self.fitted(rgb).to(self.vae.dtype) * 2 - 1).latents  # never scaled, not quantised
        return found.to(rgb.dtype)  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        image = self.vae.decode(latents.to(self.vae.dtype), force_not_quantize=True).sample.to(latents.dtype)
        return (image.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)

    def tower(self, name: str) -> Any:
        """A part of the model that draws embeddings, loaded at the first call, on the prior's device."""
        if name not in self._towers:
            self._towers[name] = self.text_pipeline.load(name, self.tower_dtype)
        return self._towers[name].to(self.device)

    def text_settings(self) -> list[Any]:
        o = self.options
        files = self.text_pipeline.identity(self.text_kinds)
        return [*super().text_settings(), files, o.embedding_steps, o.embedding_scale, self.context.seed]

    def say(self, text: str) -> Said:
        """``text`` [1, D]: the picture embedding is the only token."""
        if not text:
            eye = self.tower("image_encoder")
            side = int(eye.config.image_size)
            return {"text": eye(torch.zeros(1, 3, side, side, device=self.device, dtype=eye.dtype)).image_embeds}
        tower, tokenizer = self.tower("text_encoder"), self.text_pipeline.load("tokenizer")
        told, untold = (unclip.Heard.by(tower, tokenizer, words, self.device) for words in (text, ""))
        generator = torch.Generator().manual_seed(stream_seed(self.context.seed, "init", text))
        drawn = unclip.draw_embedding(
            self.tower("prior"), self.text_pipeline.load("scheduler"), told, untold, self.options.embedding_scale,
            self.options.embedding_steps, generator,
        )  # fmt: skip
        return {"text": drawn}

    def answer(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        told: Any = condition.text
        found: Any = self.unet(noisy, t, encoder_hidden_states=None, added_cond_kwargs={"image_embeds": told[:, 0]})
        return found.sample[:, : noisy.shape[1]]  # type: ignore[no-any-return]
