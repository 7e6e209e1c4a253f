"""Priors in an autoencoder's latents or in pixels, and the one that hears CLIP: Stable Diffusion's structure, and ours.

What public weights need beyond that (memory, caches, several text towers) is in :mod:`core.diffusion.pretrained`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context, Prior
from core.diffusion.folder import network_config, open_pipeline
from core.diffusion.process import DiffusionProcess
from core.diffusion.tokens import spelled, teach
from core.types import Cameras, Condition, Views

PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
KINDS = {
    "vae": "diffusers.AutoencoderKL",
    "text_encoder": "transformers.CLIPTextModel",
    "tokenizer": "transformers.CLIPTokenizer",
    "unet": "diffusers.UNet2DConditionModel",
    "scheduler": "diffusers.DDIMScheduler",
}
"""The parts of Stable Diffusion and what reads them."""


def load_parts(source: str, unet: str = "unet", within: dict[str, Path] | None = None) -> dict[str, Any]:
    """The five parts of a pipeline, in evaluation mode, from a local folder or, where the libraries reach it, a hub.

    Args:
        unet: the subfolder of the UNet.  within: other folders that hold the subfolder of a part.

    Raises:
        UserError: when a part is missing or cannot be read, naming it; or ``source`` is neither folder nor hub name.
    """
    kinds = {(unet if name == "unet" else name): kind for name, kind in KINDS.items()}
    pipeline = open_pipeline(source, kinds)
    return {("unet" if name == unet else name): pipeline.load(name, folder=(within or {}).get(name)) for name in kinds}


def resolved(model: str, context: Context) -> str:
    """A folder as it is; of a public model's name the local folder or mirror that a plugin knows it by, if any."""
    registry = context.parts.get("registry")
    if registry is None or Path(model).expanduser().exists():
        return model
    return registry.hooks.resolve_model(model_id=model) or model


def pixels_per_latent(vae: Any) -> int:
    """How many pixels a side one latent stands for, by an autoencoder's configuration."""
    blocks = vae.get("encoder_block_out_channels") or vae["block_out_channels"]  # DC-AE's name, or the usual one
    return int(2 ** (len(blocks) - 1))


