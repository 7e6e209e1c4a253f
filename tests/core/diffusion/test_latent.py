"""The latent prior on a tiny random pipeline folder, against diffusers' own pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from core.contracts import Context
from core.diffusion.latent import PARTS, LatentPrior, load_parts
from core.errors import UserError
from core.testing import check_component
from core.types import Condition

from tiny_pipeline import LATENT, PICTURE, write_pipeline  # isort: skip

PROMPT = "a standing corgi dog"


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_texts_are_embedded_as_the_pipeline_does(prior: LatentPrior, pipeline: Any) -> None:
    told, untold = pipeline.encode_prompt(PROMPT, "cpu", 1, True, negative_prompt="")
    found = prior.condition([PROMPT, ""])
    assert found.text is not None
    torch.testing.assert_close(found.text, torch.cat([told, untold]), rtol=1e-6, atol=1e-6)
    assert found.camera is None and not found.text.requires_grad


def test_predictions_agree_with_the_pipeline_network(prior: LatentPrior, pipeline: Any) -> None:
    noisy = torch.randn(2, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(0))
    t, told = torch.tensor([40, 900]), prior.condition([PROMPT, "a red ball"])
    with torch.no_grad():
        wanted = pipeline.unet(noisy, t, encoder_hidden_states=told.text).sample
        torch.testing.assert_close(prior.predict(noisy, t, told), wanted, rtol=1e-6, atol=1e-6)
    assert prior.process.parametrization == pipeline.scheduler.config.prediction_type == "v_prediction"
    torch.testing.assert_close(prior.process.alphas_cumprod, pipeline.scheduler.alphas_cumprod.double())


def test_a_whole_sample_agrees_with_the_pipeline(prior: LatentPrior, pipeline: Any) -> None:
    """Two guided steps from one start: at t = 999 and at t = 499, where the pipeline's spacing comes by."""
    start = torch.randn(1, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(0))
    pipeline.scheduler.register_to_config(timestep_spacing="trailing")
    options = {"num_inference_steps": 2, "guidance_scale": 4.0, "latents": start, "output_type": "latent"}
    wanted = pipeline(PROMPT, **options).images
    told, untold, x = prior.condition([PROMPT]), prior.condition([""]), start
    from core.diffusion.guidance import predict_with_guidance

    for now, after in ((999, 499), (499, None)):
        t = torch.tensor([now])
        with torch.no_grad():
            output = predict_with_guidance(prior, x, t, told, untold, 4.0)
        x0, noise = prior.process.to_x0(output, x, t), prior.process.to_noise(output, x, t)
        x = x0 if after is None else prior.process.add_noise(x0, noise, torch.tensor([after]))
    torch.testing.assert_close(x, wanted, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        picture = pipeline.vae.decode(wanted / 0.7).sample
    shown = torch.as_tensor(pipeline.image_processor.postprocess(picture, output_type="np"))
    torch.testing.assert_close(prior.decode(x), shown, rtol=1e-4, atol=1e-4)


def test_pictures_are_encoded_to_the_scaled_mean(prior: LatentPrior, pipeline: Any) -> None:
    rgb = torch.rand(2, PICTURE, PICTURE, 3, generator=torch.Generator().manual_seed(0))
    mean = pipeline.vae.encode(rgb.permute(0, 3, 1, 2) * 2 - 1).latent_dist.mean
    torch.testing.assert_close(prior.encode(rgb), mean * 0.7)
    assert prior.image_size == PICTURE


def test_larger_pictures_are_shrunk_without_aliasing(prior: LatentPrior) -> None:
    """By a triangle as wide as two small pixels, written out as a matrix; stripes finer than a pixel become grey."""
    factor = 4
    large = torch.rand(1, factor * PICTURE, factor * PICTURE, 3, generator=torch.Generator().manual_seed(0))
    large[:, :, ::2] = 1.0
    centers = (torch.arange(PICTURE) + 0.5) * factor
    weights = (1 - (torch.arange(factor * PICTURE) + 0.5 - centers[:, None]).abs() / factor).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True)
    small = torch.einsum("ih,bhwc,jw->bijc", weights, large, weights)
    torch.testing.assert_close(prior.encode(large), prior.encode(small), rtol=1e-4, atol=1e-4)


