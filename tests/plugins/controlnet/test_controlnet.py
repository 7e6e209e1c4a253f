"""Stable Diffusion with a ControlNet against diffusers' own pipeline, and what it is shown of a render."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.contracts import Context
from core.diffusion.guidance import predict_with_guidance
from core.diffusion.sampler import ddim_latents
from core.errors import UserError
from core.testing import check_component
from core.types import Cameras, Render
from plugins.controlnet import pictures
from plugins.controlnet.prior import ControlNet

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_priors import autoencoder, clip_tokenizer, clip_tower, trailing, unet  # noqa: E402

PROMPT, STEPS, SIDE = "a red ball", 4, 16


def ball(size: int = SIDE, azimuth: float = 0.7, elevation: float = 0.3) -> Render:
    """A ball of radius 0.5 at the origin, seen exactly: where rays meet it, how far, and which way it faces."""
    cameras = Cameras.turntable(torch.tensor([azimuth]), elevation, size)
    origins, directions = cameras.rays()
    b = (origins * directions).sum(-1)
    inside = b**2 - (origins.square().sum(-1) - 0.25)
    hit = (inside > 0)[..., None].float()
    length = -b - inside.clamp(min=0).sqrt()
    normal = hit * 2 * (origins + length[..., None] * directions)
    depth = hit * (length * (directions * -cameras.c2w[:, None, None, :3, 2]).sum(-1))[..., None]
    return Render(0.5 + 0.5 * normal * hit, hit, cameras, depth, normal)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    root = tmp_path_factory.mktemp("controlnet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer, network = clip_tokenizer(root / "words"), unet()
        control = ControlNetModel.from_unet(network, conditioning_embedding_out_channels=(8, 8))
        for parameter in control.parameters():  # its own layers begin as zeros
            parameter.data += 0.05 * torch.randn_like(parameter)
        pipeline = StableDiffusionControlNetPipeline(
            vae=autoencoder(), text_encoder=clip_tower(tokenizer), tokenizer=tokenizer, unet=network, controlnet=control.eval(),
            scheduler=trailing("epsilon"), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(root / "model")
    options = {"model": str(root / "model"), "controlnet": str(root / "model" / "controlnet"), "text_cache": False}
    return SimpleNamespace(pipeline=pipeline, options=options, root=root)


def built(case: Any, **options: Any) -> ControlNet:
    return ControlNet(ControlNet.Config(**case.options | options), Context())


@pytest.mark.parametrize(("control", "scale", "share"), [("normal", 7.5, 1.0), ("depth", 2.0, 0.6), ("canny", 4.0, 1.0)])
def test_predictions_and_a_whole_sample_agree_with_the_pipeline(case: Any, control: str, scale: float, share: float) -> None:
    prior, render = built(case, control=control, control_scale=share), ball(2 * SIDE)
    told = prior.condition([PROMPT], render.cameras, render=render)
    untold = prior.opposite(told, [""], render.cameras)
    picture = told.extras["control"]
    assert picture.shape == (1, 3, SIDE, SIDE) and 0 <= float(picture.min()) < float(picture.max()) <= 1
    start = torch.randn(1, 4, SIDE // 2, SIDE // 2, generator=torch.Generator().manual_seed(3))
    given, step = [], case.pipeline.scheduler.step

    def noted(output: Any, t: Any, sample: Any, **more: Any) -> Any:
        given.append((output, t, sample))
        return step(output, t, sample, **more)

    case.pipeline.scheduler.step = noted
    wanted = case.pipeline(
        PROMPT, picture, SIDE, SIDE, STEPS, guidance_scale=scale, latents=start, output_type="latent",
        controlnet_conditioning_scale=share,
    ).images  # fmt: skip
    case.pipeline.scheduler.step = step
    assert len(given) == STEPS
    for output, t, noisy in given:
        with torch.no_grad():
            found = predict_with_guidance(prior, noisy, t.expand(1), told, untold, scale)
        torch.testing.assert_close(found, output, rtol=1e-4, atol=1e-4)
    found = ddim_latents(prior, start, told, untold, scale, STEPS, times=list(case.pipeline.scheduler.timesteps))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    blind = ddim_latents(prior, start, prior.condition([PROMPT]), prior.condition([""]), scale, STEPS)
    assert float((found - blind).abs().max()) > 1e-3


def test_normals_are_red_to_the_left_green_up_and_blue_in_front() -> None:
    shown, middle = pictures.normals(ball(65))[0], 32
    torch.testing.assert_close(shown[0, 0], torch.tensor([0.5, 0.5, 1.0]))  # background: a wall that faces the camera
    torch.testing.assert_close(shown[middle, middle], torch.tensor([0.5, 0.5, 1.0]), rtol=0, atol=0.02)
    row, column = shown[middle], shown[:, middle]
    hit = ball(65).opacity[0, middle, :, 0].nonzero().flatten()
    left, right = int(hit[0]), int(hit[-1])
    assert row[left, 0] > 0.85 and row[right, 0] < 0.15 and column[left, 1] > 0.85 and column[right, 1] < 0.15
    torch.testing.assert_close((shown * 2 - 1).norm(dim=-1), torch.ones(65, 65))


def test_depth_is_inverse_bright_in_front_and_black_where_nothing_is() -> None:
    """Values at a ball's middle and rim follow from the distance 3 and the cube's far corner."""
    render = ball(65)
    shown = pictures.depth(render, 1.0)[0, :, :, 0]
    assert float(shown[0, 0]) == 0 and float(shown.max()) == pytest.approx(1)
    assert float(shown[32, 32]) == pytest.approx(1, abs=0.01)
    far = 1 / (3 + 3**0.5)
    hit = render.opacity[0, :, :, 0] > 0
    wanted = (1 / render.depth[0, :, :, 0][hit] - far) / (1 / float(render.depth[render.opacity > 0].min()) - far)
    torch.testing.assert_close(shown[hit], wanted)
    assert float(shown[hit].min()) > 0.4


def test_edges_are_the_outline() -> None:
    render = ball(65)
    render.rgb = render.opacity.expand(-1, -1, -1, 3)
    shown = pictures.edges(render, 0.4, 0.8)[0, :, :, 0]
    ys, xs = shown.nonzero().float().unbind(1)
    radius = ((xs - 32) ** 2 + (ys - 32) ** 2).sqrt()
    rim = float((render.opacity.sum() / torch.pi).sqrt())
    assert len(radius) > 60 and float((radius - rim).abs().max()) < 2


def test_a_renderer_must_give_what_is_shown(case: Any) -> None:
    for control, shown in {"normal": ["normal"], "depth": ["depth"], "canny": []}.items():
        options = ControlNet.Config(**case.options, control=control)
        assert ControlNet.signals(options)[0] == ["rgb", "text|view-text", *shown]


def test_it_keeps_its_contract(case: Any) -> None:
    assert len(check_component("prior", "controlnet", options=case.options)) >= 12


def test_what_is_no_controlnet_for_this_model_is_refused(case: Any, tmp_path: Path) -> None:
    from diffusers import ControlNetModel

    wide = ControlNetModel.from_unet(unet(cross_attention_dim=24), conditioning_embedding_out_channels=(8, 8))
    wide.save_pretrained(tmp_path / "wide")
    (tmp_path / "empty").mkdir()
    for folder, told in {
        tmp_path / "wide": "made for another Stable Diffusion: it hears texts of 24 numbers, and the UNet of .* of 16",
        case.root / "model" / "unet": "holds a UNet2DConditionModel, not a ControlNetModel",
        tmp_path / "empty": "config.json cannot be read",
        tmp_path / "nowhere": "there is no folder",
    }.items():
        with pytest.raises(UserError, match=told) as caught:
            built(case, controlnet=str(folder))
        assert "\n" not in str(caught.value)
