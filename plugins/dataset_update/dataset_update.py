"""Data ``dataset-update``: views of the scene, noised and denoised by a prior every few steps, as pictures to match.

The iterative dataset update of Instruct-NeRF2NeRF (Haque et al. 2023, sec. 3.2) with SDEdit (Meng et al. 2022) as the
edit, and a noise level that falls over the run: the first pictures are almost samples of the prior, the last ones
repair details of what the scene already shows. A picture is whole and sharp where the single prediction of score
distillation is a blur, and many cheap steps follow it before the prior is asked again.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.config.schedule import Schedule
from core.contracts import Context, DataSource, Module, Prior, Step
from core.diffusion.sampler import denoise
from core.types import Cameras, Render, Views

_BUFFERS = ("target", "mask", "c2w", "fov_y", "original")


class DatasetUpdate(Module, DataSource):
    """A batch holds ``cameras``, ``target`` [B, H, W, 3] and ``target-mask`` [B, H, W, 1].

    The pictures are buffers: a resumed run goes on with them.
    """

    target: Tensor
    mask: Tensor
    c2w: Tensor
    fov_y: Tensor
    original: Tensor

    class Config(BaseConfig):
        prior: Annotated[ComponentSpec, Slot("prior")]
        """The diffusion model that repairs the pictures."""
        cameras: Annotated[ComponentSpec, Slot("data")]
        """Draws the views of each update; its ``batch`` and ``size`` are theirs."""
        batch: int = Field(4, ge=1)
        """Pictures of each step."""
        reference: int = Field(1, ge=0)
        """Given pictures in each step, beside these; none where the job was given none."""
        updates: int = Field(8, ge=1)
        """How often all pictures are made anew, at equal distances over the run."""
        level: Schedule = Schedule([(0, 0.95), ("100%", 0.15)])
        """Noise level that the views are taken to, a share of the process in [0, 1]."""
        scale: float = 4.0
        """Classifier-free guidance: uncond + scale (cond - uncond)."""
        denoise_steps: int = Field(16, ge=1)
        """Sampler steps from level 1; a lower level takes its share of them, 4 at least."""
        keep_originals: bool = False
        """Keep the views, and show a prior that changes pictures by an instruction what they were before any update:
        the scene as it was at first, or the pictures that come with the cameras. Else it sees the scene as it is."""
        each: int = Field(0, ge=0)
        """Pictures that an update makes anew, of those kept by `keep_originals`; a picture is its original until then.
        Instruct-NeRF2NeRF makes 1. 0 makes all."""
        shared_noise: bool = True
        """All views of an update start from the same noise, which keeps their colours and parts alike."""
        background: float = Field(0.5, ge=0, le=1)
        """Grey level of the plain background that the prior draws; what it encloses is the object."""
        tolerance: float = Field(0.015, gt=0, lt=1)
        """Largest difference of a channel that still counts as background. The embedded priors draw it to within 0.006;
        more would carve walls of nearly its grey."""
        chunk: int = Field(8, ge=1)
        """Views denoised at once; bounds memory."""

        @field_validator("level")
        @classmethod
        def _share(cls, value: Schedule) -> Schedule:
            least, most = value.extent
            if least <= 0 or most > 1:
                raise ValueError(f"expected noise levels in (0, 1], found {least if least <= 0 else most:g}")
            return value

        @model_validator(mode="after")
        def _keeps_them(self) -> Any:
            if self.each and not self.keep_originals:
                raise ValueError("each: pictures made anew in turn must be kept; set keep_originals: true")
            return self

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        """What the cameras give, their own component says."""
        return ["rgb"], ["camera", "target", "target-mask"]

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self._cameras: Any = context.build(options.cameras)  # type: ignore[misc]
        self._prior: list[Prior] = []  # no submodule: its weights are files already
        self.size = (0, 0)
        for name in _BUFFERS:
            self.register_buffer(name, torch.zeros(0))

    def param_groups(self) -> list[dict[str, Any]]:
        return []

    @property
    def prior(self) -> Prior:
        """Loaded when it is first asked: an export of a finished run loads none."""
        if not self._prior:
            build: Any = self.context.build
            self._prior.append(build(self.options.prior).to(self.context.device).eval().requires_grad_(False))
        return self._prior[0]

    def starts(self, step: Step) -> bool:
        """Whether the pictures are made anew before this step: ``updates`` times, the first before step 0."""
        n = min(self.options.updates, step.total)
        return step.index == 0 or step.index * n // step.total != (step.index - 1) * n // step.total

    @torch.no_grad()
    def update(self, step: Step) -> None:
        if not self.starts(step):
            return
        batch = self._cameras.batch(step)
        cameras: Cameras = batch["cameras"].to(self.context.device)
        if self.options.each and not len(self.original):
            self._keep(cameras, batch)
        if self.options.keep_originals and len(self.original) and (self.options.each or "target" not in batch):
            cameras = Cameras(self.c2w, self.fov_y, *self.original.shape[1:3])
        chosen = self._turn(step, len(cameras))
        render: Render = self.context.parts["renderer"](cameras if chosen is None else cameras[chosen])
        shown = self._before(render, batch, chosen)
        parts = _parts(len(render.rgb), self.options.chunk)
        made = torch.cat([self._edit(render.rgb[part], shown[part], step) for part in parts])
        if chosen is not None:
            made = _sized(made, *self.target.shape[1:3])
        masks = silhouettes(made, self.options.background, self.options.tolerance)
        if chosen is None:
            self.target, self.mask = made, masks
            self.c2w, self.fov_y = cameras.c2w.clone(), cameras.fov_y.clone()
        else:
            self.target[chosen], self.mask[chosen] = made, masks

    def _keep(self, cameras: Cameras, batch: dict[str, Any]) -> None:
        """The views, and their pictures before any update."""
        self.c2w, self.fov_y = cameras.c2w.clone(), cameras.fov_y.clone()
        given = batch["target"] if "target" in batch else self.context.parts["renderer"](cameras).rgb
        self.original = given.to(self.c2w)
        self.target = self.original.clone()
        self.mask = silhouettes(self.target, self.options.background, self.options.tolerance)

    def _turn(self, step: Step, count: int) -> Tensor | None:
        """[K] which pictures this update makes anew; None for all."""
        if not self.options.each:
            return None
        chosen = torch.randperm(count, generator=step.generator("dataset-turn"))[: self.options.each]
        return chosen.to(self.c2w.device)

    def _before(self, render: Render, batch: dict[str, Any], chosen: Tensor | None) -> Render:
        """What a prior is shown of the views: as they are, or as they were."""
        if not self.options.keep_originals:
            return render
        if chosen is not None:
            return replace(render, rgb=self.original[chosen])
        if "target" in batch:
            self.original = batch["target"].to(render.rgb)
        elif not len(self.original):
            self.original = render.rgb.clone()
        return replace(render, rgb=self.original)

    def _edit(self, rgb: Tensor, shown: Render, step: Step) -> Tensor:
        """Pictures [B, H, W, 3] through noise and back."""
        o, prior = self.options, self.prior
        level = float(o.level.at(step.index, step.total))
        told, untold, away = self.context.parts["asked"].conditions(prior, shown.cameras, shown)
        latents = prior.encode(rgb)
        shape = latents[:1].shape if o.shared_noise else latents.shape
        noise = torch.randn(shape, generator=step.generator("dataset-update")).to(latents).expand_as(latents)
        steps = max(4, round(o.denoise_steps * level))
        return prior.decode(denoise(prior, latents, noise, level, told, untold, o.scale, steps, away)).to(rgb)

    def batch(self, step: Step) -> dict[str, Any]:
        generator = step.generator("dataset-batch")
        chosen = torch.randperm(len(self.target), generator=generator)[: self.options.batch].to(self.target.device)
        height, width = self.target.shape[1:3]
        batch: dict[str, Any] = {
            "cameras": Cameras(self.c2w[chosen], self.fov_y[chosen], height, width),
            "target": self.target[chosen],
            "target-mask": self.mask[chosen],
        }
        given: Views | None = self.context.parts["asked"].views
        if given is None or not self.options.reference:
            return batch
        return _joined(batch, self._given(torch.randint(len(given), (self.options.reference,), generator=generator)))

    def _given(self, chosen: Tensor) -> dict[str, Any]:
        """The given pictures ``chosen`` [R], over the background."""
        views: Views = self.context.parts["asked"].sized(int(self.target.shape[1]))
        given = views.targets(chosen, self.options.background)
        return {k: v.to(self.target.device) for k, v in given.items()}

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in _BUFFERS:  # as many pictures as were saved
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name], device=self.context.device))
        super()._load_from_state_dict(state, prefix, *rest)


def _joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return {k: Cameras.cat([a[k], b[k]]) if k == "cameras" else torch.cat([a[k], b[k]]) for k in a}


def _sized(pictures: Tensor, height: int, width: int) -> Tensor:
    """[B, height, width, 3]: a prior draws at a size of its own."""
    if pictures.shape[1:3] == (height, width):
        return pictures
    small = F.interpolate(pictures.movedim(-1, 1), (height, width), mode="bilinear", antialias=True)
    return small.movedim(1, -1)


def _parts(count: int, chunk: int) -> list[slice]:
    return [slice(k * chunk, (k + 1) * chunk) for k in range(math.ceil(count / chunk))]


def silhouettes(pictures: Tensor, background: float, tolerance: float) -> Tensor:
    """[B, H, W, 1] masks, 1 on the object: all that a background connected to the picture's border does not reach.

    A wall of the background's own grey inside the outline thus belongs to the object, where a comparison of colours
    alone would leave a hole.
    """
    plain = ((pictures - background).abs().amax(-1) <= tolerance).cpu().numpy()
    masks = np.ones(plain.shape, np.float32)
    for mask, even in zip(masks, plain, strict=True):
        labels, _ = ndimage.label(even)
        border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        mask[np.isin(labels, border[border > 0])] = 0
    return torch.from_numpy(masks)[..., None].to(pictures.device)
