"""Loss ``perceptual``: how different a render and the data's picture look to a network.

LPIPS with VGG (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", eq. 1),
where the package ``lpips`` is installed. Without it the same distance on the patches of the embedded CLIP, with unit
weights in place of those that LPIPS has learned from people; a line in the log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context, Step
from core.types import Render

log = logging.getLogger("maquette")

Distance = Callable[[Tensor, Tensor], Tensor]


def perceptual(render: Render, step: Step) -> Tensor:
    """Mean distance over the pictures, at least 0."""
    rgb = render.rgb.float()
    return distance(rgb.device)(rgb, render.extras["target"].to(rgb))


@lru_cache(maxsize=2)
def distance(device: torch.device) -> Distance:
    """The best that is here, of two batches of pictures [B, H, W, 3] in [0, 1]."""
    if find_spec("lpips") is not None:
        return _lpips(device)
    log.warning("losses.perceptual: features of the embedded CLIP stand in for LPIPS; pip install lpips brings it")
    return _embedded(device)


def _lpips(device: torch.device) -> Distance:
    import lpips

    network = lpips.LPIPS(net="vgg", verbose=False).to(device).eval().requires_grad_(False)

    def compared(rgb: Tensor, target: Tensor) -> Tensor:
        found: Tensor = network(rgb.movedim(-1, 1), target.movedim(-1, 1), normalize=True)
        return found.mean()

    return compared


def _embedded(device: torch.device) -> Distance:
    from core.discovery import get_registry

    metric = get_registry().find("metric", "clip").load()
    clip = metric(metric.Config(), Context())
    clip.model.to(device).requires_grad_(False)

    def compared(rgb: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = clip.patch_features(target)
        return unit_distance(clip.patch_features(rgb), wanted)

    return compared


def unit_distance(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Mean over the layers of the squared distances of unit features [B, L, D], in [0, 4]."""
    pairs = zip(found, wanted, strict=True)
    apart = [(F.normalize(f, dim=-1) - F.normalize(w, dim=-1)).square().sum(-1).mean() for f, w in pairs]
    return torch.stack(apart).mean()
