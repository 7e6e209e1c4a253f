"""What the family's fits on latents share: the encoded pool, kept on disk; the UNet, its average and its start."""

from __future__ import annotations

import hashlib
import logging
import os
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Step, Task
from core.diffusion.process import DiffusionProcess
from core.errors import UserError
from plugins.embedded.camera import CAMERA_DIM
from plugins.embedded.card import training_facts
from plugins.embedded.classifier import repaint
from plugins.embedded.family import Average, part, record
from plugins.embedded.tokenizer import MAX_LENGTH

log = logging.getLogger("maquette")

WEIGHTS = "diffusion_pytorch_model.safetensors"


class LatentFitConfig(BaseConfig):
    """What every fit on latents is told."""

    data: Annotated[ComponentSpec, Slot("data")]
    """Captioned pictures with known cameras."""
    family: str = "built-in"
    """Folder of the family: the parts it stands on are read, the part that is fitted is written."""
    average: float = Field(0.9995, ge=0, lt=1)
    """Decay of the moving average of the weights that is saved."""


class LatentFit(Task):
    """A network (``model``) fitted on the latents of a pool, and its moving average."""

    model: Any
    average: Average

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        from diffusers import AutoencoderKL

        self.data = context.build(options.data)  # type: ignore[misc]
        # Frozen, and kept out of the checkpoint: it is a file already.
        self._vae = [AutoencoderKL.from_pretrained(part(options.family, "vae", "embedded-autoencoder")).float().eval()]
        self._kept: dict[str, Tensor] = {}

    def start(self, build: Callable[[], Any], seed: str) -> None:
        """Build ``model`` from its own random stream, whatever was drawn before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.context.generator(seed).initial_seed() % 2**32)
            self.model = build()

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters())}]

    def update(self, step: Step) -> None:
        if step.index:
            self.average.update(self.model)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.model.parameters()).device

    def latents(self) -> Tensor:
        """[N, C, h, w] float16 latents of the whole pool, scaled to unit variance."""
        return self.kept("latents", self._vae_weights, lambda: self.encode(self.data.pool["rgb"]))

    @property
    def _vae_weights(self) -> Path:
        return part(self.options.family, "vae", "embedded-autoencoder") / WEIGHTS

    def kept(self, what: str, made_with: Path, make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` says of the whole pool; made once and kept on disk, in another file for other weights."""
        if what not in self._kept:
            key = hashlib.sha256(made_with.read_bytes()).hexdigest()[:12]
            path = self.data.folder / f"{what}-{key}-{len(self.data.pool['rgb'])}.safetensors"
            if not path.exists():
                log.info("making the %s of %d pictures", what, len(self.data.pool["rgb"]))
                partial = path.with_suffix(f".{os.getpid()}.tmp")
                # Within a step's autocast the pool would be half as exact, and half floats cannot be joined there.
                with torch.autocast(self.device.type, enabled=False):
                    save_file({what: make()}, partial)
                partial.replace(path)
            (self._kept[what],) = load_file(path).values()
        return self._kept[what]

    def repainted(self, views: int = 1) -> Tensor:
        """[N, C, h, w] float16 latents of the pool with exchanged channels, alike in ``views`` pictures in a row."""
        name = "repainted" if views == 1 else f"repainted-{views}"
        return self.kept(name, self._vae_weights, lambda: self._repaint(views))

    def _repaint(self, views: int) -> Tensor:
        order = torch.Generator().manual_seed(5)
        rgb = torch.from_numpy(self.data.pool["rgb"])
        sets = rgb.view(-1, views * rgb.shape[1], *rgb.shape[2:])
        done = torch.cat([repaint(part, 1.0, order)[0] for part in sets.split(1024)])
        return self.encode(done.view_as(rgb).numpy())

    @torch.no_grad()
    def encode(self, pool: Any) -> Tensor:
        """[N, C, h, w] float16 of pictures [N, S, S, 3] uint8."""
        vae = self._vae[0].to(self.device)
        side = self.data.options.size // 2 ** (len(vae.config.block_out_channels) - 1)
        out = torch.empty(len(pool), vae.config.latent_channels, side, side, dtype=torch.float16)
        for k in range(0, len(pool), 256):
            rgb = torch.from_numpy(pool[k : k + 256]).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            out[k : k + 256] = vae.encode(rgb).latent_dist.mode() * vae.config.scaling_factor
        return out

    def remember(self, name: str, run: Any) -> None:
        """Note the part's size and its training for the model card."""
        facts = {"parameters": sum(p.numel() for p in self.model.parameters())}
        record(self.options.family, name, facts | training_facts(run, self))


class UnetFitConfig(LatentFitConfig):
    """What every fit of a UNet is told."""

    start: str | None = None
    """Family whose UNet the training goes on from (`built-in`, or a folder); none starts from random weights."""
    channels: tuple[int, ...] = (64, 128, 128)
    """Width at each resolution of the latents, the finest first; text enters at all but the first and the last."""
    layers: int = Field(1, ge=1)
    """Residual blocks at each resolution."""


class UnetFit(LatentFit):
    """A UNet under the family's frozen text tower, v-prediction (Salimans & Ho 2022)."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        from diffusers import DDIMScheduler
        from transformers import CLIPTextModel, CLIPTokenizer

        family = options.family
        self.tokenizer = CLIPTokenizer.from_pretrained(part(family, "tokenizer", "embedded-clip"))
        self._text = [CLIPTextModel.from_pretrained(part(family, "text_encoder", "embedded-clip")).float().eval()]
        self.scheduler: Any = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
            clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        )  # fmt: skip
        self.process = DiffusionProcess.from_scheduler(self.scheduler)
        self.start(self.build_model, "unet")
        if options.start is not None:
            self.go_on_from(options.start)
        self.average = Average(self.model, options.average)

    def build_model(self) -> Any:
        """The network with random weights; a subclass may wrap the UNet."""
        return self.build_unet()

    def build_unet(self) -> Any:
        """A UNet2DConditionModel told text and a viewpoint."""
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

    @abstractmethod
    def go_on_from(self, family: str) -> None:
        """Take over another family's weights.

        Raises:
            UserError: its UNet has another shape.
        """

    def take_over(self, unet: Any, state: dict[str, Tensor], family: str) -> None:
        """Load ``state`` into ``unet``.

        Raises:
            UserError: naming the family, where the shapes differ.
        """
        try:
            unet.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"start: the UNet of family '{family}' has another shape than this one: {reason}") from None

    @staticmethod
    def stored(folder: Path) -> dict[str, Tensor]:
        """A saved UNet's weights in float32."""
        return {k: v.float() for k, v in load_file(folder / WEIGHTS).items()}

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """[B, 24, D] token states."""
        tower = self._text[0].to(self.device)
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        ).to(self.device)
        return tower(tokens.input_ids).last_hidden_state
