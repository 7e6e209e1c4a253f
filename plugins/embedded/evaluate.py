"""``launch.py eval embedded``: what the family can do, on objects and pairs that it was never shown."""

from __future__ import annotations

import math
import platform
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.contracts import Context
from core.diffusion.sampler import ddim
from core.discovery import get_registry
from core.types import Cameras
from plugins.embedded.autoencoder import psnr
from plugins.embedded.card import write_card
from plugins.embedded.classifier import VIEWS, Classifier
from plugins.embedded.family import record
from plugins.embedded.judge import FRONT_BEHIND, ClipPrecision
from plugins.embedded.prior import Embedded
from plugins.embedded.sight import Sight

UNLIKE: dict[str, Any] = {"scale": (0.85, 1.3), "shift": 0.15}
"""Objects framed as in people's pictures, which are cut round them."""


def pool(split: str, images: int, **framing: Any) -> Any:
    """A pool of procedural pictures, asked of the registry."""
    data = get_registry().find("data", "procedural").load()
    return data(data.Config(split=split, images=images, seed=11, **framing), Context())


def evaluate(
    family: Annotated[str, typer.Option(help="Folder of the family, or built-in.")] = "built-in",
    images: Annotated[int, typer.Option(help="Pictures of unseen objects.")] = 1024,
    samples: Annotated[int, typer.Option(help="Samples of each kind; 25 DDIM steps, scale 4.")] = 192,
    card: Annotated[bool, typer.Option(help="Write the figures into the family's card.")] = False,
) -> dict[str, Any]:
    """Autoencoder PSNR, CLIP retrieval, judge accuracy, and category and colour accuracy of samples."""
    torch.manual_seed(0)
    table: dict[str, dict[str, float]] = {"vae": {}, "clip": {}, "sight": {}, "classifier": {}, "unet": {}}
    prior = Embedded(Embedded.Config(family=family), Context())
    judge = Classifier.load(family)
    for split in ("test", "heldout"):
        batch = pool(split, images).take(torch.arange(images).numpy())
        table["vae"][f"psnr_{split}"] = _reconstruction(prior, batch["rgb"])
        table["clip"][f"retrieval_of_{64}_{split}"] = _retrieval(family, batch)
        table["sight"] |= {f"{k}_{split}": v for k, v in _sight(prior, Sight.load(family), batch).items()}
        with torch.no_grad():
            logits = judge(batch["rgb"])
        labels = batch | {"view": torch.tensor([VIEWS.index(word) for word in batch["view_word"]])}
        for name in ("category", "color", "view"):
            right = logits[name].argmax(1) == labels[name]
            table["classifier"][f"{name}_{split}"] = float(right.float().mean())
        for camera in (True, False):
            kind = "camera" if camera else "plain"
            found = _samples(prior, judge, batch, samples, camera)
            table["unet"] |= {f"{kind}_{k}_{split}": v for k, v in found.items()}
    framed = pool("test", images, **UNLIKE).take(torch.arange(images).numpy())
    table["sight"] |= {f"{k}_framed_unlike": v for k, v in _sight(prior, Sight.load(family), framed).items()}
    table["classifier"] |= _two_faces(judge)
    for part_name, figures in table.items():
        for name, value in figures.items():
            print(f"{part_name:<12}{name:<32}{value:8.3f}")
        if card:
            record(family, part_name, {k: round(v, 4) for k, v in figures.items()})
    if card:
        write_card(family)
    return table | {"machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}}


@torch.no_grad()
def _reconstruction(prior: Embedded, rgb: Tensor) -> float:
    values = [psnr(prior.decode(prior.encode(x)) * 2 - 1, x * 2 - 1) for x in rgb.split(64)]
    return sum(values) / len(values)


@torch.no_grad()
def _sight(prior: Embedded, sight: Sight, batch: dict[str, Any]) -> dict[str, float]:
    """Shares of right kinds and colours, and median errors of azimuth and elevation in degrees."""
    seen = sight(torch.cat([prior.encode(x) for x in batch["rgb"].split(64)]))
    azimuth, elevation = torch.atan2(seen.viewpoint[:, 0], seen.viewpoint[:, 1]), seen.viewpoint[:, -1]
    off = torch.atan2(torch.sin(azimuth - batch["azimuth"]), torch.cos(azimuth - batch["azimuth"]))
    return {
        "category": float((seen.kind.argmax(1) == batch["category"]).float().mean()),
        "color": float((seen.color.argmax(1) == batch["color"]).float().mean()),
        "azimuth_error": float(off.abs().median().rad2deg()),
        "elevation_error": float((elevation - batch["elevation"]).abs().median().rad2deg()),
    }


def _retrieval(family: str, batch: dict[str, Any]) -> float:
    """Share of pictures whose own caption, or one that says the same, is the best of 64."""
    clip = ClipPrecision(ClipPrecision.Config(family=family), Context())
    texts, rgb = clip.text(batch["caption"]), clip.image(batch["rgb"])
    right = 0
    for k in range(0, len(rgb) - 63, 64):
        best = (rgb[k : k + 64] @ texts[k : k + 64].T).argmax(1) + k
        same = torch.stack([batch[n][best] == batch[n][k : k + 64] for n in ("category", "color", "material")])
        right += int(same.all(0).sum())
    return right / (len(rgb) // 64 * 64)


@torch.no_grad()
def _samples(
    prior: Embedded, judge: Classifier, batch: dict[str, Any], count: int, camera: bool
) -> dict[str, float]:
    """Sample from the captions of ``batch`` and ask the judge."""
    texts, words = batch["caption"][:count], batch["view_word"][:count]
    angles = (batch["azimuth"][:count], batch["elevation"][:count])
    cameras = Cameras.orbit(*angles, torch.full((count,), 3.0), torch.full((count,), 0.7), 64, 64) if camera else None
    if not camera:
        texts = [f"{t}, {w}" for t, w in zip(texts, words, strict=True)]
    rgb = ddim(prior, prior.condition(texts, cameras), prior.condition([""] * count, cameras), scale=4.0, steps=25)
    logits = judge(rgb)
    category = (logits["category"].argmax(1) == batch["category"][:count]).float().mean()
    named = batch["color"][:count] != len(judge.colors) - 1
    color = (logits["color"][:, :-1].argmax(1) == batch["color"][:count])[named].float().mean()
    view = [judge_view == word for judge_view, word in zip(_views(logits["view"]), words, strict=True)]
    return {"category": float(category), "color": float(color), "view": sum(view) / count}


def _views(logits: Tensor) -> list[str]:
    return [VIEWS[k] for k in logits.argmax(1).tolist()]


@torch.no_grad()
def _two_faces(judge: Classifier, count: int = 6) -> dict[str, float]:
    """The Janus rule on true objects of every kind: how often it cries, and how often it finds a second front.

    The second front is made of the true one: the views from 45 degrees left to right stand in for those from behind.
    """
    source = get_registry().find("data", "procedural").load()
    cameras = Cameras.turntable(torch.arange(8) * math.pi / 4, math.radians(15), 64)
    front = []
    for name in judge.categories:
        for rgb in source.pictures_of(name, None, cameras, count):
            front.append(judge(rgb)["view"].softmax(1)[:, VIEWS.index("front view")])
    seen = torch.stack(front)
    rules = {"janus_false_alarms": seen[:, 3:6], "janus_found": seen[:, [7, 0, 1]]}
    return {name: float((views.mean(1) > FRONT_BEHIND).float().mean()) for name, views in rules.items()}
