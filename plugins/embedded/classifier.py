"""The judge: a small convolutional network that names category, colour and side of a picture.

Apart from the priors: pictures of its own (another seed of the pool), no text, no latents, trained on degraded ones
so that it also reads the soft renders of an optimised object.
"""

from __future__ import annotations

import json
import re
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


class _Block(nn.Module):
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
        self.body = nn.Sequential(*(_Block(a, b) for a, b in zip([3, *widths], widths, strict=False)))
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
    """Blur, noise and brightness, each at random per batch: what an optimised object looks like."""
    x = rgb.permute(0, 3, 1, 2)
    if torch.rand((), generator=generator) < 0.5:
        size = int(torch.randint(24, 56, (), generator=generator))
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
        x = F.interpolate(x, size=rgb.shape[1], mode="bilinear")
    noise = torch.randn(x.shape, generator=generator) * (torch.rand((), generator=generator) * 0.06)
    gain = 0.8 + 0.4 * torch.rand(x.shape[0], 1, 1, 1, generator=generator)
    return ((x - 0.5) * gain + 0.5 + noise).clamp(0, 1).permute(0, 2, 3, 1)


class EmbeddedClassifier(Task):
    """Cross-entropy of the three heads."""

    class Config(BaseConfig):
        data: Annotated[ComponentSpec, Slot("data")]
        """Labelled pictures; use another seed than the priors'."""
        family: str = "built-in"
        """Folder of the family that is filled, or `built-in`."""
        width: int = Field(32, ge=8, multiple_of=8)
        """Channels of the first stage."""
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
        logits = self.model(degrade(batch["rgb"], step.generator("degrade")).to(device))
        labels = {k: batch[k].to(device) for k in ("category", "color")}
        labels["view"] = torch.tensor([VIEWS.index(w) for w in batch["view_word"]], device=device)
        step.log(**{f"{k}_accuracy": float((z.argmax(1) == labels[k]).float().mean()) for k, z in logits.items()})
        return {k: F.cross_entropy(z, labels[k]) for k, z in logits.items()}

    def finish(self, run: Any) -> None:
        self.average.model.save(family_folder(self.options.family) / "classifier")  # type: ignore[operator]
        facts = {"parameters": sum(p.numel() for p in self.model.parameters())}
        record(self.options.family, "classifier", facts | training_facts(run, self))
