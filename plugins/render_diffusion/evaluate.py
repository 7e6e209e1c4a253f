"""``launch.py eval render-diffusion RUN``: unseen objects from one picture, seen from sides that training never showed
of any object twice, beside what needs no model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from scipy.stats import spearmanr
from torch import Tensor

from core.errors import UserError
from core.generative import view_scores as vs
from core.generative.sample_scores import free_table
from core.generative.through_rendering import Code
from plugins.render_diffusion.render_diffusion import RenderDiffusion

LEVELS = (0.0, 0.1, 0.2, 0.35, 0.5)
OUTPUT = Path("runs/eval-render-diffusion")
GRAIN = 0.4
"""Deviation of the noise on a grainy picture, whose colours lie in [-1, 1]."""
HIT = 0.5
"""Opacity from which a pixel counts as the object's."""


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    against: Annotated[Path | None, typer.Option(help="Another run, for a second column of rows.")] = None,
    objects: Annotated[int, typer.Option(help="Unseen objects.")] = 24,
    steps: Annotated[int, typer.Option(help="DDIM steps of the whole process.")] = 25,
    samples: Annotated[int, typer.Option(help="Samples from nothing.")] = 48,
    output: Annotated[Path, typer.Option(help="Folder that receives the picture.")] = OUTPUT,
) -> dict[str, Any]:
    """Other views, depth, reconstruction of whole and of damaged pictures by noise, filled holes, and samples."""
    if objects < 1 or samples < 2:
        raise UserError("--objects: one at least; --samples: two at least")
    task = vs.opened(run, RenderDiffusion)
    held = vs.held_out(task, objects)
    bench = Bench(task, held, steps)
    table: dict[str, Any] = {"reconstruction": bench.levels(), "baselines": vs.baselines(task, held)}
    table |= {"damaged pictures": bench.damaged(), "holes": bench.holes()}
    table["from nothing"], drawn = free_table(task, lambda one: one.draw(samples, generator(), steps), samples)
    if against is not None:
        table["the other run"] = Bench(vs.opened(against, RenderDiffusion), held, steps).levels()
    for title, rows in table.items():
        vs.print_rows(rows, title)
    print(f"\n{bench.sheet(output / 'render-diffusion.png')}: given, its side, another and it again, hole, filled")
    vs.write_sheet([row.movedim(-1, 1) * 2 - 1 for row in drawn[:8].transpose(0, 1)[::2]], output / "samples.png")
    print(f"{output / 'samples.png'}: samples from nothing, each from four sides")
    return table


def generator() -> torch.Generator:
    """The same for every measurement."""
    return torch.Generator().manual_seed(0)


class Bench:
    """The measurements on one run."""

    def __init__(self, task: RenderDiffusion, held: vs.Held, steps: int) -> None:
        self.task, self.held, self.steps = task, held, steps
        self.given, self.camera = held.rgb[:, 0], held.camera(slice(1))
        self.elsewhere = held.camera(slice(vs.GIVEN, None))

    def reconstructed(self, rgb: Tensor, level: float) -> list[Code]:
        """Scenes of pictures [B, 3, S, S], by noise that is the same for each level."""
        return self.task.reconstructed(rgb, self.camera, level, generator(), self.steps)

    def levels(self) -> dict[str, dict[str, float]]:
        """By the level of noise: the given view again, the asked ones, and their depth."""
        rows = {}
        for level in LEVELS:
            codes = self.reconstructed(self.given, level)
            own = vs.shown(self.task, codes, self.camera)[:, 0]
            other = vs.scores(vs.shown(self.task, codes, self.elsewhere), self.held.asked)
            rows[f"noise {level:g}"] = {"psnr, given": vs.psnr(own, self.given), **other, "depth": self.depth(codes)}
        return rows

    @torch.no_grad()
    def depth(self, codes: list[Code]) -> float:
        """Mean rank correlation of drawn and true depth at the asked views, where both see the object."""
        task, truth = self.task, []
        for k in range(len(codes)):
            cameras = self.held.camera(slice(vs.GIVEN, None), slice(k, k + 1))
            truth.append(self.held.data.seen_from(self.held.index[k : k + 1].numpy(), cameras)["depth"][0])
        rays = [x.flatten(1, 2).unflatten(0, (len(codes), -1)) for x in self.elsewhere.rays()]
        forward = -self.elsewhere.c2w[:, :3, 2].unflatten(0, (len(codes), -1))
        found = []
        for k, code in enumerate(codes):
            for o, d, axis, true in zip(rays[0][k], rays[1][k], forward[k], truth[k].flatten(1), strict=True):
                seen = task.rendered(task.average.model["look"], code, o, d)
                both = (seen.opacity.cpu() > HIT) & (true > 0)
                if int(both.sum()) > 8:
                    along = seen.depth.cpu() * (d @ axis).cpu()
                    found.append(float(spearmanr(along[both], true[both]).statistic))
        return sum(found) / len(found) if found else float("nan")

    def damaged(self) -> dict[str, dict[str, float]]:
        """A black patch over a ninth of the picture, and noise on every pixel: the asked views by the level of
        noise."""
        third = self.task.size // 3
        patch = self.given.clone()
        patch[:, :, third : 2 * third, third : 2 * third] = -1
        grain = torch.randn(self.given.shape, generator=torch.Generator().manual_seed(1)).to(self.given)
        grainy = (self.given + GRAIN * grain).clamp(-1, 1)
        rows: dict[str, dict[str, float]] = {}
        for level in LEVELS:
            codes = {"patch": self.reconstructed(patch, level), "grain": self.reconstructed(grainy, level)}
            found = {k: vs.scores(vs.shown(self.task, c, self.elsewhere), self.held.asked) for k, c in codes.items()}
            rows[f"noise {level:g}"] = {f"{name}, {k}": v for k, row in found.items() for name, v in row.items()}
        return rows

    def filled(self) -> tuple[Tensor, Tensor, list[Code]]:
        """The right half of each picture as a hole [B, 1, S, S], the filled pictures and their scenes."""
        hole = torch.zeros_like(self.given[:, :1])
        hole[..., self.task.size // 2 :] = 1
        codes = self.task.inpainted(self.given, hole, self.camera, generator(), self.steps)
        return hole, vs.shown(self.task, codes, self.camera)[:, 0], codes

    def holes(self) -> dict[str, dict[str, float]]:
        """Error in and outside the hole, and of grey in the hole."""
        hole, made, _ = self.filled()
        grey = torch.where(hole > 0, 0.0, self.given)

        def inside(x: Tensor, where: Tensor) -> float:
            error = (((x - self.given) / 2).square() * where).sum() / (3 * where.sum())
            return float(-10 * error.clamp(min=1e-10).log10())

        return {
            "filled": {"psnr, hole": inside(made, hole), "psnr, known": inside(made, 1 - hole)},
            "grey in the hole": {"psnr, hole": inside(grey, hole)},
        }

    def sheet(self, path: Path) -> Path:
        """Pictures of it all."""
        few = min(8, len(self.given))
        codes = self.reconstructed(self.given, LEVELS[0])
        own, other = vs.shown(self.task, codes, self.camera)[:, 0], vs.shown(self.task, codes, self.elsewhere)
        hole, made, _ = self.filled()
        rows = [self.given, own, self.held.asked[:, 0], other[:, 0], torch.where(hole > 0, 0.0, self.given), made]
        vs.write_sheet([row[:few] for row in rows], path)
        return path
