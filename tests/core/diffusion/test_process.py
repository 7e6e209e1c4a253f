"""The process against diffusers' DDPM and DDIM schedulers, in float64, and conversions against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from core.diffusion.process import DiffusionProcess
from core.errors import UserError

KINDS = ["epsilon", "v_prediction", "sample"]
T = torch.tensor([0, 1, 250, 640, 999])


def scheduler(kind: str, cls: Any = DDPMScheduler, **options: Any) -> Any:
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    return cls(**schedule, prediction_type=kind, **options)


def draws(*shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, *shape, generator=generator, dtype=dtype) for _ in range(3)]


def process_of(peer: Any) -> DiffusionProcess:
    return DiffusionProcess.from_scheduler(peer)


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("cls", [DDPMScheduler, DDIMScheduler])
def test_noise_is_added_as_diffusers_does(cls: Any) -> None:
    peer = scheduler("epsilon", cls)
    peer.alphas_cumprod = peer.alphas_cumprod.double()
    x0, noise, _ = draws(4, 3, 3)
    process = process_of(peer)
    assert process.steps == 1000 and process.alphas_cumprod.dtype == torch.float64
    close(process.add_noise(x0, noise, T), peer.add_noise(x0, noise, T))
    v = DiffusionProcess(peer.alphas_cumprod, "v_prediction")
    close(v.target(x0, noise, T), peer.get_velocity(x0, noise, T))


@pytest.mark.parametrize("kind", KINDS)
def test_estimates_agree_with_a_ddim_step(kind: str) -> None:
    """DDIMScheduler.step gives x0 as ``pred_original_sample``, and x_{t-1} = a' x0 + s' eps."""
    peer = scheduler(kind, DDIMScheduler, set_alpha_to_one=False)
    peer.alphas_cumprod = peer.alphas_cumprod.double()
    peer.final_alpha_cumprod = peer.alphas_cumprod[0]
    peer.set_timesteps(1000)
    process = process_of(peer)
    output, x_t, _ = draws(4, 3, 3)
    for row, t in enumerate(T.tolist()):
        time = torch.tensor([t])
        out, x = output[row : row + 1], x_t[row : row + 1]
        found = peer.step(out, t, x)
        x0, noise = process.to_x0(out, x, time), process.to_noise(out, x, time)
        close(x0, found.pred_original_sample)
        close(process.add_noise(x0, noise, (time - 1).clamp(min=0)), found.prev_sample)


def test_a_ddpm_scheduler_estimates_the_same_x0() -> None:
    peer = scheduler("v_prediction")
    peer.alphas_cumprod = peer.alphas_cumprod.double()
    process = process_of(peer)
    output, x_t, _ = draws(4, 3, 3)
    for row, t in enumerate(T.tolist()):
        step = peer.step(output[row : row + 1], t, x_t[row : row + 1], generator=torch.Generator().manual_seed(0))
        close(process.to_x0(output[row : row + 1], x_t[row : row + 1], torch.tensor([t])), step.pred_original_sample)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_converts_back_to_what_it_was_made_of(kind: Any) -> None:
    process = DiffusionProcess(scheduler(kind).alphas_cumprod, kind)
    x0, noise, _ = draws(4, 3, 3)
    x_t, target = process.add_noise(x0, noise, T), process.target(x0, noise, T)
    close(process.to_x0(target, x_t, T), x0, 1e-9)
    close(process.to_noise(target, x_t, T), noise, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_any_output_means_one_pair_of_x0_and_noise(kind: Any) -> None:
    """Whatever a network answers, a x0 + s eps is x_t again."""
    process = DiffusionProcess(scheduler(kind).alphas_cumprod, kind)
    output, x_t, _ = draws(4, 3, 3)
    x0, noise = process.to_x0(output, x_t, T), process.to_noise(output, x_t, T)
    close(process.add_noise(x0, noise, T), x_t, 1e-9)


def test_small_noise_keeps_its_digits_in_float32() -> None:
    """At t = 0, s is sqrt(0.00085): taken from a float64 difference it is exact to float32's last digits."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    process = DiffusionProcess(torch.cumprod(1 - betas, 0))
    a, s = process.scales(torch.tensor([0]), torch.zeros(1, 2))
    assert a.dtype == s.dtype == torch.float32
    assert float(s) == pytest.approx(0.00085**0.5, rel=1e-7)
    assert float(a) == pytest.approx(0.99915**0.5, rel=1e-7)


def test_one_timestep_per_image_or_per_view() -> None:
    process = process_of(scheduler("epsilon"))
    x0, noise, _ = draws(4, 3, 3)
    each = torch.cat([process.add_noise(x0[k : k + 1], noise[k : k + 1], T[k : k + 1]) for k in range(5)])
    close(process.add_noise(x0, noise, T), each)
    views, more, _ = draws(2, 4, 3, 3)  # [B, V, C, h, w] with t [B, V]
    times = torch.stack([T, T.flip(0)], 1)
    close(process.add_noise(views, more, times)[:, 1], process.add_noise(views[:, 1], more[:, 1], T.flip(0)))


def test_levels_are_shares_of_the_process() -> None:
    process = process_of(scheduler("epsilon"))
    found = process.timestep(torch.tensor([0.0, 0.0004, 0.001, 0.5, 0.98, 0.9999, 1.0]))
    assert found.dtype == torch.int64 and found.tolist() == [0, 0, 1, 500, 980, 999, 999]


def test_the_schedule_is_no_part_of_a_checkpoint_and_follows_its_module() -> None:
    process = process_of(scheduler("epsilon"))
    assert not process.state_dict()
    assert process.to("meta").alphas_cumprod.device.type == "meta"


def test_an_unknown_parametrisation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="'score' is not one of epsilon, v_prediction, sample, flow"):
        DiffusionProcess(torch.tensor([0.9, 0.5]), "score")  # type: ignore[arg-type]
