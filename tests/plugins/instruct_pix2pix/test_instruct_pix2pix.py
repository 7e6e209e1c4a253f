"""InstructPix2Pix against diffusers' own pipeline of the same folder, and as the dataset update asks it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.config.loading import load_job
from core.contracts import Context, Step
from core.diffusion.guidance import predict_parts, predict_with_guidance
from core.diffusion.sampler import ddim_latents
from core.discovery import get_registry
from core.stages import build_task
from core.testing import check_component, reference
from core.types import Render
from plugins.instruct_pix2pix.prior import InstructPix2Pix

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_priors import autoencoder, clip_tokenizer, clip_tower, trailing, unet  # noqa: E402

PROMPT, UNWANTED, STEPS, SIDE = "a red ball", "a blue cube", 4, 16


def rendered(rgb: Tensor) -> Render:
    return Render(rgb, torch.ones_like(rgb[..., :1]), reference.cameras(SIDE, len(rgb)))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from diffusers import StableDiffusionInstructPix2PixPipeline

    root = tmp_path_factory.mktemp("ip2p")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = clip_tokenizer(root / "words")
        pipeline = StableDiffusionInstructPix2PixPipeline(
            vae=autoencoder(), text_encoder=clip_tower(tokenizer), tokenizer=tokenizer, unet=unet(in_channels=8),
            scheduler=trailing("epsilon"), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(root / "model")
    rgb = torch.rand(1, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(1))
    options = {"model": str(root / "model"), "text_cache": False}
    return SimpleNamespace(pipeline=pipeline, options=options, render=rendered(rgb))


def asked(case: Any, image_scale: float) -> Any:
    prior = InstructPix2Pix(InstructPix2Pix.Config(**case.options, image_scale=image_scale), Context())
    told = prior.condition([PROMPT], case.render.cameras, render=case.render)
    untold = prior.opposite(told, [UNWANTED], case.render.cameras)
    return prior, told, untold, prior.away(told, untold)


@pytest.mark.parametrize(("scale", "image_scale"), [(7.5, 1.5), (2.0, 1.0), (3.0, 2.5)])
def test_three_way_guidance_and_a_whole_sample_equal_the_pipeline_s(case: Any, scale: float, image_scale: float) -> None:
    prior, told, untold, away = asked(case, image_scale)
    start = torch.randn(1, 4, SIDE // 2, SIDE // 2, generator=torch.Generator().manual_seed(3))
    given, step = [], case.pipeline.scheduler.step

    def noted(output: Any, t: Any, sample: Any, **more: Any) -> Any:
        given.append((output, t, sample))
        return step(output, t, sample, **more)

    case.pipeline.scheduler.step = noted
    wanted = case.pipeline(
        PROMPT, case.render.rgb.permute(0, 3, 1, 2), STEPS, scale, image_scale, negative_prompt=UNWANTED, latents=start,
        output_type="latent",
    ).images  # fmt: skip
    case.pipeline.scheduler.step = step
    assert len(given) == STEPS
    for output, t, noisy in given:
        with torch.no_grad():
            found = predict_with_guidance(prior, noisy, t.expand(1), told, untold, scale, away)
        torch.testing.assert_close(found, output, rtol=1e-4, atol=1e-4)
    times = list(case.pipeline.scheduler.timesteps)
    found = ddim_latents(prior, start, told, untold, scale, STEPS, away=away, times=times)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_second_guidance_moves_both_ends_and_leaves_their_difference(case: Any) -> None:
    """So scores that take the difference alone (CSD) are not changed by it."""
    prior, told, untold, away = asked(case, 2.5)
    noisy, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4)), torch.tensor([500])
    low, high = predict_parts(prior, noisy, t, told, untold, away)
    plain_low, plain_high = predict_parts(prior, noisy, t, told, untold)
    torch.testing.assert_close(high - low, plain_high - plain_low, rtol=1e-4, atol=1e-5)
    nothing = prior.predict(noisy, t, away[0].condition)
    torch.testing.assert_close(low, nothing + 2.5 * (plain_low - nothing), rtol=1e-4, atol=1e-5)


def test_told_no_render_it_hears_of_no_picture(case: Any) -> None:
    prior, told, *_ = asked(case, 1.5)
    assert told.image is not None and not told.image.requires_grad and float(told.image.abs().max()) > 0.01
    assert float(prior.condition([PROMPT]).image.abs().max()) == 0
    assert len(check_component("prior", "instruct-pix2pix", options=case.options)) >= 12


def test_the_dataset_update_shows_it_the_scene_as_it_was(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views are kept; what is noised is the scene as it is, what the prior sees is the first update's picture."""
    monkeypatch.setattr("plugins.dataset_update.dataset_update.denoise", lambda prior, latents, *rest: latents)
    cameras = {"type": "random-cameras", "batch": 3, "size": SIDE}
    data = {"type": "dataset-update", "prior": {"type": "instruct-pix2pix", **case.options}, "cameras": cameras}
    values: dict[str, Any] = {
        "task": "lift", "prompt": PROMPT, "device": "cpu", "steps": 6, "material": "plain", "background": "solid",
        "geometry": {"type": "hash-grid", "levels": 3, "log2_table": 9, "finest": 16, "hidden": 8}, "prompts": "same",
        "renderer": {"type": "volume", "samples": 16, "grid": 8, "update_every": 2, "warmup": 3},
        "losses": {"image": 1}, "data": data | {"keep_originals": True, "denoise_steps": 4, "updates": 2, "chunk": 2},
    }  # fmt: skip
    task: Any = build_task(load_job(values, [], get_registry()), get_registry(), 0, torch.device("cpu"))
    task.update(Step(0, 6))
    first, poses = task.data.original.clone(), task.data.c2w.clone()
    with torch.no_grad():
        for parameter in task.geometry.parameters():
            parameter.add_(0.5)
    shown: list[Tensor] = []
    prior = task.data.prior
    mode = prior.mode
    prior.mode = lambda rgb: shown.append(rgb) or mode(rgb)
    task.update(Step(3, 6))
    assert torch.equal(task.data.c2w, poses) and torch.equal(task.data.original, first)
    told, noised = shown[::2], shown[1::2]  # chunk by chunk
    assert torch.equal(torch.cat(told), first) and len(torch.cat(noised)) == 3
    assert not torch.allclose(torch.cat(noised), first, atol=1e-3)
