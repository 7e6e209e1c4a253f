"""``launch.py eval gsd RUN``: free samples against held-out objects, and objects led by one view, from other sides.

That led samples beat free ones says little: fitting Gaussians to the one view, without any prior, beats them too. So
that is a row of the table, as are the training object that looks most like the view, and the mean picture.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.contracts import Context, Metric
from core.discovery import get_registry
from core.errors import UserError
from core.generative.drawing import ask, open_generator
from core.generative.view_scores import print_rows, psnr, spread, write_sheet
from core.kernels.splatting.pictures import draw
from core.points.sets import chamfer_matrix, set_scores
from core.types import Cameras, Render, Views
from plugins.gsd.fitting import BACKGROUND, FitConfig, around, fit_objects, fitted, mismatch
from plugins.gsd.gsd import Gsd
from plugins.gsd.guidance import Given
from plugins.gsd.polish import polished
from plugins.gsd.tokens import canonical, splats_of

_LEAST, _NOVEL, _BEST, _ALONE = 4, 4, 8, 60
_GIVEN_SIZE = 64
Rows = dict[str, dict[str, float]]


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    shapes: Annotated[int, typer.Option(help="Objects in each set.")] = 32,
    objects: Annotated[int, typer.Option(help="Held-out objects that are made from one view.")] = 8,
    draws: Annotated[int, typer.Option(help="Samples of each such object, for how far they differ where.")] = 6,
    steps: Annotated[int | None, typer.Option(help="Timesteps of a sample; the run's own by default.")] = None,
    polish: Annotated[str, typer.Option(help="A 2D prior that polishes, for two more rows.")] = "",
    output: Annotated[Path, typer.Option(help="Folder that receives the picture.")] = Path("runs/eval-gsd"),
) -> dict[str, Rows]:
    """Sets against sets, and one view to an object, each beside what needs no such model."""
    if shapes < _LEAST or objects < 1 or draws < 2:
        least = f"--shapes: sets of {_LEAST} objects at least can be told apart; --objects: one at least"
        raise UserError(f"{least}; --draws: two at least, for they are compared")
    task = opened(run, [f"polish={{prior: {polish}}}"] if polish else [])
    if shapes > task.data.options.objects:
        raise UserError(f"--shapes: {shapes} training objects are asked for; the run has {task.data.options.objects}")
    table: dict[str, Rows] = {"sets": compare_sets(task, shapes, steps)}
    print_rows(table["sets"], f"sets of {shapes} objects, by their Gaussians' centres")
    held = held_out(task, objects)
    table["one view"], rows = compare_views(task, held, steps)
    print_rows(table["one view"], f"{objects} held-out objects from one view, seen from {_NOVEL} others")
    table["draws"], drawn = compare_draws(task, held, draws, steps)
    print_rows(table["draws"], f"{draws} samples of each: how far they differ, in shares of the range of colours")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table["cost"] = {"this process": {"MiB at most": memory}}
    print_rows(table["cost"], "memory")
    write_sheet([row.movedim(-1, 1) * 2 - 1 for row in rows.values()], output / "gsd.png", 3)
    write_sheet([row.movedim(-1, 1) * 2 - 1 for row in drawn], output / "draws.png", 3)
    print(f"\n{output / 'gsd.png'}, from above: {', '.join(rows)}")
    print(f"{output / 'draws.png'}, from above: given view, samples from it, true view from behind, the same samples")
    return table


def opened(run: Path, overrides: list[str]) -> Gsd:
    """A run's averaged network.

    Raises:
        UserError: it is another generator's.
    """
    found, task = open_generator(run, overrides)
    if not isinstance(task, Gsd):
        raise UserError(f"{run} is a run of '{found.job.stages[-1].task.name}', not of gsd")
    return task


def _test(task: Gsd, count: int) -> Any:
    options = task.data.options
    if "split" not in type(options).model_fields:
        return task.data
    return type(task.data)(options.model_copy(update={"split": "test", "objects": count}), Context())


# -- sets ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def compare_sets(task: Gsd, count: int, steps: int | None) -> Rows:
    """1-NNA, MMD and COV, how often the class is the one that was meant, and the nearest training object's distance
    as a share of that of held-out objects."""
    # held-out objects are fitted as the training ones were: the fit moves Gaussians off the surface
    real, label = fit_objects(_test(task, count), task.options.fit, torch.arange(count))
    train, train_label = (x.cpu() for x in task.sets)
    random = torch.Generator().manual_seed(3)
    start = time.perf_counter()
    told = label if task.names else task.labels("", count)
    sets = {"training objects": train[:count], "gsd": task.draw_sets(told, random, steps=steps).cpu()}
    seconds = (time.perf_counter() - start) / count
    mean, deviation = task.mean.cpu(), task.deviation.cpu()
    free = torch.randn(real.shape, generator=random)
    sets["Gaussians drawn one by one"] = mixed(train, train_label, label, random)
    sets["numbers from N(mean, deviation)"] = canonical(free * deviation + mean)
    rows = _set_rows(sets, real, label, train, train_label, train_label[:count])
    rows["gsd"]["seconds"] = seconds
    for name in ("training objects", "gsd"):
        rows[name] |= judged(task, sets[name], train_label[:count] if name == "training objects" else label)
    return rows


def _set_rows(
    sets: dict[str, Tensor], real: Tensor, label: Tensor, train: Tensor, train_label: Tensor, first_label: Tensor
) -> Rows:
    rows: Rows = {}
    at, known = real[..., :3], train[..., :3]
    own = chamfer_matrix(at, at)
    usual = chamfer_matrix(at, known).amin(1).median()
    for name, one in sets.items():
        made = one[..., :3]
        far = chamfer_matrix(made, known)
        meant = first_label if name == "training objects" else label
        rows[name] = set_scores(chamfer_matrix(made, made), chamfer_matrix(made, at), own)
        rows[name]["class"] = float((train_label[far.argmin(1)] == meant).float().mean())
        rows[name]["from training"] = float(far.amin(1).median() / usual)
    return rows


def mixed(train: Tensor, train_label: Tensor, label: Tensor, random: torch.Generator) -> Tensor:
    """Sets whose Gaussians each come from any training object of the class: what is left without the sets."""
    out = []
    for k in label.tolist():
        pool = train[train_label == k] if bool((train_label == k).any()) else train
        owner = torch.randint(len(pool), (train.shape[1],), generator=random)
        out.append(pool[owner, torch.randint(train.shape[1], (train.shape[1],), generator=random)])
    return torch.stack(out)


def judged(task: Gsd, sets: Tensor, label: Tensor) -> dict[str, float]:
    """How often the embedded classifier sees the class in four views."""
    if not task.names:
        return {}
    kind: Any = get_registry().find("metric", "judge").load()
    judge: Metric = kind(kind.Config(), Context())
    cameras, found = around(4, 64, 0.4), []
    for one, k in zip(sets, label.tolist(), strict=True):
        rgb = shown(one, cameras)
        told = judge.measure(Render(rgb, torch.ones_like(rgb[..., :1]), cameras), task.names[k])
        found.append(told.get("category", 0.0))
    return {"judge": sum(found) / len(found)}


# -- one view ------------------------------------------------------------------------------------------------------


class Held:
    """Held-out objects: the given view of each first, then others.

    Attributes:
        rgb: [B, 1 + V, H, W, 3].  mask: [B, 1 + V, H, W, 1].  cameras: 1 + V.  points: [B, K, 3].  label: [B].
        fine: the given views at 64 pixels a side, for priors that look at them.
    """

    def __init__(
        self, rgb: Tensor, mask: Tensor, cameras: Cameras, points: Tensor, label: Tensor, fine: list[Views]
    ) -> None:
        self.rgb, self.mask, self.cameras, self.points, self.label = rgb, mask, cameras, points, label
        self.fine = fine

    def given(self, k: int) -> Given:
        """The one view of the ``k``-th object."""
        return Given(self.cameras[:1], self.rgb[k, :1], self.mask[k, :1])


def held_out(task: Gsd, count: int) -> Held:
    """``count`` objects of the split ``test``, from one side and, around it, from others.

    Raises:
        UserError: the run's data gives no pictures.
    """
    data = _test(task, count)
    if not hasattr(data, "seen_from"):
        raise UserError(f"data: {type(data).__name__} gives no pictures of its objects, so no view can be given")
    laid = task.options.fit.model_copy(update={"steps": 0})
    real, label = fit_objects(data, laid, torch.arange(count))
    cameras = around(1 + _NOVEL, task.options.views.size, 0.6)
    seen = data.seen_from(torch.arange(count), cameras)
    near = cameras[:1].resized(_GIVEN_SIZE, _GIVEN_SIZE)
    large = data.seen_from(torch.arange(count), near)
    fine = [Views(rgb, mask[..., None], near) for rgb, mask in zip(large["rgb"], large["mask"], strict=True)]
    return Held(seen["rgb"], seen["mask"][..., None], cameras, real[..., :3], label, fine)


def compare_views(task: Gsd, held: Held, steps: int | None) -> tuple[Rows, dict[str, Tensor]]:
    """A row for each way from one view to an object, and pictures of some of them from the first other side."""
    views, rows, pictures = task.options.views, {}, {"given view": held.rgb[:, 0], "asked view": held.rgb[:, 1]}
    untold = task.average.model.untold(1)

    def sampled(k: int, **change: Any) -> Tensor:
        lead = views.model_copy(update=change)
        return task.draw_sets(untold, torch.Generator().manual_seed(k), held.given(k), lead, steps)[0]

    ways: dict[str, Callable[[int], Tensor]] = {
        "free": lambda k: sampled(k, scale=0.0),
        f"best of {_BEST} free": lambda k: best_of(task, held.given(k), k, steps),
        f"led, scale {views.scale / 4:g}": lambda k: sampled(k, scale=views.scale / 4),
        f"led, scale {views.scale:g}": lambda k: sampled(k),
        f"led, scale {views.scale * 4:g}": lambda k: sampled(k, scale=views.scale * 4),
        "led by the estimate's gradient": lambda k: sampled(k, through="estimate"),
        "fitted without a prior": lambda k: alone(task, held.given(k), k),
        "nearest training object": lambda k: nearest(task, held.given(k)),
    }
    made: dict[str, Tensor] = {}
    for name, way in ways.items():
        start = time.perf_counter()
        made[name] = torch.stack([way(k) for k in range(len(held.rgb))]).cpu()
        rows[name], seen = _view_row(made[name], held)
        rows[name]["seconds"] = (time.perf_counter() - start) / len(held.rgb)
        pictures[name] = seen[:, 1]
    if task.options.polish is not None:
        own, pictures["led, polished"] = polished_rows(task, held, made[f"led, scale {views.scale:g}"])
        rows |= own
    mean = torch.stack([shown(one, held.cameras) for one in task.sets[0][:64]]).mean(0).expand_as(held.rgb)
    rows["mean picture"] = _psnrs(mean, held)
    return rows, pictures


def polished_rows(task: Gsd, held: Held, sets: Tensor) -> tuple[Rows, Tensor]:
    """Led sets after polishing, by a prior that is told or shown what they are, and by one that is told another class
    or shown another object; and pictures of the former from the first other side."""
    rows: Rows = {}
    pictures = Tensor()
    for name, shift in (("led, polished", 0), ("led, polished as another object", 1)):
        start, done = time.perf_counter(), []
        for k, one in enumerate(sets):
            other = (k + shift) % len(sets)
            word = task.names[int(held.label[other])] if task.names else ""
            asked = ask(word, views=held.fine[other] if task.prior.looks else None)
            random = torch.Generator().manual_seed(k)
            done.append(polished(one, task.prior, asked, held.given(k), task.options.polish, random))
        rows[name], seen = _view_row(torch.stack(done), held)
        rows[name]["seconds"] = (time.perf_counter() - start) / len(sets)
        pictures = seen[:, 1] if shift == 0 else pictures
    return rows, pictures


def compare_draws(task: Gsd, held: Held, draws: int, steps: int | None) -> tuple[Rows, list[Tensor]]:
    """How far samples led by one view differ seen from its side and from behind, beside free samples of the classes;
    then rows of pictures [B, H, W, 3]: the given view, three samples from it, the view from behind, the same."""
    behind = 1 + _NOVEL // 2  # 144 degrees on
    cameras = held.cameras[torch.tensor([0, behind])]
    rows: Rows = {}
    for name in ("led", "free"):
        seen = []
        for k in range(len(held.rgb)):
            random, label = torch.Generator().manual_seed(k), held.label[k].expand(draws)
            told = label if name == "free" and task.names else task.average.model.untold(draws)
            sets = task.draw_sets(told, random, held.given(k) if name == "led" else None, steps=steps).cpu()
            seen.append(torch.stack([shown(one, cameras) for one in sets]))
        made = torch.stack(seen, 1)  # [draws, B, 2, H, W, 3]
        rows[name] = {"from the given side": _spread(made[:, :, 0]), "from behind": _spread(made[:, :, 1])}
        if name == "led":
            first = [held.rgb[:, 0], *made[:3, :, 0], held.rgb[:, behind], *made[:3, :, 1]]
            error = (made[:, :, 1] - held.rgb[:, behind]).square().mean((2, 3, 4)).clamp(min=1e-10)
            decibels = -10 * error.log10()
            rows[name] |= {"psnr behind": float(decibels.mean()), "of the best": float(decibels.amax(0).mean())}
    return rows, first


def _spread(seen: Tensor) -> float:
    return spread([x.movedim(-1, 1) * 2 - 1 for x in seen])


def _view_row(sets: Tensor, held: Held) -> tuple[dict[str, float], Tensor]:
    seen = torch.stack([shown(one, held.cameras) for one in sets])
    apart = [float(chamfer_matrix(a[None, :, :3], b[None])) for a, b in zip(sets, held.points, strict=True)]
    return _psnrs(seen, held) | {"chamfer": sum(apart) / len(apart)}, seen


def _psnrs(seen: Tensor, held: Held) -> dict[str, float]:
    ours, truth = (x.movedim(-1, -3) * 2 - 1 for x in (seen, held.rgb))
    return {"psnr given": psnr(ours[:, :1], truth[:, :1]), "psnr others": psnr(ours[:, 1:], truth[:, 1:])}


@torch.no_grad()
def shown(tokens: Tensor, cameras: Cameras) -> Tensor:
    """[V, H, W, 3] a set [K, 16] over grey."""
    found = draw(splats_of(tokens), cameras)
    return (found.rgb + (1 - found.opacity) * BACKGROUND).clamp(0, 1)


@torch.no_grad()
def best_of(task: Gsd, given: Given, seed: int, steps: int | None) -> Tensor:
    """[K, 16] of some free samples the one that looks most like the view."""
    label = task.average.model.untold(_BEST)
    return _closest(task.draw_sets(label, torch.Generator().manual_seed(seed), steps=steps), given)


@torch.no_grad()
def nearest(task: Gsd, given: Given) -> Tensor:
    """[K, 16] of the first 128 training objects the one that looks most like the view."""
    return _closest(task.sets[0][:128], given)


def _closest(sets: Tensor, given: Given) -> Tensor:
    errors = [float(mismatch(one, given.cameras, given.rgb, given.mask)) for one in sets]
    return sets[errors.index(min(errors))]


def alone(task: Gsd, given: Given, seed: int) -> Tensor:
    """[K, 16] Gaussians from anywhere in the training objects' range, fitted to the one view."""
    random = torch.Generator().manual_seed(seed)
    fit: FitConfig = task.options.fit
    start = task.in_world(torch.randn(fit.count, len(task.mean), generator=random).to(task.device))
    return fitted(start, given.cameras, given.rgb, given.mask, _ALONE, 0.03)
