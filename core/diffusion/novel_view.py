"""A viewpoint-conditioned prior from a folder in diffusers' formats: one picture and a relative camera to another view.

Zero-1-to-3 (Liu et al. 2023). The given picture enters twice: its latent (the autoencoder's mode, unscaled) is
concatenated with the noisy one, and its CLIP embedding with the relative camera makes, through one linear layer, the
only token of cross-attention. The other end of classifier-free guidance has zeros for both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts import Context
from core.diffusion.latent import LatentSpace
from core.diffusion.relative_pose import PoseMode, relative_pose
from core.types import Cameras, Condition, Views

POSE_DIM = 4
_FILE = "diffusion_pytorch_model.safetensors"


class CameraProjection(nn.Module):
    """``cc_projection``: [B, D] embeddings and [B, 4] relative cameras to [B, D]; the identity on D at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width + POSE_DIM, width)
        with torch.no_grad():
            nn.init.eye_(self.projection.weight)
            self.projection.bias.zero_()

    @classmethod
    def from_pretrained(cls, folder: Path) -> CameraProjection:
        """From ``diffusion_pytorch_model.safetensors``; published folders name the layer ``projection`` or ``proj``."""
        state = load_file(folder / _FILE)
        ends = {key.rpartition(".")[2]: value.float() for key, value in state.items()}
        made = cls(len(ends["bias"]))
        made.projection.load_state_dict(ends)
        return made

    def save_pretrained(self, folder: Path) -> None:
        """As a folder of diffusers: ``config.json`` and the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().contiguous() for k, v in self.state_dict().items()}, folder / _FILE)
        layer = self.projection
        config = {"_class_name": "CCProjection", "in_channel": layer.in_features, "out_channel": layer.out_features}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def forward(self, embedding: Tensor, pose: Tensor) -> Tensor:
        return self.projection(torch.cat([embedding, pose], -1))


class NovelViewPrior(LatentSpace):
    """Told a picture of the object and, for each view, where it lies relative to that picture.

    Args:
        parts: ``vae``, ``unet`` (twice the latents' channels in), ``scheduler``, ``image_encoder`` (CLIP's vision
            tower with projection), ``cc_projection``, and ``feature_extractor``: ``size`` in pixels, and
            ``mean`` and ``std`` [3] of what the tower sees.
        pose_mode: what the fourth number of the relative camera is.
        background: the grey level that given pictures are laid over, as in the model's training.
    """

    looks = True

    def __init__(
        self, options: Any, context: Context, parts: dict[str, Any], image_size: int | None = None,
        dtype: torch.dtype = torch.float32, pose_mode: PoseMode = "relative-radius", background: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(options, context, parts, image_size, dtype)
        self.image_encoder = parts["image_encoder"].float().eval().requires_grad_(False)
        self.cc_projection = parts["cc_projection"].float().eval().requires_grad_(False)
        self.feature_extractor: dict[str, Any] = parts["feature_extractor"]
        self.pose_mode: PoseMode = pose_mode
        self.background = background
        self._seen: tuple[Views, Tensor, Tensor] | None = None

    @torch.no_grad()
    def embed_image(self, rgb: Tensor) -> Tensor:
        """[B, H, W, 3] in [0, 1] to CLIP's projected embeddings [B, D]."""
        f, image = self.feature_extractor, rgb.permute(0, 3, 1, 2)
        if image.shape[-2:] != (f["size"], f["size"]):
            image = F.interpolate(image, size=(f["size"],) * 2, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = image.new_tensor(f["mean"]).view(3, 1, 1), image.new_tensor(f["std"]).view(3, 1, 1)
        return self.image_encoder(pixel_values=(image - mean) / std).image_embeds

    @torch.no_grad()
    def look(self, views: Views) -> tuple[Tensor, Tensor]:
        """CLIP embeddings [V, D] and unscaled latents [V, C, h, w] of given pictures; each set is encoded once."""
        if self._seen is None or self._seen[0] is not views:
            rgb = views.over(self.background).to(self.device)
            self._seen = views, self.embed_image(rgb), self.mode(rgb)
        return self._seen[1:]

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return next(self.unet.parameters()).device

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        """``texts`` only give the number of rows; without ``views`` (or cameras) nothing is told."""
        count = len(texts)
        if views is None or cameras is None:
            return self._nothing(count)
        embedding, latent = self.look(views)
        nearest = views.nearest(cameras)
        pose = relative_pose(views.cameras.to(self.device)[nearest], cameras.to(self.device), self.pose_mode)
        token = self.cc_projection(embedding[nearest], pose)
        return Condition(text=token[:, None], image=latent[nearest], camera=self.viewpoint(latent[nearest], pose))

    def viewpoint(self, latent: Tensor | None, pose: Tensor | None, count: int = 0) -> Tensor | None:
        """What the UNet hears beside the timestep of given pictures [B, C, h, w] and poses [B, 4] (None: of ``count``
        views of which nothing is told); nothing in the published models."""
        return None

    def _nothing(self, count: int) -> Condition:
        width = self.cc_projection.projection.out_features
        config = self.unet.config
        channels, size = int(config.out_channels), int(config.sample_size)
        return Condition(
            text=torch.zeros(count, 1, width, device=self.device),
            image=torch.zeros(count, channels, size, size, device=self.device),
            camera=self.viewpoint(None, None, count),
        )
