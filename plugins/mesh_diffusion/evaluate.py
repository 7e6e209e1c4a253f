"""``launch.py eval mesh-diffusion RUN``: a run's meshes against held-out shapes, beside what needs no model.

Sets are compared by points on the surfaces. The baselines: shapes of the training, as good as can be; signs drawn for
each vertex apart, from how often it is inside; and the samples without their offsets, which shows what these are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import trimesh
import typer
from torch import Tensor

from core.errors import UserError
from core.generative.drawing import open_generator
from core.meshing.sampling import sample_surface
from core.points.sets import chamfer_matrix, set_scores
from core.types import Mesh
from plugins.mesh_diffusion.mesh_diffusion import MeshDiffusion

_POINTS = 512
_DOMINANT = 0.9


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    shapes: Annotated[int, typer.Option(help="Shapes in each set.")] = 32,
    known: Annotated[int, typer.Option(help="Training shapes whose nearest tells a shape's class.")] = 128,
    against: Annotated[Path | None, typer.Option(help="Another run, such as one with signs=false.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="A picture of 16 samples.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of the run's job; repeatable.")] = None,
) -> dict[str, Any]:
    """1-NNA, coverage and matching distance, closed meshes, classes, and completion of half a shape."""
    if shapes < 4:
        raise UserError("--shapes: sets of 4 shapes at least can be told apart")
    task = fitted(run, option or ())
    random = torch.Generator().manual_seed(0)
    (real, label), (train, trained) = task.grids("test", shapes), task.pool
    some = torch.randperm(len(train), generator=random)[:known]
    train, trained = train[some], trained[some]
    judge = clouds(task, train), trained
    drawn = in_chunks(task, task.labels(None, shapes), random)
    plain = drawn.clone()
    plain[..., 1:] = 0
    sets = {"samples": drawn, "samples without offsets": plain, "signs drawn apart": marginals(train, shapes, random),
            "training shapes": train[:shapes]}  # fmt: skip
    if against is not None:
        other = fitted(against)
        sets["other run"] = in_chunks(other, other.labels(None, shapes), torch.Generator().manual_seed(0))
    truth = clouds(task, real)
    own = chamfer_matrix(truth, truth)
    print(f"{'set':<26}{'1-NNA':>8}{'COV':>8}{'MMD':>9}{'closed':>9}{'one part':>10}{'class':>8}{'to known':>10}")
    table = {}
    for name, values in sets.items():
        meant = trained[: len(values)] if name == "training shapes" else task.labels(None, len(values))
        table[name] = row = scores(task, values, truth, own, judge, meant)
        figures = (
            f"{row['1-nna']:>8.2f}{row['cov']:>8.2f}{row['mmd']:>9.4f}{row['closed']:>9.2f}{row['one_part']:>10.2f}"
        )
        print(f"{name:<26}{figures}{row['class']:>8.2f}{row['to_known']:>10.4f}", flush=True)
    table["completion"] = completion(task, real, label)
    print("half a shape given: " + ", ".join(f"{k} {v:.4f}" for k, v in table["completion"].items()))
    if sheet is not None:
        write_sheet(task, drawn[:16], sheet)
    return table


def fitted(run: Path, changes: Sequence[str] = ()) -> MeshDiffusion:
    """A run's averaged network, with changes to its job.

    Raises:
        UserError: the run is another task's.
    """
    _, task = open_generator(run, changes)
    if not isinstance(task, MeshDiffusion):
        raise UserError(f"{run} is no run of mesh-diffusion")
    return task


def in_chunks(task: MeshDiffusion, label: Tensor, random: torch.Generator) -> Tensor:
    """[B, V, 4] samples of classes [B]."""
    return torch.cat([task.walk(part, random) for part in label.split(16)])


def marginals(values: Tensor, count: int, random: torch.Generator) -> Tensor:
    """[count, V, 4] each vertex's sign drawn alone, by how often it is inside among ``values``; no offsets."""
    inside = (values[..., 0] < 0).float().mean(0).expand(count, -1)
    drawn = torch.zeros(count, *values.shape[1:])
    drawn[..., 0] = 1 - 2 * torch.bernoulli(inside, generator=random)
    return drawn


def clouds(task: MeshDiffusion, values: Tensor) -> Tensor:
    """[B, 512, 3] points on the meshes; of an empty one all in the origin."""
    return torch.stack([_cloud(task.mesh(v)) for v in values])


def _cloud(mesh: Mesh) -> Tensor:
    if not len(mesh.faces):
        return torch.zeros(_POINTS, 3)
    return sample_surface(mesh, _POINTS, torch.Generator().manual_seed(0)).positions


def scores(
    task: MeshDiffusion, values: Tensor, truth: Tensor, own: Tensor, judge: tuple[Tensor, Tensor], label: Tensor
) -> dict[str, float]:
    """Figures of one set of values [S, V, 4], asked for by classes [S]."""
    points = clouds(task, values)
    near = chamfer_matrix(points, judge[0])
    found = set_scores(chamfer_matrix(points, points), chamfer_matrix(points, truth), own)
    meshes = [task.space.mesh(v) for v in values]
    return found | {
        "closed": _share(_closed(m) for m in meshes),
        "one_part": _share(_dominated(m) for m in meshes),
        "class": float((judge[1][near.argmin(1)] == label).float().mean()),
        "to_known": float(near.amin(1).mean()),
    }


def _share(flags: Any) -> float:
    found: Sequence[bool] = list(flags)
    return sum(found) / len(found)


def _trimesh(mesh: Mesh) -> Any:
    return trimesh.Trimesh(mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy(), process=False)


def _closed(mesh: Mesh) -> bool:
    return bool(len(mesh.faces)) and bool(_trimesh(mesh).is_watertight)


def _dominated(mesh: Mesh) -> bool:
    """Whether nine tenths of the faces hang together."""
    if not len(mesh.faces):
        return False
    parts = trimesh.graph.connected_components(_trimesh(mesh).face_adjacency, min_len=1)
    return max(len(part) for part in parts) >= _DOMINANT * len(mesh.faces)


@torch.no_grad()
def completion(task: MeshDiffusion, real: Tensor, label: Tensor, count: int = 8) -> dict[str, float]:
    """Chamfer distance to the truth where the signs of the front half are given, and where nothing but the class is;
    and how many of the given signs are kept."""
    signs, told = real[:count, :, 0], label[:count]
    front = (task.space.grid.points[:, 0] > task.options.resolution // 2).expand(len(signs), -1)
    given = task.walk(told, torch.Generator().manual_seed(0), (signs, front))
    free = task.walk(told, torch.Generator().manual_seed(0))
    truth = clouds(task, real[:count])

    def error(values: Tensor) -> float:
        return float(chamfer_matrix(clouds(task, values), truth).diagonal().mean())

    kept = ((given[..., 0] < 0) == (signs < 0))[front].float().mean()
    return {"completed": error(given), "class alone": error(free), "given signs kept": float(kept)}


def write_sheet(task: MeshDiffusion, values: Tensor, path: Path) -> None:
    """Pictures of meshes, eight in a row."""
    from PIL import Image

    pictures = [task.picture(v) for v in values]
    rows = [torch.cat(pictures[k : k + 8], 1) for k in range(0, len(pictures), 8) if len(pictures[k : k + 8]) == 8]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((torch.cat(rows).clamp(0, 1) * 255).byte().numpy()).save(path)
