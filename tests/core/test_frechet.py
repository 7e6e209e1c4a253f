"""The Fréchet distance against its closed form."""

from __future__ import annotations

import pytest
import torch

from core.frechet import frechet


def test_of_two_gaussians_it_is_the_closed_form() -> None:
    """|m - n|^2 + tr(A + B - 2 (A B)^(1/2)), which for axis-aligned covariances is a sum of (a - b)^2."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0))[0] * 59**0.5  # mean 0 and covariance 1, exactly
    a, b = torch.tensor([1.0, 2.0, 0.5, 3.0]), torch.tensor([2.0, 1.0, 0.5, 1.0])
    y = torch.roll(x, 7, 0) * b + torch.tensor([0.0, 0.0, 1.0, 0.0])
    assert frechet(x * a, y) == pytest.approx(1 + 1 + 0 + 4 + 1, rel=1e-9)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
