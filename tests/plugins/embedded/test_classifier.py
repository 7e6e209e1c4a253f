"""What the judge is trained on: degraded and repainted pictures."""

from __future__ import annotations

import torch

from plugins.embedded.classifier import degrade, repaint


def test_repainting_exchanges_channels_and_tells_which() -> None:
    rgb = torch.rand(64, 4, 4, 3, generator=torch.Generator().manual_seed(1))
    painted, kept = repaint(rgb, 0.5, torch.Generator().manual_seed(2))
    assert 16 < int(kept.sum()) < 48
    assert torch.equal(painted[kept], rgb[kept])
    assert not any(torch.equal(a, b) for a, b in zip(painted[~kept], rgb[~kept], strict=True))
    assert torch.equal(painted.sort(-1).values, rgb.sort(-1).values)
    assert repaint(rgb, 0.0, torch.Generator())[1].all()


def test_degraded_pictures_keep_their_place_and_range() -> None:
    rgb = torch.full((16, 32, 32, 3), 0.5)
    rgb[:, 8:24, 8:24, 0] = 1.0
    worse = degrade(rgb, torch.Generator().manual_seed(3))
    assert worse.shape == rgb.shape and worse.min() >= 0 and worse.max() <= 1
    inside, outside = worse[:, 12:20, 12:20, 0].mean((1, 2)), worse[:, :4, :4, 0].mean((1, 2))
    assert ((inside - outside) > 0.2).all()
    assert not torch.equal(worse[0], worse[8])
