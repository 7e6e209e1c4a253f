"""``launch.py eval lsgm RUN``: what each stage of a run knows of unseen pictures, and how good its samples are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from core import checkpoint
from core.contracts import Context
from core.diffusion.sde_objective import TimeSampler, cross_entropy, squared_error
from core.diffusion.sde_sampler import log_likelihood
from core.discovery import get_registry
from core.errors import UserError
from core.frechet import frechet
from core.run import Run, open_run
from plugins.lsgm.lsgm import Lsgm
from plugins.lsgm.pixels import bits_per_value

_BATCH = 32
_SAMPLERS = {"ode, tolerance 1e-3": ("ode", 1e-3), "ode, tolerance 1e-5": ("ode", 1e-5),
             "ancestral": ("ancestral", None)}  # fmt: skip


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    pictures: Annotated[int, typer.Option(help="Unseen pictures, and samples of each kind.")] = 512,
    draws: Annotated[int, typer.Option(help="Times at which the cross entropy of each picture is estimated.")] = 16,
    exact: Annotated[int, typer.Option(help="Pictures whose prior likelihood comes by the ODE too; slow.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="A picture of 16 samples of the last stage.")] = None,
    reconstructions: Annotated[
        Path | None, typer.Option(help="A picture of 16 unseen pictures above what the last stage makes of each.")
    ] = None,
) -> dict[str, Any]:
    """Bits per dimension and reconstruction of unseen pictures, and the Fréchet distance of samples in features of the
    embedded CLIP."""
    if pictures < 2:
        raise UserError("--pictures: a distance needs two pictures at least")
    opened = open_run(run)
    table: dict[str, Any] = {"stages": {}}
    features: Features | None = None
    for name, task in stages(opened):
        unseen = task.pictures(held_out(task, pictures))
        features = features or Features(task, unseen)
        table["stages"][name] = row = bound(task, unseen, draws)
        if exact and task.has_prior:
            row["bits by the ODE"] = exact_bits(task, unseen[:exact])
        row["samples"] = samples(task, features, pictures)
        _show(name, row)
        last = task
    assert features is not None
    table["references"] = features.references(last, pictures)
    print(f"references: {_words(table['references'])}")
    table["psnr of the mean picture"] = _psnr((unseen - unseen.mean(0)).square())
    print(f"psnr of the mean picture: {table['psnr of the mean picture']:.2f}")
    if sheet is not None:
        drawn: Any = last.sample(16, None, torch.Generator().manual_seed(1))
        _write(sheet, torch.stack(drawn))
    if reconstructions is not None:
        shown = unseen[:16]
        pairs = zip(_rgb(shown).split(8), _rgb(reconstruct(last, shown)).split(8), strict=True)
        _write(reconstructions, torch.cat([torch.cat(pair) for pair in pairs]))
    return table


def stages(run: Run) -> Iterator[tuple[str, Lsgm]]:
    """Each stage's name and task as it ended, or as it was last saved.

    Raises:
        UserError: the run is another task's, or has no checkpoint.
    """
    found = checkpoint.list_checkpoints(run.checkpoints)
    if not found:
        raise UserError(f"{run.folder} has no checkpoint yet")
    last = {checkpoint.read_position(path).stage: path for path in found}  # in the order of steps
    for index, path in sorted(last.items()):
        task = run.task(path)
        if not isinstance(task, Lsgm):
            raise UserError(f"{run.folder} is a run of '{run.job.stages[index].task.name}', not of lsgm")
        yield run.job.stages[index].config.name, task.eval()


def held_out(task: Lsgm, count: int, split: str = "test") -> Tensor:
    """[count, H, W, 3] pictures of the run's own kind that it was not trained on, or, with its split, more of them."""
    known = type(task.data.options).model_fields
    changed = {"images": count, "split": split, "seed": 11}
    options = task.data.options.model_copy(update={k: v for k, v in changed.items() if k in known})
    data = type(task.data)(options, Context())
    return torch.as_tensor(data.take(torch.arange(count).numpy())["rgb"])


