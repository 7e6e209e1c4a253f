"""Score ``vsd``: variational score distillation (ProlificDreamer, Wang et al. 2023, eq. 9 and algorithm 1).

The gradient is ``w(t) (eps_hat(x_t; y) - eps_phi(x_t; y, c))``: eps_phi is the noise as a model of the scene's own
pictures from camera c would predict it, learned by ``|eps_phi(x_t; y, c) - eps|^2`` in the same loop. Pictures that
look too much alike are driven apart, where SDS, whose second term is the noise itself, drives all to a mode.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.schedule import Schedule
from core.contracts import Context, Prior, TrainedScore
from core.errors import UserError
from plugins.score.distillation import Distillation, DistillationConfig, Weighting
from plugins.score.lora import CAMERA_DIM, LowRank, SmallNetwork, attention_layers
from plugins.score.query import Query


class VSD(TrainedScore, Distillation):
    """From what the scene looks like towards what the prior wants. Its own prediction hears the text always, without
    guidance, so that no half of a batch is thrown away."""

    sees_render = True

    class Config(DistillationConfig):
        high: Schedule = Schedule([(0, 0.98), (5000, 0.98), (5001, 0.5)])
        """Highest noise level."""
        weighting: Weighting = "sds"
        """w(t), of the difference of noises; sds, s^2, is the published one."""
        network: Literal["auto", "lora", "small"] = "auto"
        """What learns: lora on the prior's attention, a small network of its own, or lora where there is attention."""
        rank: int = Field(4, ge=1)
        """Rank of the additions of lora."""
        width: int = Field(64, ge=1)
        """Channels of the small network."""
        lr_scale: float = Field(0.01, gt=0)
        """Its learning rate as a share of the stage's (1e-4 beside 0.01)."""
        camera_dropout: float = Field(0.1, ge=0, le=1)
        """Share of pictures whose camera is not told while it learns."""

    def __init__(self, options: Any, context: Context) -> None:
        TrainedScore.__init__(self, options, context)
        self.scale = Schedule.parse(options.scale)
        self.particles: LowRank | SmallNetwork | None = None
        self._on: list[Prior] = []  # in a list it is no submodule: its weights are files already
        self._learn: dict[str, Tensor] = {}

    def attach(self, prior: Prior) -> None:
        """Make what learns, or put what a checkpoint held, on the prior.

        Raises:
            UserError: lora on a prior without attention.
        """
        if self._on and self._on[0] is prior:
            return
        kind, found = self.options.network, bool(attention_layers(prior))
        if kind == "lora" and not found:
            raise UserError(f"vsd: {type(prior).__name__} has no attention for lora; set score.network=small")
        if self.particles is None and (kind == "small" or not found):
            self.particles = self._small(prior)
        elif self.particles is None:
            self.particles = LowRank.of(prior, self.options.rank, self.context.generator("vsd"))
        self.particles.to(self.context.device).install(prior)
        self._on = [prior]

    def _small(self, prior: Prior) -> SmallNetwork:
        channels = prior.space(prior.options, prior.context)[0]
        return SmallNetwork(channels, self.options.width, self.context.generator("vsd"))

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr_scale": self.options.lr_scale}]

    def residual(self, q: Query) -> Tensor:
        self.attach(q.prior)
        own = self._predict(q, q.noisy, q.t, self._cameras(q))
        return q.prior.process.to_x0(own, q.noisy, q.t) - q.guided()

    def also(self, q: Query, latents: Tensor, residual: Tensor) -> None:
        """The particles' loss, kept for :meth:`losses`: at levels of the whole process, with noise of its own."""
        process, generator, count = q.prior.process, q.step.generator("vsd"), len(q.latents)
        parts = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        t = process.timestep(parts.to(q.latents.device))
        noise = torch.randn(q.latents.shape, generator=generator).to(q.latents)
        told = (torch.rand(count, 1, generator=generator) >= self.options.camera_dropout).to(q.latents)
        noisy = process.add_noise(q.latents, noise, t)
        output = self._predict(q, noisy, t, self._cameras(q) * told)
        self._learn = {"particles": F.mse_loss(output, process.target(q.latents, noise, t))}

    def losses(self) -> dict[str, Tensor]:
        learn, self._learn = self._learn, {}
        return learn

    def _predict(self, q: Query, noisy: Tensor, t: Tensor, camera: Tensor) -> Tensor:
        assert self.particles is not None
        return self.particles.predict(q.prior, noisy, t, q.condition, camera)

    def _cameras(self, q: Query) -> Tensor:
        """[B, 16] poses; zeros where the caller knows none."""
        if q.render is None:
            return q.latents.new_zeros(len(q.latents), CAMERA_DIM)
        pose = q.render.cameras.c2w.flatten(1).to(q.latents)
        return pose.repeat(len(q.latents) // len(pose), 1)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        start = f"{prefix}particles."
        saved = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
        if saved and self.particles is None:  # an export of a finished run loads no prior
            made = LowRank.like(saved) if "down.0" in saved else SmallNetwork.like(saved)
            self.particles = made.to(self.context.device)
        super()._load_from_state_dict(state, prefix, *rest)
