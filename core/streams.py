"""What a component is told when it is built and at every step, and the random streams that follow from it.

Part of the contracts: import these names from :mod:`core.contracts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from core.config.base import ComponentSpec


@dataclass
class Context:
    """What a component may know when it is built.

    Attributes:
        device: where its tensors live.
        seed: the run's seed; initial values come from ``generator()``, never from the global stream.
        build: builds another component from its spec (``context.build(options.prior)``).
        parts: what was built before, by kind: a renderer may look at ``parts["geometry"]``.
        bound: half the side of the scene's cube, in world units.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    build: Callable[[ComponentSpec], Any] | None = None
    parts: dict[str, Any] = field(default_factory=dict)
    bound: float = 1.0

    def generator(self, name: str = "") -> torch.Generator:
        """A CPU generator of its own for ``name``: adding a component does not change another's initial values."""
        return torch.Generator().manual_seed(stream_seed(self.seed, "init", name))


def stream_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on nothing else (not on Python's hash seed)."""
    words: list[int] = []
    for part in parts:
        words += [part & 0xFFFFFFFF, part >> 32 & 0xFFFFFFFF] if isinstance(part, int) else list(part.encode())
        words.append(0x9E3779B9)
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


@dataclass
class Step:
    """One step of the loop, as a task sees it.

    Attributes:
        index: 0-based step of this stage.  total: steps of this stage.
        seed: the run's seed.  stage: the stage's index.  micro: micro-batch index under gradient accumulation.
    """

    index: int
    total: int
    seed: int = 0
    stage: int = 0
    micro: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def generator(self, name: str) -> torch.Generator:
        """The random stream ``name`` of this very step; the same after a resume."""
        return torch.Generator().manual_seed(self.stream(name))

    def stream(self, name: str) -> int:
        """The seed of the random stream ``name`` of this very step."""
        return stream_seed(self.seed, self.stage, self.index, self.micro, name)

    def log(self, **values: float) -> None:
        """Report numbers beside the losses (shown in the status line and in ``metrics.jsonl``)."""
        self.metrics.update(values)
