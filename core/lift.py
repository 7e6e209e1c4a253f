"""The task ``lift``: a scene is rendered from random views, priors say what it should look like, losses say the rest.

Everything it knows are contracts: any geometry, renderer, material and background; any list of guidances, each a prior
with a score; any prompt processor and camera source.
"""

from __future__ import annotations

import logging
import re
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from core.asked import Asked, PictureConfig
from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.config.schedule import Schedule
from core.contracts import Context, Lighter, Module, Prior, PromptProcessor, Scene, Score, Step, Task, TrainedScore
from core.errors import UserError
from core.guidance import Guidance, GuidanceConfig
from core.prompt_file import read_prompt
from core.signals import FIELD_SIGNALS
from core.types import Cameras, Render

if TYPE_CHECKING:
    from core.optim import ScheduledOptimizer

log = logging.getLogger("maquette")

_PICTURES = ("target", "target-mask", "target-nearness", "target-normal")


class InitConfig(BaseConfig):
    """A generator's sample that the lift starts from."""

    run: Path
    """The folder of the run that fitted the generator."""
    type: str = ""
    """The generator that is expected, for a clear word where the run is of another; "" takes any."""
    seed: int = Field(default=0, ge=0)
    """Which sample."""
    prompt: str | None = None
    """What to ask the generator for; null asks for the job's prompt."""


_NOTHING_ASKED = "prompt: a text is required (or image: a picture)"


class LiftConfig(BaseConfig):
    """A scene, what guides it, and what it is exported as."""

    prompt: str = ""
    """The sentence, or `@FILE` with it; a job that is given a picture may do without."""
    image: Path | None = None
    """A picture of the object, or a folder of pictures with their cameras."""
    draw: InitConfig | None = None
    """A fitted generator of pictures that draws the given picture; null takes `image`."""
    picture: PictureConfig = PictureConfig()
    """Where the picture was taken from, and what in it is the object."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    geometry: Annotated[ComponentSpec, Slot("geometry")]
    """The representation."""
    init: InitConfig | None = None
    """A fitted generator of which a sample is the first shape; null leaves that to the geometry."""
    material: Annotated[ComponentSpec, Slot("material")]
    """Features to colour."""
    background: Annotated[ComponentSpec, Slot("background")]
    """What is behind the object."""
    renderer: Annotated[ComponentSpec, Slot("renderer")]
    """Makes pictures of the geometry."""
    data: Annotated[ComponentSpec, Slot("data")]
    """The cameras of each step."""
    prompts: Annotated[ComponentSpec, Slot("prompt")]
    """The sentence as each view hears it."""
    guidance: list[GuidanceConfig] = []
    """Priors and scores; their losses are added. None are needed where a loss on the data's pictures leads."""
    losses: Annotated[dict[str, Schedule], Slot("loss")] = {}
    """Weights of further losses, by name."""
    export: list[Annotated[ComponentSpec, Slot("exporter")]] = []
    """What is written when the job is done."""

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if value and not value.strip():
            raise ValueError("expected a text, found only spaces")
        return read_prompt(value)

    @model_validator(mode="after")
    def _is_led(self) -> LiftConfig:
        if not self.prompt.strip() and self.image is None:
            raise ValueError(_NOTHING_ASKED)
        if self.draw is not None and self.image is not None:
            raise ValueError("draw: the picture is given by image; give one of the two")
        for loss, given in (("nearness", "depth"), ("normal", "normals")):
            if loss in self.losses and self.data.name == "given-views" and getattr(self.picture, given) is None:
                raise ValueError(f"the loss '{loss}' compares with picture.{given}, which was not given")
        if not self.guidance and not self.losses:
            raise ValueError("expected a guidance, or losses on pictures that the data gives: nothing leads this lift")
        return self


class ScenePrior:
    """The first guidance's prior, as ``context.parts["prior"]``: for scenes that are made of its latents."""

    def __init__(self, lift: Lift) -> None:
        self._lift = weakref.ref(lift)  # parts hold what they were built with; the task holds the parts

    def space(self) -> tuple[int, int, int]:
        """(C, h, w) of its latents; nothing is loaded for it."""
        lift: Any = self._lift()
        spec = lift.options.guidance[0].prior
        return lift.context.parts["registry"].find("prior", spec.name).load().space(spec.options, lift.context)

    def load(self) -> Prior:
        """The prior itself, loaded at the first call."""
        lift: Any = self._lift()
        return lift.guidance[0].prior


