"""Planes at cameras: who sees a point, what a view is drawn from, and that only places between cameras matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.config.loading import load_job
from core.contracts import Context, Step
from core.discovery import get_registry
from core.errors import ConfigError, UserError
from core.generative.through_rendering import Seen
from core.stages import build_task
from core.testing import check_component
from core.types import Cameras
from plugins.ib_planes.image_planes import ENCODINGS, ImagePlanes, fetched, looked_at
from plugins.ib_planes.network import relative_rays

CONFIGS = Path("configs")


def planes(**options: Any) -> ImagePlanes:
    torch.manual_seed(0)
    return ImagePlanes(ImagePlanes.Config(channels=4, size=16, hidden=8, **options), Context())


def generator(*overrides: str) -> Any:
    job = load_job("ib-planes-smoke", ["drop=0", *overrides], get_registry())
    torch.manual_seed(0)
    task: Any = build_task(job, get_registry(), 0, torch.device("cpu"))
    for model in (task.live, task.average.model):
        for p in model["network"].parameters():  # the last convolution starts at random, but small
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.2
    return task


@pytest.fixture(scope="module")
def task() -> Any:
    return generator()


def seen_by(task: Any, cameras: Cameras) -> Seen:
    rgb = torch.rand(1, len(cameras), 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Seen(rgb, torch.tensor([[0] + [500] * (len(cameras) - 1)]), cameras, torch.zeros_like(rgb))


AROUND = Cameras.turntable(torch.tensor([0.0, 1.5, 3.0, 4.5]), 0.3, 16)


@pytest.mark.parametrize(("kind", "name"), [("geometry", "image-planes")])
def test_they_keep_their_contracts(kind: str, name: str) -> None:
    assert check_component(kind, name)


def test_a_point_that_no_camera_sees_is_empty() -> None:
    geometry = planes(views=2, fog=2.0)
    # Two cameras on opposite sides, 3 away: 3.5 up on the axis lies outside both pictures.
    density = geometry.field(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.5]]))["density"]
    assert density[0] > 0.1 and density[1] == 0
    geometry.keep[:] = False
    assert not geometry.field(torch.zeros(1, 3))["density"].any()


def test_features_are_fetched_where_a_point_appears() -> None:
    """With a linear fetch the answer is the picture's own bilinear value, found by hand at a pixel's centre."""
    geometry = planes(views=1)
    camera = Cameras(geometry.c2w, geometry.fov, 16, 16)
    o, d = camera.rays()
    row, column, far = 5, 11, 2.7
    point = o[0, row, column] + far * d[0, row, column]
    depth = far * float(-(camera.world_to_camera[0, :3, :3] @ d[0, row, column])[2])
    told = torch.cat([geometry.planes[0, :, row, column], ENCODINGS["sinusoids"][0](torch.tensor(depth - 3.0))])
    want = geometry.answer(geometry.fetch(told))
    raw, sees = geometry._raw(point[None])
    assert sees.all() and torch.allclose(raw[0], want, atol=1e-4)


def test_fetching_is_bilinear() -> None:
    """Against PyTorch's own sampling of pictures, inside and beyond the outermost pixels' centres."""
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 5, 8, 8, generator=draw, requires_grad=True)
    plane, at = torch.randint(3, (200,), generator=draw), torch.rand(200, 2, generator=draw) * 2 - 1
    found = fetched(maps, plane, at)
    each = torch.nn.functional.grid_sample(
        maps[plane], at[:, None, None], padding_mode="border", align_corners=False
    )[..., 0, 0]  # fmt: skip
    torch.testing.assert_close(found, each, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(found.square().sum(), maps), torch.autograd.grad(each.square().sum(), maps), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_the_point_that_cameras_look_at() -> None:
    target = torch.tensor([0.2, -0.1, 0.3])
    tilt, far, fov = torch.tensor([0.1, 0.6, 1.0]), torch.tensor([1.9, 3.0, 2.4]), torch.full((3,), 0.7)
    cameras = Cameras.orbit(torch.tensor([0.0, 1.0, 4.0]), tilt, far, fov, 16, 16, target)
    torch.testing.assert_close(looked_at(cameras.c2w, 3.0), target, atol=1e-3, rtol=0)
    # One camera alone says nothing of how far it looks: at depth ``middle``.
    alone = looked_at(cameras.c2w[:1], 2.5)
    torch.testing.assert_close(alone, cameras.position[0] - 2.5 * cameras.c2w[0, :3, 2], atol=1e-3, rtol=0)


def test_nothing_is_outside_the_ball_that_the_cameras_look_at() -> None:
    geometry = planes(views=3, fog=2.0, radius=0.5)
    points = torch.tensor([[0.0, 0.0, 0.45], [0.45, 0.0, 0.0], [0.0, 0.0, 0.55], [0.4, 0.4, 0.0]])
    density = geometry.field(points)["density"]
    assert (density[:2] > 0.1).all() and not density[2:].any()


def test_planes_may_be_kept_for_each_point() -> None:
    geometry = planes(views=3, fog=1.0)
    points = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * 0.8 - 0.4
    keep = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    geometry.keep = keep
    together = geometry.field(points)["density"]
    for k in range(40):
        geometry.keep = keep[k]
        torch.testing.assert_close(geometry.field(points[k : k + 1])["density"][0], together[k])


def test_planes_of_the_same_sizes_are_taken_over_with_their_cameras() -> None:
    made, started = planes(views=2), planes(views=2)
    with torch.no_grad():
        made.planes.normal_()
    made.c2w.copy_(Cameras.turntable(torch.tensor([0.3, 2.0]), 0.1, 16).c2w)
    made.keep[1] = False
    started.init_from(made)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    for name, value in made.field(points).items():
        torch.testing.assert_close(started.field(points)[name], value, msg=name)


def test_encodings_have_the_width_they_say() -> None:
    for encode, width in ENCODINGS.values():
        assert encode(torch.zeros(5, 2)).shape == (5, 2, width)


def rendered(task: Any, code: Any, camera: Cameras) -> Tensor:
    with torch.no_grad():
        return task.pictures(task.live["look"], [code], camera)  # type: ignore[no-any-return]


@pytest.mark.parametrize("leave_out", [True, False])
def test_a_view_is_drawn_without_its_own_plane(leave_out: bool) -> None:
    task = generator(f"leave_out={str(leave_out).lower()}")
    with torch.no_grad():
        [code] = task.live["network"](seen_by(task, AROUND))
    for view in range(4):
        blank = code | {"planes": code["planes"].clone()}
        blank["planes"][view] = 7.0
        same = torch.equal(
            rendered(task, code, AROUND[view : view + 1]), rendered(task, blank, AROUND[view : view + 1])
        )
        assert same is leave_out
    elsewhere = Cameras.turntable(torch.tensor([0.7]), 0.3, 16)
    blank = code | {"planes": code["planes"] * 0 + 7.0}
    assert not torch.equal(rendered(task, code, elsewhere), rendered(task, blank, elsewhere))


def test_training_leaves_out_the_same_plane(task: Any) -> None:
    """The gradient of one view's error reaches every plane but its own."""
    with torch.no_grad():
        [code] = task.live["network"](seen_by(task, AROUND))
    code["planes"].requires_grad_()
    rgb = torch.zeros(1, 4, 3, 16, 16)
    errors = task._errors([code], rgb, AROUND, Step(0, 10, 0))
    assert errors.shape == (1, 4)
    for view in range(4):
        [reached] = torch.autograd.grad(errors[0, view], code["planes"], retain_graph=True)
        assert [bool(reached[k].any()) for k in range(4)] == [k != view for k in range(4)]


