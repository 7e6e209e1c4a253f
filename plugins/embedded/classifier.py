"""The judge: a small convolutional network that names category, colour and side of a picture.

Apart from the priors: pictures of its own (another seed of the pool), no text, no latents, trained on degraded ones
so that it also reads the soft renders of an optimised object.
"""

from __future__ import annotations

import json
import re
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Step, Task
from plugins.embedded.card import training_facts
from plugins.embedded.family import Average, family_folder, part, record

_WORDS = re.compile(r"[a-z0-9]+")
VIEWS = ("front view", "side view", "back view", "overhead view")


class Block(nn.Module):
    """Two convolutions, the first of which halves the picture."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride=2, padding=1)
        self.second = nn.Conv2d(outer, outer, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(8, outer), nn.GroupNorm(8, outer)])

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norms[0](self.first(x)))
        return x + F.silu(self.norms[1](self.second(x)))


class Classifier(nn.Module):
    """[B, 64, 64, 3] sRGB in [0, 1] to logits by name: ``category``, ``color``, ``view``."""

    def __init__(self, nouns: dict[str, list[str]], colors: list[str], width: int = 32) -> None:
        super().__init__()
        self.nouns, self.categories, self.colors, self.width = nouns, list(nouns), colors, width
        widths = [width, 2 * width, 3 * width, 4 * width]
        self.body = nn.Sequential(*(Block(a, b) for a, b in zip([3, *widths], widths, strict=False)))
        heads = {"category": len(nouns), "color": len(colors), "view": len(VIEWS)}
        self.heads = nn.ModuleDict({k: nn.Linear(widths[-1] * 4, n) for k, n in heads.items()})

    def forward(self, rgb: Tensor) -> dict[str, Tensor]:
        x = self.body(rgb.permute(0, 3, 1, 2) * 2 - 1)
        x = F.adaptive_avg_pool2d(x, 2).flatten(1)
        return {name: head(x).float() for name, head in self.heads.items()}

    def save(self, folder: Path) -> None:
        """``config.json`` and ``model.safetensors`` in float16."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config = {"nouns": self.nouns, "colors": self.colors, "width": self.width}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        save_file({k: v.half().contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")

    def expected(self, prompt: str) -> tuple[int | None, int | None]:
        """Indices of the category and the colour that a prompt names, None where it names none; longest noun first."""
        words = f" {' '.join(_WORDS.findall(prompt.lower()))} "
        found = [(len(n), k) for k, ns in enumerate(self.nouns.values()) for n in ns if f" {n} " in words]
        colors = [k for k, c in enumerate(self.colors) if c != "natural" and f" {c} " in words]
        return (max(found)[1] if found else None), (colors[0] if colors else None)

    @classmethod
    def load(cls, family: str = "built-in") -> Classifier:
        """The family's judge, in float32, in evaluation mode."""
        from safetensors.torch import load_file

        folder = part(family, "classifier", "embedded-classifier")
        model = cls(**json.loads((folder / "config.json").read_text()))
        model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        return model.eval()


def degrade(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Blur by groups of pictures, noise and brightness of each: what an optimised object looks like."""
    x = rgb.permute(0, 3, 1, 2)
    groups = []
    for group in x.split(max(1, len(x) // 8)):  # resized by group: a size of its own for each picture costs more
        size = int(torch.randint(12, 2 * x.shape[-1], (), generator=generator))
        if size < x.shape[-1]:
            group = F.interpolate(group, size=size, mode="bilinear", antialias=True)
            group = F.interpolate(group, size=x.shape[-1], mode="bilinear")
        groups.append(group)
    x = torch.cat(groups)
    spread = torch.rand(len(x), 1, 1, 1, generator=generator) * 0.06
    gain = 0.8 + 0.4 * torch.rand(len(x), 1, 1, 1, generator=generator)
    noise = torch.randn(x.shape, generator=generator) * spread
    return ((x - 0.5) * gain + 0.5 + noise).clamp(0, 1).permute(0, 2, 3, 1)


def repaint(rgb: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Exchange the channels of a ``share`` of the pictures: ``(pictures, whether each kept its colours)``.

    A kind and a side must be read whatever the colour, in pairs too that no picture shows; grey stays grey.
    """
    orders = torch.tensor(list(permutations(range(3))))
    roll = torch.rand(len(rgb), generator=generator)
    chosen = torch.where(roll < share, torch.randint(1, 6, (len(rgb),), generator=generator), 0)
    order = orders[chosen][:, None, None].expand_as(rgb)
    return rgb.gather(-1, order), chosen == 0


class EmbeddedClassifier(Task):
    """Cross-entropy of the three heads."""

    class Config(BaseConfig):
        data: Annotated[ComponentSpec, Slot("data")]
        """Labelled pictures; use another seed than the priors'."""
        family: str = "built-in"
        """Folder of the family that is filled, or `built-in`."""
        width: int = Field(32, ge=8, multiple_of=8)
        """Channels of the first stage."""
        repaint: float = Field(0.4, ge=0, lt=1)
        """Share of pictures whose channels are exchanged; these teach kind and side alone."""
        average: float = Field(0.998, ge=0, lt=1)
        """Decay of the moving average of the weights that is saved."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.data = context.build(options.data)  # type: ignore[misc]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.generator("classifier").initial_seed() % 2**32)
            self.model = Classifier(self.data.nouns, list(self.data.color_names), options.width)
        self.average = Average(self.model, options.average)

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters())}]

    def update(self, step: Step) -> None:
        if step.index:
            self.average.update(self.model)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        batch = self.data.batch(step)
        device = next(self.model.parameters()).device
        rgb, true = repaint(batch["rgb"], self.options.repaint, step.generator("repaint"))
        logits = self.model(degrade(rgb, step.generator("degrade")).to(device))
        labels = {k: batch[k].to(device) for k in ("category", "color")}
        labels["view"] = torch.tensor([VIEWS.index(w) for w in batch["view_word"]], device=device)
        counted = dict.fromkeys(labels, torch.ones(len(rgb), device=device)) | {"color": true.float().to(device)}
        losses: dict[str, Tensor] = {}
        for name, z in logits.items():
            share = counted[name] / counted[name].sum().clamp(min=1)
            right = (z.argmax(1) == labels[name]).float()
            step.log(**{f"{name}_accuracy": float((right * share).sum())})
            losses[name] = (F.cross_entropy(z, labels[name], reduction="none") * share).sum()
        return losses

    def finish(self, run: Any) -> None:
        self.average.model.save(family_folder(self.options.family) / "classifier")  # type: ignore[operator]
        facts = {"parameters": sum(p.numel() for p in self.model.parameters())}
        record(self.options.family, "classifier", facts | training_facts(run, self))
