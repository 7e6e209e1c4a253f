"""Contracts of prior, score, data and prompt."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from core.contracts import Module, Prior, Score, Step
from core.diffusion.process import Parametrization
from core.testing import reference
from core.testing.check import Checked
from core.testing.parts import finite, in_unit_range
from core.types import Cameras, Condition

TEXTS = ["a wooden chair", ""]
EXAMPLES = ("index", "caption", "label")
"""One of these a pool tells of each example; pictures without a camera and without any of them are no data."""


def check_prior(c: Checked) -> None:
    """Shapes, ranges and gradients of encode (of a picture, or of a shape), decode, condition and predict."""
    prior = c.build()
    if prior.shapes:
        _check_shapes(c, prior)
        return
    rgb = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(3)).requires_grad_()
    latents = prior.encode(rgb)
    if not c.require(latents.dim() == 4 and len(latents) == 2, "encode gives [B, C, h, w]", f"{list(latents.shape)}"):
        return
    c.require(finite(latents), "what encode gives is finite")
    if c.require(latents.requires_grad, "encode is differentiable in the picture"):
        (gradient,) = torch.autograd.grad(latents.square().sum(), rgb)
        c.require(finite(gradient) and bool((gradient != 0).any()), "the gradient of encode is finite and not zero")
    back = prior.decode(latents.detach())
    c.require(back.dim() == 4 and back.shape[0] == 2 and back.shape[3] == 3, "decode gives [B, H, W, 3]")
    c.require(in_unit_range(back.detach()), "what decode gives is in [0, 1]")
    c.require(torch.equal(latents, prior.encode(rgb)), "encode gives the same twice")
    _check_process(c, prior)
    _check_predict(c, prior, latents.detach())


def _check_shapes(c: Checked, prior: Prior) -> None:
    """In place of pictures, the reference ball."""
    ball = reference.Ball()
    latents = prior.encode_shape(ball)
    if not c.require(latents.dim() >= 2 and len(latents) == 1, "encode_shape gives [1, ...]", f"{list(latents.shape)}"):
        return
    c.require(finite(latents), "what encode_shape gives is finite")
    steps = [prior.encode_shape(ball, Step(k, 9, seed=2)) for k in (3, 3)]
    c.require(torch.equal(*steps), "what encode_shape gives follows from the step's streams alone")
    if c.require(latents.requires_grad, "encode_shape is differentiable in the geometry"):
        (gradient,) = torch.autograd.grad(latents.square().sum(), ball.radius)
        c.require(finite(gradient) and bool(gradient), "the gradient of encode_shape is finite and not zero")
    _check_process(c, prior)
    _check_predict(c, prior, torch.cat([latents.detach()] * 2))


def _check_process(c: Checked, prior: Prior) -> None:
    a, s = prior.process.scales(prior.process.timestep(torch.linspace(0, 1, 50)), torch.zeros(50))
    c.require(bool((a.diff() < 0).all() and (s.diff() > 0).all()), "its process adds ever more noise")


def _check_predict(c: Checked, prior: Prior, latents: Tensor) -> None:
    condition = prior.condition(TEXTS, reference.cameras(64, 2))
    for name, value in vars(condition).items():
        if isinstance(value, Tensor):
            c.require(len(value) == 2 and finite(value), f"condition.{name} has one finite row per text")
    told = [v for v in vars(condition).values() if isinstance(v, Tensor)] + list(condition.extras.values())
    c.require(bool(told), "condition holds something")
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(4))
    t = prior.process.timestep(torch.tensor([0.2, 0.8]))
    noisy = prior.process.add_noise(latents, noise, t)
    with torch.no_grad():
        first, second = prior.predict(noisy, t, condition), prior.predict(noisy, t, condition)
        doubled = prior.predict(torch.cat([noisy] * 2), torch.cat([t] * 2), Condition.cat([condition] * 2))
    c.require(first.shape == noisy.shape, "predict keeps the shape", f"{list(first.shape)} for {list(noisy.shape)}")
    c.require(finite(first), "what predict gives is finite")
    c.require(torch.equal(first, second), "predict gives the same twice")
    c.require(torch.allclose(doubled[2:], first, rtol=1e-2, atol=1e-3), "a row's prediction does not depend on others")


def check_score(c: Checked) -> None:
    """A scalar whose gradient pulls the picture towards what the prior believes, and touches nothing else."""
    for parametrization in get_args(Parametrization):
        score, prior = c.build(), reference.GaussianPrior(parametrization=parametrization)
        _check_score(c, score, prior, parametrization)


def _check_score(c: Checked, score: Score, prior: Prior, name: str) -> None:
    views = reference.cameras(16, 4)
    condition = prior.condition([TEXTS[0]] * 4, views)
    negative = prior.condition([""] * 4, views)
    assert condition.pooled is not None
    mean = condition.pooled[:, :, None, None].expand(-1, -1, 16, 16)
    latents = (-mean).clone().requires_grad_()  # beyond the unconditional mean, which is 0

    def gradient(index: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(index)
        loss = score.loss(prior, latents, condition, negative, Step(index, 40))
        return loss, torch.autograd.grad(loss, latents, retain_graph=True)[0]

    loss, first = gradient(0)
    c.require(loss.shape == (), f"the loss is a scalar ({name})", f"found {list(loss.shape)}")
    c.require(finite(loss, first) and bool((first != 0).any()), f"loss and gradient are finite, not zero ({name})")
    loss.backward()
    touched = [n for n, p in prior.named_parameters() if p.grad is not None and bool((p.grad != 0).any())]
    c.require(not touched, f"no gradient reaches the prior's parameters ({name})", f"reached: {', '.join(touched)}")
    torch.manual_seed(99)
    again = torch.autograd.grad(score.loss(prior, latents, condition, negative, Step(0, 40)), latents)[0]
    c.require(torch.equal(first, again), f"the gradient follows from the step's streams alone ({name})")
    total = torch.stack([gradient(i)[1] for i in range(40)]).sum(0)
    pull = float((total * (latents - mean).detach()).sum())
    c.require(pull > 0, f"over 40 steps the gradient points towards the prior's mean ({name})")


def check_data(c: Checked) -> None:
    """A batch that follows from the step alone: cameras that are valid, for lifts, or rows of examples, for fits."""
    data = c.build()
    if isinstance(data, Module):  # it follows the scene
        data.update(Step(0, 10, seed=5))
    torch.manual_seed(0)
    batch = data.batch(Step(3, 10, seed=5))
    views = batch.get("cameras")
    if isinstance(views, Cameras):
        _check_cameras(c, views)
        rows, each = {k: v for k, v in batch.items() if isinstance(v, Tensor) and v.dim() == 4}, "camera"
    else:
        rows = {k: v for k, v in batch.items() if hasattr(v, "__len__") and not isinstance(v, str)}
        named = bool(rows.keys() & EXAMPLES) and views is None
        promise = f"a batch holds cameras, or examples with their {', '.join(EXAMPLES)}"
        if not c.require(named, promise, f"keys: {sorted(batch)}"):
            return
        views, each = next(iter(rows.values())), "example"
    torch.manual_seed(1)
    again = data.batch(Step(3, 10, seed=5))
    c.require(_equal(batch, again), "a batch follows from the step's streams alone")
    for name, value in rows.items():
        c.require(len(value) == len(views), f"'{name}' has one row per {each}", f"found {len(value)}")
    data.batch(Step(9, 10, seed=5))


def _check_cameras(c: Checked, views: Cameras) -> None:
    c.require(len(views) > 0 and list(views.c2w.shape[1:]) == [4, 4], "camera poses have shape [B, 4, 4]")
    rotation = views.c2w[:, :3, :3].double()
    upright = torch.allclose(rotation.mT @ rotation, torch.eye(3).double().expand_as(rotation), atol=1e-4)
    right_handed = torch.allclose(torch.linalg.det(rotation), torch.ones(len(views)).double(), atol=1e-4)
    c.require(upright and right_handed, "camera axes are orthonormal and right-handed")
    c.require(bool(((views.fov_y > 0) & (views.fov_y < 3.15)).all()), "fields of view are in (0, pi)")
    c.require(views.height > 0 and views.width > 0, "pictures have a size")
    in_front = (views.position * views.c2w[:, :3, 2]).sum(-1) > 0
    c.require(bool(in_front.all()), "the origin is in front of every camera (they look along -z)")


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b)
    if isinstance(a, Cameras):
        return _equal(vars(a), vars(b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def check_prompt(c: Checked) -> None:
    """One text per camera, for any camera."""
    processor = c.build()
    for count in (1, 5):
        views = reference.cameras(8, count)
        texts = processor.texts("a red mug", views)
        c.require(len(texts) == count, f"{count} cameras give {count} texts", f"found {len(texts)}")
        filled = all(isinstance(t, str) and t.strip() for t in texts)
        c.require(filled, "every text is a string with something in it")
        c.require(texts == processor.texts("a red mug", views), "the texts are the same twice")
    full = torch.ones(2)
    poles = Cameras.orbit(0 * full, torch.tensor([1.5707963, -1.5707963]), 3 * full, full, 8, 8)
    c.require(len(processor.texts("a red mug", poles)) == 2, "the poles have texts too")


CHECKS = {"prior": check_prior, "score": check_score, "data": check_data, "prompt": check_prompt}
