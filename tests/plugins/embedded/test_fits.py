"""Every fit runs a few steps and writes a folder that loads; the prior and the metrics work on what they wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from core.contracts import Context, Step
from core.diffusion.sampler import ddim
from core.errors import UserError
from core.testing import check_component
from core.types import Cameras, Render
from plugins.embedded.camera import embed_camera
from plugins.embedded.card import write_card
from plugins.embedded.classifier import VIEWS, Classifier
from plugins.embedded.clip import EmbeddedClip
from plugins.embedded.judge import ClipPrecision, Judge, pictures
from plugins.embedded.prior import Embedded
from plugins.embedded.unet import EmbeddedUnet

LOSSES = {
    "embedded-autoencoder": {"reconstruction", "kl", "edge"}, "embedded-clip": {"contrastive"},
    "embedded-classifier": {"category", "color", "view"}, "embedded-unet": {"v"},
    "embedded-sight": {"harmonics", "elevation", "kind", "color"}, "embedded-zero123": {"v"}, "embedded-multiview": {"v"},
}  # fmt: skip
LATER = ("sight", "zero123", "multi_view")
PROMPT = "a standing corgi dog"


def turntable(rgb: torch.Tensor, degrees: list[float]) -> Render:
    a = torch.tensor(degrees).deg2rad()
    cameras = Cameras.orbit(a, 0 * a + 0.26, 0 * a + 3, 0 * a + 0.7, *rgb.shape[1:3])
    return Render(rgb, rgb[..., :1], cameras)


@pytest.fixture
def prior(family: Path) -> Embedded:
    return Embedded(Embedded.Config(family=str(family), precision="float32"), Context())


@pytest.mark.parametrize("task", LOSSES)
def test_a_fit_finishes_and_reports(fitted: dict[str, Any], task: str) -> None:
    run = fitted[task]
    assert run.state == "finished" and run.step == 2
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(set(line["losses"]) == LOSSES[task] | {"total"} for line in lines)
    assert all(math.isfinite(v) for line in lines for v in line["losses"].values())
    assert lines[0]["grad_norm"] > 0


def test_a_family_is_complete(family: Path) -> None:
    names = {p.name for p in family.iterdir() if p.is_dir()}
    assert names == {"tokenizer", "text_encoder", "clip", "vae", "scheduler", "unet", "classifier", *LATER}
    card = json.loads((family / "card.json").read_text())
    assert set(card) == {"vae", "clip", "classifier", "unet", *LATER}
    for facts in card.values():
        assert facts["parameters"] > 1000 and facts["steps"] == 2 and facts["pictures_in_pool"] in (40, 64)
    write_card(str(family))
    text = (family / "README.md").read_text()
    assert text.startswith("---\nlicense: apache-2.0") and "| parameters |" in text


def test_the_averaged_weights_are_saved_in_half_precision(fitted: dict[str, Any], family: Path) -> None:
    from safetensors.torch import load_file

    for task, name in (("embedded-unet", "unet"), ("embedded-autoencoder", "vae")):
        stored = load_file(family / name / "diffusion_pytorch_model.safetensors")
        task_ = fitted[task].current
        averaged, latest = task_.average.model.state_dict(), task_.model.state_dict()
        assert all(v.dtype == torch.float16 and torch.equal(v, averaged[k].half()) for k, v in stored.items())
        assert any(not torch.equal(v, latest[k].half()) for k, v in stored.items())


def test_latents_have_unit_spread(fitted: dict[str, Any], prior: Embedded, data: Any) -> None:
    """``scaling_factor`` is one over the spread of the pool's latents, as diffusers expects."""
    latents = prior.encode(data.take(torch.arange(64).numpy())["rgb"])
    assert latents.shape == (64, 4, 16, 16)
    assert latents.std().item() == pytest.approx(1.0, abs=0.02)
    kept = fitted["embedded-unet"].current.latents()
    torch.testing.assert_close(kept.float(), latents, rtol=2e-2, atol=2e-2)


def test_the_text_encoder_is_the_text_tower_of_clip(family: Path, prior: Embedded) -> None:
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(family / "clip").float().eval()
    tokens = prior.tokenizer([PROMPT], padding="max_length", max_length=24, return_tensors="pt")
    with torch.no_grad():
        wanted = clip.text_model(**tokens).last_hidden_state
        without_mask = clip.text_model(input_ids=tokens.input_ids).last_hidden_state
    found = prior.condition([PROMPT]).text
    assert found is not None
    torch.testing.assert_close(found, without_mask, rtol=1e-4, atol=1e-4)
    assert wanted.shape == (1, 24, 32)


def test_the_prior_keeps_its_contract(family: Path) -> None:
    options = {"family": str(family), "precision": "float32"}
    assert len(check_component("prior", "embedded", options=options)) >= 12


@pytest.mark.parametrize("name", ["judge", "clip"])
def test_the_metrics_keep_their_contract(family: Path, name: str) -> None:
    assert len(check_component("metric", name, options={"family": str(family)})) >= 4


def test_the_command_keeps_its_contract() -> None:
    assert check_component("command", "eval-embedded")


