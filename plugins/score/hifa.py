"""Score ``hifa``: the losses of HiFA (Zhu et al. 2023, eq. 6 to 8).

``w(t) |z - z_hat|^2 + lambda |x - D(z_hat)|^2``: the estimate z_hat is denoised in several steps instead of one, and
the picture that it decodes to is compared with the rendered one. The level falls from high to low with the square root
of the share of the run.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.schedule import Schedule
from core.diffusion.sampler import ddim_walk
from core.types import Render
from plugins.score.distillation import Distillation, DistillationConfig
from plugins.score.levels import Anneal
from plugins.score.query import Query


class HiFA(Distillation):
    """Towards a cleaner estimate of x0, in latents and in colours. Only the second asks the decoder."""

    sees_render = True

    class Config(DistillationConfig):
        scale: float | Schedule = 100.0
        """Classifier-free guidance: uncond + scale (cond - uncond)."""
        low: Schedule = Schedule([(0, 0.3)])
        """Lowest noise level, a share of the process in [0, 1]."""
        anneal: Anneal = "sqrt"
        """sqrt goes from high to low over the run, faster at first, as published; linear evenly; none draws levels."""
        denoise_steps: int = Field(4, ge=1)
        """Steps from the noisy latents to the estimate; 1 is that of SDS."""
        image_weight: float = Field(0.01, ge=0)
        """lambda, the weight of the squared error of the colours; 0 leaves the decoder alone."""

    def residual(self, q: Query) -> Tensor:
        steps, process = self.options.denoise_steps, q.prior.process
        times = [process.timestep(q.level * (steps - k) / steps) for k in range(steps)]
        x = ddim_walk(process, q.guided, q.noisy, times)
        return q.latents - q.guided(x, times[-1])

    def also(self, q: Query, latents: Tensor, residual: Tensor) -> Tensor | None:
        weight = self.options.image_weight
        if not weight:
            return None
        with torch.no_grad():
            wanted = q.prior.decode(latents - residual)
        error = _colours(q.render, wanted) - wanted if _has_colours(q.render) else q.prior.decode(latents) - wanted
        return 0.5 * weight * error.square().sum() / len(latents)


def _has_colours(render: Render | None) -> bool:
    """Whether the latents were encoded from a picture, and not rendered."""
    return render is not None and "latent" not in render.extras


def _colours(render: Render | None, like: Tensor) -> Tensor:
    """[B, H, W, 3] what was rendered, at the size of a decoded picture."""
    rgb = render.rgb.movedim(-1, 1)  # type: ignore[union-attr]
    if rgb.shape[2:] != like.shape[1:3]:
        rgb = F.interpolate(rgb, size=tuple(like.shape[1:3]), mode="bilinear", antialias=True)
    return rgb.movedim(1, -1)
