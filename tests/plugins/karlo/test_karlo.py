"""Karlo against diffusers' pipeline of the same folder, up to its upsamplers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.contracts import Context, stream_seed
from core.diffusion.guidance import predict_with_guidance
from core.diffusion.sampler import ddim_latents
from core.testing import check_component
from plugins.karlo.prior import Karlo

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_priors import clip_tokenizer, clip_tower, unet  # noqa: E402

PROMPT, WIDTH, STEPS, SIDE = "a standing corgi dog", 16, 4, 8


def parts(words: Path) -> dict[str, Any]:
    from diffusers import PriorTransformer, UnCLIPScheduler, UNet2DModel
    from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel

    tokenizer = clip_tokenizer(words)
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=WIDTH,
        num_embeddings=tokenizer.model_max_length,
    )  # fmt: skip
    prior.clip_std.data.uniform_(0.5, 1.5)
    prior.clip_mean.data.normal_()
    projection = UnCLIPTextProjModel(clip_embeddings_dim=WIDTH, time_embed_dim=32, cross_attention_dim=16)
    projection.learned_classifier_free_guidance_embeddings.data.normal_()
    decoder = unet(
        sample_size=SIDE, in_channels=3, out_channels=6, cross_attention_dim=16, class_embed_type="identity",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), resnet_time_scale_shift="scale_shift",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )  # fmt: skip
    larger = UNet2DModel(
        sample_size=SIDE, in_channels=6, out_channels=3, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
        down_block_types=("ResnetDownsampleBlock2D",), up_block_types=("ResnetUpsampleBlock2D",),
    )  # fmt: skip
    return {
        "prior": prior.eval(), "text_proj": projection.eval(), "decoder": decoder, "tokenizer": tokenizer,
        "text_encoder": clip_tower(tokenizer, "CLIPTextModelWithProjection", WIDTH), "super_res_first": larger,
        "super_res_last": larger, "super_res_scheduler": UnCLIPScheduler(clip_sample_range=1.0),
        "prior_scheduler": UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        "decoder_scheduler": UnCLIPScheduler(variance_type="learned_range", clip_sample=False),
    }  # fmt: skip


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from diffusers import UnCLIPPipeline

    root = tmp_path_factory.mktemp("karlo")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = UnCLIPPipeline(**parts(root / "words"))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(root / "model")
    options = {"model": str(root / "model"), "embedding_steps": 5, "text_cache": False}
    return SimpleNamespace(pipeline=pipeline, prior=Karlo(Karlo.Config(**options), Context(seed=7)), options=options)


def run(case: Any, scale: float, start: torch.Tensor) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """The decoder's picture in the pipeline, sampled by DDIM in the pipeline's place, and what the decoder was asked."""
    asked: list[dict[str, Any]] = []
    seen: list[torch.Tensor] = []
    scheduler = case.pipeline.decoder_scheduler

    def ddim(output: Any, t: Any, x: Any, prev_timestep: Any = None, **more: Any) -> Any:
        asked.append({"output": output[:, :3], "t": t, "x": x})
        now = scheduler.alphas_cumprod[t]
        x0 = (x - (1 - now).sqrt() * output[:, :3]) / now.sqrt()
        if prev_timestep is None:
            return SimpleNamespace(prev_sample=x0)
        after = scheduler.alphas_cumprod[prev_timestep]
        return SimpleNamespace(prev_sample=after.sqrt() * x0 + (1 - after).sqrt() * output[:, :3])

    hook = case.pipeline.super_res_first.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["sample"][:, 3:]), with_kwargs=True
    )
    step, scheduler.step = scheduler.step, ddim
    try:
        case.pipeline(
            PROMPT, prior_num_inference_steps=5, decoder_num_inference_steps=STEPS, super_res_num_inference_steps=2,
            generator=torch.Generator().manual_seed(stream_seed(7, "init", PROMPT)), decoder_latents=start,
            decoder_guidance_scale=scale, output_type="np",
        )  # fmt: skip
    finally:
        scheduler.step = step
        hook.remove()
    return seen[0], asked


@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_embeddings_predictions_and_a_whole_sample_agree_with_the_pipeline(case: Any, scale: float) -> None:
    """The picture that the upsampler is shown is the decoder's own, clamped."""
    start = torch.randn(1, *case.prior.latent_shape, generator=torch.Generator().manual_seed(3))
    wanted, asked = run(case, scale, start)
    told, untold = case.prior.condition([PROMPT]), case.prior.condition([""])
    for call in asked:
        with torch.no_grad():
            found = predict_with_guidance(case.prior, call["x"], call["t"].expand(1), told, untold, scale)
        torch.testing.assert_close(found, call["output"], rtol=1e-4, atol=1e-4)
    assert [int(call["t"]) for call in asked] == [999, 666, 333, 0] == [int(t) for t in case.prior.process.times(STEPS)]
    found = ddim_latents(case.prior, start, told, untold, scale, STEPS).clamp(-1, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_its_space_are_pixels(case: Any) -> None:
    rgb = torch.rand(2, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(case.prior.encode(rgb), rgb.permute(0, 3, 1, 2) * 2 - 1)
    torch.testing.assert_close(case.prior.decode(case.prior.encode(rgb)), rgb)
    assert len(check_component("prior", "karlo", options=case.options)) >= 12
    assert Karlo.space(case.prior.options, Context()) == case.prior.latent_shape == (3, SIDE, SIDE)


def test_texts_are_kept_on_disk_by_seed(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path))
    options = Karlo.Config(**case.options | {"text_cache": True})
    first = Karlo(options, Context(seed=7)).condition([PROMPT])
    again = Karlo(options, Context(seed=7))
    monkeypatch.setattr(Karlo, "say", lambda *a: pytest.fail("it was said before"))
    assert torch.equal(again.condition([PROMPT]).text, first.text)
    with pytest.raises(BaseException, match="said before"):
        Karlo(options, Context(seed=8)).condition([PROMPT])
