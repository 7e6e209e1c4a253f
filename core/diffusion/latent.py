"""A latent text-to-image prior from any diffusers pipeline folder: Stable Diffusion 1.x, 2.x, and ours.

The folder (or hub name) holds ``vae/``, ``text_encoder/``, ``tokenizer/``, ``unet/`` and ``scheduler/`` in diffusers'
formats. The embedded prior and public weights load through this one class.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context, Prior
from core.diffusion.process import DiffusionProcess
from core.errors import UserError
from core.types import Cameras, Condition, Views

PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")


def load_parts(source: str, unet: str = "unet", within: dict[str, Path] | None = None) -> dict[str, Any]:
    """The five parts of a pipeline, in evaluation mode, from a local folder or, where the libraries reach it, a hub.

    Args:
        unet: the subfolder of the UNet.  within: other folders that hold the subfolder of a part.

    Raises:
        UserError: when a part is missing or cannot be read, naming it; or ``source`` is neither folder nor hub name.
    """
    local = Path(source).expanduser()
    if local.exists():
        missing = [p for p in (*PARTS[:3], unet, PARTS[4]) if not (local / p).is_dir()]
        if missing:
            raise UserError(f"{source} is no diffusers pipeline folder: it lacks {', '.join(missing)}")
        if not any((local / "tokenizer" / name).is_file() for name in ("vocab.json", "tokenizer.json")):
            raise UserError(f"{source}: tokenizer holds neither vocab.json nor tokenizer.json")
        source = str(local)
    elif not _HUB_NAME.fullmatch(source):
        raise UserError(f"there is no folder {source}, and it is no name on the hub either (owner/name)")
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would break the status line

    loaders: dict[str, Any] = {
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
        unet: UNet2DConditionModel,
        "scheduler": DDIMScheduler,
    }
    parts: dict[str, Any] = {}
    for name, loader in loaders.items():
        try:
            place = (within or {}).get(name, source)
            parts["unet" if name == unet else name] = loader.from_pretrained(place, subfolder=name)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"cannot load {name} of '{source}': {str(error).splitlines()[0]}") from error
    return parts


def resolved(model: str, context: Context) -> str:
    """A folder as it is; of a public model's name the local folder or mirror that a plugin knows it by, if any."""
    registry = context.parts.get("registry")
    if registry is None or Path(model).expanduser().exists():
        return model
    return registry.hooks.resolve_model(model_id=model) or model


class LatentSpace(Prior):
    """A prior in an autoencoder's latents: encode by its mean, predict by a UNet under whatever the condition holds.

    Args:
        parts: ``vae``, ``unet`` and ``scheduler``; all parameters are frozen.
        image_size: pictures are resized to this square before encoding, in pixels.
        dtype: precision of the UNet's arithmetic; everything outside stays float32.
    """

    def __init__(
        self, options: Any, context: Context, parts: dict[str, Any], image_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__(options, context)
        self.vae = parts["vae"].float().eval().requires_grad_(False)
        self.unet = parts["unet"].float().eval().requires_grad_(False)
        self.process = DiffusionProcess.from_scheduler(parts["scheduler"])
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.image_size = image_size or int(self.unet.config.sample_size) * factor
        self.dtype = dtype

    @staticmethod
    def space_of(source: str) -> tuple[int, int, int]:
        """(C, h, w) of a pipeline's latents, from its UNet's configuration: a folder's or a hub name's."""
        from diffusers import UNet2DConditionModel

        config = UNet2DConditionModel.load_config(source, subfolder="unet")
        return int(config["out_channels"]), int(config["sample_size"]), int(config["sample_size"])

    def encode(self, rgb: Tensor) -> Tensor:
        return self.mode(rgb) * self.vae.config.scaling_factor

    def mode(self, rgb: Tensor) -> Tensor:
        """As ``encode``, without the scaling."""
        image = rgb.permute(0, 3, 1, 2)
        if image.shape[-2:] != (self.image_size, self.image_size):
            image = F.interpolate(image, size=(self.image_size,) * 2, mode="bilinear", antialias=True)
        return self.vae.encode(image * 2 - 1).latent_dist.mode()

    def decode(self, latents: Tensor) -> Tensor:
        image = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (image.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)

    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        x = noisy if condition.image is None else torch.cat([noisy, condition.image], 1)
        with torch.autocast(noisy.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.unet(x, t, encoder_hidden_states=condition.text, class_labels=condition.camera).sample
        return output.float()


class LatentPrior(LatentSpace):
    """Told by CLIP's last hidden state.

    Args:
        parts: what :func:`load_parts` returned.
    """

    def __init__(
        self, options: Any, context: Context, parts: dict[str, Any], image_size: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__(options, context, parts, image_size, dtype)
        self.text_encoder = parts["text_encoder"].float().eval().requires_grad_(False)
        self.tokenizer = parts["tokenizer"]
        self._texts: dict[str, Tensor] = {}
        for word, vector in context.parts.get("learned_tokens", {}).items():
            self.add_token(word, vector)

    @torch.no_grad()
    def embed_text(self, text: str) -> Tensor:
        """[L, D] token states; each text is embedded once."""
        if text not in self._texts:
            self._texts[text] = self.text_encoder(self.token_ids([text])).last_hidden_state[0]
        return self._texts[text]

    def token_ids(self, texts: list[str]) -> Tensor:
        """[B, L] padded and cut to the text tower's length."""
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        ids: Tensor = tokens.input_ids.to(self.text_encoder.device)
        return ids

    @torch.no_grad()
    def add_token(self, word: str, vector: Tensor) -> None:
        """Teach the text tower a word (textual inversion, Gal et al. 2023): ``vector`` [D] is its embedding.

        Raises:
            UserError: the tower has that word already, or another width.
        """
        table = self.text_encoder.get_input_embeddings()
        if vector.shape != table.weight.shape[1:]:
            width = table.weight.shape[1]
            raise UserError(f"the token '{word}' has {vector.numel()} numbers; this text tower takes {width}")
        if not self.tokenizer.add_tokens([word]):
            raise UserError(f"'{word}' is a token of this text tower already; choose another placeholder")
        index = self.tokenizer.convert_tokens_to_ids(word)
        self.text_encoder.resize_token_embeddings(max(index + 1, len(table.weight)), mean_resizing=False)
        self.text_encoder.get_input_embeddings().weight[index] = vector.to(table.weight)
        self._texts.clear()

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        return Condition(text=torch.stack([self.embed_text(t) for t in texts]))
