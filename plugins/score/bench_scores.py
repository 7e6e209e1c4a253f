"""``launch.py bench scores``: each score on pictures alone, with the embedded prior.

The latents of a few pictures of each prompt are optimised directly, by Adam, with every score in turn: what is seen is
the score's doing, not a geometry's. They are held against the prior's own samples of the same prompts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.contracts import Context, Prior, Score, Step, TrainedScore
from core.diffusion.sampler import ddim
from core.discovery import get_registry
from core.errors import UserError, did_you_mean
from core.frechet import frechet
from core.types import Cameras, Condition, Render

PROMPTS = ("a red mug", "a blue chair")
_ANNEALED = ("sdi", "hifa")  # levels that fall over the run already
_RATE = 0.06


@dataclass
class Bench:
    """What all scores are tried on."""

    prior: Prior
    judge: Any
    clip: Any
    prompts: list[str]
    told: Condition
    untold: Condition
    cameras: Cameras
    samples: Tensor

    @property
    def count(self) -> int:
        """Pictures in all."""
        return len(self.prompts)


def bench(
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; repeatable. Default: two.")] = None,
    score: Annotated[list[str] | None, typer.Option(help="A score; repeatable. Default: all.")] = None,
    pictures: Annotated[int, typer.Option(help="Pictures of each prompt, from as many sides.")] = 4,
    steps: Annotated[int, typer.Option(help="Steps of each score.")] = 60,
    scale: Annotated[float, typer.Option(help="Guidance scale of all (csd has none).")] = 5.0,
    sheet: Annotated[Path, typer.Option(help="Picture to write: a row for each score.")] = Path("runs/scores.png"),
    seed: Annotated[int, typer.Option(help="Of the starts, levels and noises.")] = 0,
) -> dict[str, Any]:
    """Judge accuracy, Fréchet distance to the prior's samples, gradient variance and time of every score."""
    known = [entry.name for entry in get_registry().entries("score")]
    for name in score or []:
        if name not in known:
            raise UserError(f"there is no score '{name}'.{did_you_mean(name, known)}")
    on = prepare(list(prompt or PROMPTS), pictures, scale, seed)
    again = _sampled(on, scale, seed + 1)
    rows: list[dict[str, Any]] = [{"score": "samples"} | _measured(on, again)]
    shown = {"samples": again}
    print(f"{'':<10}{'category':>9}{'colour':>8}{'Fréchet':>9}{'spread':>8}{'variance':>10}{'seconds':>9}")
    print(_line(rows[0]), flush=True)
    for name in score or known:
        shown[name], row = _tried(on, name, steps, scale, seed)
        rows.append(row)
        print(_line(row), flush=True)
    draw(sheet, shown, pictures)
    print(sheet)
    return {"rows": rows, "steps": steps, "scale": scale, "sheet": str(sheet)}


def prepare(prompts: list[str], pictures: int, scale: float, seed: int) -> Bench:
    """The prior, the judges, the conditions, and the prior's own samples."""
    prior, judge, clip = (_built(k, n) for k, n in (("prior", "embedded"), ("metric", "judge"), ("metric", "clip")))
    for text in prompts:
        if judge.classifier.expected(text)[0] is None:
            raise UserError(f"the judge knows no kind of object in '{text}', so nothing could be scored")
    each = [text for text in prompts for _ in range(pictures)]
    azimuth = (torch.arange(pictures) * (2 * torch.pi / pictures) + 0.5).repeat(len(prompts))
    cameras = Cameras.turntable(azimuth, 0.3, 64)
    told, untold = prior.condition(each, cameras), prior.condition([""] * len(each), cameras)
    on = Bench(prior, judge, clip, each, told, untold, cameras, torch.zeros(0))
    on.samples = torch.cat([_sampled(on, scale, seed + 2 + k) for k in range(2)])
    return on


def _built(kind: str, name: str, **options: Any) -> Any:
    target = get_registry().find(kind, name).load()
    made = target(target.Config(**options), Context())
    return made.eval().requires_grad_(False) if isinstance(made, Prior) else made


def _sampled(on: Bench, scale: float, seed: int) -> Tensor:
    return ddim(on.prior, on.told, on.untold, scale, steps=20, seed=seed)


def options_of(name: str, scale: float) -> dict[str, Any]:
    """One scale for all, and levels that fall over this short run as the published ones over theirs."""
    known = get_registry().find("score", name).load().Config.model_fields
    chosen: dict[str, Any] = {} if name == "csd" or "scale" not in known else {"scale": scale}
    if name not in _ANNEALED and "high" in known:
        chosen["high"] = {"from": 0.98, "to": 0.4}
    if name == "nfsd":
        chosen["unwanted"] = ""  # the small prior never saw the words
    if name == "vsd":
        # Some sixty steps must do what thousands do with the published rate. Additions to the prior begin as the prior
        # itself and take long to become a model of these few pictures; a small network (the paper's other choice)
        # begins as a wide Gaussian, and is there sooner.
        chosen |= {"lr_scale": 0.05, "network": "small"}
    return chosen


