"""How well a generator that renders shows unseen objects from elsewhere, and what needs no model to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.contracts import Context
from core.errors import UserError
from core.generative.drawing import open_generator
from core.generative.through_rendering import Code, ThroughRendering
from core.types import Cameras

GIVEN, ASKED = 3, 4
"""Pictures of each unseen object that may be given, and others that are asked for."""
_KNOWN = 128


@dataclass(frozen=True)
class Held:
    """Unseen objects.

    Attributes:
        rgb: [B, V, 3, S, S] in [-1, 1], of which the first ``GIVEN`` may be shown to a model.
        cameras: B V cameras.
        index: [B] places in ``data``, a source of the split ``test``.
    """

    rgb: Tensor
    cameras: Cameras
    index: Tensor
    data: Any

    def camera(self, views: slice | Sequence[int], objects: slice = slice(None)) -> Cameras:
        """Those of some views of some objects, object by object."""
        place = torch.arange(len(self.cameras)).view(len(self.rgb), -1)[objects]
        return self.cameras[place[:, views].flatten()]

    @property
    def asked(self) -> Tensor:
        """[B, ASKED, 3, S, S] the pictures that no model is shown."""
        return self.rgb[:, GIVEN:]


def opened(folder: Path, kind: type[ThroughRendering]) -> Any:
    """A fitted generator of that kind.

    Raises:
        UserError: another one's run, or none.
    """
    run, task = open_generator(folder)
    if not isinstance(task, kind):
        raise UserError(f"{folder} is a run of '{run.job.stages[-1].task.name}', not of {kind.__name__}")
    return task


def held_out(task: ThroughRendering, objects: int) -> Held:
    """Objects of the split ``test``, of the kinds that the run was trained on."""
    views = GIVEN + ASKED
    options = task.data.options.model_copy(update={"images": objects * views, "views": views, "split": "test"})
    data = type(task.data)(options, Context())
    index = torch.arange(objects * views)
    rgb = data.take(index.numpy())["rgb"].movedim(-1, 1) * 2 - 1
    cameras = data.cameras(index).to(task.device)
    return Held(rgb.unflatten(0, (objects, views)).to(task.device), cameras, index[::views], data)


def psnr(seen: Tensor, truth: Tensor) -> float:
    """Mean peak signal to noise of pictures [..., 3, S, S] in [-1, 1], dB."""
    error = ((seen - truth) / 2).square().mean((-1, -2, -3)).clamp(min=1e-10)
    return float((-10 * error.log10()).mean())


def ssim(seen: Tensor, truth: Tensor) -> float:
    """Mean structural similarity of pictures [..., 3, S, S] in [-1, 1]."""
    from skimage.metrics import structural_similarity

    seen = seen.expand_as(truth)
    pairs = zip(*(x.flatten(0, -4).cpu().numpy() for x in (seen, truth)), strict=True)
    found = [structural_similarity(a, b, channel_axis=0, data_range=2.0) for a, b in pairs]
    return float(np.mean(found))


def scores(seen: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR and SSIM of pictures [..., 3, S, S] in [-1, 1]."""
    return {"psnr": psnr(seen, truth), "ssim": ssim(seen, truth)}


@torch.no_grad()
def baselines(task: ThroughRendering, held: Held) -> dict[str, dict[str, float]]:
    """Scores, at the asked views, of the first given picture itself, of the training pictures' mean, and of the
    training object that looks most like the given picture from its side."""
    drawn, _ = task.drawn_views(min(512, task.data.options.images), 1, torch.Generator().manual_seed(0))
    copied = held.rgb[:, :1].expand_as(held.asked)
    rows = {"given picture": copied, "mean picture": drawn.mean((0, 1)).expand_as(held.asked)}
    if hasattr(task.data, "seen_from"):
        rows["nearest training object"] = nearest(task, held)
    return {name: scores(seen, held.asked) for name, seen in rows.items()}


def nearest(task: ThroughRendering, held: Held) -> Tensor:
    """[B, ASKED, 3, S, S] the asked views of the training object, of 128, whose picture is nearest to the given one."""
    o = task.data.options
    known = np.arange(min(_KNOWN, o.images // o.views)) * o.views
    out = []
    for k in range(len(held.rgb)):
        own = slice(k, k + 1)
        alike = task.data.seen_from(known, held.camera(slice(1), own))["rgb"].movedim(-1, 2) * 2 - 1
        best = (alike - held.rgb[k, :1].cpu()).square().mean((1, 2, 3, 4)).argmin()
        out.append(task.data.seen_from(known[best : best + 1], held.camera(slice(GIVEN, None), own))["rgb"][0])
    return (torch.stack(out).movedim(-1, 2) * 2 - 1).to(held.rgb)


@torch.no_grad()
def shown(task: ThroughRendering, codes: Sequence[Code], cameras: Cameras) -> Tensor:
    """[B, V, 3, S, S] what scenes look like from their own V cameras."""
    return task.pictures(task.average.model["look"], codes, cameras)


def spread(draws: Sequence[Tensor]) -> float:
    """How far draws [N, 3, S, S] of the same views lie from their mean, of the whole range of colours."""
    return float(torch.stack(list(draws)).std(0, unbiased=False).mean() / 2)


def print_rows(rows: dict[str, dict[str, float]], title: str) -> None:
    """One line for each row, figures by name."""
    print(f"\n{title}")
    for name, figures in rows.items():
        print(f"  {name:<38}" + "".join(f"{k:>14} {v:7.4f}" for k, v in figures.items()))


def write_sheet(rows: Sequence[Tensor], path: Path, factor: int = 2) -> None:
    """Rows of pictures [N, 3, S, S] in [-1, 1], pixels enlarged."""
    from PIL import Image

    picture = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(((picture / 2 + 0.5).clamp(0, 1) * 255).byte().movedim(0, 2).cpu().numpy())
    image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST).save(path)
