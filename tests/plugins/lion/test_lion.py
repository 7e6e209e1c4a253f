"""Training stage by stage, what samples follow from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lion import POINTS, VAE, latents, seeded, tiny

from core.asked import Asked
from core.contracts import Scene, Step
from core.diffusion.sde_objective import squared_error
from core.errors import UserError
from core.generative.drawing import ask
from core.points.unet import DownConfig
from plugins.lion.lion import Lion
from plugins.lion.options import SamplingConfig, SurfaceConfig

STEP = Step(index=5, total=10)
QUICK: dict[str, Any] = {
    "sampling": SamplingConfig(steps=3),
    "surface": SurfaceConfig(resolution=16, draws=2),
}


def cloud(sample: Any) -> torch.Tensor:
    points: torch.Tensor = sample.geometry.cloud().positions
    return points


@pytest.fixture(scope="module")
def fitted() -> Lion:
    return tiny(**QUICK)


def test_one_scale_serves_all_shapes() -> None:
    task = tiny("vae")
    points = task.data.take(torch.arange(32), seeded())["points"]
    x = task.normalised(points)
    assert float(x.std()) == pytest.approx(1, abs=0.02) and float(x.mean((0, 1)).abs().max()) < 0.05
    torch.testing.assert_close(task.in_world(x), points)
    assert float(task.normalised(points[:1]).std()) != pytest.approx(1, abs=0.05), "large and small stay so"


def test_the_autoencoders_terms_are_sums() -> None:
    task = tiny("vae", kl=0.25, normals=2.0)
    step = Step(index=5, total=10)
    losses = task.training_step(step)
    batch = task.data.batch(step)
    x = task.normalised(batch["points"])
    made, shape, latent = task.live["vae"](x, task._noise(step, "posterior"))
    assert made.normals is not None
    torch.testing.assert_close(losses["reconstruction"], (made.points - x).abs().sum() / len(x))
    torch.testing.assert_close(losses["kl"], 0.25 * (shape.kl() + latent.kl()).mean())
    cosine = torch.nn.functional.cosine_similarity(made.normals, batch["normals"], dim=-1)
    torch.testing.assert_close(losses["normals"], 2 * (1 - cosine).sum() / len(x))
    assert step.metrics["kl_h"] == pytest.approx(float(latent.kl().mean().detach()))
    torch.stack(list(losses.values())).sum().backward()
    trained = {id(p) for g in task.param_groups() for p in g["params"]}
    assert trained == {id(p) for p in task.live["vae"].parameters()}
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in task.live["vae"].parameters())


def test_the_priors_learn_the_noise_in_drawn_latents_and_teach_the_autoencoder_nothing(fitted: Lion) -> None:
    losses = fitted.training_step(STEP)
    batch = fitted.data.batch(STEP)
    z, h = (x := fitted.encode(batch["points"], fitted._noise(STEP, "posterior"), fitted.live["vae"])).z, x.h
    times = fitted._times(len(z), STEP.generator("times"))
    kept = torch.rand(len(z), 1, generator=STEP.generator("untold")) >= 0.1
    told = torch.nn.functional.one_hot(batch["label"], 2) * kept
    for name, value, before in (("shape", z, ()), ("points", h, (z,))):
        noise = fitted._noise(STEP, f"{name}-noise")(tuple(value.shape))
        score = fitted.live[name]
        error = squared_error(lambda a, t: score(a, t, *before, told.float()), fitted.sde, value, times, noise)  # noqa: B023
        span = 1 - fitted.sde.start  # an integral over uniform times
        torch.testing.assert_close(losses[name], span * error.mean())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None for p in fitted.live["vae"].parameters())
    trained = [p for g in fitted.param_groups() for p in g["params"]]
    assert all(p.grad is not None for p in trained) and len(trained) > 10
    fitted.zero_grad(set_to_none=True)


def test_the_autoencoder_is_handed_over_as_it_was_averaged() -> None:
    first = tiny("vae")
    with torch.no_grad():
        first.average.model["vae"].style_encoder.mlp.bias.fill_(0.5)
        first.scale.fill_(0.25)
    second = tiny("priors", first)
    for mine in (second.live, second.average.model):
        assert float(mine["vae"].style_encoder.mlp.bias.mean()) == 0.5
    assert float(second.scale) == 0.25 and second.has_prior and not first.has_prior


def test_without_a_global_latent_one_prior_is_left() -> None:
    task = tiny(hierarchical=False, **QUICK)
    assert set(task.training_step(STEP)) == {"points"} and "shape" not in task.live
    assert set(tiny("vae", hierarchical=False).training_step(STEP)) == {"reconstruction", "kl", "normals"}
    assert len(task.sample(1, None, seeded())) == 1


def test_samples_are_scenes_that_follow_from_the_averaged_weights(fitted: Lion) -> None:
    fitted.eval()
    with torch.no_grad():
        one, two = (fitted.sample(3, ask("a chair"), seeded()) for _ in range(2))
        other = fitted.sample(3, ask("a mug"), seeded())
    assert all(isinstance(s, Scene) for s in one)
    clouds = [[cloud(s) for s in some] for some in (one, two, other)]
    assert clouds[0][0].shape == (2 * POINTS, 3), "two draws of latent points make a surface"
    assert all(torch.equal(a, b) for a, b in zip(clouds[0], clouds[1], strict=True))
    assert not torch.equal(clouds[0][0], clouds[2][0])
    mesh = one[0].geometry.mesh(0)  # type: ignore[union-attr]
    assert len(mesh.faces) > 0 and float(mesh.vertices.abs().max()) < 1.2


@pytest.mark.parametrize("mode", ["interpolation", "variations"])
def test_shapes_between_and_near_others(mode: str, fitted: Lion, tmp_path: Path) -> None:
    import trimesh

    paths = tuple(tmp_path / f"{k}.ply" for k in range(2))
    for k, path in enumerate(paths):
        trimesh.creation.icosphere(2, 0.5 + k).export(path)
    given = paths if mode == "interpolation" else paths[:1]
    before = fitted.options
    try:
        for shapes in (given, ()):
            sampling = SamplingConfig(steps=2, mode=mode, shapes=shapes)  # type: ignore[arg-type]
            fitted.options = before.model_copy(update={"sampling": sampling})
            clouds = [cloud(s) for s in fitted.sample(3, None, seeded())]
            assert len(clouds) == 3 and not torch.equal(clouds[0], clouds[1])
        if mode == "interpolation":
            with pytest.raises(UserError, match="two ends at least"):
                fitted.sample(1, None, seeded())
    finally:
        fitted.options = before


def test_classes_are_drawn_evenly_where_none_is_asked_for(fitted: Lion) -> None:
    told = fitted.conditions.of_asked(None, 4, seeded())
    assert told is not None and told.argmax(1).tolist() == [0, 1, 0, 1]
    chairs = fitted.conditions.of_asked(ask("a wooden chair"), 2, seeded())
    assert chairs is not None and chairs.tolist() == [[0, 1], [0, 1]]
    assert tiny(condition="none").conditions.of_asked(None, 2, seeded()) is None


def test_clip_hears_captions_and_sees_pictures() -> None:
    task = tiny(condition="clip")
    step, random = Step(index=1, total=2), seeded()
    batch = task.data.batch(step)
    told = task.conditions.of_batch(batch, random)
    assert told is not None and told.shape[1] == task.conditions.width > 8
    torch.testing.assert_close(told.square().mean(1), torch.ones(4), rtol=1e-3, atol=1e-3)
    asked = task.conditions.of_asked(ask("a chair"), 2, random)
    assert asked is not None
    chair = batch["label"].tolist().index(1) if 1 in batch["label"] else None
    assert chair is None or torch.allclose(asked[0], told[chair], atol=1e-4)
    nothing = task.conditions.of_asked(None, 2, random)
    assert nothing is not None and float(nothing.abs().max()) == 0
    seen = task.conditions.of_batch(batch | {"rgb": torch.rand(4, 64, 64, 3, generator=random)}, random)
    assert seen is not None and seen.shape == told.shape and not torch.equal(seen, told)
    assert torch.isfinite(torch.stack(list(task.training_step(STEP).values()))).all()
    with pytest.raises(UserError, match=r"'a teapot' names a teapot; this run was fitted to: mug, chair"):
        task.conditions.of_asked(ask("a teapot"), 1, random)


def test_what_cannot_be_asked_for(fitted: Lion, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'a boat' names no class that it knows; it was fitted to: mug, chair"):
        fitted.sample(1, ask("a boat"), seeded())
    with pytest.raises(UserError, match="told nothing, so they cannot be asked for 'a mug'"):
        tiny(condition="none").sample(1, ask("a mug"), seeded())
    picture = tmp_path / "p.png"
    from PIL import Image

    cut = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    cut.paste((200, 0, 0, 255), (8, 8, 24, 24))
    cut.save(picture)
    asked: Asked = ask("", picture)
    with pytest.raises(UserError, match="know no pictures; fit one with condition=clip"):
        fitted.sample(1, asked, seeded())
    early = tiny("vae", sampling=SamplingConfig(mode="variations"))
    with pytest.raises(UserError, match="sampling.mode=variations needs the priors"):
        early.sample(1, None, seeded())


def test_what_cannot_be_fitted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.objects is 6, too few for batches of 4: at least two batches"):
        tiny(data={"objects": 6})
    with pytest.raises(UserError, match=r"vae.shape: its levels keep 8, 4 of data.points=6; .*raise data.points to 8"):
        tiny(data={"points": 6})
    odd = VAE.model_copy(update={"shape": (*VAE.shape, DownConfig(centers=6, radius=1.0, mlp=(8,)))})
    with pytest.raises(UserError, match="keep 8, 4, 6 of"):
        tiny(vae=odd)
    with pytest.raises(UserError, match="interpolation takes 0 or 2 meshes, found 1"):
        tiny(sampling=SamplingConfig(mode="interpolation", shapes=(tmp_path / "a.ply",)))
    with pytest.raises(UserError, match="start: there is no checkpoint"):
        tiny(start=tmp_path / "none.pt")


def test_the_preview_shows_shapes_reconstructions_and_samples(fitted: Lion) -> None:
    with torch.no_grad():
        picture = fitted.preview(STEP)["samples"]
    assert picture.shape == (3 * 96, 4 * 96, 3) and picture.min() < 128 < picture.max()
    assert len(latents(2)) == 2
