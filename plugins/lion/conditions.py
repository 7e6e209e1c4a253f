"""What the priors are told of an object: nothing, its class, or its embedding by CLIP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.asked import Asked
from core.contracts import Context
from core.errors import UserError
from core.generative.drawing import class_of

_BEHIND = 0.5
"""Grey behind the object in the pictures that the embedded CLIP knows."""


class Conditions:
    """Rows [B, C] that the priors are told; zeros are an object of which nothing is said.

    Args:
        kind: `none`, `class` or `clip`.  names: the data's classes.  family: whose CLIP.
    """

    def __init__(self, kind: str, names: Sequence[str], family: str) -> None:
        self.kind, self.names, self.family = kind, tuple(names), family
        self._clip: Any = None

    @property
    def clip(self) -> Any:
        """The embedded CLIP, by the public metric of that name; loaded at the first call."""
        if self._clip is None:
            from core.discovery import get_registry

            metric = get_registry().find("metric", "clip").load()
            self._clip = metric(metric.Config(family=self.family), Context())
        return self._clip

    @property
    def width(self) -> int:
        """C; 0 where nothing is told."""
        if self.kind == "clip":
            return int(self.clip.model.config.projection_dim)
        return len(self.names) if self.kind == "class" else 0

    def classes(self, labels: Tensor) -> Tensor:
        """[B, C] of classes [B]."""
        return torch.nn.functional.one_hot(labels, len(self.names)).float()

    def embedded(self, unit: Tensor) -> Tensor:
        """Unit vectors [B, C] at the scale of N(0, I)."""
        return unit * math.sqrt(unit.shape[1])

    def of_batch(self, batch: dict[str, Any], random: torch.Generator) -> Tensor | None:
        """Of a batch of data; where it has pictures, CLIP looks at every other one in place of the caption."""
        if self.kind == "class":
            return self.classes(batch["label"])
        if self.kind == "none":
            return None
        told = self.clip.text(batch["caption"])
        if "rgb" in batch:
            seen = torch.rand(len(told), 1, generator=random) < 0.5
            told = torch.where(seen, self.clip.embed_pictures(batch["rgb"]), told)
        return self.embedded(told)

    def of_asked(self, asked: Asked | None, count: int, random: torch.Generator) -> Tensor | None:
        """[count, C] of what was asked for; of nothing, classes are drawn evenly and CLIP says nothing.

        Raises:
            UserError: a class that is not known, or something that the priors cannot be told.
        """
        prompt, views = ("", None) if asked is None else (asked.prompt, asked.views)
        if views is not None and self.kind != "clip":
            raise UserError("lion: this run's priors know no pictures; fit one with condition=clip to be shown one")
        if self.kind == "none":
            if prompt:
                raise UserError(f"lion: this run's priors are told nothing, so they cannot be asked for '{prompt}'")
            return None
        if self.kind == "class":
            wanted = class_of(prompt, self.names, "lion")
            labels = torch.full((count,), wanted or 0)
            if wanted is None:
                labels = torch.arange(count) % len(self.names)
            return self.classes(labels)
        if views is not None:
            return self.embedded(self.clip.embed_pictures(views.over(_BEHIND)[:1])).expand(count, -1)
        if not prompt:
            return torch.zeros(count, self.width)
        self._check(prompt)
        return self.embedded(self.clip.text([prompt])).expand(count, -1)

    def _check(self, prompt: str) -> None:
        """Refuse kinds of object that the run was not fitted to; words that name no kind are CLIP's affair."""
        category, _ = self.clip.known.expected(prompt)
        known = list(self.clip.known.nouns)
        if category is not None and self.names and known[category] not in self.names:
            raise UserError(
                f"lion: '{prompt}' names a {known[category]}; this run was fitted to: {', '.join(self.names)}"
            )
