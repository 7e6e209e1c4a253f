"""Fits the family's text-to-image UNet: one network, told the viewpoint or not.

With a viewpoint (a vector beside the timestep) it is the default prior; without (zeros), and with view words in the
text, it is the plain twin of Stable Diffusion. One training serves both: a share of every batch is told nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Step, Task
from core.diffusion.latent import LatentPrior
from core.diffusion.process import DiffusionProcess
from core.diffusion.sampler import ddim
from core.errors import UserError
from core.types import Condition
from plugins.embedded.camera import CAMERA_DIM, embed_camera
from plugins.embedded.card import training_facts
from plugins.embedded.clip import captions_with_views
from plugins.embedded.family import Average, family_folder, part, record, save_half
from plugins.embedded.tokenizer import MAX_LENGTH

log = logging.getLogger("maquette")


class EmbeddedUnet(Task):
    """v-prediction (Salimans & Ho 2022) on the autoencoder's latents, under the frozen text tower."""

    class Config(BaseConfig):
        data: Annotated[ComponentSpec, Slot("data")]
        """Captioned pictures with known cameras."""
        family: str = "built-in"
        """Folder of the family: the autoencoder and the text tower are read, the UNet is written."""
        start: str | None = None
        """Family whose UNet the training goes on from (`built-in`, or a folder); none starts from random weights."""
        channels: tuple[int, ...] = (64, 128, 128)
        """Width at each resolution of the latents, the finest first; text enters at all but the first and the last."""
        layers: int = Field(1, ge=1)
        """Residual blocks at each resolution."""
        no_text: float = Field(0.1, ge=0, le=1)
        """Share of pictures whose text is empty (for classifier-free guidance)."""
        no_camera: float = Field(0.4, ge=0, le=1)
        """Share of pictures whose viewpoint is not told as a vector; most of these are told by a view word."""
        average: float = Field(0.9995, ge=0, lt=1)
        """Decay of the moving average of the weights that is saved."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        from diffusers import AutoencoderKL, DDIMScheduler
        from transformers import CLIPTextModel, CLIPTokenizer

        self.data = context.build(options.data)  # type: ignore[misc]
        family = options.family
        self.tokenizer = CLIPTokenizer.from_pretrained(part(family, "tokenizer", "embedded-clip"))
        # Frozen, and kept out of the checkpoint: they are files already.
        self._text = [CLIPTextModel.from_pretrained(part(family, "text_encoder", "embedded-clip")).float().eval()]
        self._vae = [AutoencoderKL.from_pretrained(part(family, "vae", "embedded-autoencoder")).float().eval()]
        self.scheduler: Any = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
            clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        )  # fmt: skip
        self.process = DiffusionProcess.from_scheduler(self.scheduler)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.generator("unet").initial_seed() % 2**32)
            self.model = self._build()
        if options.start is not None:
            self._continue(options.start)
        self.average = Average(self.model, options.average)
        self._latents: Tensor | None = None

    def _build(self) -> Any:
        from diffusers import UNet2DConditionModel

        o, vae = self.options, self._vae[0].config
        middle = len(o.channels) - 2
        down = ("DownBlock2D", *("CrossAttnDownBlock2D",) * middle, "DownBlock2D")
        up = ("UpBlock2D", *("CrossAttnUpBlock2D",) * middle, "UpBlock2D")
        return UNet2DConditionModel(
            sample_size=self.data.options.size // 2 ** (len(vae.block_out_channels) - 1),
            in_channels=vae.latent_channels, out_channels=vae.latent_channels,
            down_block_types=down, up_block_types=up, block_out_channels=o.channels, layers_per_block=o.layers,
            cross_attention_dim=self._text[0].config.hidden_size, attention_head_dim=4, norm_num_groups=16,
            class_embed_type="projection", projection_class_embeddings_input_dim=CAMERA_DIM,
        )  # fmt: skip

    def _continue(self, family: str) -> None:
        """Take over another family's weights.

        Raises:
            UserError: its UNet has another shape.
        """
        self._take_over(part(family, "unet", "embedded-unet"), family)

    def _take_over(self, folder: Path, family: str) -> None:
        weights = folder / "diffusion_pytorch_model.safetensors"
        unet = getattr(self.model, "unet", self.model)
        try:
            unet.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"start: the UNet of family '{family}' has another shape than this one: {reason}") from None

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters())}]

    def update(self, step: Step) -> None:
        if step.index:
            self.average.update(self.model)

    @property
    def device(self) -> torch.device:
        """Where the UNet lives."""
        return next(self.model.parameters()).device

    def latents(self) -> Tensor:
        """[N, C, h, w] float16 latents of the whole pool, scaled to unit variance; encoded once and kept on disk."""
        if self._latents is None:
            weights = part(self.options.family, "vae", "embedded-autoencoder") / "diffusion_pytorch_model.safetensors"
            path = self.pool_file("latents", weights)
            if not path.exists():
                log.info("encoding %d pictures", len(self.data.pool["rgb"]))
                partial = path.with_suffix(f".{os.getpid()}.tmp")
                save_file({"latents": self._encode(self.data.pool["rgb"])}, partial)
                partial.replace(path)
            self._latents = load_file(path)["latents"]
        return self._latents

    def pool_file(self, what: str, made_with: Path) -> Path:
        """Where ``what`` of the whole pool is kept: another file for other weights, and for another pool."""
        key = hashlib.sha256(made_with.read_bytes()).hexdigest()[:12]
        path: Path = self.data.folder / f"{what}-{key}-{len(self.data.pool['rgb'])}.safetensors"
        return path

    @torch.no_grad()
    def _encode(self, pool: Any) -> Tensor:
        """[N, C, h, w] of pictures [N, S, S, 3] uint8."""
        vae = self._vae[0].to(self.device)
        side = self.data.options.size // 2 ** (len(vae.config.block_out_channels) - 1)
        out = torch.empty(len(pool), vae.config.latent_channels, side, side, dtype=torch.float16)
        for k in range(0, len(pool), 256):
            rgb = torch.from_numpy(pool[k : k + 256]).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            out[k : k + 256] = vae.encode(rgb).latent_dist.mode() * vae.config.scaling_factor
        return out

    def training_step(self, step: Step) -> dict[str, Tensor]:
        latents = self.latents()
        batch = self.data.batch(step)
        x0 = latents[torch.from_numpy(batch["index"])].float().to(self.device)
        texts, camera = self._condition(batch, step)
        noise = torch.randn(x0.shape, generator=step.generator("noise")).to(x0)
        t = torch.randint(self.process.steps, (len(x0),), generator=step.generator("level")).to(self.device)
        output = self.model(
            self.process.add_noise(x0, noise, t), t, encoder_hidden_states=self.embed(texts), class_labels=camera
        ).sample
        return {"v": F.mse_loss(output.float(), self.process.target(x0, noise, t))}

    def _condition(self, batch: dict[str, Any], step: Step) -> tuple[list[str], Tensor]:
        count = len(batch["caption"])
        rolls = torch.rand(3, count, generator=step.generator("condition"))
        blind = rolls[0] < self.options.no_camera
        # A few of the blind ones get no view word either, so that a bare caption means "from anywhere".
        texts = captions_with_views(batch, blind & (rolls[1] < 0.85))
        texts = ["" if roll < self.options.no_text else text for roll, text in zip(rolls[2], texts, strict=True)]
        camera = embed_camera(batch["azimuth"], batch["elevation"]) * (~blind)[:, None]
        return texts, camera.to(self.device)

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """[B, 24, D] token states."""
        tower = self._text[0].to(self.device)
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        ).to(self.device)
        return tower(tokens.input_ids).last_hidden_state

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Eight prompts (rows) from eight azimuths, 25 DDIM steps at scale 4."""
        prompts: tuple[str, ...] = ("a standing corgi dog", "a castle on a hill", "a race car", "a blue chair")
        prompts += ("a purple mug", "a red airplane", "a yellow robot", "a green teapot")
        azimuth = (torch.arange(8) * torch.pi / 4).repeat(len(prompts))
        camera = embed_camera(azimuth, torch.full_like(azimuth, 0.26)).to(self.device)
        parts = {"vae": self._vae[0], "text_encoder": self._text[0], "tokenizer": self.tokenizer}
        parts |= {"unet": self.average.model, "scheduler": self.scheduler}
        prior = LatentPrior(None, self.context, parts).to(self.device)
        told = Condition(text=self.embed([p for p in prompts for _ in range(8)]), camera=camera)
        untold = Condition(text=self.embed([""] * len(azimuth)), camera=camera)
        rgb = ddim(prior, told, untold, scale=4.0, steps=25).view(len(prompts), 8, *(self.data.options.size,) * 2, 3)
        sheet = rgb.permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)
        return {"samples": (sheet * 255).byte().cpu().numpy()}

    def finish(self, run: Any) -> None:
        """Save ``unet/`` and ``scheduler/``."""
        folder = family_folder(self.options.family)
        save_half(self.average.model, folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")
        facts = {"parameters": sum(p.numel() for p in self.model.parameters())}
        record(self.options.family, "unet", facts | training_facts(run, self))
