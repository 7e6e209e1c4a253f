"""Generators whose denoiser holds a scene: noisy views become parameters of a geometry, which is rendered.

The answer to noisy views is what the geometry looks like from their cameras (x0), so that training needs pictures only
and every sample is a scene. Viewset Diffusion (Szymanowicz et al. 2023) and RenderDiffusion (Anciukevičius et al. 2023)
differ in how views become parameters; the objective, the walk and the scene are here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from core.asked import resized
from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Generator, Scene, Step
from core.diffusion.sampler import ddim_walk
from core.ema import Average
from core.errors import UserError
from core.generative.rays import Rays, cast_between, crossing
from core.generative.scene import LookConfig, geometry_scene
from core.generative.scene_codes import Code as Code
from core.generative.scene_codes import Known as Known
from core.generative.scene_codes import Look as Look
from core.generative.scene_codes import Seen as Seen
from core.generative.scene_codes import cosine_process
from core.generative.scene_codes import side_by_side as side_by_side
from core.types import Cameras

if TYPE_CHECKING:
    from core.asked import Asked

BACKGROUND = 0.5
"""Grey level behind the objects, in training and in given pictures."""


class ThroughRenderingConfig(BaseConfig):
    """What such a generator is told."""

    data: Annotated[ComponentSpec, Slot("data")]
    """Posed pictures, `views` of each object."""
    geometry: Annotated[ComponentSpec, Slot("geometry")]
    """The representation that the network fills."""
    look: LookConfig
    """How it is rendered; samples are exported with it."""
    samples: int = Field(32, ge=4)
    """Samples along a ray, in training and while sampling."""
    rays: int = Field(256, ge=16)
    """Rays of each view that a training step looks at."""
    min_snr: float | None = Field(5.0, gt=0)
    """Views weigh min(SNR, this) / this, by their own noise (Hang et al. 2023); null weighs all alike."""
    self_condition: float = Field(0.5, ge=0, le=1)
    """Share of the steps in which the network sees its own earlier answer (Chen et al. 2023)."""
    average: float = Field(0.995, ge=0, lt=1)
    """Decay of the moving average of the weights, which samples are drawn with."""
    sampler_steps: int = Field(25, ge=1)
    """DDIM steps of a sample."""


class ThroughRendering(Generator):
    """Trains a network that turns a set of views into parameters of ``geometry``."""

    looks = True
    filled: tuple[str, ...] = ()
    """Names of the geometry's parameters that the network gives; its others are learned with the network."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.data = context.build(options.data)  # type: ignore[misc]
        self.check()
        self.process = cosine_process()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.generator("through-rendering").initial_seed() % 2**32)
            look = Look(context.build(options.geometry), context.build(options.look.material))  # type: ignore[misc]
            for name in self.filled:
                if not isinstance(getattr(look.geometry, name, None), nn.Parameter):
                    kind = options.geometry.name
                    raise UserError(f"geometry: '{kind}' has no '{name}' for the network to fill; see the presets")
                look.geometry.get_parameter(name).requires_grad_(False).zero_()
            self.live: Any = nn.ModuleDict({"network": self.network(look.geometry), "look": look})
        self.average = Average(self.live, options.average)

    @abstractmethod
    def network(self, geometry: Any) -> nn.Module:
        """The network: from :class:`Seen` to B codes, a list."""

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            UserError: the data is no set of posed pictures.
        """
        if not hasattr(self.data, "take") or not hasattr(self.data, "cameras"):
            raise UserError(f"data: '{self.options.data.name}' gives no posed pictures; data=procedural does")

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return int(self.data.options.size)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.live["network"].parameters()).device

    def train(self, mode: bool = True) -> ThroughRendering:
        super().train(mode)
        self.average.eval()
        return self

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": [p for p in self.live.parameters() if p.requires_grad]}]

    def adapt(self, step: Step, optimizer: Any) -> None:
        self.average.update(self.live)

    # -- pictures --------------------------------------------------------------------------------------------------

    def views(self, objects: Tensor, chosen: Tensor) -> tuple[Tensor, Cameras]:
        """Pictures [B, V, 3, S, S] in [-1, 1] of the ``objects`` [B] of the data, at places ``chosen`` [B, V] among
        those of each object, and their B V cameras."""
        index = (objects[:, None] * self.data.options.views + chosen).flatten()
        rgb = self.data.take(index.numpy())["rgb"].movedim(-1, 1) * 2 - 1
        return rgb.unflatten(0, tuple(chosen.shape)).to(self.device), self.data.cameras(index).to(self.device)

    def drawn_views(self, count: int, views: int, generator: torch.Generator) -> tuple[Tensor, Cameras]:
        """As :meth:`views`, of ``count`` random objects, different views of each."""
        o = self.data.options
        objects = torch.randint(o.images // o.views, (count,), generator=generator)
        chosen = torch.rand(count, o.views, generator=generator).argsort(1)[:, :views]
        return self.views(objects, chosen)

    # -- rendering -------------------------------------------------------------------------------------------------

    def rendered(
        self,
        look: Look,
        code: Code,
        origins: Tensor,
        directions: Tensor,
        generator: torch.Generator | None = None,
    ) -> Rays:
        """What rays [R, 3] see of a scene."""
        given = {f"geometry.{name}": value for name, value in code.items()}

        def field(points: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
            return functional_call(look, given, (points, along))  # type: ignore[no-any-return]

        near, far = self.span(code, origins, directions)
        return cast_between(field, origins, directions, near, far, self.options.samples, BACKGROUND, generator)

    def span(self, code: Code, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """From where to where rays [R, 3] are sampled, [R] each: within the cube of the job's bound."""
        return crossing(origins, directions, self.context.bound)

    def pictures(self, look: Look, codes: Sequence[Code], cameras: Cameras) -> Tensor:
        """[B, V, 3, S, S] in [-1, 1] of B scenes, each from its own V of the ``cameras``."""
        rays = [x.flatten(1, 2).unflatten(0, (len(codes), -1)).flatten(1, 2) for x in cameras.rays()]
        seen = [self.rendered(look, code, o, d).rgb for code, o, d in zip(codes, *rays, strict=True)]
        rgb = torch.stack(seen).unflatten(1, (-1, cameras.height, cameras.width))
        return rgb.movedim(-1, 2) * 2 - 1

    # -- training --------------------------------------------------------------------------------------------------

    def denoising_losses(
        self, rgb: Tensor, cameras: Cameras, t: Tensor, unseen: float, step: Step
    ) -> dict[str, Tensor]:
        """Squared errors in [-1, 1] of random pixels of all views, of which the network sees the first with noise.

        Args:
            rgb: [B, V, 3, S, S] clean pictures.  cameras: B V cameras.
            t: [B, K] timesteps of the first K views, 0 for those that stay clean; the others the network never sees.
            unseen: weight of these others.
        """
        scenes, views, kept = len(rgb), rgb.shape[1], t.shape[1]
        shown = cameras[torch.arange(scenes * views).view(scenes, views)[:, :kept].flatten()]
        noise = torch.randn(t.shape + rgb.shape[2:], generator=step.generator("noise")).to(rgb)
        noisy = self.process.add_noise(rgb[:, :kept], noise, t)
        noisy = torch.where((t > 0)[..., None, None, None], noisy, rgb[:, :kept])
        seen = Seen(noisy, t, shown, torch.zeros_like(noisy))
        if float(torch.rand((), generator=step.generator("self"))) < self.options.self_condition:
            seen = replace(seen, guess=self._guess(seen))
        codes = self.live["network"](seen)
        error = self._errors(codes, rgb, cameras, step)
        weight = self.snr_weight(t)
        losses = {"seen": (weight * error[:, :kept]).mean()}
        if views > kept and unseen:
            losses["unseen"] = unseen * error[:, kept:].mean()
        return losses

    @torch.no_grad()
    def _guess(self, seen: Seen) -> Tensor:
        """What the network answers first, without a gradient; nothing of clean views, which are known."""
        answer, noisy = torch.zeros_like(seen.rgb), (seen.t > 0).any(0)
        asked = torch.arange(len(seen.cameras)).view(seen.t.shape)[:, noisy.cpu()].flatten()
        codes = self.live["network"](seen)
        answer[:, noisy] = self.pictures(self.live["look"], codes, seen.cameras[asked])
        return answer * (seen.t > 0)[..., None, None, None]

    def _errors(self, codes: Sequence[Code], rgb: Tensor, cameras: Cameras, step: Step) -> Tensor:
        """[B, V] mean squared errors over random pixels of each view."""
        generator, rows = step.generator("rays"), []
        origins, directions = (x.flatten(1, 2).unflatten(0, rgb.shape[:2]) for x in cameras.rays())
        target = rgb.flatten(3).transpose(2, 3)  # [B, V, S S, 3]
        for k, code in enumerate(codes):
            pixels = torch.rand(target.shape[1:3], generator=generator).argsort(1)[:, : self.options.rays]
            at = pixels[..., None].expand(-1, -1, 3).to(rgb.device)
            o, d, wanted = (x[k].gather(1, at) for x in (origins, directions, target))
            seen = self.rendered(self.live["look"], code, o.flatten(0, 1), d.flatten(0, 1), generator)
            rows.append((seen.rgb.view_as(wanted) * 2 - 1 - wanted).square().mean((1, 2)))
        return torch.stack(rows)

    def snr_weight(self, t: Tensor) -> Tensor:
        """Weights in [0, 1] of views at timesteps ``t``."""
        if self.options.min_snr is None:
            return torch.ones_like(t, dtype=torch.float32)
        bar = self.process.alphas_cumprod.to(t.device)[t]
        return ((bar / (1 - bar)).clamp(max=self.options.min_snr) / self.options.min_snr).float()

    # -- sampling --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def walk(
        self,
        start: Tensor,  # [B, N, 3, S, S]
        cameras: Cameras,  # B N
        clean: tuple[Tensor, Cameras] | None = None,  # [B, C, 3, S, S] in [-1, 1], and B C cameras
        first: int | None = None,
        known: Known | None = None,
        steps: int | None = None,
    ) -> list[Code]:
        """Denoise N views of each of B scenes together by DDIM beside clean ones, and give the last scenes.

        Args:
            start: views at timestep ``first`` (default the last one, pure noise).
            known: pixels that every estimate is overwritten with, so that they follow their own noised truth.
        """
        network, look = self.average.model["network"], self.average.model["look"]
        scenes, guess, codes = len(start), torch.zeros_like(start), list[Code]()
        fixed = [] if clean is None else [clean[0].to(start)]
        every = side_by_side([*([] if clean is None else [clean[1].to(start.device)]), cameras], scenes)
        ahead = 0 if clean is None else clean[0].shape[1]

        def estimate(x: Tensor, t: Tensor) -> Tensor:
            nonlocal guess, codes
            level = torch.nn.functional.pad(t[:, None].expand(-1, x.shape[1]), (ahead, 0))
            # a network that never saw its own answer in training has random weights for it
            heard = guess if self.options.self_condition else torch.zeros_like(guess)
            before = torch.nn.functional.pad(heard, (0, 0, 0, 0, 0, 0, ahead, 0))
            codes = network(Seen(torch.cat([*fixed, x], 1), level, every, before))
            guess = self.pictures(look, codes, cameras)
            if known is not None:
                guess = torch.where(known.mask > 0.5, known.rgb, guess)
            return guess

        times = self.process.times(steps or self.options.sampler_steps, first)
        rows = [t.clamp(min=1).expand(scenes).to(start.device) for t in times]
        estimate(ddim_walk(self.process, estimate, start, rows), rows[-1])
        return codes

    def scene(self, code: Code, name: str = "asset", prompt: str = "", spec: ComponentSpec | None = None) -> Scene:
        """A code as an object of its own; ``spec``: its geometry, where it differs from the one that is trained."""
        geometry = self.context.build(spec or self.options.geometry).to(self.device)  # type: ignore[misc]
        geometry.load_state_dict(self.average.model["look"].geometry.state_dict() | code)
        return geometry_scene(geometry.eval(), self.options.look, self.context, name, prompt)

    def given(self, asked: Asked | None, count: int) -> tuple[Tensor, Cameras] | None:
        """The given pictures, ``count`` times, [count, C, 3, S, S] in [-1, 1], and their cameras; None without any.

        Raises:
            UserError: something was asked for in words alone.
        """
        if asked is None or asked.views is None:
            if asked is not None and asked.prompt:
                name = type(self).__name__
                raise UserError(f"{name} reads no words, so '{asked.prompt}' cannot be asked for; give it a picture")
            return None
        views = resized(asked.views, self.size)
        rgb = views.over(BACKGROUND).movedim(-1, 1) * 2 - 1
        cameras = Cameras.cat([views.cameras] * count)
        return rgb.expand(count, *rgb.shape).to(self.device), cameras.to(self.device)
