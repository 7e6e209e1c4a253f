"""What priors with public weights share: long prompts, embeddings kept on disk, memory settings, what a step calls."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from core.contracts import Away, Context, Step
from core.diffusion import memory
from core.diffusion.guidance import predict_with_guidance
from core.diffusion.texts import TextCache
from core.discovery import get_registry
from core.errors import UserError
from core.types import Condition
from plugins.stable_diffusion.prior import StableDiffusion

from tiny_pipeline import LATENT, PICTURE  # isort: skip

PROMPT = "a standing corgi dog"
LONG = " ".join(["a red ball", "a blue cube", "a shiny cube"] * 6)


def build(folder: Path, **options: Any) -> StableDiffusion:
    return StableDiffusion(StableDiffusion.Config(model=str(folder), **options), Context())


def noisy() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(0)), torch.tensor([300, 800])


def answer(prior: Any, told: Condition) -> Tensor:
    x, t = noisy()
    with torch.no_grad():
        found: Tensor = prior.predict(x, t, told)
    return found


def test_a_long_prompt_is_heard_in_windows_side_by_side(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    prior = build(folder)
    caplog.set_level(logging.INFO, "maquette")
    text = prior.condition([LONG]).text
    ids = prior.tokenizer(LONG, add_special_tokens=False).input_ids
    assert text is not None and len(ids) == 54 and text.shape == (1, 3 * 24, 16)
    assert "the prompt has 54 tokens: CLIP hears it in 3 windows of 22" in caplog.text
    begin, end = prior.tokenizer.bos_token_id, prior.tokenizer.eos_token_id
    second = torch.tensor([[begin, *ids[22:44], end]])
    with torch.no_grad():
        torch.testing.assert_close(text[:, 24:48], prior.text_encoder(second).last_hidden_state)
    caplog.clear()
    assert prior.condition([PROMPT]).text.shape == (1, 24, 16)  # type: ignore[union-attr]
    assert "windows" not in caplog.text


def test_texts_of_different_lengths_stand_in_one_batch_unchanged(folder: Path) -> None:
    """A text repeated to another's length is the same to cross-attention, so guidance works against a long prompt."""
    prior = build(folder)
    short, long = prior.condition([PROMPT] * 2), prior.condition([LONG] * 2)
    both = Condition.cat([short, long, prior.condition([LONG[:140]] * 2)])
    assert both.text is not None and both.text.shape == (6, 6 * 24, 16)  # 1, 3 and 2 windows
    x, t = noisy()
    with torch.no_grad():
        together = prior.predict(torch.cat([x] * 3), torch.cat([t] * 3), both)
    torch.testing.assert_close(together[:2], answer(prior, short), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[2:4], answer(prior, long), rtol=1e-5, atol=1e-5)
    assert float((together[:2] - together[2:4]).abs().max()) > 1e-3


def no_tower(self: Any, name: str) -> Any:
    raise AssertionError(f"{name} was loaded")