def test_all_views_at_once_are_as_one_by_one(task: Any) -> None:
    with torch.no_grad():
        [code] = task.live["network"](seen_by(task, AROUND))
    together = rendered(task, code, AROUND)[0]
    for view in range(4):
        torch.testing.assert_close(together[view], rendered(task, code, AROUND[view : view + 1])[0, 0])
        own = task.without(code, view)
        assert own["keep"].tolist() == [k != view for k in range(4)]


def test_dropping_keeps_a_plane() -> None:
    task = generator("drop=0.99")
    code = {"keep": torch.ones(2, dtype=torch.bool)}
    draw = torch.Generator().manual_seed(0)
    assert all(task.without(code, 0, draw)["keep"].tolist() == [False, True] for _ in range(20))


def moved(cameras: Cameras, turn: Tensor, shift: Tensor) -> Cameras:
    world = torch.eye(4)
    world[:3, :3], world[:3, 3] = turn, shift
    return replace(cameras, c2w=world @ cameras.c2w)


def test_turning_and_moving_the_world_changes_nothing(task: Any) -> None:
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)))[0]
    turn = turn * torch.linalg.det(turn)
    other = moved(AROUND, turn, torch.tensor([0.3, -2.0, 1.0]))
    assert torch.allclose(relative_rays(AROUND, 1), relative_rays(other, 1), atol=1e-5)
    with torch.no_grad():
        [a] = task.live["network"](seen_by(task, AROUND))
        [b] = task.live["network"](seen_by(task, other))
        assert a["planes"].std() > 1e-3 and torch.allclose(a["planes"], b["planes"], atol=1e-4)
        geometry = planes(views=4)
        points = torch.rand(50, 3, generator=torch.Generator().manual_seed(5)) - 0.5
        geometry.c2w.copy_(AROUND.c2w)
        here = geometry.field(points)["density"]
        geometry.c2w.copy_(other.c2w)
        there = geometry.field(points @ turn.T + torch.tensor([0.3, -2.0, 1.0]))["density"]
    assert torch.allclose(here, there, atol=1e-3) and here.std() > 1e-4