class Lift(Task):
    """Builds the parts in the order geometry, material, background, renderer, each seeing those before it."""

    Config = LiftConfig

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        """Normals where a guidance is shown them."""
        return (["normal"] if any(g.sees != "colour" for g in options.guidance) else []), []

    def __init__(self, options: LiftConfig, context: Context) -> None:
        super().__init__(options, context)
        build: Any = context.build
        self.parts = nn.ModuleDict()
        context.parts["prior"] = ScenePrior(self)
        for kind in ("geometry", "material", "background", "renderer"):
            part = build(getattr(options, kind))
            self.parts[kind] = part
            context.parts[kind] = part
        previous = context.parts.get("previous")
        if isinstance(previous, Lift) and previous.geometry is not None:
            self.geometry.start_from(previous.scene())
        elif options.init is not None and "restored" not in context.parts:
            self.geometry.start_from(self._first(options.init))
        self.prompts: PromptProcessor = build(options.prompts)
        estimate = context.parts["registry"].hooks.estimate_elevation
        self.asked = Asked(
            options.prompt, options.negative_prompt, self.prompts, self._image(), options.picture,
            lambda views: estimate(views=views),
        )  # fmt: skip
        context.parts["asked"] = self.asked
        self.data = build(options.data)
        self.losses = {name: self._loss(name) for name in options.losses}
        if not options.guidance and not any(self._follows_pictures(name) for name in options.losses):
            raise UserError(
                f"no guidance, and none of the losses ({', '.join(options.losses)}) compares with the data's pictures: "
                "nothing leads this lift. Add a guidance, or losses.image=1"
            )
        self._scores: list[Score] = [build(g.score) for g in options.guidance]
        trained = {str(k): score for k, score in enumerate(self._scores) if isinstance(score, TrainedScore)}
        self.scores = nn.ModuleDict(trained)  # their parameters go into the optimiser and the checkpoint
        self._guidance: list[Guidance] | None = None
        self._final: Cameras | None = None

    def _first(self, init: InitConfig) -> Scene:
        """A sample of the generator for the prompt, or for the picture where it looks at pictures."""
        from core.generative.drawing import first_scene

        prompt = self.options.prompt if init.prompt is None else init.prompt
        o = self.options
        return first_scene(init.run, init.type, prompt, init.seed, self.context, o.image, o.picture)

    def _image(self) -> Path | None:
        """The given picture, drawn first where a generator is to draw it."""
        draw = self.options.draw
        if draw is None:
            return self.options.image
        from core.generative.drawing import drawn_picture

        prompt = self.options.prompt if draw.prompt is None else draw.prompt
        return drawn_picture(draw.run, draw.type, prompt, draw.seed, self.context)

    def _loss(self, name: str) -> Any:
        return self.context.parts["registry"].find("loss", name).load()

    def _follows_pictures(self, loss: str) -> bool:
        return not set(_PICTURES).isdisjoint(self.context.parts["registry"].find("loss", loss).needs)

    @property
    def geometry(self) -> Any:
        """The representation that is optimised."""
        return self.parts["geometry"]

    @property
    def guidance(self) -> list[Guidance]:
        """Priors are loaded at the first step: an export of a finished run loads none."""
        if self._guidance is None:
            pairs = zip(self.options.guidance, self._scores, strict=True)
            self._guidance = [Guidance(g, self.context, score) for g, score in pairs]
        return self._guidance

    def param_groups(self) -> list[dict[str, Any]]:
        for index, score in self.scores.items():
            score.attach(self.guidance[int(index)].prior)  # type: ignore[operator]
        return [group for part in self._modules_of() for group in part.param_groups()]

    def _modules_of(self) -> list[Module]:
        parts = [self.parts[k] for k in ("geometry", "material", "background", "renderer")]
        return [*parts, *self.scores.values()]  # type: ignore[list-item]

    def update(self, step: Step) -> None:
        if step.index == 0:
            self.asked.views  # noqa: B018  a picture that cannot be used is told before any prior is loaded
        for part in self._modules_of():
            part.update(step)
        if isinstance(self.data, Module):  # a source that makes its own pictures of the scene
            self.data.update(step)

    def adapt(self, step: Step, optimizer: ScheduledOptimizer) -> None:
        for part in self._modules_of():
            part.adapt(step, optimizer)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        batch = self.data.batch(step)
        render = self._seen(batch, step)
        # Where some pictures are given and others are not, guidance sees these and losses on pictures those.
        given = self._seen(batch["reference"], step) if "reference" in batch else render
        losses: dict[str, Tensor] = {}
        for index, guidance in enumerate(self.guidance):
            name = "guidance" if len(self.guidance) == 1 else f"guidance_{index}"
            losses[name] = guidance.loss(render, self.asked, step)
            if isinstance(guidance.score, TrainedScore):
                losses |= {f"{name}_{part}": value for part, value in guidance.score.losses().items()}
        for name, function in self.losses.items():
            weight = self.options.losses[name].at(step.index, step.total)
            if weight:
                seen = given if self._follows_pictures(name) else render
                self._supply(name, seen, step)
                losses[name] = weight * function(seen, step)
        return losses

    def _seen(self, batch: dict[str, Any], step: Step) -> Render:
        """The scene from the batch's cameras, with the pictures that it should match beside what was rendered."""
        render: Render = self.parts["renderer"](batch["cameras"].to(self.context.device), step)
        render.extras |= {signal: batch[signal].to(render.rgb) for signal in _PICTURES if signal in batch}
        return render

    def _supply(self, loss: str, render: Render, step: Step) -> None:
        """What a loss needs of the geometry itself, put beside what was rendered."""
        for signal in self.context.parts["registry"].find("loss", loss).needs:
            if signal in FIELD_SIGNALS and signal not in render.extras:
                render.extras[signal] = self.geometry.extra(signal, render, step)

    def lighten(self) -> Lighter | None:
        """Fewer views at once, then fewer rays."""
        fewer = super().lighten()
        if fewer is not None:
            return fewer
        said = self.parts["renderer"].lighten()  # type: ignore[operator]
        return None if said is None else Lighter(said)

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Four views at 128 pixels: colour above normals where the renderer gives them."""
        azimuth = torch.arange(4) * torch.pi / 2 + 0.5
        cameras = self.turntable(azimuth, elevation=0.3, size=128)
        render: Render = self.parts["renderer"](cameras)
        rows = [render.rgb]
        if render.normal is not None:
            rows.append(render.normal * 0.5 + 0.5)
        picture = torch.cat([torch.cat(list(row), 1) for row in rows], 0)
        return {"views": (picture.clamp(0, 1) * 255).byte().cpu().numpy()}

    def turntable(self, azimuth: Tensor, elevation: float, size: int, distance: float = 3.0) -> Cameras:
        """Cameras at ``azimuth`` [B] radians; 40 degrees of field of view frame the unit sphere."""
        return Cameras.turntable(azimuth, elevation, size, distance).to(self.context.device)

    def scene(self) -> Scene:
        """What exporters and metrics work on."""
        parts: Any = self.parts
        return Scene(
            geometry=parts["geometry"], material=parts["material"], background=parts["background"],
            renderer=parts["renderer"], name=self.title(), prompt=self.options.prompt,
        )  # fmt: skip

    def title(self) -> str:
        """What the object is called: by its sentence, else by its picture."""
        o = self.options
        return slug(o.prompt or (o.image.stem if o.image is not None else ""))

    def finish(self, run: Any) -> None:
        self.eval()
        export_scene(self.scene(), self.options.export, self.context, run)


def slug(text: str) -> str:
    """A file-name-safe title: lower-case letters, digits and dashes, at most 48."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48].strip("-") or "asset"


def export_scene(scene: Scene, exporters: list[ComponentSpec], context: Context, run: Any) -> list[Path]:
    """Run exporters one by one into the run's assets; one that fails is reported and does not stop the others."""
    written: list[Path] = []
    build: Any = context.build
    for spec in exporters:
        try:
            for path in build(spec).export(scene, run.assets):
                written.append(path)
                run.emit("on_export", path=path, kind=spec.name)
        except Exception as error:  # a plugin's code: what breaks in one exporter must not lose the others' work
            log.debug("exporter %s", spec.name, exc_info=True)
            log.warning("%s could not be exported: %s", spec.name, error)
    return written
