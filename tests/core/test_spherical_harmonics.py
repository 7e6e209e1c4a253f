"""Harmonics against SciPy's and against their own orthonormality; clamping that lets gradients back in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special

from core.spherical_harmonics import Y0, bounded, harmonics, sh_colors


def directions(count: int = 50) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=g, dtype=torch.float64), dim=-1)


def real_harmonic(degree: int, order: int, at: torch.Tensor) -> np.ndarray:
    """From SciPy's complex ones, with the Condon-Shortley phase kept (as Sloan and Kerbl et al. have it)."""
    x, y, z = at.numpy().T
    theta, phi = np.arccos(z), np.arctan2(y, x)
    if hasattr(special, "sph_harm_y"):
        found = special.sph_harm_y(degree, abs(order), theta, phi)
    else:
        found = special.sph_harm(abs(order), degree, phi, theta)
    if order == 0:
        return np.asarray(found.real)
    return np.asarray(math.sqrt(2) * (found.real if order > 0 else found.imag))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_basis_is_scipys(degree: int) -> None:
    at = directions()
    wanted = [real_harmonic(n, m, at) for n in range(degree + 1) for m in range(-n, n + 1)]
    np.testing.assert_allclose(harmonics(at, degree).numpy(), np.stack(wanted, -1), atol=1e-12)


def test_degrees_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 3, not 4"):
        harmonics(directions(), 4)


def test_colours_are_half_plus_the_harmonics_and_not_negative() -> None:
    at = directions(20)
    sh = torch.randn(20, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = sh_colors(sh, at.expand(4, -1, -1))
    wanted = (0.5 + torch.einsum("nk,nkc->nc", harmonics(at, 2), sh)).clamp(min=0)
    torch.testing.assert_close(found, wanted.expand(4, -1, -1))
    assert bool((found == 0).any())
    flat = sh_colors((torch.tensor([[[0.9, 0.2, 0.5]]]) - 0.5) / Y0, torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(flat, torch.tensor([[0.9, 0.2, 0.5]]))


def test_a_clamped_value_keeps_the_gradient_that_leads_back() -> None:
    for start, push, moves in [(1.5, 1.0, True), (1.5, -1.0, False), (-0.5, -1.0, True), (-0.5, 1.0, False), (0.5, 1.0, True)]:
        value = torch.tensor(start, requires_grad=True)
        (bounded(value, 0.0, 1.0) * push).backward()
        assert value.grad is not None and float(value.grad) == (push if moves else 0.0)
