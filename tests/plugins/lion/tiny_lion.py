"""A tiny lion on balls and bars, called mugs and chairs."""

from __future__ import annotations

from typing import Any

import torch

from core.config.base import ComponentSpec
from core.config.base import Config as BaseConfig
from core.contracts import Context, DataSource, Step
from core.points.unet import DownConfig, UnetConfig, UpConfig
from plugins.lion.lion import Lion
from plugins.lion.priors import GlobalConfig, LocalConfig
from plugins.lion.sampling import Latents
from plugins.lion.vae import PointVae, VaeConfig

POINTS = 24


class Solids(DataSource):
    """Points on balls and on flat bars of several sizes, under names that the embedded CLIP knows."""

    class Config(BaseConfig):
        objects: int = 32
        batch: int = 4
        points: int = POINTS
        split: str = "train"

    class_names = ("mug", "chair")

    def batch(self, step: Step) -> dict[str, Any]:
        random = step.generator("data")
        return self.take(torch.randint(self.options.objects, (self.options.batch,), generator=random), random)

    def take(self, index: torch.Tensor, random: torch.Generator) -> dict[str, Any]:
        normals = torch.randn(len(index), self.options.points, 3, generator=random)
        normals = normals / normals.norm(dim=-1, keepdim=True)
        label = index % 2
        size = (0.3 + 0.01 * (index % 7))[:, None, None]
        shape = torch.where(label[:, None, None] == 1, torch.tensor([2.0, 0.5, 0.2]), torch.ones(3))
        caption = ["a chair" if one else "a mug" for one in label.tolist()]
        return {"points": size * shape * normals, "normals": normals, "label": label, "caption": caption}


UNET = UnetConfig(
    down=(
        DownConfig(channels=8, resolution=4, centers=8, radius=1.0, neighbours=4, mlp=(8,)),
        DownConfig(channels=8, resolution=2, centers=4, radius=2.0, neighbours=4, mlp=(8,)),
    ),
    up=(UpConfig(mlp=(8,), channels=8, resolution=2), UpConfig(mlp=(8,), channels=8, resolution=4)),
    head=8,
    dropout=0.0,
)
VAE = VaeConfig(size=5, features=1, shape=UNET.down, unet=UNET, normals=True)


def look() -> Any:
    """How scenes are shown, as a job would say it."""
    from core.config.loading import load_job

    return load_job("lion-smoke").stages[-1].task.options.look


def tiny(train: str = "priors", previous: Lion | None = None, data: Any = None, **options: Any) -> Lion:
    """The task, built as a stage builds it."""
    spec = ComponentSpec("data", "solids", Solids.Config(**(data or {})))
    sizes = {"vae": VAE, "shape_prior": GlobalConfig(width=16, blocks=1, time=8), "point_prior": LocalConfig(time=8)}
    made = Lion.Config(data=spec, train=train, **({"look": look(), "condition": "class"} | sizes | options))  # type: ignore[arg-type]
    from core.discovery import get_registry

    context = Context(build=lambda _: Solids(spec.options, Context()), parts={"registry": get_registry()})
    if previous is not None:
        context.parts["previous"] = previous
    task = Lion(made, context).train()
    task.update(Step(0, 10))
    return task


def vae(**options: Any) -> PointVae:
    """An autoencoder in evaluation mode."""
    torch.manual_seed(0)
    return PointVae(VAE.model_copy(update=options)).eval()


def seeded(seed: int = 0) -> torch.Generator:
    """A stream."""
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """N(0, I)."""
    return torch.randn(shape, generator=seeded(seed))


def silence(shape: tuple[int, ...]) -> torch.Tensor:
    """No noise."""
    return torch.zeros(shape)


def latents(count: int, seed: int = 0) -> Latents:
    """N(0, I) of the tiny sizes."""
    return Latents(random(count, 5, seed=seed), random(count, POINTS, 4, seed=seed + 1))
