"""The smoothness penalty of NVAE (Vahdat & Kautz 2020, section 3.2).

It is the largest singular value of every convolution and the largest scale of every batch norm. Singular values come by
power iteration, whose vectors go on from step to step and are part of the checkpoint.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plugins.lsgm.cells import Conv


class SpectralNorms(nn.Module):
    """``forward()`` is their sum over the networks given; convolutions of one shape are done at once.

    Args:
        network: whose layers are meant; it stays where it is and does not become part of this module.
    """

    def __init__(self, network: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        shapes: dict[tuple[int, ...], list[nn.Conv2d]] = defaultdict(list)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                shapes[tuple(layer.weight.flatten(1).shape)].append(layer)
        self._layers = tuple(shapes.values())
        self._scales = tuple(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
        for k, (rows, _) in enumerate(shapes):
            start = torch.randn(len(self._layers[k]), rows, 1, generator=generator)
            self.register_buffer(f"vectors_{k}", F.normalize(start, dim=1))

    def forward(self) -> Tensor:
        found = [self._largest(k).sum() for k in range(len(self._layers))]
        found += [m.weight.abs().max() for m in self._scales]
        return torch.stack(found).sum()

    def _largest(self, k: int) -> Tensor:
        """[n] largest singular values of the k-th shape's matrices, after one more iteration."""
        matrices = torch.stack([_filters(layer) for layer in self._layers[k]])
        left: Tensor = getattr(self, f"vectors_{k}")
        with torch.no_grad():
            right = F.normalize(matrices.transpose(1, 2) @ left, dim=1)
            left.copy_(F.normalize(matrices @ right, dim=1))
        return (left.clone().transpose(1, 2) @ matrices @ right).flatten()


def _filters(layer: nn.Conv2d) -> Tensor:
    """The matrix [out, in k k] that a convolution applies."""
    return (layer.effective if isinstance(layer, Conv) else layer.weight).flatten(1)
