"""The priors that look at a picture: what they are told, what they start from, and where a picture was taken from."""

from __future__ import annotations

import math
import shutil
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.config.loading import load_job
from core.contracts import Context, Step
from core.diffusion.guidance import predict_with_guidance
from core.diffusion.relative_pose import relative_pose
from core.diffusion.sampler import ddim
from core.discovery import get_registry
from core.errors import UserError
from core.stages import build_task
from core.testing import check_component
from core.types import Cameras, Views
from plugins.embedded.camera import HARMONICS, embed_camera
from plugins.embedded.captioned import EmbeddedCaptioned
from plugins.embedded.multiview import FRAMES, EmbeddedMultiView
from plugins.embedded.named import NamedEncoder
from plugins.embedded.prior import Embedded
from plugins.embedded.sight import Sight, turned
from plugins.embedded.zero123 import VIEWPOINT_DIM, EmbeddedZero123, told_viewpoint


def turntable(degrees: list[float], elevation: float = 0.2) -> Cameras:
    return Cameras.turntable(torch.tensor(degrees).deg2rad(), elevation, 64)


@pytest.fixture(scope="module")
def views(data: Any) -> Views:
    rgb = data.take(torch.arange(1).numpy())["rgb"]
    return Views(rgb, torch.ones_like(rgb[..., :1]), turntable([30.0]))


@pytest.fixture
def zero123(family: Path) -> EmbeddedZero123:
    return EmbeddedZero123(EmbeddedZero123.Config(family=str(family), precision="float32"), Context())


@pytest.fixture
def multiview(family: Path) -> EmbeddedMultiView:
    return EmbeddedMultiView(EmbeddedMultiView.Config(family=str(family), precision="float32"), Context())


@pytest.mark.parametrize("name", ["embedded-zero123", "embedded-captioned"])
def test_it_keeps_its_contract(family: Path, name: str) -> None:
    assert len(check_component("prior", name, options={"family": str(family), "precision": "float32"})) >= 12


