"""The generator in the one loop: three stages, a resume, samples of every kind, and mistakes told in a sentence."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from core.config.loading import load_job
from core.contracts import Context
from core.discovery import get_registry
from core.errors import UserError
from core.job import run_job
from plugins.unclip.draw import SamplingConfig, decoded, picture, slerp
from plugins.unclip.folder import Family, load_family

SMALL = ["data.size=16", "upsampler.size=16", "decoder.size=8", "decoder.channels=[8,16]", "prior.width=16", "sampling.prior_steps=2",
         "sampling.decoder_steps=2", "sampling.upsampler_steps=2", "stages.0.steps=2", "stages.1.steps=2", "stages.2.steps=1", "stages.3.steps=1"]  # fmt: skip


def fit(folder: Path, *sets: str, **how: Any) -> Any:
    job = load_job("unclip-smoke", [*SMALL, *sets], get_registry())
    return run_job(job, get_registry(), folder=folder, quiet=True, **how)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Any:
    return fit(tmp_path_factory.mktemp("runs") / "whole", "preview_every=1")


def asked(prompt: str = "", views: Any = None) -> Any:
    return SimpleNamespace(prompt=prompt, views=views)


def test_three_stages_leave_a_family_that_draws(run: Any) -> None:
    assert run.state == "finished"
    assert {p.name.split("-")[-1] for p in run.previews.glob("*.png")} == {"nearest.png", "samples.png"}
    task = run.task()
    statistics = task.embeddings().mean(0), task.embeddings().std(0)
    prior = task.family().networks["prior"]
    torch.testing.assert_close(prior.clip_mean[0], statistics[0])
    torch.testing.assert_close(prior.clip_std[0], statistics[1])
    first = task.sample(3, asked("a red mug"), torch.Generator().manual_seed(0))
    again = task.sample(3, asked("a red mug"), torch.Generator().manual_seed(0))
    assert [tuple(x.shape) for x in first] == [(16, 16, 3)] * 3
    assert all(torch.equal(a, b) and float(a.min()) >= 0 and float(a.max()) <= 1 for a, b in zip(first, again, strict=True))
    assert (first[0] - first[1]).abs().max() > 0.05
    opened = load_family(run.assets / "unclip")
    assert set(opened.networks) == {"prior", "text_proj", "decoder", "super_res_first", "super_res_last"}


def test_a_stopped_run_goes_on_as_if_it_had_not_been(run: Any, tmp_path: Path) -> None:
    stopped = fit(tmp_path / "run", max_steps=3)
    assert stopped.state == "stopped"
    resumed = run_job(load_job(stopped.folder / "config.yaml", [], get_registry()), get_registry(), resume=stopped.folder, quiet=True)
    mine, theirs = resumed.task().state_dict(), run.task().state_dict()
    assert set(mine) == set(theirs)
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_training_goes_on_from_a_folder(run: Any, tmp_path: Path) -> None:
    job = load_job("unclip-smoke", [*SMALL, f"weights={run.assets / 'unclip'}"], get_registry())
    options = job.stages[3].task.options
    generator = get_registry().find("generator", "unclip").load()
    task = generator(options, Context(build=lambda _: SimpleNamespace(options=SimpleNamespace(images=300))))
    before = load_family(run.assets / "unclip").networks["super_res_first"].state_dict()
    assert all(torch.equal(v, before[k]) for k, v in task.live["super_res_first"].state_dict().items())
    assert all(p.requires_grad for p in task.live.parameters()) and "decoder" in task.finished


def test_a_further_stage_starts_from_what_the_decoder_has_learned(tmp_path: Path) -> None:
    still = fit(tmp_path / "run", "stages.2.optimizer.lr=1e-30").task().family().networks
    before = fit(tmp_path / "before", max_steps=4).task().family().networks
    for name in ("text_proj", "decoder"):
        torch.testing.assert_close(still[name].state_dict(), before[name].state_dict(), rtol=0, atol=1e-12)


def image(path: Path, color: tuple[int, int, int]) -> Path:
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture.paste((*color, 255), (8, 8, 24, 24))
    picture.save(path)
    return path


def test_variations_paths_and_changes_of_words(family: Family, tmp_path: Path) -> None:
    red, blue = image(tmp_path / "red.png", (220, 30, 30)), image(tmp_path / "blue.png", (30, 30, 220))
    few: dict[str, Any] = {"prior_steps": 2, "decoder_steps": 3, "upsampler_steps": 2, "image": red}
    variations = picture(family, SamplingConfig(**few), 2, None, torch.Generator().manual_seed(0))
    assert (variations[0] - variations[1]).abs().max() > 0.05  # other noise, same embedding
    path = picture(family, SamplingConfig(**few, image_to=blue), 3, None, torch.Generator().manual_seed(1))
    back = picture(family, SamplingConfig(**few | {"image": blue}, image_to=red), 3, None, torch.Generator().manual_seed(1))
    assert (path[0] - path[2]).abs().max() > 1e-3
    assert path[0].shape == back[0].shape == (16, 16, 3)
    told = asked("a blue mug")
    changed = picture(family, SamplingConfig(**few, text_from="a red mug"), 2, told, torch.Generator().manual_seed(1))
    # A text diff starts from the picture's own embedding, so its first is the path's first: same noise, same embedding.
    torch.testing.assert_close(changed[0], path[0])
    assert (changed[1] - path[0]).abs().max() > 1e-4


def test_slerp_keeps_to_the_circle() -> None:
    a, b = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 5.0, 0.0])
    for weight in (0.0, 0.3, 1.0):
        out, angle = slerp(a, b, weight), torch.tensor(weight * torch.pi / 2)
        torch.testing.assert_close(out, 3 * torch.tensor([float(angle.cos()), float(angle.sin()), 0.0]), atol=1e-5, rtol=0)
    assert torch.equal(slerp(a, 2 * a, 0.4), a)


def test_the_decoder_follows_the_embedding(family: Family) -> None:
    o = SamplingConfig(decoder_steps=3, upsampler_steps=2)
    z = torch.randn(2, 16) * 3
    one, other = (decoded(family, o, e[None], [""], torch.Generator().manual_seed(0)) for e in z)
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("missing", "settings", "prompt", "message"),
    [
        ("decoder", {}, "a mug", "the decoder of this unCLIP has not been trained yet"),
        ("prior", {}, "a mug", "the prior of this unCLIP has not been trained yet"),
        ("", {"image_to": Path("b.png")}, "", "sampling.image_to changes a picture, and none is given"),
        ("", {"text_from": "a red mug"}, "a mug", "sampling.text_from changes a picture, and none is given"),
    ],
)
def test_what_cannot_be_drawn_is_refused(family: Family, missing: str, settings: Any, prompt: str, message: str) -> None:
    family.networks.pop(missing, None)
    with pytest.raises(UserError, match=message):
        picture(family, SamplingConfig(**settings), 1, asked(prompt), torch.Generator())


def test_a_word_that_clip_never_saw_is_named_once(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    few = SamplingConfig(prior_steps=2, decoder_steps=2, upsampler_steps=2)
    family.tower._warned.clear()
    with caplog.at_level(logging.WARNING, "maquette"):
        for _ in range(2):
            picture(family, few, 1, asked("a red zeppelin"), torch.Generator())
    assert [r.getMessage() for r in caplog.records] == ["this CLIP never saw the word 'zeppelin', so nothing of it will be in the picture"]


def test_a_kind_that_training_never_showed_is_named(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    task = run.task()
    for prompt, warned in (("a red coffee mug", False), ("a red robot", True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "maquette"):
            task.sample(1, asked(prompt), torch.Generator().manual_seed(0))
        told = f"this unCLIP was trained on mug, chair, house, race car alone, and '{prompt}' names none of them"
        assert [r.getMessage() for r in caplog.records] == [told] * warned


def test_too_little_data_and_a_family_without_clip(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.images=100 is too little: the spread of embeddings of 128 numbers needs at least 256"):
        fit(tmp_path / "a", "data.images=100")
    with pytest.raises(UserError, match=r"clip does not exist; it is made by: python launch.py fit embedded-clip"):
        fit(tmp_path / "b", f"family={tmp_path}")
    with pytest.raises(UserError, match="weights: there is no folder"):
        fit(tmp_path / "c", f"weights={tmp_path / 'none'}")


def test_a_lift_follows_a_drawn_picture(run: Any, tmp_path: Path) -> None:
    from core.generative.drawing import drawn_picture

    sets = ["prompt=a red mug", f"draw.run={run.folder}"]
    assert load_job("unclip-to-3d", sets, get_registry()).stages[0].task.options.draw.type == "unclip"
    with pytest.raises(UserError, match="draw: the picture is given by image; give one of the two"):
        load_job("unclip-to-3d", [*sets, f"image={image(tmp_path / 'a.png', (9, 9, 9))}"], get_registry())
    context = Context(parts={"registry": get_registry()})
    path = drawn_picture(run.folder, "unclip", "a red mug", 3, context)
    assert path.parent == run.folder / "samples" and Image.open(path).size == (16, 16)
    before = path.stat().st_mtime_ns
    assert drawn_picture(run.folder, "unclip", "a red mug", 3, context) == path and path.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="draw: a run of 'lion' was expected"):
        drawn_picture(run.folder, "lion", "a red mug", 3, context)
    with pytest.raises(UserError, match="draw.run: .* is not a run"):
        drawn_picture(tmp_path, "unclip", "a red mug", 3, context)
