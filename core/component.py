"""The base of every component, and of those that have parameters."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from core.config.base import Config
from core.streams import Context, Step

if TYPE_CHECKING:
    from core.optim import ScheduledOptimizer


class Component:
    """The base of every component: where its options are described."""

    Config: ClassVar[type[Config]] = Config

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]] | None:
        """``(needs, gives)`` where they depend on the options; None keeps what was registered."""
        return None


class Module(nn.Module, Component, ABC):
    """A component with parameters or buffers; its ``state_dict`` goes into the checkpoint."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__()
        self.options = options
        self.context = context

    def param_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser; ``lr_scale`` in a group multiplies the stage's learning rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def update(self, step: Step) -> None:
        """Called once before each step (grids, annealed levels); deterministic given the step's streams."""

    def adapt(self, step: Step, optimizer: ScheduledOptimizer) -> None:
        """Called once after each update: a set that grows or shrinks (splats) replaces its parameters here, through
        ``optimizer.resize``, so that the moments of the rows that stay are kept."""