def _tried(on: Bench, name: str, steps: int, scale: float, seed: int) -> tuple[Tensor, dict[str, Any]]:
    score: Score = _built("score", name, **options_of(name, scale))
    start = time.perf_counter()
    latents = optimised(on, score, steps, seed)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        rgb = on.prior.decode(latents)
    found = _measured(on, rgb) | {"variance": variance(on, score, latents), "seconds": seconds}
    return rgb, {"score": name} | found


def optimised(on: Bench, score: Score, steps: int, seed: int) -> Tensor:
    """Latents [B, C, h, w] from grey pictures with a little noise; what a score learns is learned beside."""
    with torch.no_grad():
        grey = on.prior.encode(torch.full((on.count, 64, 64, 3), 0.5))
    noise = torch.randn(grey.shape, generator=torch.Generator().manual_seed(seed))
    latents = (grey + 0.2 * noise).requires_grad_()
    groups: list[dict[str, Any]] = [{"params": [latents], "lr": _RATE}]
    if isinstance(score, TrainedScore):
        score.attach(on.prior)
        groups += [{"params": g["params"], "lr": _RATE * g.get("lr_scale", 1.0)} for g in score.param_groups()]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    for k in range(steps):
        loss = on.count * score.loss(on.prior, latents, on.told, on.untold, Step(k, steps, seed), **_seen(on, score))
        if isinstance(score, TrainedScore):
            loss = loss + torch.stack(list(score.losses().values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return latents.detach()


def _seen(on: Bench, score: Score) -> dict[str, Any]:
    """Latents that nothing rendered, but with cameras."""
    if not score.sees_render:
        return {}
    nothing = torch.zeros(on.count, 1, 1, 1)
    return {"render": Render(nothing, nothing, on.cameras, extras={"latent": nothing})}


def variance(on: Bench, score: Score, latents: Tensor, draws: int = 4) -> float:
    """Share of the gradient's mean square that differs from draw to draw of level and noise, half way through."""
    found = []
    for k in range(draws):
        leaf = latents.clone().requires_grad_()
        loss = score.loss(on.prior, leaf, on.told, on.untold, Step(50, 101, seed=1000 + k), **_seen(on, score))
        found.append(torch.autograd.grad(loss, leaf)[0])
    gradients = torch.stack(found)
    return float(gradients.var(0).sum() / gradients.square().mean(0).sum())


def _measured(on: Bench, rgb: Tensor) -> dict[str, float]:
    """Shares of pictures of the right kind and colour, distance to the samples, spread of pictures of one prompt."""
    found: dict[str, list[float]] = {"category": [], "color": []}
    for k, text in enumerate(on.prompts):
        one = Render(rgb[k : k + 1], torch.ones_like(rgb[k : k + 1, ..., :1]), on.cameras[torch.tensor([k])])
        for name, value in on.judge.measure(one, text).items():
            if name in found:
                found[name].append(value)
    seen = on.clip.image(rgb)
    means = {name: sum(values) / len(values) for name, values in found.items() if values}
    each = len(set(on.prompts))
    return means | {
        "frechet": frechet(seen, on.clip.image(on.samples)),
        "spread": float(seen.unflatten(0, (each, -1)).var(1).sum(1).mean()),
    }


def _line(row: dict[str, Any]) -> str:
    cells = [(row.get(n), w) for n, w in (("category", 9), ("color", 8), ("frechet", 9), ("spread", 8))]
    cells += [(row.get("variance"), 10)]
    shown = "".join(f"{'':>{w}}" if v is None else f"{v:{w}.3f}" for v, w in cells)
    return f"{row['score']:<10}{shown}{row['seconds']:9.1f}" if "seconds" in row else f"{row['score']:<10}{shown}"


def draw(path: Path, shown: dict[str, Tensor], pictures: int) -> None:
    """A row of pictures for each score, three of each prompt, with its name before it."""
    from PIL import Image, ImageDraw

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, rgb in shown.items():
        chosen = rgb.unflatten(0, (-1, pictures))[:, :3].flatten(0, 1).clamp(0, 1)
        label = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(label).text((4, 26), name, fill="black")
        head = torch.frombuffer(bytearray(label.tobytes()), dtype=torch.uint8).view(64, 64, 3)
        rows.append(torch.cat([head, *(chosen * 255).byte()], 1))
    Image.fromarray(torch.cat(rows).numpy()).save(path)
