"""What a picture shows, and from where: a small network on the autoencoder's latents.

Of the viewpoint it tells the expected sine and cosine of the azimuth's first harmonics, so an object that looks alike
from two sides gets the mean of both, and a round one nothing. They are what the UNets hear of a viewpoint
(`camera.py`), and turn with the object: what is expected of another view is a rotation of what is expected of this one.
Kind and colour are heads of their own, so that pairs are told apart that no training picture shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts import Context, Step
from plugins.embedded.camera import HARMONICS, embed_camera
from plugins.embedded.classifier import Block
from plugins.embedded.family import Average, family_folder, part
from plugins.embedded.latent_fit import LatentFit, LatentFitConfig


@dataclass
class Seen:
    """What a network makes of B pictures.

    Attributes:
        viewpoint: [B, 7] expected sine and cosine of each harmonic of the azimuth, and the elevation in radians.
        kind, color: [B, K], [B, L] logits.
    """

    viewpoint: Tensor
    kind: Tensor
    color: Tensor


class Sight(nn.Module):
    """[B, C, 16, 16] scaled latents to :class:`Seen`."""

    def __init__(self, channels: int, nouns: dict[str, str], colors: list[str], width: int = 64) -> None:
        super().__init__()
        self.channels, self.nouns, self.colors, self.width = channels, nouns, colors, width
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.body = nn.Sequential(Block(width, width), Block(width, 2 * width))
        self.middle = nn.Sequential(nn.Linear(2 * width * 16, 4 * width), nn.SiLU())
        sizes = {"viewpoint": 2 * len(HARMONICS) + 1, "kind": len(nouns), "color": len(colors)}
        self.heads = nn.ModuleDict({name: nn.Linear(4 * width, size) for name, size in sizes.items()})

    def forward(self, latents: Tensor) -> Seen:
        x = F.adaptive_avg_pool2d(self.body(F.silu(self.first(latents))), 4)
        x = self.middle(x.flatten(1))
        return Seen(**{name: head(x).float() for name, head in self.heads.items()})

    def caption(self, seen: Seen, row: int = 0) -> str:
        """The sentence of a picture: its colour and its kind."""
        color = self.colors[int(seen.color[row].argmax())]
        noun = list(self.nouns.values())[int(seen.kind[row].argmax())]
        words = noun if color == "natural" else f"{color} {noun}"
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

    def save(self, folder: Path) -> None:
        """``config.json`` and ``model.safetensors`` in float16."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {k: getattr(self, k) for k in ("channels", "nouns", "colors", "width")}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        save_file({k: v.half().contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def load(cls, family: str = "built-in") -> Sight:
        """The family's, in float32, in evaluation mode."""
        folder = part(family, "sight", "embedded-sight")
        model = cls(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        return model.eval().requires_grad_(False)


def turned(viewpoint: Tensor, pose: Tensor) -> Tensor:
    """[B, 10] what the UNets hear of views that lie ``pose`` [B, 4] from pictures with that ``viewpoint`` [B, 7]."""
    turn = torch.atan2(pose[:, 1], pose[:, 2])
    harmonics = []
    for k, order in enumerate(HARMONICS):
        sine, cosine = viewpoint[:, 2 * k], viewpoint[:, 2 * k + 1]
        s, c = torch.sin(order * turn), torch.cos(order * turn)
        harmonics += [sine * c + cosine * s, cosine * c - sine * s]
    elevation = (viewpoint[:, -1] - pose[:, 0]).clamp(-torch.pi / 2, torch.pi / 2)
    told = embed_camera(torch.zeros_like(elevation), elevation)
    return torch.cat([told[:, :1], torch.stack(harmonics, -1), told[:, 1 + len(harmonics) :]], -1)


class EmbeddedSight(LatentFit):
    """Squared error of the viewpoint, cross-entropy of kind and colour, on the latents of the pool and of a copy of it
    whose channels are exchanged (which says nothing of colours)."""

    class Config(LatentFitConfig):
        width: int = Field(64, ge=16, multiple_of=8)
        """Channels of the first layer."""
        repaint: float = Field(0.5, ge=0, lt=1)
        """Share of pictures whose channels are exchanged."""
        average: float = Field(0.998, ge=0, lt=1)
        """Decay of the moving average of the weights that is saved."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        nouns = {kind: words[0] for kind, words in self.data.nouns.items()}
        channels, colors = self._vae[0].config.latent_channels, list(self.data.color_names)
        self.start(lambda: Sight(channels, nouns, colors, options.width), "sight")
        self.average = Average(self.model, options.average)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        batch = self.data.batch(step)
        index = torch.from_numpy(batch["index"])
        painted = torch.rand(len(index), generator=step.generator("repaint")) < self.options.repaint
        latents = torch.where(painted[:, None, None, None], self.repainted()[index], self.latents()[index])
        x = latents.float().to(self.device)
        # Pictures that people give are not as clean as the pool's.
        x = x + 0.15 * torch.randn(x.shape, generator=step.generator("noise")).to(x)
        seen = self.model(x)
        true = [f(k * batch["azimuth"]) for k in HARMONICS for f in (torch.sin, torch.cos)]
        truth = torch.stack([*true, batch["elevation"]], -1).to(x)
        error = (seen.viewpoint - truth).square().mean(0)
        counted = (~painted).to(x)
        color = F.cross_entropy(seen.color, batch["color"].to(self.device), reduction="none")
        step.log(kind=float((seen.kind.argmax(1).cpu() == batch["category"]).float().mean()))
        return {
            "harmonics": error[:-1].mean(),
            "elevation": 4 * error[-1],
            "kind": 0.3 * F.cross_entropy(seen.kind, batch["category"].to(self.device)),
            "color": 0.3 * (color * counted).sum() / counted.sum().clamp(min=1),
        }

    def finish(self, run: Any) -> None:
        self.average.model.save(family_folder(self.options.family) / "sight")
        self.remember("sight", run)
