"""The way from noise to a grid, and the smoothing of what comes out."""

import pytest
import torch

from core.diffusion.process import DiffusionProcess
from core.types import Mesh
from plugins.mesh_diffusion.mesh_diffusion import _smoothed
from plugins.mesh_diffusion.sampling import stochastic_walk

PROCESS = DiffusionProcess(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0), "sample")


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_noise_of_each_time_is_kept(eta: float) -> None:
    """Where all data are zero, what is left at a time is its noise, however much of it was drawn anew."""
    mask = torch.ones(16, 16, 16)
    mask[0] = 0
    start = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(0)) * mask
    times = [torch.tensor([t]) for t in (999, 700, 500, 300)]
    x = stochastic_walk(PROCESS, lambda x, t: x * 0, start, times, eta, torch.Generator().manual_seed(1), mask)
    _, s = PROCESS.scales(times[-1], x)
    assert float(x[:, :, 1:].std() / s) == pytest.approx(1.0, abs=0.03)
    assert not x[:, :, 0].any()
    alike = torch.nn.functional.cosine_similarity(x.flatten(), start.flatten(), 0)
    assert (float(alike) > 0.999) == (eta == 0)


def test_smoothing_evens_out_a_bump_and_keeps_the_faces() -> None:
    side = torch.linspace(0, 1, 6)
    x, y = torch.meshgrid(side, side, indexing="ij")
    z = torch.zeros(6, 6)
    z[3, 3] = 0.3
    at = torch.arange(36).reshape(6, 6)
    a, b, c, d = at[:-1, :-1].flatten(), at[1:, :-1].flatten(), at[1:, 1:].flatten(), at[:-1, 1:].flatten()
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
    mesh = Mesh(torch.stack([x, y, z], -1).reshape(-1, 3), faces)
    made = _smoothed(mesh, 4)
    assert torch.equal(made.faces, faces)
    assert float(made.vertices[:, 2].abs().max()) < 0.2