@pytest.mark.parametrize("task", LOSSES)
def test_every_fit_keeps_its_contract(family: Path, tmp_path: Path, task: str) -> None:
    options: dict[str, Any] = {
        "embedded-autoencoder": {"channels": [8, 8, 16]}, "embedded-clip": {"width": 32, "layers": 1},
        "embedded-classifier": {"width": 8}, "embedded-sight": {"width": 16},
    }.get(task, {"channels": [16, 16, 16], "start": str(family)})  # fmt: skip
    options["data"] = {"type": "procedural", "images": 40, "batch": 4}
    if task == "embedded-multiview":
        options["data"] |= {"views": 5, "orbit": True}
    of_its_own = task in ("embedded-autoencoder", "embedded-clip", "embedded-classifier")
    options["family"] = str(tmp_path if of_its_own else family)  # the others' fits read their family
    assert len(check_component("task", task, options=options)) >= 8


def test_the_prior_is_told_the_viewpoint_or_not(family: Path, prior: Embedded) -> None:
    a, e = torch.tensor([0.5, -2.0]), torch.tensor([0.1, 0.7])
    cameras = Cameras.orbit(a, e, 0 * a + 3, 0 * a + 0.7, 64, 64)
    told = prior.condition([PROMPT, ""], cameras)
    assert told.camera is not None
    torch.testing.assert_close(told.camera, embed_camera(a, e), rtol=1e-5, atol=1e-5)
    plain = Embedded(Embedded.Config(family=str(family), camera=False), Context())
    for found in (plain.condition([PROMPT, ""], cameras), prior.condition([PROMPT, ""])):
        assert found.camera is not None and torch.equal(found.camera, torch.zeros(2, 10))
    assert Embedded.signals(Embedded.Config()) == (["rgb", "text", "camera"], ["latent"])
    assert Embedded.signals(Embedded.Config(camera=False)) == (["rgb", "text"], ["latent"])


def test_words_it_never_saw_are_named_once(prior: Embedded, caplog: pytest.LogCaptureFixture) -> None:
    prior.words = ["a", "red", "corgi", "mug"]
    prior.condition(["a red zebra", "a red zebra", ""])
    prior.condition(["a zebra mug"])
    said = [r.getMessage() for r in caplog.records if "never saw" in r.getMessage()]
    assert len(said) == 1 and "the word 'zebra'" in said[0] and "corgi, mug" in said[0]
    prior.condition(["two zebras and a red mug"])
    assert "the words 'two', 'zebras', 'and'" in caplog.records[-1].getMessage()


def test_it_samples_pictures(prior: Embedded) -> None:
    a = torch.tensor([0.0, 1.0])
    cameras = Cameras.orbit(a, 0 * a, 0 * a + 3, 0 * a + 0.7, 64, 64)
    rgb = ddim(prior, prior.condition([PROMPT] * 2, cameras), prior.condition([""] * 2, cameras), 2.0, steps=2)
    assert rgb.shape == (2, 64, 64, 3) and float(rgb.min()) >= 0 and float(rgb.max()) <= 1


def test_a_missing_part_names_the_fit_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unet does not exist; it is made by: python launch.py fit embedded-unet"):
        Embedded(Embedded.Config(family=str(tmp_path)), Context())


def test_the_unet_s_conditions(fitted: dict[str, Any]) -> None:
    """Shares of texts and viewpoints that are withheld, and what the blind ones hear instead."""
    task: Any = fitted["embedded-unet"].current
    many = 4000
    batch = {
        "caption": ["a red mug"] * many, "view_word": ["side view"] * many,
        "azimuth": torch.full((many,), 1.5), "elevation": torch.zeros(many),
    }  # fmt: skip
    texts, camera = EmbeddedUnet._condition(task, batch, Step(0, 1))
    blind = camera.abs().sum(1) == 0
    assert torch.equal(camera[~blind], embed_camera(batch["azimuth"], batch["elevation"])[~blind])
    for share, wanted in ((blind, 0.4), (torch.tensor([t == "" for t in texts]), 0.1)):
        assert abs(float(share.float().mean()) - wanted) < 4 * (wanted * (1 - wanted) / many) ** 0.5
    words = torch.tensor([t.endswith(", side view") for t in texts])
    assert not bool((words & ~blind).any())  # who is told the camera hears no view word
    assert abs(float(words[blind].float().mean()) - 0.85 * 0.9) < 4 * (0.25 / (0.4 * many)) ** 0.5
    assert set(texts) == {"", "a red mug", "a red mug, side view"}


