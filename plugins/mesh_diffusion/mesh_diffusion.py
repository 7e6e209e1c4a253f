"""Generator ``mesh-diffusion``: diffusion over signs and offsets of a grid of tetrahedra (Liu et al. 2023)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Generator, Scene, Step
from core.diffusion.process import DiffusionProcess
from core.ema import Average
from core.errors import UserError
from core.generative.drawing import class_of
from core.generative.scene import LookConfig, mesh_scene
from core.meshing.cleanup import compact, largest_parts, taubin
from core.types import Cameras, Mesh
from plugins.mesh_diffusion.checkpoint import load_published
from plugins.mesh_diffusion.ddpm import Ddpm3d
from plugins.mesh_diffusion.fitting import Space
from plugins.mesh_diffusion.grids import fitted_grids
from plugins.mesh_diffusion.lattice import tet_grid
from plugins.mesh_diffusion.sampling import stochastic_walk
from plugins.mesh_diffusion.unet import VALUES, NetworkConfig, Unet3d

if TYPE_CHECKING:
    from core.asked import Asked

_CHUNK = 16
_TIMESTEPS = 1000


class SamplingConfig(BaseConfig):
    """How grids are drawn."""

    steps: int = Field(default=50, ge=2)
    """Of the sampler; 1000 ancestral ones are published."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """Share of new noise in each step: 0 is DDIM, 1 is ancestral, which mends the errors of a short training."""
    guidance: float = Field(default=1.0, ge=0)
    """Classifier-free guidance where a class is asked for; 1 is none."""
    smallest: float = Field(default=0.05, ge=0, lt=1)
    """Loose parts with a smaller share of the largest one's area are dropped."""
    up: Literal["y", "z"] = "z"
    """The grid's axis that is up in the world; y for published checkpoints, which learned from ShapeNet."""
    smooth: int = Field(default=0, ge=0)
    """Rounds of Taubin smoothing of a drawn mesh; a few are published. Evaluation measures meshes without it."""


