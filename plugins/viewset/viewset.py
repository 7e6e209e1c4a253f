"""Generator ``viewset``: diffusion over sets of views of one object, through a volume that all of them are renders of.

Szymanowicz et al. 2023, "Viewset Diffusion: (0-)Image-Conditioned 3D Generative Models from 2D Data".
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, field_validator
from torch import nn

from core.errors import UserError
from core.generative.viewsets import ViewsetConfig, ViewsetGenerator
from plugins.viewset.network import NetworkConfig, ViewsetNetwork, check_nodes


class Viewset(ViewsetGenerator):
    """Views become one volume each, these one volume of density and colour: the geometry ``voxel``."""

    class Config(ViewsetConfig):
        noisy: list[int] = Field([1, 2], min_length=1)
        """How many noisy views stand beside the clean ones in training; each as often."""
        network: NetworkConfig = NetworkConfig()
        """The network."""

        @field_validator("noisy")
        @classmethod
        def _some(cls, value: list[int]) -> list[int]:
            if min(value) < 1:
                raise ValueError("expected numbers from 1 on: without noise nothing is denoised")
            return value

    filled = ("shape", "colour")

    def noisy_beside(self, clean: int, generator: torch.Generator | None = None) -> int:
        noisy: list[int] = self.options.noisy
        if generator is None:
            return max(noisy)
        return noisy[int(torch.randint(len(noisy), (), generator=generator))]

    def network(self, geometry: Any) -> nn.Module:
        o = self.options
        problem = check_nodes(o.network, geometry.options)
        if problem:
            raise UserError(problem)
        return ViewsetNetwork(o.network, geometry.options.cells + 1, self.context.bound)
