"""Components that are each wrong in one way, and the sound ones that they are made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import core
from core.testing import reference


class Ball(core.Geometry):
    """Sound."""

    def __init__(self, options: Any, context: core.Context) -> None:
        super().__init__(options, context)
        self.weight = nn.Parameter(torch.rand(3, generator=context.generator("ball")) + 0.5)

    def density(self, points: Tensor) -> Tensor:
        return torch.relu(self.weight.sum() - points.norm(dim=-1))

    def field(self, points: Tensor) -> dict[str, Tensor]:
        return {"density": self.density(points), "features": points}


class Negative(Ball):
    """Density below zero."""

    def density(self, points: Tensor) -> Tensor:
        return super().density(points) - 5


class Column(Ball):
    """Density [N, 1]."""

    def density(self, points: Tensor) -> Tensor:
        return super().density(points)[:, None]


class Torn(Ball):
    """density() is not what field() says."""

    def field(self, points: Tensor) -> dict[str, Tensor]:
        return {"density": 2 * self.density(points), "features": points}


class Detached(Ball):
    """No gradient."""

    def density(self, points: Tensor) -> Tensor:
        return super().density(points).detach()


class NotFinite(Ball):
    """Infinite far out."""

    def density(self, points: Tensor) -> Tensor:
        return super().density(points) + torch.where(points.norm(dim=-1) > 3, torch.inf, 0.0)


class Crowded(Ball):
    """A point's density depends on the others."""

    def density(self, points: Tensor) -> Tensor:
        return super().density(points) + (points.sum() if len(points) else 0.0) ** 2


class GlobalInit(Ball):
    """Initial values from the global stream."""

    def __init__(self, options: Any, context: core.Context) -> None:
        super().__init__(options, context)
        self.weight = nn.Parameter(torch.rand(3) + 0.5)


class Forgotten(Ball):
    """A parameter that the optimiser never sees."""

    def param_groups(self) -> list[dict[str, Any]]:
        return []


class Raises(Ball):
    """Raises."""

    def field(self, points: Tensor) -> dict[str, Tensor]:
        raise RuntimeError("no luck")


class BadMesh(Ball):
    """Faces beyond the vertices."""

    def mesh(self, resolution: int) -> core.Mesh:
        return core.Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 3]]))


class Silent(Ball):
    """An option without a docstring."""

    class Config(core.Config):
        radius: float = 1.0


class LooseOptions(Ball):
    """Options that are no Config."""

    Config = dict  # type: ignore[assignment]


class Bright(reference.Paint):
    """Colour above 1."""

    def forward(self, *arguments: Any) -> Tensor:
        return 2 * super().forward(*arguments)


class Faded(reference.Paint):
    """Colour that cannot be learnt."""

    def forward(self, *arguments: Any) -> Tensor:
        return super().forward(*arguments).detach()


class FlatSky(core.Background):
    """Forgets leading dimensions."""

    def forward(self, directions: Tensor) -> Tensor:
        return torch.full_like(directions.reshape(-1, 3), 0.5)


class Unfinished(core.Background):
    """Lacks forward."""


class NoBackground(reference.Marcher):
    """Leaves the background black."""

    def forward(self, cameras: core.Cameras, step: core.Step | None = None) -> core.Render:
        seen = super().forward(cameras, step)
        seen.rgb = seen.rgb * seen.opacity
        return seen


class Restless(reference.Marcher):
    """Random without a step."""

    def forward(self, cameras: core.Cameras, step: core.Step | None = None) -> core.Render:
        seen = super().forward(cameras, step)
        seen.rgb = (seen.rgb + 1e-3 * torch.rand_like(seen.rgb)).clamp(0, 1)
        return seen


class Backwards(reference.Marcher):
    """Looks from behind."""

    def forward(self, cameras: core.Cameras, step: core.Step | None = None) -> core.Render:
        turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
        return super().forward(core.Cameras(turn @ cameras.c2w, cameras.fov_y, cameras.height, cameras.width), step)


class BlindPrior(reference.GaussianPrior):
    """encode cuts the gradient."""

    def encode(self, rgb: Tensor) -> Tensor:
        return super().encode(rgb).detach()