class MeshDiffusion(Generator):
    """The mean over vertices of the squared error of the network's answer; cells that are no vertices count nowhere."""

    class Config(BaseConfig):
        data: Annotated[ComponentSpec, Slot("data")]
        """Solids with signed distances."""
        look: LookConfig
        """How samples are shown."""
        resolution: int = Field(24, ge=8, multiple_of=4)
        """Of the grid: a lattice of so many steps a side, of which one point in eight is a vertex."""
        extent: float = Field(0.95, gt=0)
        """World coordinate of the outermost vertices."""
        deform_scale: float = Field(1.5, gt=0)
        """How far an offset of 1 reaches; 3 is published for resolution 64. On coarse grids a smaller one keeps the
        offsets from drowning in the signs."""
        signs: bool = True
        """Signs as +-1; false diffuses clipped distances in their place, for comparisons."""
        batch: int = Field(4, ge=1)
        """Shapes of a training step."""
        prediction: Literal["epsilon", "v_prediction", "sample"] = "v_prediction"
        """What the network answers; the noise is published."""
        untold: float = Field(0.1, ge=0, lt=1)
        """Share of the shapes whose class is left out in training, for guidance."""
        moved: float = Field(0.005, ge=0)
        """Largest random translation of a shape's offsets in training."""
        average: float = Field(0.995, ge=0, lt=1)
        """Decay of the moving average of the weights, which samples are drawn with."""
        network: NetworkConfig = NetworkConfig()
        """The denoiser."""
        sampling: SamplingConfig = SamplingConfig()
        """How grids are drawn."""
        start: Path | None = None
        """A published checkpoint (`.pt`) of the same sizes that training goes on from; `network.layout` must be
        `published`."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.data = context.build(options.data)  # type: ignore[misc]
        self._check()
        self.space = Space(tet_grid(options.resolution), options.extent, options.deform_scale)
        betas = torch.linspace(1e-4, 0.02, _TIMESTEPS, dtype=torch.float64)
        self.process = DiffusionProcess(torch.cumprod(1 - betas, 0), options.prediction)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.generator("mesh-diffusion").initial_seed() % 2**32)
            kind = Ddpm3d if options.network.layout == "published" else Unet3d
            self.live: Any = kind(options.network, self.space.grid.mask, len(self.data.categories))
        if options.start is not None:
            load_published(options.start, self.live)
        self.average = Average(self.live, options.average)
        self._pool: tuple[Tensor, Tensor] | None = None

    def _check(self) -> None:
        o, data = self.options, self.data
        if not hasattr(data, "shape") or not hasattr(data, "categories"):
            raise UserError(f"data: '{o.data.name}' gives no solids; data=procedural-shapes does")
        if o.network.layout == "published":
            self._check_published()
        elif o.start is not None:
            raise UserError(
                "start: published checkpoints fit network.layout=published only, as in mesh-diffusion-paper"
            )
        unit = o.network.fold * 2 ** (len(o.network.widths) - 1)
        if o.resolution % unit:
            raise UserError(
                f"resolution={o.resolution} must be a multiple of {unit}: folded by {o.network.fold} and halved "
                f"{len(o.network.widths) - 1} times"
            )
        if len(data) < max(o.batch, len(data.categories)):
            raise UserError(
                f"data.count={len(data)} is too little: a batch has {o.batch} shapes and there are "
                f"{len(data.categories)} classes"
            )

    def _check_published(self) -> None:
        """Refuse sizes that the published layout does not have."""
        network = self.options.network
        if network.fold != 1 or network.channels % 32:
            raise UserError("network.layout=published: network.fold must be 1 and network.channels a multiple of 32")

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.live.mask.device  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> MeshDiffusion:
        super().train(mode)
        self.average.eval()
        return self

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.live.parameters())}]

    def adapt(self, step: Step, optimizer: Any) -> None:
        self.average.update(self.live)

    @property
    def pool(self) -> tuple[Tensor, Tensor]:
        """Values [N, V, 4] and classes [N] of the data; fitted at the first use, then kept on disk."""
        if self._pool is None:
            self._pool = self.grids()
        return self._pool

    def grids(self, split: str | None = None, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Fitted grids of the data, or of another ``split``."""
        values, label = fitted_grids(self.data, self.space, split, count)
        if not self.options.signs:
            values = self._with_distances(values, split)
        return values, label

    def _with_distances(self, values: Tensor, split: str | None) -> Tensor:
        """Distances in lattice units, clipped to [-1, 1], in place of signs."""
        at = self.space.grid.positions(self.options.extent).double().numpy()
        unit = self.space.grid.spacing(self.options.extent)
        found = [self.data.shape(k, split).distance(at) / unit for k in range(len(values))]
        return torch.cat([torch.from_numpy(np.stack(found)).float().clamp(-1, 1)[..., None], values[..., 1:]], -1)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        o, (values, label) = self.options, self.pool
        chosen = torch.randint(len(values), (o.batch,), generator=step.generator("shapes"))
        rows = values[chosen].clone()
        move = (torch.rand(o.batch, 1, 3, generator=step.generator("moved")) * 2 - 1) * o.moved
        rows[..., 1:] += move * (rows[..., 1:] != 0)
        x0 = self.space.grid.to_cube(rows.to(self.device))
        untold = torch.rand(o.batch, generator=step.generator("untold")) < o.untold
        told = torch.where(untold, -1, label[chosen]).to(self.device)
        noise = torch.randn(x0.shape, generator=step.generator("noise")).to(x0) * self.live.mask
        t = torch.randint(self.process.steps, (o.batch,), generator=step.generator("t")).to(self.device)
        answer = self.live(self.process.add_noise(x0, noise, t), t, told)
        error = (answer - self.process.target(x0, noise, t)).square() * self.live.mask
        sign, offset = error[:, :1].sum(), error[:, 1:].sum()
        cells = o.batch * self.live.mask.sum() * VALUES
        return {"sign": sign / cells, "offset": offset / cells}

    @torch.no_grad()
    def walk(
        self, label: Tensor, generator: torch.Generator, known: tuple[Tensor, Tensor] | None = None,
        until: float = 0.05, steps: int | None = None, guidance: float | None = None,
    ) -> Tensor:  # fmt: skip
        """[B, V, 4] values of new shapes of classes [B] (-1: any).

        Args:
            known: signs [B, V] and where [B, V] they are known: every estimate is overwritten there, until the share
                ``until`` of the way is left (completion of what a view shows; Liu et al. 2023, section 4.4).
        """
        o, model, mask = self.options.sampling, self.average.model, self.live.mask
        scale = o.guidance if guidance is None else guidance
        start = torch.randn(len(label), VALUES, *mask.shape, generator=generator).to(self.device) * mask
        told, held = label.to(self.device), None
        if known is not None:
            signs, where = (self.space.grid.to_cube(k.float()[..., None].to(self.device)) for k in known)
            held = signs, where > 0.5

        def estimate(x: Tensor, t: Tensor) -> Tensor:
            x0 = self.process.to_x0(model(x, t, told), x, t)
            if scale != 1.0:
                other = self.process.to_x0(model(x, t, torch.full_like(told, -1)), x, t)
                x0 = other + scale * (x0 - other)
            x0 = x0.clamp(-1, 1) * mask
            if held is not None and int(t[0]) >= until * self.process.steps:
                x0 = torch.cat([torch.where(held[1], held[0], x0[:, :1]), x0[:, 1:]], 1)
            return x0

        times = [t.to(self.device).expand(len(label)) for t in self.process.times(steps or o.steps)]
        x = stochastic_walk(self.process, estimate, start, times, o.eta, generator, mask)
        return self.space.grid.from_cube(estimate(x, times[-1]))

    def labels(self, asked: Asked | None, count: int) -> Tensor:
        """[count] classes: the one asked for, else all in turn.

        Raises:
            UserError: the prompt names none of them.
        """
        names = self.data.categories
        asked_for = None if asked is None else class_of(asked.prompt, names, "mesh-diffusion")
        return torch.arange(count) % len(names) if asked_for is None else torch.full((count,), asked_for)

    def mesh(self, values: Tensor) -> Mesh:
        """The closed surface of values [V, 4], without small loose parts; it may be empty."""
        made = self.space.mesh(values)
        if not len(made.faces):
            return made
        vertices, faces = made.vertices.cpu().numpy().astype(np.float32), made.faces.cpu().numpy()
        vertices, faces = largest_parts(vertices, faces, self.options.sampling.smallest)
        vertices, faces = compact(vertices, faces)
        return Mesh(torch.from_numpy(vertices), torch.from_numpy(faces.astype(np.int64)))

    def sample(self, count: int, asked: Asked | None, generator: torch.Generator) -> list[Scene | Tensor]:
        """``count`` meshes.

        Raises:
            UserError: a class that it does not know, or a grid that came out empty.
        """
        label, made = self.labels(asked, count), []
        for first in range(0, count, _CHUNK):
            made += list(self.walk(label[first : first + _CHUNK], generator))
        prompt = "" if asked is None else asked.prompt
        return [self._scene(values, prompt) for values in made]

    def _scene(self, values: Tensor, prompt: str) -> Scene:
        mesh = self.mesh(values)
        if not len(mesh.faces):
            raise UserError("a sample came out empty: no vertex is inside; the run was too short, or take another seed")
        if self.options.sampling.smooth:
            mesh = _smoothed(mesh, self.options.sampling.smooth)
        if self.options.sampling.up == "y":
            x, y, z = mesh.vertices.unbind(-1)
            mesh = Mesh(torch.stack([x, -z, y], -1), mesh.faces)
        return mesh_scene(mesh, self.options.look, self.context, "mesh-diffusion", prompt)

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Four shapes of the pool above four samples."""
        random = step.generator("samples")
        drawn = self.walk(torch.arange(4) % len(self.data.categories), random, steps=20)
        rows = [torch.cat([self.picture(v) for v in some], 1) for some in (self.pool[0][:4], drawn)]
        return {"samples": (torch.cat(rows).clamp(0, 1) * 255).byte().cpu().numpy()}

    def picture(self, values: Tensor) -> Tensor:
        """[96, 96, 3] of values [V, 4]; grey where nothing is inside."""
        mesh = self.mesh(values)
        if not len(mesh.faces):
            return torch.full((96, 96, 3), 0.5)
        scene = mesh_scene(mesh, self.options.look, self.context)
        angle = torch.tensor([0.6], device=self.device)
        rgb: Tensor = scene.renderer(Cameras.turntable(angle, 0.35, 192)).rgb[0]
        return F.avg_pool2d(rgb.movedim(-1, 0), 2).movedim(0, -1).cpu()


def _smoothed(mesh: Mesh, rounds: int) -> Mesh:
    """The same faces over smoothed vertices."""
    vertices = taubin(mesh.vertices.cpu().numpy().astype(np.float32), mesh.faces.cpu().numpy(), rounds)
    return Mesh(torch.from_numpy(vertices), mesh.faces)
