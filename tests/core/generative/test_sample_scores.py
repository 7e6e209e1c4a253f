"""What samples from nothing are measured by: hulls of known shapes, names of known objects."""

from __future__ import annotations

import numpy as np
import torch

from core.generative.sample_scores import OTHERS, SIDES, all_round, free_scores, hull_agreement, picture_distance
from plugins.procedural.objects import make_object
from plugins.procedural.tracer import render


def balls(centres: torch.Tensor, radius: float = 0.4) -> torch.Tensor:
    """[B, V, S, S] exact silhouettes of balls at [B, 3] from all sides."""
    origins, directions = all_round(32).rays()
    to = centres[:, None, None, None] - origins
    along = (to * directions).sum(-1, keepdim=True)
    return (to - along * directions).norm(dim=-1) < radius


def test_the_hull_of_silhouettes_fits_other_silhouettes_of_the_same_shape_alone() -> None:
    cameras = all_round(32)
    assert len(cameras) == SIDES + OTHERS
    masks = balls(torch.tensor([[0.2, 0.1, 0.0], [-0.3, 0.2, 0.3]]))
    first, last = cameras[:SIDES], cameras[SIDES:]
    own = hull_agreement(masks[:, :SIDES], first, masks[:, SIDES:], last)
    swapped = hull_agreement(masks[:, :SIDES], first, masks.flip(0)[:, SIDES:], last)
    assert own > 0.8 and swapped < 0.4
    turned = hull_agreement(masks[:, :SIDES].roll(2, 1), first, masks[:, SIDES:], last)
    assert turned < own - 0.2, "views of one shape in the wrong places agree less"


def test_known_objects_are_named_and_are_nearer_to_each_other_than_grey() -> None:
    cameras = all_round(32)
    objects = [make_object(k, name) for k, name in enumerate(("mug", "chair"))]
    c2w, owner = np.tile(cameras.c2w.double().numpy(), (2, 1, 1)), np.arange(2 * len(cameras)) // len(cameras)
    made = render(objects, c2w, float(cameras.fov_y[0]), 32, 32, 2, owner=owner)
    rgb, masks = (torch.from_numpy(made[k]).unflatten(0, (2, -1)) for k in ("rgb", "mask"))
    found = free_scores(rgb, masks > 0.5, ["mug", "chair"])
    assert found["known"] == 1 and found["sides agree"] > 0.7 and found["hull"] > 0.7
    assert free_scores(rgb, masks > 0.5, ["bus"])["known"] == 0
    grey = torch.full_like(rgb, 0.5)
    near = picture_distance(rgb[:, ::2].flatten(0, 1), rgb[:, 1::2].flatten(0, 1))
    assert near < 0.5 * picture_distance(grey.flatten(0, 1), rgb[:, 1::2].flatten(0, 1))