class LatentSpace(Prior):
    """A prior in an autoencoder's latents: encode by its mean, predict by a network under what the condition holds.

    Without an autoencoder its space are pixels in [-1, 1].

    Args:
        parts: ``vae`` (or none), ``scheduler``, and the network under its name (``unet`` or ``transformer``); all
            parameters are frozen.
        image_size: pictures are resized to this square before encoding, in pixels.
        dtype: precision of the network's arithmetic; everything outside stays float32.
        keep: leave the weights in the precision that they were loaded in; else they are kept in float32.
    """

    network_name = "unet"
    unet: Any
    transformer: Any

    def __init__(
        self, options: Any, context: Context, parts: dict[str, Any], image_size: int | None = None,
        dtype: torch.dtype = torch.float32, keep: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(options, context)
        self.vae: Any = None
        for name in ("vae", self.network_name):
            if name in parts:
                part = parts[name].eval().requires_grad_(False)
                setattr(self, name, part if keep else part.float())
        self.pixels = 1 if self.vae is None else pixels_per_latent(self.vae.config)
        self.image_size = image_size or self.native_size(self.network.config) * self.pixels
        self.process = self.process_of(parts["scheduler"])
        self.dtype = dtype

    @property
    def network(self) -> Any:
        """The denoiser."""
        return getattr(self, self.network_name)

    @classmethod
    def native_size(cls, config: Any) -> int:
        """The side in latents that a network of this configuration was trained at."""
        return int(config["sample_size"])

    def process_of(self, scheduler: Any) -> DiffusionProcess:
        """The process that a scheduler of diffusers stands for."""
        return DiffusionProcess.from_scheduler(scheduler)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of what ``encode`` gives."""
        side = self.image_size // self.pixels
        return 3 if self.vae is None else int(self.vae.config.latent_channels), side, side

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.process.alphas_cumprod.device

    @staticmethod
    def space_of(source: str) -> tuple[int, int, int]:
        """(C, h, w) of a pipeline's latents, from its UNet's configuration: a folder's or a hub name's."""
        config = network_config(source, "unet")
        return int(config["out_channels"]), int(config["sample_size"]), int(config["sample_size"])

    def encode(self, rgb: Tensor) -> Tensor:
        if self.vae is None:
            return self.fitted(rgb) * 2 - 1
        return (self.mode(rgb) - self._shift) * self.vae.config.scaling_factor

    def mode(self, rgb: Tensor) -> Tensor:
        """As ``encode``, without shift and scale."""
        found = self.vae.encode(self.fitted(rgb).to(self.vae.dtype) * 2 - 1)
        latents: Tensor = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latent
        return latents.to(rgb.dtype)

    def fitted(self, rgb: Tensor) -> Tensor:
        """[B, H, W, 3] as [B, 3, h, w] at the prior's own size."""
        image = rgb.permute(0, 3, 1, 2)
        if image.shape[-2:] != (self.image_size, self.image_size):
            image = F.interpolate(image, size=(self.image_size,) * 2, mode="bilinear", antialias=True)
        return image

    def decode(self, latents: Tensor) -> Tensor:
        image = latents
        if self.vae is not None:
            image = self.vae.decode((latents / self.vae.config.scaling_factor + self._shift).to(self.vae.dtype)).sample
        return (image.to(latents.dtype).permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)

    @property
    def _shift(self) -> float:
        return self.vae.config.get("shift_factor") or 0.0

    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        with torch.autocast(noisy.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.answer(noisy, t, condition).float()

    def answer(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's output for ``predict``, in whatever precision; ``condition.image`` joins its input channels,
        ``condition.camera`` its timestep."""
        x = noisy if condition.image is None else torch.cat([noisy, condition.image], 1)
        output: Tensor = self.unet(x, t, encoder_hidden_states=condition.text, class_labels=condition.camera).sample
        return output


class LatentPrior(LatentSpace):
    """Told by CLIP's last hidden state.

    Args:
        parts: what :func:`load_parts` returned.
    """

    text_encoder: Any
    tokenizer: Any

    def __init__(
        self, options: Any, context: Context, parts: dict[str, Any], image_size: int | None = None,
        dtype: torch.dtype = torch.float32, keep: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(options, context, parts, image_size, dtype, keep)
        self.take_towers(parts)
        self._texts: dict[str, Tensor] = {}
        self._spellings: dict[str, str] = {}
        for word, vector in context.parts.get("learned_tokens", {}).items():
            self.add_token(word, vector)

    def take_towers(self, parts: dict[str, Any]) -> None:
        """Keep the text tower and its tokenizer."""
        self.text_encoder = parts["text_encoder"].float().eval().requires_grad_(False)
        self.tokenizer = parts["tokenizer"]

    @torch.no_grad()
    def embed_text(self, text: str) -> Tensor:
        """[L, D] token states; each text is embedded once."""
        if text not in self._texts:
            self._texts[text] = self.text_encoder(self.token_ids([text])).last_hidden_state[0]
        return self._texts[text]

    def token_ids(self, texts: list[str]) -> Tensor:
        """[B, L] padded and cut to the text tower's length."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        texts = [self.spelled(text) for text in texts]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        ids: Tensor = tokens.input_ids.to(self.text_encoder.device)
        return ids

    @torch.no_grad()
    def add_token(self, word: str, vector: Tensor) -> None:
        """Teach the text tower a word (textual inversion, Gal et al. 2023): ``vector`` [D] is its embedding, or [n, D]
        those of the n tokens that it is read as.

        Raises:
            UserError: the tower has that word already, or another width.
        """
        names = teach(self.text_encoder, self.tokenizer, word, vector.view(-1, vector.shape[-1]))
        if len(names) > 1:
            self._spellings[word] = " ".join(names)
        self._texts.clear()

    def spelled(self, text: str) -> str:
        """A text with learned words of several tokens written out."""
        return spelled(text, self._spellings)

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        return Condition(text=torch.stack([self.embed_text(t) for t in texts]))
