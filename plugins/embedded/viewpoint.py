"""Where a picture was taken from, as far as it tells: a small network on the autoencoder's latents.

It answers with expectations of the sine and cosine of the azimuth's first harmonics, so an object that looks alike from
two sides gets the mean of both, and a round one nothing. They are what the UNets hear of a viewpoint (`camera.py`), and
turn with the object: what is expected of another view is a rotation of what is expected of this one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts import Context, Step
from plugins.embedded.camera import HARMONICS, embed_camera
from plugins.embedded.card import training_facts
from plugins.embedded.classifier import Block
from plugins.embedded.family import Average, family_folder, part, record
from plugins.embedded.unet import EmbeddedUnet

_ANSWERS = 2 * len(HARMONICS) + 1


class Viewpoint(nn.Module):
    """[B, C, 16, 16] scaled latents to [B, 7]: sine and cosine of each harmonic of the azimuth, and the elevation."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.body = nn.Sequential(Block(width, width), Block(width, 2 * width))
        self.head = nn.Sequential(nn.Linear(2 * width * 16, 4 * width), nn.SiLU(), nn.Linear(4 * width, _ANSWERS))

    def forward(self, latents: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.body(F.silu(self.first(latents))), 4)
        out: Tensor = self.head(x.flatten(1)).float()
        return out

    def save(self, folder: Path) -> None:
        """``config.json`` and ``model.safetensors`` in float16."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config = {"channels": self.channels, "width": self.width}
        (folder / "config.json").write_text(json.dumps(config) + "\n")
        save_file({k: v.half().contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def load(cls, family: str = "built-in") -> Viewpoint:
        """The family's, in float32, in evaluation mode."""
        from safetensors.torch import load_file

        folder = part(family, "viewpoint", "embedded-viewpoint")
        model = cls(**json.loads((folder / "config.json").read_text()))
        model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        return model.eval().requires_grad_(False)


def turned(seen: Tensor, pose: Tensor) -> Tensor:
    """[B, 10] what the UNets hear of views that lie ``pose`` [B, 4] from pictures seen as ``seen`` [B, 7]."""
    turn = torch.atan2(pose[:, 1], pose[:, 2])
    harmonics = []
    for k, order in enumerate(HARMONICS):
        sine, cosine = seen[:, 2 * k], seen[:, 2 * k + 1]
        s, c = torch.sin(order * turn), torch.cos(order * turn)
        harmonics += [sine * c + cosine * s, cosine * c - sine * s]
    elevation = (seen[:, -1] - pose[:, 0]).clamp(-torch.pi / 2, torch.pi / 2)
    told = embed_camera(torch.zeros_like(elevation), elevation)
    return torch.cat([told[:, :1], torch.stack(harmonics, -1), told[:, 1 + len(harmonics) :]], -1)


class EmbeddedViewpoint(EmbeddedUnet):
    """Squared error of the harmonics and of the elevation, on the pool's latents."""

    class Config(EmbeddedUnet.Config):
        width: int = Field(64, ge=16, multiple_of=8)
        """Channels of the first layer."""
        average: float = Field(0.998, ge=0, lt=1)
        """Decay of the moving average of the weights that is saved."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.average = Average(self.model, options.average)

    def _build(self) -> Any:
        return Viewpoint(self._vae[0].config.latent_channels, self.options.width)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        batch = self.data.batch(step)
        latents = self.latents()[torch.from_numpy(batch["index"])].float().to(self.device)
        seen = self.model(latents)
        true = [f(k * batch["azimuth"]) for k in HARMONICS for f in (torch.sin, torch.cos)]
        truth = torch.stack([*true, batch["elevation"]], -1).to(seen)
        error = (seen - truth).square().mean(0)
        off = torch.atan2(seen[:, 0], seen[:, 1]) - torch.atan2(truth[:, 0], truth[:, 1])
        off = torch.atan2(off.sin(), off.cos()).abs().rad2deg()
        step.log(azimuth_error=float(off.detach().median()), elevation_error=float(error[-1].detach().sqrt().rad2deg()))
        return {"harmonics": error[:-1].mean(), "elevation": 4 * error[-1]}

    def preview(self, step: Step) -> dict[str, Any]:
        return {}

    def finish(self, run: Any) -> None:
        self.average.model.save(family_folder(self.options.family) / "viewpoint")
        facts = {"parameters": sum(p.numel() for p in self.model.parameters())}
        record(self.options.family, "viewpoint", facts | training_facts(run, self))
