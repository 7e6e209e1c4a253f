"""A perceptual loss: which network is asked, and that it sees what pixels do not."""

from __future__ import annotations

import importlib.machinery
import logging
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.contracts import Step
from core.testing import check_component
from core.types import Cameras, Render
from plugins.perceptual import perceptual as module
from plugins.perceptual.perceptual import perceptual, unit_distance


@pytest.fixture(autouse=True)
def _forget() -> Any:
    module.distance.cache_clear()
    yield
    module.distance.cache_clear()


def seen(rgb: Tensor, target: Tensor) -> Render:
    cameras = Cameras(torch.eye(4).expand(len(rgb), 4, 4), torch.ones(len(rgb)), 64, 64)
    return Render(rgb, torch.ones_like(rgb[..., :1]), cameras, extras={"target": target})


def half(left: float) -> Tensor:
    """[1, 64, 64, 3] with two halves."""
    picture = torch.full((1, 64, 64, 3), 0.5)
    picture[:, :, :32] = left
    return picture


def test_the_distance_is_that_of_unit_vectors() -> None:
    a, b = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 2.0]]])
    assert float(unit_distance([a, a], [b, a])) == pytest.approx((0.6**2 + 0.2**2) / 2)


def test_the_embedded_clip_stands_in_and_is_named(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Of two pictures as far from a target in squares, that with its structure is nearer."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING, "maquette"):
        check_component("loss", "perceptual")
    assert sum("embedded CLIP stand in for LPIPS" in r.message for r in caplog.records) == 1
    target = half(0.9)
    paler, flat = target - 0.2, target.clone()
    flat[:, :, :32], flat[:, :, 32:] = 0.7, 0.7
    assert torch.allclose((paler - target).square().mean(), (flat - target).square().mean())
    same, near, far = (float(perceptual(seen(x, target), Step(0, 1))) for x in (target, paler, flat))
    assert same < 1e-6 and same < near < far
    leaf = flat.clone().requires_grad_()
    perceptual(seen(leaf, target), Step(0, 1)).backward()
    assert leaf.grad is not None and float(leaf.grad.abs().max()) > 0


def test_lpips_is_asked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class LPIPS(nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert net == "vgg"

        def forward(self, a: Tensor, b: Tensor, normalize: bool = False) -> Tensor:
            assert normalize and a.shape == b.shape == (2, 3, 64, 64)  # from [0, 1]
            return (a - b).abs().mean((1, 2, 3), keepdim=True)

    fake: Any = ModuleType("lpips")
    fake.LPIPS, fake.__spec__ = LPIPS, importlib.machinery.ModuleSpec("lpips", None)
    monkeypatch.setitem(sys.modules, "lpips", fake)
    a, b = torch.cat([half(0.9), half(0.5)]), torch.cat([half(0.5), half(0.5)])
    assert float(perceptual(seen(a, b), Step(0, 1))) == pytest.approx(0.1)
