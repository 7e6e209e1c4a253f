"""``launch.py eval lion RUN``: shapes against held-out ones, beside what would do without the model's parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.contracts import Context
from core.errors import UserError
from core.generative.drawing import open_generator
from core.points.sets import chamfer_matrix, earth_mover_matrix, set_scores
from plugins.lion.checks import Classes, autoencoder, denoised, hierarchy, interpolation, noise_of
from plugins.lion.lion import Lion
from plugins.lion.sampling import Latents

_LEAST = 4


@dataclass
class Sets:
    """Clouds [S, N, 3] in world units and their classes [S]."""

    points: Tensor
    label: Tensor


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    shapes: Annotated[int, typer.Option(help="Shapes in each set.")] = 32,
    moved: Annotated[int, typer.Option(help="Shapes in each set for the earth mover's distance.")] = 16,
    known: Annotated[int, typer.Option(help="Training shapes whose nearest tells a shape's class.")] = 256,
    against: Annotated[Path | None, typer.Option(help="A run without a global latent, fitted as long.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="A picture of 16 samples.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the run's job; repeatable.")] = None,
) -> dict[str, Any]:
    """1-NNA, coverage and matching distance of samples, and what each latent is good for."""
    if min(shapes, moved) < _LEAST:
        raise UserError(f"--shapes, --moved: sets of {_LEAST} shapes at least can be told apart")
    lion = fitted(run, option or ())
    real, train = held_out(lion, shapes, "test"), held_out(lion, max(known, shapes), "train")
    classes = Classes(train.points, train.label)
    table: dict[str, Any] = {"autoencoder": autoencoder(lion, real.points, held_out(lion, shapes, "test", 1).points)}
    table["sets"] = compare(made_sets(lion, real, train, against), real, moved, classes)
    table["latents"] = hierarchy(lion, classes)
    table["interpolation"] = interpolation(lion, real.points, real.label)
    table["noised to 0.2 and denoised"] = denoised(lion, real.points, real.label, 0.2)
    for name, found in table.items():
        show(name, found)
    if sheet is not None:
        draw_sheet(lion, sheet)
    return table


def fitted(run: Path, changes: Sequence[str] = ()) -> Lion:
    """A run's averaged networks, with changes to its job.

    Raises:
        UserError: it is another generator's, or has no priors yet.
    """
    opened, lion = open_generator(run, changes)
    if not isinstance(lion, Lion):
        raise UserError(f"{run} is a run of '{opened.job.stages[-1].task.name}', not of lion")
    if not lion.has_prior:
        raise UserError(f"{run} has fitted the autoencoder alone so far; its priors come next (launch.py resume {run})")
    return lion


def held_out(lion: Lion, count: int, split: str, seed: int = 0) -> Sets:
    """``count`` shapes of the run's own kinds, in equal shares; ``test`` ones it was not trained on."""
    options = lion.data.options
    if split == "test" and "split" in type(options).model_fields:
        options = options.model_copy(update={"split": "test", "objects": count})
    elif count > getattr(options, "objects", count):
        raise UserError(f"--known, --shapes: {count} training shapes are asked for; the run has {options.objects}")
    data = type(lion.data)(options, Context())
    batch = data.take(torch.arange(count), torch.Generator().manual_seed(seed))
    return Sets(batch["points"], batch.get("label", torch.zeros(count, dtype=torch.int64)))


@torch.no_grad()
def made_sets(lion: Lion, real: Sets, train: Sets, against: Path | None) -> dict[str, Sets]:
    """The model's samples, the most that could be had, and what is left without its parts."""
    count = len(real.label)
    told = lion.conditions.classes(real.label) if lion.conditions.kind == "class" else None
    told = told if told is not None or lion.conditions.kind == "none" else torch.zeros(count, lion.conditions.width)
    latents = lion.latents(count, told, torch.Generator().manual_seed(3))
    noise, walk = noise_of(lion, count, 4), lion.walk()
    clouds: dict[str, Tensor] = {"training shapes": train.points[:count], "lion": _points(lion, latents)}
    if lion.options.hierarchical:
        device_told = None if told is None else told.to(lion.device)
        h = walk.points_of(noise.z, noise.h, device_told, torch.Generator().manual_seed(5))
        clouds["global latent from N(0, I)"] = _points(lion, Latents(noise.z, h))
        clouds["latent points from N(0, I)"] = _points(lion, Latents(latents.z, noise.h))
    clouds["both latents from N(0, I)"] = _points(lion, noise)
    flat = train.points.flatten(0, 1)
    spread = torch.linalg.cholesky(torch.cov(flat.T))
    random = torch.Generator().manual_seed(6)
    clouds["one Gaussian for all points"] = flat.mean(0) + torch.randn(real.points.shape, generator=random) @ spread.T
    if against is not None:
        other = fitted(against)
        clouds["without a global latent"] = _points(other, other.latents(count, told, torch.Generator().manual_seed(3)))
    labels = {"training shapes": train.label[:count]}
    return {name: Sets(points, labels.get(name, real.label)) for name, points in clouds.items()}


def _points(lion: Lion, latents: Latents) -> Tensor:
    return lion.decode(latents).points.float().cpu()


def compare(sets: dict[str, Sets], real: Sets, moved: int, classes: Classes) -> dict[str, dict[str, float]]:
    """For each set: 1-NNA, MMD and COV by both distances, how often the class is the one that was meant, and how near
    the nearest training shape is, as a share of that of held-out shapes."""
    apart: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"CD": chamfer_matrix, "EMD": earth_mover_matrix}
    some = {"CD": len(real.label), "EMD": min(moved, len(real.label))}
    own = {name: distance(real.points[: some[name]], real.points[: some[name]]) for name, distance in apart.items()}
    usual = classes.nearest(real.points).median()
    rows: dict[str, dict[str, float]] = {}
    for kind, one in sets.items():
        row: dict[str, float] = {}
        for name, distance in apart.items():
            made = one.points[: some[name]]
            scores = set_scores(distance(made, made), distance(made, real.points[: some[name]]), own[name])
            row |= {f"{score} {name}": value for score, value in scores.items()}
        row["class"] = classes.agree(one.points, one.label)
        row["from training"] = float(classes.nearest(one.points).median() / usual)
        rows[kind] = row
    rows["held-out shapes"] = {"class": classes.agree(real.points, real.label), "from training": 1.0}
    return rows


def show(name: str, found: dict[str, Any]) -> None:
    """Print a part of the table."""
    print(name)
    for key, value in found.items():
        if isinstance(value, dict):
            print(f"  {key:<30}" + "  ".join(f"{k} {v:.4g}" for k, v in value.items()))
        else:
            print(f"  {key:<50}{value:10.4g}")


def draw_sheet(lion: Lion, path: Path) -> None:
    """Sixteen samples, each as its points and as its surface."""
    from PIL import Image

    from core.generative.drawing import draw
    from core.generative.sheet import picture_of, sample_sheet
    from plugins.lion.surface import dots

    pictures, size = [], 192
    for scene in draw(lion, 16, seed=1):
        geometry: Any = scene.geometry  # type: ignore[union-attr]
        points = geometry.cloud().positions[None, : lion.options.data.options.points]
        left = Image.fromarray((dots(points, size)[0] * 255).byte().numpy())
        both = Image.new("RGB", (2 * size, size))
        both.paste(left, (0, 0))
        both.paste(picture_of(scene, size), (size, 0))
        pictures.append(both)
    path.parent.mkdir(parents=True, exist_ok=True)
    sample_sheet(pictures, f"lion, {', '.join(lion.conditions.names) or 'untold'}: points and their surface").save(path)