@torch.no_grad()
def bound(task: Lsgm, x: Tensor, draws: int) -> dict[str, Any]:
    """Terms of the negative evidence bound in bits per dimension, under the stage's prior and under N(0, I)."""
    vae, random = task.average.model["vae"], torch.Generator().manual_seed(0)
    groups, nats, error = task.options.vae.groups, torch.zeros(4, dtype=torch.float64), 0.0
    kls = torch.zeros(groups * task.options.vae.scales, dtype=torch.float64)
    for part in x.split(_BATCH):
        pixels, posteriors = vae(part, lambda shape: torch.randn(shape, generator=random))
        kl = torch.stack([p.kl().double().sum() for p in posteriors]).cpu()
        kls += kl
        error += float((pixels.mean() - part).square().sum())
        entropy = sum(p.entropy().double().sum() for p in posteriors[:groups])
        top = vae.top([p.sample for p in posteriors])
        crossed = _cross_entropy(task, top, draws, random) if task.has_prior else kl[:groups].sum() + entropy
        terms = [-pixels.log_prob(part).double().sum(), crossed - entropy, kl[groups:].sum(), kl[:groups].sum()]
        nats += torch.stack([torch.as_tensor(t).cpu() for t in terms])
    rec, top_kl, finer, unit = (bits_per_value(float(n) / len(x), tuple(x.shape[1:])) for n in nats)
    rows = {"bits": rec + top_kl + finer, "reconstruction": rec, "divergence": top_kl + finer}
    rows["psnr"] = _psnr(torch.tensor(error / x.numel()))
    return rows | {"bits under N(0, I)": rec + unit + finer, "nats of each group": (kls / len(x)).tolist()}


def _psnr(squared: Tensor) -> float:
    """dB of squared errors of values from -1 to 1."""
    return float(10 * torch.log10(4 / squared.mean()))


def _cross_entropy(task: Lsgm, top: Tensor, draws: int, random: torch.Generator) -> Tensor:
    """Nats of a batch of latents, summed; the mean of ``draws`` estimates."""
    sampler, total = TimeSampler(task.sde, "likelihood"), torch.zeros((), dtype=torch.float64)
    for _ in range(draws):
        times = sampler(len(top), random, top.device)
        noise = torch.randn(top.shape, generator=random).to(top)
        error = squared_error(task.average.model["score"], task.sde, top, times, noise)
        total += cross_entropy(task.sde, error, times).double().sum().cpu()
    return total / draws


@torch.no_grad()
def reconstruct(task: Lsgm, x: Tensor) -> Tensor:
    """The mean picture [B, 3, S, S] given a sample of the latents of pictures ``x``."""
    random = torch.Generator().manual_seed(0)
    made = [task.average.model["vae"](p, lambda s: torch.randn(s, generator=random))[0].mean() for p in x.split(_BATCH)]
    return torch.cat(made)


@torch.no_grad()
def exact_bits(task: Lsgm, x: Tensor) -> float:
    """As :func:`bound`, with the prior's log likelihood by the probability-flow ODE (Hutchinson's trace)."""
    random = torch.Generator().manual_seed(0)
    pixels, posteriors = task.average.model["vae"](x, lambda shape: torch.randn(shape, generator=random))
    groups = task.options.vae.groups
    top = task.average.model["vae"].top([p.sample for p in posteriors])
    prior = log_likelihood(task.average.model["score"], task.sde, top, random, tolerance=1e-4)
    nats = -pixels.log_prob(x) - prior - torch.stack([p.entropy() for p in posteriors[:groups]]).sum(0)
    nats = nats + sum(p.kl() for p in posteriors[groups:])
    return bits_per_value(float(nats.mean()), tuple(x.shape[1:]))


