"""Kandinsky 2.2 against diffusers' two pipelines of the same folders."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from core.contracts import Context, stream_seed
from core.diffusion.guidance import predict_with_guidance
from core.diffusion.sampler import ddim_latents
from core.errors import UserError
from core.testing import check_component
from plugins.kandinsky.prior import Kandinsky

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_priors import clip_tokenizer, clip_tower, trailing, unet  # noqa: E402

PROMPT, WIDTH, STEPS = "a standing corgi dog", 16, 4


def text_parts(words: Path) -> dict[str, Any]:
    from diffusers import PriorTransformer, UnCLIPScheduler

    tokenizer = clip_tokenizer(words)
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=WIDTH,
        num_embeddings=tokenizer.model_max_length,
    )  # fmt: skip
    prior.clip_std.data.uniform_(0.5, 1.5)
    prior.clip_mean.data.normal_()
    eye = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
            projection_dim=WIDTH,
        )
    )  # fmt: skip
    scheduler = UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0)
    return {"prior": prior.eval(), "image_encoder": eye.eval(), "tokenizer": tokenizer, "scheduler": scheduler,
            "text_encoder": clip_tower(tokenizer, "CLIPTextModelWithProjection", WIDTH),
            "image_processor": transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)}  # fmt: skip


def decoder_parts() -> dict[str, Any]:
    from diffusers import VQModel

    network = unet(
        out_channels=8, addition_embed_type="image", encoder_hid_dim=WIDTH, encoder_hid_dim_type="image_proj",
        block_out_channels=(16, 32),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), cross_attention_dim=16,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), resnet_time_scale_shift="scale_shift",
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
    )  # fmt: skip
    movq = VQModel(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, norm_num_groups=4, norm_type="spatial", num_vq_embeddings=12, vq_embed_dim=4,
    )  # fmt: skip
    return {"unet": network, "scheduler": trailing("epsilon"), "movq": movq.eval()}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from diffusers import KandinskyV22Pipeline, KandinskyV22PriorPipeline

    root = tmp_path_factory.mktemp("kandinsky")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        texts, decoder = KandinskyV22PriorPipeline(**text_parts(root / "words")), KandinskyV22Pipeline(**decoder_parts())
    for name, pipeline in (("prior", texts), ("decoder", decoder)):
        pipeline.set_progress_bar_config(disable=True)
        pipeline.save_pretrained(root / name)
    options = {"model": str(root / "decoder"), "text_prior": str(root / "prior"), "embedding_steps": 5, "text_cache": False}
    prior = Kandinsky(Kandinsky.Config(**options), Context(seed=7))
    return SimpleNamespace(texts=texts, decoder=decoder, prior=prior, options=options)


def test_an_embedding_is_drawn_once_as_the_prior_pipeline_draws_it(case: Any) -> None:
    generator = torch.Generator().manual_seed(stream_seed(7, "init", PROMPT))
    wanted = case.texts(PROMPT, generator=generator, num_inference_steps=5, guidance_scale=4.0)
    found = case.prior.condition([PROMPT, "", PROMPT]).text
    torch.testing.assert_close(found[0], wanted.image_embeds, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], wanted.negative_image_embeds, rtol=1e-4, atol=1e-4)
    assert torch.equal(found[0], found[2]) and not torch.allclose(found[0], case.prior.condition(["a red ball"]).text[0])
    other = Kandinsky(Kandinsky.Config(**case.options), Context(seed=8)).condition([PROMPT]).text
    assert not torch.allclose(found[0], other[0])


@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_predictions_and_a_whole_sample_agree_with_the_pipeline(case: Any, scale: float) -> None:
    told, untold = case.prior.condition([PROMPT]), case.prior.condition([""])
    start = torch.randn(1, *case.prior.latent_shape, generator=torch.Generator().manual_seed(3))
    given, step = [], case.decoder.scheduler.step

    def noted(output: Any, t: Any, sample: Any, **more: Any) -> Any:
        given.append((output, t, sample))
        return step(output, t, sample)

    case.decoder.scheduler.step = noted
    wanted = case.decoder(
        told.text[:, 0], untold.text[:, 0], 16, 16, STEPS, scale, latents=start, output_type="latent"
    ).images
    for output, t, noisy in given:
        with torch.no_grad():
            found = predict_with_guidance(case.prior, noisy, t.expand(1), told, untold, scale)
        torch.testing.assert_close(found, output, rtol=1e-4, atol=1e-4)
    case.decoder.scheduler.step = step
    assert len(given) == STEPS and {int(t) for _, t, _ in given} == {999, 749, 499, 249}
    times = list(case.decoder.scheduler.timesteps)
    found = ddim_latents(case.prior, start, told, untold, scale, STEPS, times=times)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    picture = case.decoder(told.text[:, 0], untold.text[:, 0], 16, 16, STEPS, scale, latents=start, output_type="np").images
    torch.testing.assert_close(case.prior.decode(found), torch.as_tensor(picture), rtol=1e-4, atol=1e-4)


def test_pictures_are_encoded_without_scale_or_codebook(case: Any) -> None:
    rgb = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    wanted = case.decoder.movq.encode(rgb.permute(0, 3, 1, 2) * 2 - 1).latents
    torch.testing.assert_close(case.prior.encode(rgb), wanted)


def test_it_keeps_its_contract_and_tells_its_space_unloaded(case: Any) -> None:
    assert len(check_component("prior", "kandinsky", options=case.options)) >= 12
    assert Kandinsky.space(case.prior.options, Context()) == case.prior.latent_shape == (4, 8, 8)


def test_the_wrong_folder_of_the_two_is_named(case: Any) -> None:
    swapped = {"model": case.options["text_prior"], "text_prior": case.options["text_prior"]}
    with pytest.raises(UserError, match="holds a KandinskyV22PriorPipeline, not a KandinskyV22Pipeline"):
        Kandinsky(Kandinsky.Config(**swapped), Context())
    with pytest.raises(UserError, match="holds a KandinskyV22Pipeline, not a KandinskyV22PriorPipeline"):
        Kandinsky(Kandinsky.Config(model=case.options["model"], text_prior=case.options["model"]), Context())


def test_a_long_prompt_is_cut_with_a_note(case: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The transformer has a fixed number of tokens, so that nothing could be heard in windows."""
    case.prior.condition(["a red ball " * 170])
    assert "and this encoder hears the first" in caplog.text