def test_a_moved_world_is_drawn_alike(task: Any) -> None:
    """Pictures of a drawn scene, not only its planes: what is sampled along a ray goes with the cameras too."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)))[0]
    turn = turn * torch.linalg.det(turn)
    other = moved(AROUND, turn, torch.tensor([1.5, -2.0, 0.7]))
    start = torch.randn(1, 4, 3, 16, 16, generator=torch.Generator().manual_seed(6))
    a, b = (task.pictures(task.average.model["look"], task.walk(start, c, steps=2), c) for c in (AROUND, other))
    assert a.std() > 1e-4 and torch.allclose(a, b, atol=1e-3)


def test_views_attend_to_each_other(task: Any) -> None:
    seen = seen_by(task, AROUND)
    other = replace(seen, rgb=torch.cat([seen.rgb[:, :3], -seen.rgb[:, 3:]], 1))
    with torch.no_grad():
        [a], [b] = task.live["network"](seen), task.live["network"](other)
    assert (a["planes"][0] - b["planes"][0]).abs().max() > 1e-5


def test_samples_are_scenes_of_as_many_planes_as_were_seen(task: Any) -> None:
    points = torch.rand(20, 3) - 0.5
    drawn = [task.draw(1, None, torch.Generator().manual_seed(seed), steps=2)[0] for seed in (0, 0, 1)]
    geometry, again, other = (task.scene(code).geometry for code in drawn)
    assert geometry.planes.shape[0] == task.options.sampled == 3 and geometry.keep.all()
    density = geometry.field(points)["density"]
    assert torch.equal(density, again.field(points)["density"])
    assert not torch.equal(density, other.field(points)["density"])


@pytest.mark.parametrize("preset", ["ib-planes-smoke", "ib-planes-scenes-smoke"])
def test_presets_take_a_step(preset: str) -> None:
    job = load_job(preset, [], get_registry())
    task: Any = build_task(job, get_registry(), 0, torch.device("cpu"))
    losses = task.training_step(Step(0, 4, 0))
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) and v > 0 for v in losses.values())
    assert any(p.grad is not None and p.grad.any() for p in task.live["network"].parameters())


@pytest.mark.parametrize(
    ("override", "word"),
    [("geometry.size=24", "geometry.size=24 must be data.size=16"), ("data.views=4", "data.views=4 is too little"),
     ("geometry=voxel", "fills the geometry 'image-planes', not 'voxel'"), ("network.widths=[8, 12]", "multiple of 8"),
     ("network.widths=[8, 8, 8, 8, 8, 8]", "cannot be halved 5 times"), ("views=2", "one must be noisy")],
)  # fmt: skip
def test_what_cannot_be_trained_is_said(override: str, word: str) -> None:
    with pytest.raises((UserError, ConfigError), match=word):
        generator(override)


def test_the_last_view_is_drawn_from_all_planes(task: Any) -> None:
    """Views of the set come back in their order: clean ones first, the unseen camera last."""
    from plugins.ib_planes.evaluate import draw_beside, unseen

    rgb, cameras = unseen(task, 2)
    assert rgb.shape == (2, 5, 3, 16, 16) and len(cameras) == 10 and task.data.options.split == "train"
    drawn, codes, own = draw_beside(task, rgb, cameras, 1, 2, seed=0)
    assert drawn.shape == rgb.shape and not torch.equal(drawn[0], drawn[1])
    assert torch.equal(own.c2w[4:], cameras.c2w[5:9]) and len(codes) == 2
    again = task.pictures(task.average.model["look"], codes[1:], cameras[9:])
    torch.testing.assert_close(drawn[1, 4], again[0, 0])


def test_sets_may_be_larger_than_in_training(task: Any) -> None:
    from plugins.ib_planes.evaluate import agreement, draw_beside, moved_apart, unseen

    rgb, cameras = unseen(task, 2, most=6)
    assert rgb.shape[1] == 8
    drawn, codes, own = draw_beside(task, rgb, cameras, 6, 2, seed=0)
    assert drawn.shape[1] == 8 and codes[0]["planes"].shape[0] == 7 and len(own) == 14
    nothing, codes, own = draw_beside(task, rgb, cameras, 0, 2, seed=0)
    assert nothing.shape[1] == 5 and 0 < agreement(task, codes, own) <= 100
    assert moved_apart(task, 2) < 1e-3