def test_a_turned_viewpoint_is_that_of_the_turned_camera() -> None:
    """Where the viewpoint is seen exactly, turning it by a relative camera gives the wanted camera's own embedding."""
    given, wanted = turntable([10.0, -170.0, 95.0], 0.3), turntable([200.0, 20.0, -5.0], -0.1)
    seen = [f(k * given.azimuth) for k in HARMONICS for f in (torch.sin, torch.cos)]
    found = turned(torch.stack([*seen, given.elevation], -1), relative_pose(given, wanted))
    torch.testing.assert_close(found, embed_camera(wanted.azimuth, wanted.elevation), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_seen_stays_unseen_when_turned() -> None:
    pose = relative_pose(turntable([0.0]), turntable([77.0]))
    found = turned(torch.zeros(1, 7), pose)
    assert torch.equal(found[:, 1:7], torch.zeros(1, 6)) and found[0, 0] == 1


def test_the_viewpoint_is_learned(fitted: dict[str, Any]) -> None:
    task: Any = fitted["embedded-sight"].current
    optimizer = torch.optim.Adam(task.model.parameters(), 3e-3)
    values = []
    for _ in range(30):  # one batch again and again
        loss = torch.stack(list(task.training_step(Step(0, 1)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]


def test_the_new_channels_start_at_zero_and_the_rest_as_the_text_prior(family: Path) -> None:
    values = {
        "task": "embedded-zero123", "family": str(family), "start": str(family.parent / "text"), "device": "cpu",
        "channels": [16, 16, 16], "data": {"type": "procedural", "images": 64, "batch": 4},
    }  # fmt: skip
    text = family.parent / "text"
    shutil.copytree(family / "unet", text / "unet", dirs_exist_ok=True)
    task: Any = build_task(load_job(values, (), get_registry()), get_registry(), 0, torch.device("cpu"))
    first = task.model.unet.conv_in.weight
    stored = load_file(family / "unet" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(first[:, :4], stored["conv_in.weight"].float()) and not first[:, 4:].any()
    assert torch.equal(task.average.model.unet.conv_in.weight, first)  # the averaged copy too
    heard, known = task.model.unet.class_embedding.linear_1.weight, stored["class_embedding.linear_1.weight"].float()
    assert torch.equal(heard[:, :10], known) and heard.shape[1] == VIEWPOINT_DIM and not heard[:, 10:].any()
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    t, token, heard = torch.tensor([10, 800]), torch.ones(2, 1, 32), torch.ones(2, VIEWPOINT_DIM)
    turned_away = torch.cat([heard[:, :10], -2 * heard[:, 10:]], 1)
    with torch.no_grad():
        some = [
            task.model.unet(torch.cat([x, k * x], 1), t, encoder_hidden_states=token, class_labels=labels).sample
            for k, labels in ((1, heard), (-3, turned_away))
        ]
    assert torch.equal(*some)  # at first nothing depends on the concatenated picture, nor on the relative camera


def test_what_is_saved_may_be_averaged_with_what_it_began_with(family: Path, tmp_path: Path) -> None:
    own = tmp_path / "family"
    shutil.copytree(family, own)
    values = {
        "task": "embedded-zero123", "family": str(own), "start": str(own), "begun": 0.75, "device": "cpu",
        "channels": [16, 16, 16], "data": {"type": "procedural", "images": 64, "batch": 4},
    }  # fmt: skip
    registry = get_registry()
    task: Any = build_task(load_job(values, (), registry), registry, 0, torch.device("cpu"))
    weights = own / "zero123" / "unet" / "diffusion_pytorch_model.safetensors"
    before = load_file(weights)["conv_in.weight"].float()
    with torch.no_grad():
        task.average.model.unet.conv_in.weight.add_(4.0)
    task.finish(None)
    after = load_file(weights)["conv_in.weight"].float()
    torch.testing.assert_close(after, before + 1.0, rtol=1e-3, atol=2e-3)  # a quarter of what was added
    with pytest.raises(UserError, match=r"begun=0.75: without start there are no weights before"):
        build_task(load_job(values | {"start": None}, (), registry), registry, 0, torch.device("cpu"))


def test_zero123_s_pairs_show_one_object_twice(fitted: dict[str, Any]) -> None:
    """Never one picture with itself, each other view of its object as often as the next."""
    task: Any = fitted["embedded-zero123"].current
    wanted = torch.randint(64, (3000,), generator=torch.Generator().manual_seed(0))
    given = task.other(wanted, Step(0, 1))
    seeds = torch.from_numpy(task.data.pool["seed"])
    assert torch.equal(seeds[given], seeds[wanted]) and bool((given != wanted).all())
    further = torch.bincount((given - wanted) % 4, minlength=4)[1:]
    assert bool(((further - 1000).abs() < 4 * (3000 * 2 / 9) ** 0.5).all())


def test_zero123_s_repainted_pairs_have_exchanged_their_channels_alike(fitted: dict[str, Any]) -> None:
    """Where a pair is repainted, both latents are of the object's pictures under one order of the channels."""
    task: Any = fitted["embedded-zero123"].current
    plain, painted = task.pool(False)[0], task.pool(True)[0]
    rgb = torch.from_numpy(task.data.pool["rgb"])
    for first in (0, 8, 60):
        alike = [
            order for order in permutations(range(3))
            if torch.allclose(task.encode(rgb[first : first + 4][..., list(order)].numpy()), painted[first : first + 4], atol=2e-3)
        ]  # fmt: skip
        assert alike and (0, 1, 2) not in alike
    wanted = torch.arange(64).repeat(20)
    given = task.other(wanted, Step(0, 1))
    seen, embedding, x0 = task.shown(given, wanted, Step(0, 1))
    changed = (x0 == painted[wanted].float()).flatten(1).all(1)
    assert abs(float(changed.float().mean()) - 0.5) < 0.06
    for k, source in ((seen, (plain, painted)), (embedding, (task.pool(False)[1], task.pool(True)[1]))):
        assert torch.equal(k[changed], source[1][given[changed]].float())
        assert torch.equal(k[~changed], source[0][given[~changed]].float())


@pytest.mark.parametrize(("images", "views"), [(62, 4), (64, 1)])
def test_zero123_needs_another_view_of_each_object(family: Path, images: int, views: int) -> None:
    values = {
        "task": "embedded-zero123", "family": str(family), "start": str(family), "device": "cpu",
        "channels": [16, 16, 16], "data": {"type": "procedural", "images": images, "views": views, "batch": 4},
    }  # fmt: skip
    with pytest.raises(UserError, match=f"data: {images} pictures, {views} of each object, leave one without another"):
        build_task(load_job(values, (), get_registry()), get_registry(), 0, torch.device("cpu"))


def test_zero123_hears_how_far_it_turns(views: Views) -> None:
    """Beside the timestep: the viewpoint as it can be seen, then the turn's harmonics, the rise and the approach."""
    given = turntable([30.0], 0.2)
    wanted = Cameras.orbit(*(torch.tensor([x]) for x in (math.radians(75), 0.5, 3.4, 0.7)), 64, 64)
    pose = relative_pose(given, wanted)
    told = told_viewpoint(torch.zeros(1, 7), pose)
    turn = math.radians(45)
    far = [f(k * turn) for k in HARMONICS for f in (math.sin, math.cos)]
    expected = torch.tensor([[*far, 0.2 - 0.5, 3.4 - float(given.distance)]])
    torch.testing.assert_close(told[:, 10:], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told[:, :10], turned(torch.zeros(1, 7), pose))


def test_what_zero123_is_told(zero123: EmbeddedZero123, views: Views) -> None:
    cameras = turntable([30.0, 120.0, 210.0])
    told = zero123.condition([""] * 3, cameras, views)
    assert told.text is not None and told.text.shape == (3, 1, 32)
    embedding = zero123.embed_image(views.over(0.5))
    pose = relative_pose(views.cameras, cameras)
    torch.testing.assert_close(pose[:, 1:3], torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0]]), rtol=0, atol=1e-6)
    wanted = zero123.cc_projection(embedding.expand(3, -1), pose)
    torch.testing.assert_close(told.text[:, 0], wanted)
    # The latent is the mode, unscaled, and the same for every view.
    latent = zero123.vae.encode(views.over(0.5).permute(0, 3, 1, 2) * 2 - 1).latent_dist.mode()
    assert told.image is not None
    torch.testing.assert_close(told.image, latent.expand(3, -1, -1, -1))
    nothing = zero123.opposite(told, [""] * 3, cameras)
    assert not any(v.any() for v in (nothing.text, nothing.image, nothing.camera) if v is not None)


def test_zero123_predicts_from_the_concatenation(zero123: EmbeddedZero123, views: Views) -> None:
    told = zero123.condition([""], turntable([120.0]), views)
    x, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([500])
    with torch.no_grad():
        found = zero123.predict(x, t, told)
        wanted = zero123.unet(
            torch.cat([x, told.image], 1), t, encoder_hidden_states=told.text, class_labels=told.camera  # type: ignore[list-item]
        ).sample
    torch.testing.assert_close(found, wanted)
    rgb = ddim(zero123, told, zero123.opposite(told, [""]), 2.0, steps=2)
    assert rgb.shape == (1, 64, 64, 3)


def test_the_nearest_of_several_pictures_is_the_one_turned_from(zero123: EmbeddedZero123, data: Any) -> None:
    rgb = data.take(torch.arange(2).numpy())["rgb"]
    both = Views(rgb, torch.ones_like(rgb[..., :1]), turntable([0.0, 180.0]))
    assert both.nearest(turntable([20.0, 150.0, 91.0, -89.0])).tolist() == [0, 1, 1, 0]
    told = zero123.condition([""] * 2, turntable([20.0, 150.0]), both)
    alone = zero123.condition([""], turntable([150.0]), Views(rgb[1:], both.mask[1:], turntable([180.0])))
    # Convolutions of two pictures and of one differ in their last digits.
    torch.testing.assert_close(told.image[1:], alone.image, rtol=1e-3, atol=1e-3)  # type: ignore[index]
    assert float((told.image[1:] - told.image[:1]).abs().max()) > 0.05  # type: ignore[index]


def always_sees(sight: Sight, color: str, kind: str) -> None:
    """Whatever the picture."""
    with torch.no_grad():
        for head, index in (("color", sight.colors.index(color)), ("kind", list(sight.nouns).index(kind))):
            layer: Any = sight.heads[head]
            layer.weight.zero_()
            layer.bias.zero_()
            layer.bias[index] = 1


def test_a_caption_is_the_likeliest_colour_and_kind(family: Path, views: Views) -> None:
    prior = EmbeddedCaptioned(EmbeddedCaptioned.Config(family=str(family), precision="float32"), Context())
    always_sees(prior.sight, "orange", "teapot")
    assert prior.look(views)[0] == "an orange teapot"
    told, own = prior.condition(["", ""], turntable([30.0, 120.0]), views), prior.condition(["a red mug"], turntable([30.0]), views)
    wanted = Embedded.condition(prior, ["an orange teapot", "a red mug"])
    torch.testing.assert_close(torch.cat([told.text[:1], own.text]), wanted.text)  # type: ignore[index,list-item]
    pose = relative_pose(views.cameras, turntable([30.0, 120.0]))
    torch.testing.assert_close(told.camera, turned(prior.look(views)[1].expand(2, -1), pose))


def test_a_picture_is_embedded_as_the_sentence_that_it_is_seen_to_be(family: Path, views: Views) -> None:
    """Whatever the pixels: the text tower's embedding of the likeliest colour and kind, as CLIP itself has it."""
    from transformers import CLIPModel, CLIPTokenizer

    tower = NamedEncoder.of_family(str(family))
    always_sees(tower.sight, "cyan", "corgi")
    pixels = views.over(0.5).permute(0, 3, 1, 2) * 2 - 1
    found = tower(pixel_values=torch.cat([pixels, pixels.roll(3, -1)])).image_embeds
    noun = tower.sight.nouns["corgi"]
    clip, tokenizer = CLIPModel.from_pretrained(family / "clip"), CLIPTokenizer.from_pretrained(family / "tokenizer")
    tokens = tokenizer([f"a cyan {noun}"], return_tensors="pt")
    with torch.no_grad():
        wanted = clip.float().text_projection(clip.text_model(**tokens).pooler_output)
    torch.testing.assert_close(found, wanted.expand(2, -1), rtol=1e-3, atol=1e-4)
    assert tower.config.projection_dim == wanted.shape[1] and tower.config.image_size == 64


# -- several views at once ---------------------------------------------------------------------------------------------


def predictions(prior: EmbeddedMultiView, told: Any, order: list[int]) -> torch.Tensor:
    x = torch.randn(FRAMES, 4, 16, 16, generator=torch.Generator().manual_seed(2))[order]
    fields = {k: v[order] for k, v in vars(told).items() if isinstance(v, torch.Tensor)}
    extras = {k: v[order] for k, v in told.extras.items()}
    with torch.no_grad():
        return prior.predict(x, torch.full((FRAMES,), 600), type(told)(**fields, extras=extras))


@pytest.mark.parametrize("looks", [False, True])
def test_views_of_a_set_know_each_other_in_any_order(multiview: EmbeddedMultiView, views: Views, looks: bool) -> None:
    told = multiview.condition(["a red mug"] * FRAMES, turntable([0.0, 90.0, 180.0, 270.0]), views if looks else None)
    straight, turned_round = predictions(multiview, told, [0, 1, 2, 3]), predictions(multiview, told, [2, 0, 3, 1])
    torch.testing.assert_close(turned_round, straight[[2, 0, 3, 1]], rtol=1e-3, atol=1e-4)
    # Another view's noise reaches this one.
    x = torch.randn(FRAMES, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    x[1] += 1
    with torch.no_grad():
        changed = multiview.predict(x, torch.full((FRAMES,), 600), told)
    assert float((changed[0] - straight[0]).abs().max()) > 1e-5


def test_sets_do_not_know_each_other(multiview: EmbeddedMultiView) -> None:
    told = multiview.condition(["a red mug"] * 2 * FRAMES, turntable([0.0, 90.0, 180.0, 270.0] * 2))
    x = torch.randn(2 * FRAMES, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    t = torch.full((2 * FRAMES,), 300)
    with torch.no_grad():
        first = multiview.predict(x, t, told)
        x[FRAMES:] += 1
        second = multiview.predict(x, t, told)
    torch.testing.assert_close(first[:FRAMES], second[:FRAMES], rtol=1e-4, atol=1e-5)


def test_the_opposite_of_a_picture_is_none(multiview: EmbeddedMultiView, views: Views) -> None:
    cameras = turntable([30.0, 120.0, 210.0, 300.0])
    told = multiview.condition(["a red mug"] * FRAMES, cameras, views)
    untold = multiview.opposite(told, [""] * FRAMES, cameras)
    assert told.text is not None and told.text.shape == (FRAMES, 25, 32)
    assert untold.image is not None and not untold.image.any() and not untold.extras["given"].any()
    assert torch.equal(untold.camera, told.camera)  # type: ignore[arg-type]
    assert not untold.text[:, -1].any()  # type: ignore[index]
    rgb = ddim(multiview, told, untold, 2.0, steps=2)
    assert rgb.shape == (FRAMES, 64, 64, 3)


def test_a_batch_of_broken_sets_is_refused(multiview: EmbeddedMultiView) -> None:
    told = multiview.condition(["a"] * 3, turntable([0.0, 90.0, 180.0]))
    with pytest.raises(UserError, match="takes sets of 4 views and got 3"):
        multiview.predict(torch.zeros(3, 4, 16, 16), torch.zeros(3).long(), told)


def test_sight_is_saved_and_loaded(family: Path, tmp_path: Path) -> None:
    found = Sight.load(str(family))
    found.save(tmp_path / "sight")
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    for name, value in vars(found(x)).items():
        torch.testing.assert_close(getattr(Sight.load(str(tmp_path))(x), name), value)
        assert math.isfinite(float(value.sum()))


def test_camera_guidance_turns_a_view_away_from_what_is_drawn_without_one(family: Path) -> None:
    """On the prior's own predictions: text and camera, minus a share of what no camera adds beyond the text."""
    prior = Embedded(Embedded.Config(family=str(family), precision="float32", camera_guidance=0.5), Context())
    told, untold = prior.condition(["a red mug"] * 2, turntable([0.0, 120.0])), prior.condition([""] * 2)
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 500])
    blind = prior.condition(["a red mug"] * 2)
    with torch.no_grad():
        guided = predict_with_guidance(prior, x, t, told, untold, 3.0, prior.away(told, untold))
        u, c, b = (prior.predict(x, t, k) for k in (untold, told, blind))
    wanted, other = (c - u).flatten(1), (b - u).flatten(1)
    beyond = other - (other * wanted).sum(1, keepdim=True) / wanted.square().sum(1, keepdim=True) * wanted
    expected = u + 3 * (wanted - 0.5 * beyond).view_as(u)
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)
    assert not Embedded(Embedded.Config(family=str(family), camera=False, camera_guidance=1), Context()).away(blind, blind)
