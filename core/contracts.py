"""What a component of each kind is and does. A plugin subclasses one of these and declares it in ``register``.

Every component is built as ``Class(options, context)``: ``options`` is an instance of its ``Config``, ``context``
tells it the device, the seed and what was built before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from core.component import Component as Component
from core.component import Module as Module
from core.outputs import Converter as Converter
from core.outputs import Exporter as Exporter
from core.outputs import Metric as Metric
from core.outputs import Scene as Scene
from core.streams import Context as Context
from core.streams import Step as Step
from core.streams import stream_seed as stream_seed
from core.types import Cameras, Condition, Mesh, Render, Splats, Views

if TYPE_CHECKING:
    from core.asked import Asked
    from core.diffusion.process import DiffusionProcess


@dataclass(frozen=True)
class Lighter:
    """How a load was lowered: in words, and how many times as many micro-batches an update needs now."""

    what: str
    micro_batches: int = 1


class Task(Module):
    """What the loop optimises: lifting a prompt, fitting a prior or a generative system."""

    @abstractmethod
    def training_step(self, step: Step) -> dict[str, Tensor]:
        """Weighted losses by name, scalars; the loop back-propagates their sum."""

    def lighten(self) -> Lighter | None:
        """Need less memory in every step from now on, as memory ran out; None where nothing can be lowered. By
        default fewer rows of ``self.data`` at once, in more micro-batches."""
        data = getattr(self, "data", None)
        parts = data.split() if isinstance(data, DataSource) else 1
        return (
            Lighter(f"1 in {parts} of the rows at once, in {parts} times as many micro-batches", parts)
            if parts > 1
            else None
        )

    def preview(self, step: Step) -> dict[str, Any]:
        """Pictures by name, [H, W, 3] uint8 arrays; called under ``no_grad``."""
        return {}

    def finish(self, run: Any) -> None:
        """Called after the last step of the last stage: export assets, save weights."""

    def leave(self, run: Any) -> None:
        """Called instead where another stage follows: save what is of use beside its checkpoint."""


class Geometry(Module):
    """A representation of shape (and of the features that a material turns into colour)."""

    def field(self, points: Tensor) -> dict[str, Tensor]:
        """At ``points`` [N, 3] in world units: ``density`` [N] >= 0 (per unit length) and ``features`` [N, C]."""
        raise NotImplementedError(f"{type(self).__name__} has no density field")

    def density(self, points: Tensor) -> Tensor:
        """[N] density alone; override where features can be skipped."""
        return self.field(points)["density"]

    def sdf(self, points: Tensor) -> Tensor:
        """[N] signed distance, negative inside."""
        raise NotImplementedError(f"{type(self).__name__} has no signed distance")

    def along(self, points: Tensor, directions: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """As ``field``, for stretches of rays: the mean density of ``lengths`` [N] along ``directions`` [N, 3] (unit)
        round ``points`` [N, 3]. Override where density depends on the ray (NeuS); volume renderers ask this."""
        return self.field(points)

    def normals(self, points: Tensor) -> Tensor | None:
        """[N, 3] unit normals, outwards, where the representation knows them itself (a signed distance's slope); None
        leaves them to whoever asks: minus the density's slope."""
        return None

    def extra(self, signal: str, render: Render, step: Step) -> Tensor:
        """A signal of its ``gives`` that no renderer makes (``sdf-gradient``, ``variation``); a lift asks for it in the
        steps in which a loss needs it."""
        raise NotImplementedError(f"{type(self).__name__} does not give '{signal}'")

    def features(self, points: Tensor, uv: Tensor | None = None) -> Tensor:
        """[N, C] what the material turns into colour, at surface points [N, 3]; ``uv`` [N, 2] where the surface has
        texture coordinates."""
        return self.field(points)["features"]

    def surface(self) -> Mesh:
        """What gives ``mesh``: the surface as it is now, differentiable in the parameters; for mesh renderers."""
        raise NotImplementedError(f"{type(self).__name__} has no explicit surface")

    def splats(self) -> Splats:
        """What gives ``gaussians``: the set as it is now, differentiable in the parameters; for splat renderers."""
        raise NotImplementedError(f"{type(self).__name__} is no set of Gaussians")

    def mesh(self, resolution: int) -> Mesh:
        """The surface for export; may be empty. Vertices in world units.

        By default the zero set of ``sdf``, else a level of ``density`` at ``resolution`` points a side; override where
        the representation has a mesh of its own.
        """
        from core.meshing.surface import extract  # built on these contracts

        found = extract(self, self.context.bound, resolution)
        if found is None:
            return Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
        return Mesh(torch.from_numpy(found.vertices), torch.from_numpy(found.faces))

    def init_from(self, other: Geometry, step: Callable[[int], None] | None = None) -> None:
        """Take over another representation of the same scene (from an earlier stage)."""
        raise NotImplementedError(f"{type(self).__name__} cannot start from {type(other).__name__}")

    def start_from(self, scene: Scene) -> None:
        """Take over an earlier stage's whole scene; override where its material or renderer matters (colours)."""
        self.init_from(scene.geometry)


class Material(Module):
    """Turns features (and normals, view and light directions) into colour."""

    feature_channels: int = 3
    needs_normal: bool = False
    latent: bool = False
    """Whether features are a prior's latents, which a renderer adds up as they are (``Render.extras["latent"]``)."""

    def maps(self, features: Tensor) -> dict[str, Tensor]:
        """What a surface is, apart from its light, for exporters: ``base_color`` [N, 3] sRGB, ``roughness`` and
        ``metallic`` [N, 1], in [0, 1]. None by default: the colour is all there is."""
        return {}

    def latents(self, features: Tensor) -> Tensor:
        """Where ``latent``: [N, C] the part of the features [N, C'] that are latents; all of them by default."""
        return features

    def behind(self, rgb: Tensor) -> Tensor:
        """Where ``latent``: [..., C] latents of a background's sRGB [..., 3]."""
        raise NotImplementedError(f"{type(self).__name__} renders no latents")

    def picture(self, latent: Tensor) -> Tensor | None:
        """Where ``latent``: [B, H, W, 3] sRGB in [0, 1] of rendered latents [B, H, W, C], for pictures that people see;
        None keeps the colours that were rendered."""
        return None

    @abstractmethod
    def forward(
        self,
        features: Tensor,  # [N, C]
        points: Tensor,  # [N, 3]
        directions: Tensor,  # [N, 3] unit, from the camera
        normals: Tensor | None,  # [N, 3] unit
        light: Tensor | None = None,  # [N, 3] position of the point light
    ) -> Tensor:
        """[N, 3] sRGB in [0, 1]."""


class Background(Module):
    """What is seen where the object is not."""

    @abstractmethod
    def forward(self, directions: Tensor) -> Tensor:
        """[..., 3] directions, unit, to [..., 3] sRGB in [0, 1]."""


class Renderer(Module):
    """Makes images of a geometry with a material over a background (found in ``context.parts``)."""

    @abstractmethod
    def forward(self, cameras: Cameras, step: Step | None = None) -> Render:
        """``step`` gives random streams while training; None renders without randomness."""

    def lighten(self) -> str | None:
        """Need less memory for the same pictures from now on; in words how, None where it cannot be lowered."""
        return None


class Prior(Module):
    """A diffusion model behind one face: 2D, multi-view or 3D-native."""

    process: DiffusionProcess
    guidance_scale: float = 7.5
    looks: ClassVar[bool] = False
    """Whether ``condition`` takes pictures of the object (``views``)."""
    sees_render: ClassVar[bool] = False
    """Whether ``condition`` takes what was rendered of each view (``render``); told of none, it hears nothing of it."""

    shapes: ClassVar[bool] = False
    """Whether it is a prior over shapes: guidance then asks ``encode_shape``, never ``encode``."""

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        """(C, h, w) of the latents that ``encode`` gives, told without loading weights; for scenes that live in it."""
        raise NotImplementedError(f"{cls.__name__} does not tell the shape of its space")

    @abstractmethod
    def encode(self, rgb: Tensor) -> Tensor:
        """[B, H, W, 3] sRGB in [0, 1] to the prior's space [B, C, h, w]; differentiable."""

    def encode_shape(self, geometry: Geometry, step: Step | None = None) -> Tensor:
        """Where ``shapes``: [B, C, ...] the shape as it is now in the prior's space (B is 1 for one object);
        differentiable in the geometry's parameters. ``step`` gives random streams; without one the answer is the same
        each time.

        Raises:
            UserError: the geometry does not give what the space is made of.
        """
        raise NotImplementedError(f"{type(self).__name__} is no prior over shapes")

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of ``encode``: [B, H, W, 3] in [0, 1]."""

    @abstractmethod
    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        """Embed one text (and one view) per image; ``""`` is the unconditional text, no ``views`` its counterpart for
        priors that look at pictures (others may leave the parameter out)."""

    def opposite(self, told: Condition, texts: list[str], cameras: Cameras | None = None) -> Condition:
        """What classifier-free guidance leads away from: the ``texts`` that are not wanted, and no pictures. Override
        where it depends on what was ``told``; both must hold the same fields."""
        return self.condition(texts, cameras)

    def away(self, told: Condition, untold: Condition) -> list[Away]:
        """What guidance moves away from beside the opposite, by the prior's own options; nothing by default."""
        return []

    @abstractmethod
    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's raw output at integer timesteps ``t`` [B], in the process's parametrisation."""


@dataclass(frozen=True)
class Away:
    """A condition that guidance moves away from: ``weight`` [B] per picture, >= 0 in Perp-Neg and camera guidance.

    Attributes:
        both: move both ends of guidance by ``weight (opposite - condition)``, which is a second guidance, by what both
            ends were told and this one was not (the picture of InstructPix2Pix).
    """

    condition: Condition
    weight: Tensor
    both: bool = False


class Score(Component, ABC):
    """Turns a prior's predictions into a loss on what was rendered."""

    sees_render: ClassVar[bool] = False
    """Whether ``loss`` takes a further argument ``render``: what the latents were made of, with its cameras."""

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options
        self.context = context

    @abstractmethod
    def loss(
        self,
        prior: Prior,
        latents: Tensor,
        condition: Condition,
        negative: Condition,
        step: Step,
        away: Sequence[Away] = (),
    ) -> Tensor:
        """A scalar whose gradient in ``latents`` [B, C, h, w] is the score's."""


class TrainedScore(Module, Score):
    """A score that learns while it leads (VSD): its parameters are the optimiser's and the checkpoint's too."""

    @abstractmethod
    def attach(self, prior: Prior) -> None:
        """Make the parameters that go with ``prior``; called before the optimiser asks for them."""

    @abstractmethod
    def losses(self) -> dict[str, Tensor]:
        """What the last call of ``loss`` left to be learned, scalars by name, unweighted; each is given once."""


class DataSource(Component, ABC):
    """Cameras, and images where there are any."""

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options
        self.context = context

    @abstractmethod
    def batch(self, step: Step) -> dict[str, Any]:
        """At least ``cameras`` (:class:`Cameras`); deterministic given the step's streams."""

    def split(self) -> int:
        """Give fewer rows at once from now on: the option ``batch`` by its smallest factor, which is returned; 1 where
        it cannot be lowered. Sets of views (``orbit``) stay whole."""
        count, whole = getattr(self.options, "batch", 1), getattr(self.options, "orbit", 1)
        factor = next((d for d in range(2, count // whole + 1) if (count // whole) % d == 0), 1)
        if factor > 1:
            self.options = self.options.model_copy(update={"batch": count // factor})
        return factor


class PromptProcessor(Component, ABC):
    """Turns the job's sentence into one text per view."""

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options
        self.context = context

    @abstractmethod
    def texts(self, prompt: str, cameras: Cameras) -> list[str]:
        """One text per camera."""

    def away(self, prompt: str, cameras: Cameras) -> list[tuple[list[str], Tensor]]:
        """Texts to move away from (one per camera) and their weights [B], for Perp-Neg; none by default."""
        return []


class Generator(Task):
    """A generative model: fitted as a task, then sampled."""

    looks: ClassVar[bool] = False
    """Whether ``sample`` makes an object of given pictures: a lift from a picture then starts from its own."""

    @abstractmethod
    def sample(self, count: int, asked: Asked | None, generator: torch.Generator) -> list[Scene | Tensor]:
        """``count`` objects (:class:`Scene`), or pictures [H, W, 3] of sRGB in [0, 1], by the averaged weights where it
        keeps any; the same generator gives the same samples.

        Args:
            asked: its ``prompt`` is what to make ("" or None: anything), a class by its word; its ``views`` are given
                pictures.

        Raises:
            UserError: it does not know what was asked for.
        """