class DimPrior(reference.GaussianPrior):
    """decode leaves [0, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        return latents.movedim(1, -1) * 3


class DicePrior(reference.GaussianPrior):
    """predict is random."""

    def predict(self, noisy: Tensor, t: Tensor, condition: core.Condition) -> Tensor:
        return super().predict(noisy, t, condition) + torch.rand(())


class Sds(core.Score):
    """Sound; ``sign``, ``stream`` and ``reduce`` are what others get wrong."""

    sign, own_stream, scalar, frozen = 1.0, True, True, True

    def loss(
        self,
        prior: core.Prior,
        latents: Tensor,
        condition: core.Condition,
        negative: core.Condition,
        step: core.Step,
    ) -> Tensor:
        random = step.generator("sds") if self.own_stream else None
        t = prior.process.timestep(torch.rand(len(latents), generator=random))
        noise = torch.randn(latents.shape, generator=random)
        with torch.set_grad_enabled(not self.frozen):
            output = prior.predict(prior.process.add_noise(latents.detach(), noise, t), t, condition)
            noisy = prior.process.add_noise(latents.detach(), noise, t)
            gradient = self.sign * (prior.process.to_noise(output, noisy, t) - noise)
        product = gradient * latents
        return product.sum() if self.scalar else product.sum((1, 2, 3))


class PushesAway(Sds):
    """The wrong sign."""

    sign = -1.0


class GlobalNoise(Sds):
    """Noise from the global stream."""

    own_stream = False


class PerPicture(Sds):
    """One loss per picture."""

    scalar = False


class Leaks(Sds):
    """Gradients into the prior."""

    frozen = False


class Ring(core.DataSource):
    """Sound, unless ``own_stream`` or ``mirror`` is changed."""

    own_stream, mirror, away = True, 1.0, 1.0

    def batch(self, step: core.Step) -> dict[str, Any]:
        azimuth = 6.0 * torch.rand(3, generator=step.generator("ring") if self.own_stream else None)
        full = torch.ones(3)
        cameras = core.Cameras.orbit(azimuth, 0.2 * full, self.away * 3 * full, full, 8, 8)
        cameras.c2w[:, :3, 0] *= self.mirror
        return {"cameras": cameras}


class GlobalRing(Ring):
    """Azimuths from the global stream."""

    own_stream = False


class LeftHanded(Ring):
    """A mirrored camera."""

    mirror = -1.0


class LooksAway(Ring):
    """The object is behind the camera."""

    away = -1.0


class NoCameras(Ring):
    """No cameras."""

    def batch(self, step: core.Step) -> dict[str, Any]:
        return {"image": torch.zeros(1)}


class Echo(core.PromptProcessor):
    """Sound."""

    def texts(self, prompt: str, cameras: core.Cameras) -> list[str]:
        return [prompt] * len(cameras)


class OneText(Echo):
    """One text whatever the cameras."""

    def texts(self, prompt: str, cameras: core.Cameras) -> list[str]:
        return [prompt]


class NoText(Echo):
    """Empty texts."""

    def texts(self, prompt: str, cameras: core.Cameras) -> list[str]:
        return [""] * len(cameras)


class Writes(core.Exporter):
    """Sound; ``files`` are written, ``named`` are reported."""

    files, named, text = ("a.txt",), ("a.txt",), "text"

    def export(self, scene: core.Scene, folder: Path) -> Iterator[Path]:
        for name in self.files:
            (folder / name).write_text(self.text)
        yield from (folder / name for name in self.named)


class Unnamed(Writes):
    """Writes what it does not name."""

    files = ("a.txt", "b.txt")


class Absent(Writes):
    """Names what it does not write."""

    named = ("a.txt", "c.txt")


class Outside(Writes):
    """Writes beside the folder."""

    files = ("a.txt", "../b.txt")


class Empty(Writes):
    """Writes nothing into its file."""

    text = ""


class Counts(core.Metric):
    """Sound; ``value`` is what others get wrong."""

    value: Any = 1.0

    def measure(self, renders: core.Render, prompt: str) -> dict[str, float]:
        return {"count": self.value}


class NotANumber(Counts):
    """NaN."""

    value = float("nan")


class TensorValue(Counts):
    """A tensor for a number."""

    value = torch.tensor(1.0)


class Listens(core.Component):
    """Sound."""

    def __init__(self, options: Any, context: core.Context) -> None:
        self.options = options

    def on_step(self, run: Any, step: int) -> None:
        """Nothing."""


class Misspelt(Listens):
    """A hook that does not exist."""

    def on_stpe(self, run: Any) -> None:
        """Never called."""


class TooMany(Listens):
    """An argument that the hook does not have."""

    def on_finish(self, run: Any, losses: dict[str, float]) -> None:
        """Cannot be called."""


class Deaf(core.Component):
    """Hears nothing."""

    def __init__(self, options: Any, context: core.Context) -> None:
        self.options = options


def bench(size: int = 3) -> None:
    """Sound."""


def bare(size=3):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """A parameter without annotation."""


def loss(render: core.Render, step: core.Step) -> Tensor:
    """Sound."""
    return render.opacity.mean()


def loss_per_pixel(render: core.Render, step: core.Step) -> Tensor:
    """Not a scalar."""
    return render.opacity


def loss_detached(render: core.Render, step: core.Step) -> Tensor:
    """No gradient."""
    return render.opacity.detach().mean()


class Tune(core.Task):
    """Sound."""

    draw_globally = False

    def __init__(self, options: Any, context: core.Context) -> None:
        super().__init__(options, context)
        self.value = nn.Parameter(torch.zeros(3))

    def training_step(self, step: core.Step) -> dict[str, Tensor]:
        random = None if self.draw_globally else step.generator("target")
        return {"distance": (self.value - torch.rand(3, generator=random)).square().sum()}


class TuneGlobally(Tune):
    """Draws from the global stream."""

    draw_globally = True


class TuneVector(Tune):
    """A loss that is no scalar."""

    def training_step(self, step: core.Step) -> dict[str, Tensor]:
        return {"distance": self.value.square()}


class TunePicture(Tune):
    """A preview in floating point."""

    def preview(self, step: core.Step) -> dict[str, Any]:
        return {"view": torch.zeros(4, 4, 3).numpy()}