def test_a_second_run_needs_no_text_tower(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(folder).condition([PROMPT, ""]).text
    assert len(list((cache / "texts").glob("*.safetensors"))) == 2 and not list((cache / "texts").glob("*.part"))
    monkeypatch.setattr(StableDiffusion, "tower", no_tower)
    second = build(folder).condition([PROMPT, ""]).text
    assert first is not None and second is not None and torch.equal(first, second)
    with pytest.raises(AssertionError):
        build(folder).condition(["something else"])
    with pytest.raises(AssertionError):
        build(folder, text_cache=False).condition([PROMPT])
    with pytest.raises(AssertionError):
        build(folder, precision="bfloat16").condition([PROMPT])  # another tower, another embedding


def test_a_spoilt_cache_is_no_reason_to_fail(folder: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = build(folder).condition([PROMPT]).text
    (file,) = (cache / "texts").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    found = build(folder).condition([PROMPT]).text
    assert wanted is not None and found is not None and torch.equal(found, wanted)
    assert "cannot be read" in caplog.text
    assert torch.equal(load_file(file)["text"], wanted[0])  # and it is whole again


def test_a_cache_that_cannot_be_written_is_told_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    cache = TextCache(tmp_path / "file" / "texts", "model")
    said = cache.get("a", lambda text: {"text": torch.ones(2, 3)}, torch.device("cpu"))
    assert torch.equal(said["text"], torch.ones(2, 3)) and "cannot be kept" in caplog.text


def test_a_changed_tower_has_other_embeddings_on_disk(folder: Path) -> None:
    prior = build(folder)
    kept = prior.said(PROMPT)["text"]
    assert prior._texts_said is not None
    before = prior._texts_said.path(PROMPT)
    file = next((folder / "text_encoder").glob("*.safetensors"))
    stamp = file.stat()
    try:
        file.touch()
        again = build(folder)
        again.said(PROMPT)
        assert again._texts_said is not None and again._texts_said.path(PROMPT) != before
    finally:
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    prior.add_token("<mug>", torch.ones(16))
    assert not torch.equal(prior.said("a <mug>")["text"], kept)
    assert prior._texts_said is not None and prior._texts_said.path(PROMPT) is None  # a word of this run alone


def test_the_text_tower_is_dropped_after_encoding_where_that_is_wanted(folder: Path) -> None:
    prior, other = build(folder, free_text=True, text_cache=False), build(folder, text_cache=False)
    told, wanted = prior.condition([PROMPT]), other.condition([PROMPT])
    assert not prior._towers and other._towers
    assert torch.equal(told.text, wanted.text)  # type: ignore[arg-type]
    assert torch.equal(prior.condition(["a red ball"]).text, other.condition(["a red ball"]).text)  # type: ignore[arg-type]


@pytest.mark.parametrize("offload", ["none", "text", "idle", "stream"])
def test_parts_that_rest_stay_where_they_are(folder: Path, offload: str) -> None:
    """On the device ``meta``, where moving is visible and nothing can be computed."""
    prior = build(folder, offload=offload)
    where = {name: next(part.parameters()).device.type for name, part in moved(prior).items()}
    rests = {"none": set(), "text": set(), "idle": {"decoder"}, "stream": {"decoder", "unet"}}[offload]
    assert where == {n: "cpu" if n in rests else "meta" for n in ("encoder", "decoder", "unet")}
    assert prior.device.type == "meta"
    assert prior.vae.decoder is prior.vae._modules["decoder"] and "unet" in prior._modules


def moved(prior: Any) -> dict[str, nn.Module]:
    prior.to("meta")
    return {"encoder": prior.vae.encoder, "decoder": prior.vae.decoder, "unet": prior.unet}


@pytest.mark.parametrize("offload", ["text", "idle", "stream"])
def test_offloading_changes_no_number(folder: Path, offload: str) -> None:
    prior, plain = build(folder, offload=offload), build(folder)
    told = plain.condition([PROMPT, ""])
    torch.testing.assert_close(prior.condition([PROMPT, ""]).text, told.text)
    torch.testing.assert_close(answer(prior, told), answer(plain, told))
    latents = noisy()[0]
    torch.testing.assert_close(prior.decode(latents), plain.decode(latents))


def test_a_visitor_goes_home_even_after_an_error() -> None:
    layer, home, abroad = nn.Linear(2, 2), torch.device("cpu"), torch.device("meta")
    with pytest.raises(RuntimeError), memory.visiting(layer, home, abroad):
        assert layer.weight.device == home
        raise RuntimeError
    assert layer.weight.device == abroad


def test_slices_of_attention_add_up_to_the_whole(folder: Path) -> None:
    sliced, plain = build(folder, attention="sliced"), build(folder)
    told = plain.condition([PROMPT, ""])
    torch.testing.assert_close(answer(sliced, told), answer(plain, told), rtol=1e-5, atol=1e-5)
    kinds = {type(p).__name__ for p in sliced.unet.attn_processors.values()}
    assert kinds == {"SlicedAttnProcessor"} and kinds != {type(p).__name__ for p in plain.unet.attn_processors.values()}


def test_tiles_are_used_for_pictures_larger_than_one(folder: Path) -> None:
    tiled, plain = build(folder, vae_tiling=True, image_size=2 * PICTURE), build(folder, image_size=2 * PICTURE)
    rgb = torch.rand(1, 2 * PICTURE, 2 * PICTURE, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found, whole = tiled.encode(rgb), plain.encode(rgb)
    assert tiled.vae.use_tiling and not plain.vae.use_tiling
    assert found.shape == whole.shape == (1, *tiled.latent_shape) and not torch.equal(found, whole)
    plain.vae.enable_tiling()
    torch.testing.assert_close(found, plain.encode(rgb))
    (gradient,) = torch.autograd.grad(found.square().sum(), rgb)
    assert bool((gradient != 0).any())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_weights_are_kept_in_the_precision_that_is_asked_for(folder: Path, precision: str) -> None:
    half, exact = build(folder, precision=precision), build(folder)
    dtype = getattr(torch, precision)
    assert {p.dtype for p in half.unet.parameters()} == {dtype} and half.text_encoder.dtype == dtype
    assert {p.dtype for p in half.vae.parameters()} == {torch.float32}
    told = exact.condition([PROMPT, ""])
    found, wanted = answer(half, told), answer(exact, told)
    assert found.dtype == torch.float32 and not torch.equal(found, wanted)
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05)
    assert half.condition([PROMPT]).text.dtype == torch.float32  # type: ignore[union-attr]


def test_the_autoencoder_has_a_precision_of_its_own(folder: Path) -> None:
    half, exact = build(folder, vae_precision="bfloat16"), build(folder)
    rgb = torch.rand(1, PICTURE, PICTURE, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found, wanted = half.encode(rgb), exact.encode(rgb)
    assert found.dtype == torch.float32 and {p.dtype for p in half.vae.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(found, wanted, rtol=0.1, atol=0.05)
    (gradient,) = torch.autograd.grad(found.square().sum(), rgb)
    assert gradient.dtype == torch.float32 and bool((gradient != 0).any())
    assert half.decode(found.detach()).dtype == torch.float32


def test_compiling_is_asked_of_the_denoiser_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **more: asked.append(type(self).__name__))
    build(folder)
    assert asked == []
    build(folder, compile=True)
    assert asked == ["UNet2DConditionModel"]


def test_options_that_do_not_fit_are_refused_before_weights_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.diffusion.folder import Pipeline

    def unread(*args: Any, **more: Any) -> Any:
        raise AssertionError("a part was loaded")

    monkeypatch.setattr(Pipeline, "load", unread)
    with pytest.raises(UserError, match="image_size is 17, but must be a multiple of 2 for this model"):
        build(folder, image_size=17)


class Calls:
    """How often methods of a module ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **methods: Any) -> None:
        self.count = dict.fromkeys(methods, 0)
        for name, (owner, method) in methods.items():
            monkeypatch.setattr(owner, method, self._counted(name, getattr(owner, method)))

    def _counted(self, name: str, method: Any) -> Any:
        def run(*args: Any, **more: Any) -> Any:
            self.count[name] += 1
            return method(*args, **more)

        return run


@pytest.mark.parametrize("score", ["sds", "csd", "nfsd", "sjc"])
def test_a_step_decodes_nothing_and_asks_the_network_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, score: str
) -> None:
    """A decoder costs more than the guided network; a step of distillation has no use for what it gives."""
    prior, kind = build(folder), get_registry().find("score", score).load()
    told, untold = prior.condition([PROMPT]), prior.condition([""])
    rgb = torch.rand(1, 2 * PICTURE, 2 * PICTURE, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    made = kind(kind.Config(), Context())
    made.loss(prior, prior.encode(rgb), told, untold, Step(0, 10))  # a score may have a text of its own, said once
    calls = Calls(
        monkeypatch, decode=(prior.vae, "decode"), encode=(prior.vae, "encode"), unet=(prior.unet, "forward"),
        tower=(prior, "say"),
    )  # fmt: skip
    made.loss(prior, prior.encode(rgb), told, untold, Step(1, 10)).backward()
    assert calls.count == {"decode": 0, "encode": 1, "unet": 1, "tower": 0}
    assert rgb.grad is not None and bool((rgb.grad != 0).any())


@torch.no_grad()
def test_guidance_has_one_scale_with_and_without_directions_to_avoid(folder: Path) -> None:
    """``uncond + s (cond - uncond)`` in both branches: directions of weight 0, or of no difference, change nothing."""
    prior, (x, t) = build(folder), noisy()
    told, untold, other = (prior.condition([text] * 2) for text in (PROMPT, "", "a blue cube"))
    cond, uncond = answer(prior, told), answer(prior, untold)
    for scale in (1.0, 7.5, 100.0):
        wanted = uncond + scale * (cond - uncond)
        for away in ([], [Away(other, torch.zeros(2))], [Away(untold, torch.ones(2)), Away(told, torch.ones(2))]):
            found = predict_with_guidance(prior, x, t, told, untold, scale, away)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * scale)