def test_the_autoencoder_learns_and_previews(fitted: dict[str, Any]) -> None:
    task: Any = fitted["embedded-autoencoder"].current
    with torch.no_grad():
        shown = task.preview(Step(0, 1))["reconstruction"]
    assert shown.shape == (2 * 64, 8 * 64, 3) and shown.dtype.name == "uint8"
    optimizer = torch.optim.Adam(task.model.parameters(), 3e-3)
    values = []
    for _ in range(12):  # one batch again and again
        loss = torch.stack(list(task.training_step(Step(0, 1)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


def test_clip_s_loss_is_the_cross_entropy_to_every_true_pair(fitted: dict[str, Any], data: Any) -> None:
    from plugins.embedded.clip import captions_with_views, matches

    task: Any = fitted["embedded-clip"].current
    step = Step(1, 2)
    with torch.no_grad():
        (found,) = EmbeddedClip.training_step(task, step).values()
        batch = task.data.batch(step)
        told = torch.rand(8, generator=step.generator("told")) < 0.4
        logits = task._logits(captions_with_views(batch, told), batch["rgb"]).double()
    true, total = matches(batch, told).double(), 0.0
    assert bool(true.diagonal().all())
    for z, y in ((logits, true), (logits.T, true.T)):
        for row in range(8):
            total -= float((y[row] / y[row].sum() * z[row].log_softmax(0)).sum()) / 8
    assert found.item() == pytest.approx(total / 2, rel=1e-4)


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_pictures_of_any_render_have_the_judge_s_size() -> None:
    rgb = torch.rand(2, 128, 128, 3, generator=torch.Generator().manual_seed(0)) * 1.5
    found = pictures(turntable(rgb, [0.0, 90.0]))
    assert found.shape == (2, 64, 64, 3) and float(found.max()) <= 1
    flat = pictures(turntable(torch.full((1, 96, 96, 3), 0.3), [0.0]))
    torch.testing.assert_close(flat, torch.full((1, 64, 64, 3), 0.3))


def biased(family: Path, **names: str) -> Judge:
    """A judge that answers the same to every picture."""
    judge = Judge(Judge.Config(family=str(family)), Context())
    lists = {"category": judge.classifier.categories, "color": judge.classifier.colors, "view": list(VIEWS)}
    with torch.no_grad():
        for head, name in names.items():
            layer: Any = judge.classifier.heads[head]
            layer.weight.zero_()
            layer.bias.zero_()
            layer.bias[lists[head].index(name)] = 3.0
    return judge


def test_the_judge_compares_with_what_the_prompt_names(family: Path) -> None:
    judge = biased(family, category="corgi", color="blue", view="side view")
    rgb = torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    shown = turntable(rgb, [0.0, 90.0, 180.0, 270.0])
    right = judge.measure(shown, "a blue corgi")
    assert (right["category"], right["color"], right["janus"]) == (1.0, 1.0, 0.0)
    e = math.exp(3)
    assert right["category_probability"] == pytest.approx(e / (e + 28), rel=1e-5)
    assert right["color_probability"] == pytest.approx(e / (e + 11), rel=1e-5)  # among the 12 named colours
    wrong = judge.measure(shown, "a red mug")
    assert (wrong["category"], wrong["color"]) == (0.0, 0.0)
    assert set(judge.measure(shown, "a standing corgi dog")) == {"category", "category_probability", "janus"}
    assert set(judge.measure(shown, "something natural")) == {"janus"}
    # "natural" is an answer for the natural look only; a prompt's colour is looked for among named ones.
    assert biased(family, color="natural").measure(shown, "a red mug")["color_probability"] == pytest.approx(1 / 12)


@pytest.mark.parametrize(
    ("degrees", "janus"),
    [([0.0, 45.0, 90.0], 0.0), ([0.0, 135.0], 1.0), ([180.0], 1.0), ([225.0], 1.0), ([130.0, 230.0], 0.0)],
)
def test_janus_is_a_front_seen_from_behind(family: Path, degrees: list[float], janus: float) -> None:
    rgb = torch.full((len(degrees), 64, 64, 3), 0.5)
    shown = turntable(rgb, degrees)
    assert biased(family, view="front view").measure(shown, "a mug")["janus"] == janus
    assert biased(family, view="back view").measure(shown, "a mug")["janus"] == 0.0


def test_r_precision_asks_for_the_best_among_all_kinds_and_colours(family: Path, data: Any) -> None:
    clip = ClipPrecision(ClipPrecision.Config(family=str(family)), Context())
    assert len(clip.distractors) == len(set(clip.distractors)) == 29 * 13
    texts = clip.text(["a red mug", PROMPT])
    images = clip.image(data.take(torch.arange(4).numpy())["rgb"])
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(4))
    shown = turntable(data.take(torch.arange(4).numpy())["rgb"], [0.0, 90.0, 180.0, 270.0])
    found = clip.measure(shown, "a red mug")
    assert found["clip_score"] == pytest.approx(float((images @ texts[0]).mean()), abs=1e-5)
    same = {"a red mug", "a red cup"}
    others = [d for d in clip.distractors if d not in same]
    best = float((images @ clip.text(others).T).mean(0).max())
    assert found["r_precision"] == float(found["clip_score"] >= best)


def test_padding_does_not_change_a_text(family: Path) -> None:
    clip = ClipPrecision(ClipPrecision.Config(family=str(family)), Context())
    alone, beside = clip.text(["a red mug"]), clip.text(["a red mug", "a 3d render of a shiny purple castle"])
    torch.testing.assert_close(alone[0], beside[0], rtol=1e-4, atol=1e-5)


def test_the_judge_is_loaded_for_its_family(family: Path) -> None:
    assert Classifier.load(str(family)).width == 8
