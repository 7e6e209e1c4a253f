"""A word is learned for a picture: nothing else changes, the loss falls, and the next stage's prior knows the word."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from core.config.loading import load_job
from core.contracts import Context, Step
from core.diffusion.latent import LatentPrior, load_parts
from core.discovery import get_registry
from core.errors import UserError
from core.job import run_job
from core.stages import build_task
from plugins.realfusion.augment import augmented

sys.path.insert(0, str(Path(__file__).parents[2] / "core"))
from tiny_pipeline import PICTURE, write_pipeline  # noqa: E402


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("family"), camera_dim=10)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "ball.png"
    pixels = torch.zeros(64, 64, 4, dtype=torch.uint8)
    pixels[16:48, 16:48] = torch.tensor([200, 40, 40, 255], dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    return path


def stages(family: Path, picture: Path) -> dict[str, Any]:
    prior = {"type": "embedded", "family": str(family), "precision": "float32", "camera": False}
    return {
        "device": "cpu", "image": str(picture), "steps": 2, "preview_every": 0, "checkpoint_every": 0,
        "geometry": {"type": "hash-grid", "levels": 3, "log2_table": 9, "finest": 16, "hidden": 8},
        "material": "plain", "background": "solid", "export": [],
        "renderer": {"type": "volume", "samples": 8, "grid": 8, "update_every": 2, "warmup": 3},
        "stages": [
            {"name": "word", "task": "textual-inversion", "prior": prior, "start": "red", "templates": ["a {}", "{}"]},
            {"name": "lift", "task": "lift", "prompt": "a <object>", "prompts": "view-words",
             "data": {"type": "random-cameras", "batch": 2, "size": PICTURE},
             "guidance": [{"prior": prior, "score": {"type": "sds", "scale": 2.0}}]},
        ],
    }  # fmt: skip


def inversion(family: Path, picture: Path) -> Any:
    job = load_job(stages(family, picture), [], get_registry())
    return build_task(job, get_registry(), 0, torch.device("cpu"))


def test_only_the_word_is_learned_and_the_loss_falls(family: Path, picture: Path) -> None:
    task = inversion(family, picture)
    assert [n for n, p in task.named_parameters() if p.requires_grad] == ["embedding"]
    before = {k: v.clone() for k, v in task.prior.state_dict().items()}
    optimizer = torch.optim.Adam(task.parameters(), 0.1)
    values = []
    for _ in range(25):  # the same copies at the same levels again and again
        loss = task.training_step(Step(0, 1))["denoising"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0] - 1e-3
    assert all(torch.equal(v, before[k]) for k, v in task.prior.state_dict().items())


def test_the_gradient_is_that_of_the_loss(family: Path, picture: Path) -> None:
    task = inversion(family, picture)
    rgb, texts, step = task.rgb[None], ["a <object>"], Step(3, 9)
    (gradient,) = torch.autograd.grad(task.loss(rgb, texts, step), task.embedding)
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0))
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            task.embedding += sign * 1e-3 * direction
            ends.append(float(task.loss(rgb, texts, step)))
            task.embedding -= sign * 1e-3 * direction
    # The prior is float32, so the step is long.
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=2e-2)


def test_the_next_stage_s_prior_knows_the_word(family: Path, picture: Path, tmp_path: Path) -> None:
    job = load_job(stages(family, picture), [], get_registry())
    run = run_job(job, get_registry(), folder=tmp_path / "run", quiet=True)
    assert run.state == "finished"
    saved = load_file(run.assets / "learned_embeds.safetensors")["<object>"]
    prior = run.current.guidance[0].prior  # type: ignore[union-attr]
    row = prior.tokenizer.convert_tokens_to_ids("<object>")
    torch.testing.assert_close(prior.text_encoder.get_input_embeddings().weight[row], saved)


def test_a_prior_learns_a_word(family: Path) -> None:
    prior = LatentPrior(None, Context(), load_parts(str(family)))
    before = prior.embed_text("a red ball")
    width = before.shape[-1]
    table = prior.text_encoder.get_input_embeddings().weight
    red = table[prior.tokenizer("red", add_special_tokens=False).input_ids[0]].clone()
    prior.add_token("<new>", red)
    torch.testing.assert_close(prior.embed_text("a red ball"), before)
    torch.testing.assert_close(prior.embed_text("a <new> ball"), before)  # a word of the same embedding means the same
    with pytest.raises(UserError, match="is a token of this text tower already"):
        prior.add_token("<new>", red)
    with pytest.raises(UserError, match=rf"has {width + 1} numbers; this text tower takes {width}"):
        prior.add_token("<other>", torch.zeros(width + 1))


def test_copies_differ_and_keep_the_background(picture: Path) -> None:
    rgb = torch.full((32, 32, 3), 0.5)
    rgb[10:22, 8:20] = torch.tensor([0.9, 0.1, 0.1])
    copies = augmented(rgb, 64, torch.Generator().manual_seed(0), 0.5)
    assert copies.shape == (64, 32, 32, 3) and float(copies.min()) >= 0 and float(copies.max()) <= 1
    assert float(copies.std(0).max()) > 0.1  # places differ
    assert float((copies[:, 0, 0] - 0.5).abs().max()) < 0.06  # the corner stays background, but for slight jitter
    red = copies.amax((1, 2))[:, 0]
    assert float((red > 0.6).float().mean()) > 0.8  # nine in ten are not grey
    flat = augmented(torch.full((16, 16, 3), 1.0), 8, torch.Generator().manual_seed(1), 1.0)
    assert float(flat.min()) > 0.9
