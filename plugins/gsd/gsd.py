"""Generator ``gsd``: diffusion over sets of Gaussian ellipsoids, led by given views while sampling (Mu et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from diffusers import DDIMScheduler
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.asked import resized
from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Generator, Scene, Step
from core.diffusion.process import DiffusionProcess
from core.ema import Average
from core.errors import UserError
from core.generative.drawing import ask, class_of
from core.generative.scene import LookConfig, geometry_scene
from core.kernels.splatting.pictures import draw
from plugins.gsd.fitting import BACKGROUND, FitConfig, around, check, fitted_sets
from plugins.gsd.guidance import CLAMP, Given, ViewConfig, led, walk
from plugins.gsd.network import DitConfig, SetDit
from plugins.gsd.polish import PolishConfig, polished, redrawn, scaled
from plugins.gsd.tokens import WIDTH, canonical, splats_of

if TYPE_CHECKING:
    from core.asked import Asked

_TIMESTEPS, _CHUNK = 1000, 16


class SamplingConfig(BaseConfig):
    """How sets are drawn."""

    steps: int = Field(default=50, ge=2)
    """Timesteps."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """0 is DDIM, 1 the ancestral sampler of DDPM."""
    guidance: float = Field(default=1.5, ge=0)
    """Classifier-free guidance towards the class."""


class Gsd(Generator):
    """Fits each training object with Gaussians once, then trains a transformer to denoise such sets.

    It is never shown a picture: given views lead it by the gradient of what it would look like.
    """

    class Config(BaseConfig):
        data: Annotated[ComponentSpec, Slot("data")]
        """Points with normals and colours on surfaces, and pictures of them."""
        fit: FitConfig = FitConfig()
        """How objects become sets of Gaussians."""
        geometry: Annotated[ComponentSpec, Slot("geometry")]
        """What samples are: `splats`."""
        look: LookConfig
        """How samples are shown and exported."""
        network: DitConfig = DitConfig()
        """The transformer's sizes."""
        condition: Literal["none", "class"] = "class"
        """What it is told of an object."""
        untold: float = Field(default=0.1, ge=0, le=1)
        """Share of the objects of which it is told nothing while training."""
        parametrization: Literal["v_prediction", "epsilon", "sample"] = "v_prediction"
        """What it answers with: v, the noise, or the clean set."""
        batch: int = Field(default=16, ge=1)
        """Objects of a training step."""
        average: float = Field(default=0.995, ge=0, lt=1)
        """Decay of the moving average of the weights, which samples are drawn with."""
        sampling: SamplingConfig = SamplingConfig()
        """How sets are drawn."""
        views: ViewConfig = ViewConfig()
        """How given views lead."""
        polish: PolishConfig | None = None
        """A 2D prior that draws over new views of a sample, which the sample then follows; null leaves it as drawn, and
        so does a prior that needs a picture where none is given."""

    looks = True
    mean: Tensor
    deviation: Tensor

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.data = context.build(options.data)  # type: ignore[misc]
        check(self.data, options.fit)
        if options.network.width % options.network.heads:
            raise UserError(f"network.width={options.network.width} is no multiple of network.heads")
        told = options.condition == "class"
        self.names: tuple[str, ...] = tuple(getattr(self.data, "class_names", ())) if told else ()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.generator("gsd").initial_seed() % 2**32)
            self.live: Any = SetDit(options.network, len(self.names))
        self.average = Average(self.live, options.average)
        schedule = DDIMScheduler(_TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type=options.parametrization)
        self.process = DiffusionProcess.from_scheduler(schedule)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("deviation", torch.zeros(WIDTH))
        self._sets: tuple[Tensor, Tensor] | None = None
        self._prior: list[Any] = []  # no submodule: its weights are files already

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.mean.device

    def train(self, mode: bool = True) -> Gsd:
        super().train(mode)
        self.average.eval()
        return self

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.live.parameters())}]

    @property
    def sets(self) -> tuple[Tensor, Tensor]:
        """The training objects [objects, K, 16], in world units, and their classes; fitted at the first use."""
        if self._sets is None:
            self._sets = fitted_sets(self.data, self.options.fit, self.device)
        return self._sets

    def update(self, step: Step) -> None:
        if not bool(self.deviation.any()):
            tokens = self.sets[0].flatten(0, 1)
            self.mean.copy_(tokens.mean(0))
            self.deviation.copy_(tokens.std(0).clamp(min=0.02))

    def adapt(self, step: Step, optimizer: Any) -> None:
        self.average.update(self.live)

    def whitened(self, tokens: Tensor) -> Tensor:
        """World tokens [..., 16], each channel at zero mean and unit deviation over the data, within 3.5."""
        return ((tokens - self.mean) / self.deviation).clamp(-CLAMP, CLAMP)

    def in_world(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`whitened`."""
        return tokens * self.deviation + self.mean

    def training_step(self, step: Step) -> dict[str, Tensor]:
        tokens, labels = self.sets
        random = step.generator("gsd")
        index = torch.randint(len(tokens), (self.options.batch,), generator=random)
        x0 = self.whitened(tokens[index].to(self.device))
        t = torch.randint(self.process.steps, (len(x0),), generator=random).to(self.device)
        noise = torch.randn(x0.shape, generator=random).to(x0)
        told = torch.rand(len(x0), generator=random) >= self.options.untold
        label = self.live.untold(len(x0))
        if self.names:
            label = torch.where(told.to(label.device), labels[index].to(label), label)
        answer = self.live(self.process.add_noise(x0, noise, t), t, label)
        return {"denoising": F.mse_loss(answer, self.process.target(x0, noise, t))}

    # -- sampling --------------------------------------------------------------------------------------------------

    def estimate(self, label: Tensor) -> Any:
        """x0 by the averaged network under classes [B], guided away from nothing told."""
        network, scale = self.average.model, self.options.sampling.guidance

        def x0(x: Tensor, t: Tensor) -> Tensor:
            untold = network.untold(len(x))
            if not self.names or scale == 0 or bool((label == untold).all()):
                answer = network(x, t, untold)
            elif scale == 1:
                answer = network(x, t, label)
            else:
                free, told = network(x.repeat(2, 1, 1), t.repeat(2), torch.cat([untold, label])).chunk(2)
                answer = free + scale * (told - free)
            return self.process.to_x0(answer, x, t).clamp(-CLAMP, CLAMP)

        return x0

    @torch.no_grad()
    def draw_sets(
        self, label: Tensor, random: torch.Generator, given: Given | None = None, views: ViewConfig | None = None,
        steps: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Sets [B, K, 16] in world units for classes [B], led by given views where there are any."""
        out, o = [], self.options
        for some in label.to(self.device).split(_CHUNK):
            start = torch.randn(len(some), o.fit.count, WIDTH, generator=random).to(self.device)
            rows = [t.clamp(min=1).expand(len(some)) for t in self.process.times(steps or o.sampling.steps)]
            estimate = self.estimate(some)
            if given is not None:
                estimate = led(estimate, self.in_world, self.process, given, views or o.views)
            made = walk(self.process, estimate, start, [t.to(self.device) for t in rows], o.sampling.eta, random)
            out.append(self.in_world(made))
        return canonical(torch.cat(out))

    def labels(self, prompt: str, count: int, looking: bool = False) -> Tensor:
        """[count] classes of a prompt; of none they are taken in turn, or left untold where pictures tell more.

        Raises:
            UserError: the prompt names no class of the run.
        """
        if not self.names:
            if prompt:
                raise UserError(f"gsd: this run was fitted without classes, so it cannot be asked for '{prompt}'")
            return self.average.model.untold(count)  # type: ignore[no-any-return]
        wanted = class_of(prompt, self.names, "gsd")
        if wanted is not None:
            return torch.full((count,), wanted)
        return self.average.model.untold(count) if looking else torch.arange(count) % len(self.names)

    def given(self, asked: Asked) -> Given | None:
        """What was given, at the size at which views lead."""
        if asked.views is None:
            return None
        views = resized(asked.views, self.options.views.size)
        rgb, mask = views.over(BACKGROUND).to(self.device), views.mask.to(self.device)
        return Given(views.cameras.to(self.device), rgb, mask)

    def sample(self, count: int, asked: Asked | None, generator: torch.Generator) -> list[Scene | Tensor]:
        """``count`` objects: any, those of a class, or what given views show; polished where ``polish`` says so.

        Raises:
            UserError: a class that the run does not know, or a run that has not begun to train.
        """
        asked = asked or ask()
        if not bool(self.deviation.any()):
            raise UserError(
                "gsd: this run has not taken a step, so it knows no objects; launch.py resume goes on with it"
            )
        given = self.given(asked)
        label = self.labels(asked.prompt, count, given is not None)
        sets = self.draw_sets(label, generator, given)
        if self.options.polish is not None and (given is not None or not self.prior.looks):
            sets = torch.stack(
                [self._polished(one, k, asked, given, generator) for one, k in zip(sets, label, strict=True)]
            )
        return [self.scene(one, asked.prompt) for one in sets]

    @property
    def prior(self) -> Any:
        """Who polishes; loaded at the first call."""
        if not self._prior:
            self._prior.append(self.context.build(self.options.polish.prior).to(self.device).eval())  # type: ignore[misc]
        return self._prior[0]

    def _polished(
        self, tokens: Tensor, label: Tensor, asked: Asked, given: Given | None, random: torch.Generator
    ) -> Tensor:
        config: PolishConfig = self.options.polish
        first = None
        if config.again and given is not None:
            first = redrawn(tokens, self.prior, asked, config, float(given.cameras.azimuth[0]), random)
            every, _ = given.joined(scaled(first, given.cameras.height), 1.0)
            tokens = self.draw_sets(label[None], random, every)[0]
        return polished(tokens, self.prior, asked, given, config, random, first)

    def scene(self, tokens: Tensor, prompt: str = "") -> Scene:
        """A set [K, 16] as an object of its own.

        Raises:
            UserError: ``geometry`` is no set of Gaussians of one colour each.
        """
        geometry = self.context.build(self.options.geometry).to(self.device)  # type: ignore[misc]
        made, state = splats_of(tokens), geometry.state_dict()
        rows = {
            "means": made.means, "log_scales": made.scales.log(), "quaternions": made.rotations,
            "logits": made.opacities.logit(), "colors": made.sh, "harmonics": made.sh[:, :0],
        }  # fmt: skip
        if not rows.keys() <= state.keys() or state["harmonics"].shape[1]:
            raise UserError("geometry: gsd makes the geometry 'splats' with degree=0, no other")
        rows |= {name: made.means.new_zeros(len(tokens)) for name in ("gradient", "views", "radius")}
        geometry.load_state_dict(state | rows)
        return geometry_scene(geometry.eval(), self.options.look, self.context, "gsd", prompt)

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Two rows: training objects as they were fitted, and samples of the same classes, eight each."""
        tokens, labels = (x[:8] for x in self.sets)
        label = labels if self.names else self.average.model.untold(len(labels))
        drawn = self.draw_sets(label, torch.Generator().manual_seed(0), steps=20)
        rows = [torch.cat([seen(one, 96) for one in row], 1) for row in (tokens.to(self.device), drawn)]
        return {"samples": (torch.cat(rows).clamp(0, 1) * 255).byte().cpu().numpy()}


@torch.no_grad()
def seen(tokens: Tensor, size: int) -> Tensor:
    """[size, size, 3] a set [K, 16] from 35 degrees to the side, over grey."""
    found = draw(splats_of(tokens), around(1, size, 0.61).to(tokens.device))
    return (found.rgb + (1 - found.opacity) * BACKGROUND)[0]
