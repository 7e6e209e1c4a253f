"""What samples from nothing are: one object from all sides, of a known kind, near to pictures of real ones.

The embedded classifier and the embedded CLIP judge; both look at pictures over grey, of any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context
from core.discovery import get_registry
from core.frechet import frechet
from core.generative.through_rendering import Code, ThroughRendering
from core.generative.view_scores import held_out
from core.types import Cameras

SIDES, OTHERS = 8, 4
"""Cameras on a circle, from which objects are named and hulls are carved, and further ones, higher up."""
_SIZE, _SOLID, _SAMPLES = 48, 0.5, 64


def all_round(size: int = _SIZE) -> Cameras:
    """``SIDES`` cameras 20 degrees above the horizon and ``OTHERS`` between them, 45 degrees above it."""
    turns = [torch.arange(n) * 2 * math.pi / n + first for n, first in ((SIDES, 0.0), (OTHERS, 0.2))]
    return Cameras.cat([
        Cameras.turntable(turn, math.radians(tilt), size) for turn, tilt in zip(turns, (20.0, 45.0), strict=True)
    ])  # fmt: skip


def judge_of(kind: str) -> Any:
    """The metric ``kind`` with its defaults: `judge` or `clip`."""
    found: Any = get_registry().find("metric", kind).load()
    return found(found.Config(), Context())


@torch.no_grad()
def seen_as(rgb: Tensor, known: Sequence[str]) -> dict[str, float]:
    """What the embedded classifier calls objects [B, V, H, W, 3] in [0, 1], each seen from V sides.

    Returns:
        ``known``: share whose mean over the sides is a kind of ``known``; ``sides agree``: share of the sides that are
        called as their object's mean; ``one object``: share of the objects of which three quarters of the sides are.
    """
    classifier = judge_of("judge").classifier
    flat = F.interpolate(rgb.flatten(0, 1).movedim(-1, 1), size=(64, 64), mode="bilinear", antialias=True)
    chance = classifier(flat.movedim(1, -1).clamp(0, 1))["category"].softmax(1).unflatten(0, rgb.shape[:2])
    name = chance.mean(1).argmax(1)
    places = torch.tensor([classifier.categories.index(k) for k in known])
    agree = (chance.argmax(2) == name[:, None]).float().mean(1)
    return {
        "known": float(torch.isin(name, places).float().mean()),
        "sides agree": float(agree.mean()),
        "one object": float((agree >= 0.75).float().mean()),
    }


def picture_distance(rgb: Tensor, real: Tensor) -> float:
    """Fréchet distance of pictures [N, H, W, 3] in [0, 1] to real ones, as the embedded CLIP sees them."""
    clip = judge_of("clip")
    return frechet(*(torch.cat([clip.embed_pictures(p) for p in x.split(64)]) for x in (rgb, real)))


def hull_agreement(masks: Tensor, cameras: Cameras, others: Tensor, elsewhere: Cameras, bound: float = 1.0) -> float:
    """Mean intersection over union of silhouettes with those of the visual hull that other silhouettes leave.

    Args:
        masks: [B, V, H, W] bool, from the V ``cameras``, which carve.
        others: [B, W, H, W] bool, from the W cameras ``elsewhere``, which are compared.
    """
    origins, directions = (x.flatten(1, 2) for x in elsewhere.rays())  # [W, P, 3]
    far = float(elsewhere.distance.mean()) + bound * torch.linspace(-1.8, 1.8, _SAMPLES)
    points = origins[:, :, None] + far[:, None] * directions[:, :, None]  # [W, P, S, 3]
    flat = points.flatten(0, 2)
    inside = torch.ones(len(masks), len(flat), dtype=torch.bool)
    for k in range(len(cameras)):
        pixels, _ = cameras[k : k + 1].project(flat)
        at = pixels[0].floor().long()
        within = ((at >= 0) & (at < masks.shape[-1])).all(-1)
        at = at.clamp(0, masks.shape[-1] - 1)
        inside &= masks[:, k, at[:, 1], at[:, 0]] & within
    hull = inside.unflatten(1, points.shape[:3]).any(-1)  # [B, W, P]
    found = others.flatten(2)
    both, either = (hull & found).sum(-1), (hull | found).sum(-1).clamp(min=1)
    return float((both / either).mean())


@torch.no_grad()
def looked_at(task: ThroughRendering, codes: Sequence[Code], cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Pictures [B, V, H, W, 3] in [0, 1] and silhouettes [B, V, H, W] of scenes, all from the same V cameras."""
    look = task.average.model["look"]
    cameras = cameras.to(task.device)
    origins, directions = (x.flatten(0, 2) for x in cameras.rays())
    shape = (len(codes), len(cameras), cameras.height, cameras.width)
    seen = [task.rendered(look, code, origins, directions) for code in codes]
    rgb = torch.stack([s.rgb for s in seen]).view(*shape, 3)
    return rgb.cpu(), (torch.stack([s.opacity for s in seen]) > _SOLID).view(shape).cpu()


def free_scores(rgb: Tensor, masks: Tensor, known: Sequence[str]) -> dict[str, float]:
    """Of objects [B, V, H, W, 3] with silhouettes [B, V, H, W], from the cameras of :func:`all_round`: what
    :func:`seen_as` gives, and how well silhouettes from above fit the hull of those on the circle."""
    cameras = all_round(rgb.shape[2])
    hull = hull_agreement(masks[:, :SIDES], cameras[:SIDES], masks[:, SIDES:], cameras[SIDES:])
    return seen_as(rgb[:, :SIDES], known) | {"hull": hull}


def free_table(
    task: ThroughRendering, draw: Callable[[Any], list[Code]], count: int
) -> tuple[dict[str, dict[str, float]], Tensor]:
    """Rows for samples from nothing, for the same network with random weights, and for unseen objects; then pictures
    [B, SIDES, H, W, 3] of the samples.

    Args:
        draw: ``count`` samples of a generator.
    """
    held = held_out(task, 2 * count)
    own = held.rgb[:, 0].movedim(1, -1).cpu() / 2 + 0.5
    cameras, names = all_round(), task.data.options.categories or task.data.category_names
    real = held.data.seen_from(held.index[:count].numpy(), cameras)
    rows = {"unseen objects": free_scores(real["rgb"], real["mask"] > _SOLID, names)}
    rows["unseen objects"]["frechet"] = picture_distance(own[count:], own[:count])
    with torch.random.fork_rng(devices=[]):
        fresh = type(task)(task.options, task.context).to(task.device).eval()
    shown = Tensor()
    for name, one in (("random weights", fresh), ("samples", task)):
        codes = draw(one)
        rgb, masks = looked_at(one, codes, cameras)
        rows[name] = free_scores(rgb, masks, names)
        pictures = one.pictures(one.average.model["look"], codes, held.camera(slice(1), slice(count)))
        rows[name]["frechet"] = picture_distance(pictures[:, 0].movedim(1, -1).cpu() / 2 + 0.5, own[:count])
        shown = rgb[:, :SIDES]
    return rows, shown