def test_encode_is_differentiable_and_its_gradient_is_right(prior: LatentPrior) -> None:
    """The directional derivative against a central difference, in float64."""
    prior.vae.double()
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(1, PICTURE, PICTURE, 3, generator=generator, dtype=torch.float64)
    direction = torch.randn(rgb.shape, generator=generator, dtype=torch.float64)
    inside = rgb.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(prior.encode(inside).square().sum(), inside)
    up, down = (prior.encode(rgb + h * direction).square().sum() for h in (1e-5, -1e-5))
    wanted = float(up - down) / 2e-5
    prior.vae.float()
    assert float((gradient * direction).sum()) == pytest.approx(wanted, rel=1e-6)
    assert abs(wanted) > 1e-3


def test_everything_of_it_is_frozen(prior: LatentPrior) -> None:
    assert not any(p.requires_grad for p in prior.parameters())
    assert prior.param_groups()[0]["params"] == []
    assert not any(m.training for m in (prior.vae, prior.unet, prior.text_encoder))


def test_a_registered_prior_of_this_format_keeps_its_contract(folder: Path) -> None:
    assert len(check_component("prior", "stable-diffusion", options={"model": str(folder)})) >= 12


def test_a_text_is_embedded_once(prior: LatentPrior) -> None:
    assert prior.embed_text(PROMPT) is prior.embed_text(PROMPT)


def test_long_prompts_are_cut_and_rows_are_independent(prior: LatentPrior) -> None:
    found = prior.condition(["a red ball " * 40, "a blue cube"])
    assert found.text is not None and found.text.shape == (2, 24, 16)
    alone = prior.condition(["a blue cube"]).text
    assert alone is not None and torch.equal(found.text[1:], alone)


def test_half_precision_gives_float32_that_is_near(prior: LatentPrior, parts: dict[str, Any]) -> None:
    half = LatentPrior(None, Context(), parts, dtype=torch.bfloat16)
    noisy, t = torch.randn(1, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    told = prior.condition([PROMPT])
    with torch.no_grad():
        rough, exact = half.predict(noisy, t, told), prior.predict(noisy, t, told)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


def test_a_viewpoint_enters_where_the_network_takes_one(tmp_path: Path) -> None:
    prior = LatentPrior(None, Context(), load_parts(str(write_pipeline(tmp_path, camera_dim=10))))
    noisy, t, text = torch.randn(1, 4, LATENT, LATENT), torch.tensor([500]), prior.condition([PROMPT]).text
    with torch.no_grad():
        front, back = (prior.predict(noisy, t, Condition(text=text, camera=torch.full((1, 10), k))) for k in (0.0, 1.0))
    assert float((front - back).abs().max()) > 1e-4


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named_in_one_sentence(folder: Path, tmp_path: Path, part: str) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(part))
    with pytest.raises(UserError, match=f"is no diffusers pipeline folder: it lacks {part}$") as caught:
        load_parts(str(copy))
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


def damage_weights(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("part", "spoil"),
    [
        ("unet", shutil.rmtree), ("unet", damage_weights), ("vae", damage_config), ("text_encoder", damage_config),
        ("scheduler", shutil.rmtree),
        ("tokenizer", shutil.rmtree),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_read_is_named_in_one_sentence(
    folder: Path, tmp_path: Path, part: str, spoil: Any
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    spoil(copy / part)
    (copy / part).mkdir(exist_ok=True)
    with pytest.raises(UserError, match=f"cannot load {part} of |{part} holds neither") as caught:
        load_parts(str(copy))
    assert "\n" not in str(caught.value)


def test_several_missing_parts_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    with pytest.raises(UserError, match="lacks text_encoder, tokenizer, unet, scheduler$"):
        load_parts(str(tmp_path))


def test_another_network_may_stand_in(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    (copy / "unet").rename(copy / "unet_lora")
    assert set(load_parts(str(copy), unet="unet_lora")) == set(PARTS)
