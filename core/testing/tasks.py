"""Contracts of task and generator."""

from __future__ import annotations

import numpy as np
import torch

from core.contracts import Scene, Step
from core.testing.check import Checked
from core.testing.parts import check_module, finite, in_unit_range
from core.types import Cameras


def check_task(c: Checked) -> None:
    """Losses that are scalars, follow from the step alone, and have a gradient."""
    task = c.build()
    check_module(c, task)
    torch.manual_seed(0)
    losses = task.training_step(Step(0, 10))
    c.require(bool(losses), "a step gives at least one loss")
    shapes = {name: list(value.shape) for name, value in losses.items() if value.numel() != 1}
    c.require(not shapes, "every loss is one number", f"found {shapes}")
    total = torch.stack([value.reshape(()) for value in losses.values()]).sum()
    if c.require(total.requires_grad and finite(total), "the losses are finite and depend on a parameter"):
        total.backward()
        found = [p.grad for p in task.parameters() if p.grad is not None]
        c.require(bool(found) and finite(*found), "their gradient is finite")
    torch.manual_seed(1)
    again = task.training_step(Step(0, 10))
    same = all(torch.allclose(v, again[k], rtol=1e-4, atol=1e-6) for k, v in losses.items())
    c.require(same, "the losses follow from the step's streams alone")
    _check_preview(c, task)


def _check_preview(c: Checked, task: object) -> None:
    with torch.no_grad():
        pictures = task.preview(Step(0, 10))  # type: ignore[attr-defined]
    for name, picture in pictures.items():
        array = np.asarray(picture)
        fits = array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3
        c.require(fits, f"preview '{name}' is uint8 [H, W, 3]", f"found {array.dtype} {list(array.shape)}")


def check_generator(c: Checked) -> None:
    """What :func:`check_task` asks, and samples: objects that can be rendered, or pictures."""
    check_task(c)
    generator = c.build()
    with torch.no_grad():
        made, again = (generator.sample(2, None, torch.Generator().manual_seed(0)) for _ in range(2))
    fits = len(made) == 2 and all(isinstance(one, (Scene, torch.Tensor)) for one in made)
    if not c.require(fits, "sample(2) gives two scenes or two pictures", f"found {[type(m).__name__ for m in made]}"):
        return
    seen, same = [_seen(one) for one in made], [_seen(one) for one in again]
    shapes = [list(picture.shape) for picture in seen]
    c.require(all(len(s) == 3 and s[2] == 3 for s in shapes), "a sample is seen as [H, W, 3]", f"found {shapes}")
    c.require(all(in_unit_range(picture) for picture in seen), "colours of samples are in [0, 1]")
    equal = all(torch.equal(one, other) for one, other in zip(seen, same, strict=True))
    c.require(equal, "samples follow from the generator that is handed in")


def _seen(sample: Scene | torch.Tensor) -> torch.Tensor:
    """[H, W, 3]: a picture as it is, an object from the front."""
    if isinstance(sample, torch.Tensor):
        return sample
    with torch.no_grad():
        rgb: torch.Tensor = sample.renderer(Cameras.turntable(torch.zeros(1), 0.3, 32)).rgb[0]
    return rgb


CHECKS = {"task": check_task, "generator": check_generator}