def samples(task: Lsgm, features: Features, count: int) -> dict[str, dict[str, float]]:
    """For each way to draw latents: the Fréchet distance, the network's calls, and how far from copies samples are."""
    made: dict[str, dict[str, float]] = {}
    kinds: dict[str, Any] = {"N(0, I)": None} | (_SAMPLERS if task.has_prior else {})
    for name, how in kinds.items():
        random, drawn, calls = torch.Generator().manual_seed(3), [], 0
        for first in range(0, count, _BATCH * 2):
            some = min(_BATCH * 2, count - first)
            latents, calls = _latents(task, some, random, how)
            drawn.append(task.decode(latents, random))
        rgb = torch.cat(drawn).cpu()
        made[name] = {"frechet": features.distance(rgb), "calls": calls, "from training": features.nearest(rgb)}
    return made


def _latents(task: Lsgm, count: int, random: torch.Generator, how: Any) -> tuple[Tensor, int]:
    if how is None:
        vae = task.average.model["vae"]
        shape = (count, vae.top_channels, vae.side, vae.side)
        return torch.randn(shape, generator=random).to(task.device), 0
    found = task.latents(count, random, sampler=how[0], tolerance=how[1])
    return found.latents, found.calls


class Features:
    """Unseen pictures as the embedded CLIP sees them, scaled up to its size."""

    def __init__(self, task: Lsgm, unseen: Tensor) -> None:
        clip = get_registry().find("metric", "clip").load()
        self.clip = clip(clip.Config(), Context())
        self.shown = _rgb(unseen)
        self.real = self._embed(self.shown)
        known = task.data.take(torch.arange(min(4096, task.data.options.images)).numpy())["rgb"]
        self.known = _rgb(task.pictures(known)).flatten(1)

    def _embed(self, rgb: Tensor) -> Tensor:
        return torch.cat([self.clip.embed_pictures(part) for part in rgb.split(_BATCH)])

    def distance(self, rgb: Tensor) -> float:
        """Fréchet distance of pictures [N, S, S, 3] to the unseen ones."""
        return frechet(self._embed(rgb), self.real)

    def nearest(self, rgb: Tensor) -> float:
        """Median distance of pictures to the nearest of 4096 known ones, as a share of that of unseen ones."""
        own, usual = (torch.cdist(x.flatten(1), self.known).min(1).values.median() for x in (rgb, self.shown))
        return float(own / usual)

    @torch.no_grad()
    def references(self, task: Lsgm, count: int) -> dict[str, float]:
        """Distances that samples may be held against: of other real pictures, and of ``task``'s reconstructions."""
        more = _rgb(task.pictures(held_out(task, count, "train")))
        made = _rgb(reconstruct(task, self.shown.permute(0, 3, 1, 2) * 2 - 1))
        gray = F.avg_pool2d(self.shown.permute(0, 3, 1, 2), 8)
        blurred = F.interpolate(gray, scale_factor=8.0, mode="bilinear").permute(0, 2, 3, 1)
        found = {"other pictures": more, "reconstructions": made, "pictures blurred to 4x4": blurred}
        return {name: self.distance(rgb) for name, rgb in found.items()}


def _rgb(x: Tensor) -> Tensor:
    return ((x.permute(0, 2, 3, 1) + 1) / 2).clamp(0, 1).cpu()


def _show(name: str, row: dict[str, Any]) -> None:
    figures = {k: v for k, v in row.items() if isinstance(v, float)}
    print(f"{name}: {_words(figures)}; nats of each group {[round(v, 1) for v in row['nats of each group']]}")
    for kind, found in row["samples"].items():
        print(f"    samples, {kind:<20} {_words(found)}")


def _words(figures: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in figures.items())


def _write(path: Path, rgb: Tensor) -> None:
    """Pictures, eight in a row, each pixel as four by four."""
    from PIL import Image

    rows = [torch.cat(list(part), 1) for part in rgb.split(8)]
    pixels = (torch.cat(rows).clamp(0, 1) * 255).round().byte().repeat_interleave(4, 0).repeat_interleave(4, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.numpy()).save(path)
