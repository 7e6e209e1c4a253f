"""Generator ``lsgm``: the hierarchical autoencoder and the score model in its coarsest latents, trained end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts import Context, Generator, Scene, Step
from core.diffusion.mixed import MixedScore
from core.diffusion.sde import SDE
from core.diffusion.sde_objective import JointLoss, TimeSampler, joint_loss, separate_loss
from core.diffusion.sde_sampler import Drawn, ancestral_samples, ode_samples
from core.ema import Average
from core.errors import UserError
from plugins.lsgm.ncsnpp import Ncsnpp
from plugins.lsgm.options import LsgmConfig, check
from plugins.lsgm.pixels import bits_per_value, levels
from plugins.lsgm.spectral import SpectralNorms
from plugins.lsgm.vae import Posterior, Vae

if TYPE_CHECKING:
    from core.asked import Asked

_CHUNK = 64
_ADAM_EPS = {"vae": 1e-3, "score": 1e-4}
"""As published; the losses are sums of nats, so gradients are large."""


class Lsgm(Generator):
    """Trains the autoencoder alone (stage 1), both together (stage 2), or the score model alone (stage 3).

    All terms are nats, summed over a picture's values and latents and averaged over the batch.
    """

    class Config(LsgmConfig):
        pass

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.data = context.build(options.data)  # type: ignore[misc]
        check(options, self.data)
        self.sde: SDE = options.sde.build()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.generator("lsgm").initial_seed() % 2**32)
            vae = Vae(options.vae, options.size)
            network = Ncsnpp(options.score, vae.top_channels, vae.side)
        score = MixedScore(network, self.sde, vae.top_channels, logit=options.mixing)
        # Twice as fast on CPUs; elsewhere it does no harm.
        live: Any = nn.ModuleDict({"vae": vae, "score": score})
        self.live = live.to(memory_format=torch.channels_last)
        self.average = Average(self.live, options.average)
        self.norms = SpectralNorms(
            nn.ModuleList([self.live[name] for name in self._parts()]), context.generator("norms")
        )
        self._times = TimeSampler(self.sde, options.importance)
        self.has_prior = options.train != "vae"
        self._take_over(context.parts.get("previous"))

    def _take_over(self, previous: Any) -> None:
        """Start from the stage before, or from a published file."""
        if self.options.start is not None:
            from plugins.lsgm.checkpoint import load_published

            load_published(self.options.start, self.vae, self.score)
            self.average.model.load_state_dict(self.live.state_dict())
        elif isinstance(previous, Lsgm):
            fixed = self.options.train == "prior"
            self.vae.load_state_dict((previous.average.model["vae"] if fixed else previous.vae).state_dict())
            self.average.model["vae"].load_state_dict(previous.average.model["vae"].state_dict())
            if previous.has_prior and not (fixed and self.options.anew):
                averaged = previous.average.model["score"]
                self.score.load_state_dict((averaged if fixed else previous.score).state_dict())
                self.average.model["score"].load_state_dict(averaged.state_dict())
            if not fixed:
                self.average.count.copy_(previous.average.count)
        if self.options.train == "prior":
            self.vae.requires_grad_(False)

    @property
    def vae(self) -> Vae:
        """The autoencoder that is trained."""
        return self.live["vae"]  # type: ignore[return-value]

    @property
    def score(self) -> MixedScore:
        """The score model that is trained."""
        return self.live["score"]  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.vae.prior_ftr0.device

    def _parts(self) -> list[str]:
        return {"vae": ["vae"], "joint": ["vae", "score"], "prior": ["score"]}[self.options.train]

    def train(self, mode: bool = True) -> Lsgm:
        super().train(mode)
        self.average.eval()
        if self.options.train == "prior":
            self.vae.eval()
        return self

    def param_groups(self) -> list[dict[str, Any]]:
        rate = {"vae": self.options.vae_rate, "score": 1.0}
        return [
            {"params": list(self.live[n].parameters()), "lr_scale": rate[n], "eps": _ADAM_EPS[n]} for n in self._parts()
        ]

    def update(self, step: Step) -> None:
        if self.options.train != "prior":
            self.vae.own_scale.fill_(self.options.own_scale.at(step.index, step.total))
        if step.index == 0 and self.options.inactive and self.options.train == "joint":
            self._pin(step)

    def adapt(self, step: Step, optimizer: Any) -> None:
        self.average.update(self.live)

    @torch.no_grad()
    def _pin(self, step: Step) -> None:
        """Leave channels without information to N(0, I)."""
        x = self.pictures(self.data.batch(step)["rgb"])
        _, posteriors = self.average.model["vae"](x, self._noise(step, "pin"))
        top = posteriors[: self.options.vae.groups]
        square = torch.cat([p.mean.square() + (2 * p.log_std).exp() - 1 - 2 * p.log_std for p in top], 1)
        active = 0.5 * square.sum((2, 3)).mean(0) > self.options.inactive
        for model in (self.score, self.average.model["score"]):
            model.pin(active)

    def pictures(self, rgb: Tensor) -> Tensor:
        """[B, 3, S, S] in [-1, 1] of [B, H, W, 3] in [0, 1], of 8 bits, as the networks see them."""
        if rgb.shape[1] != self.options.size:
            small = F.interpolate(rgb.permute(0, 3, 1, 2), size=(self.options.size,) * 2, mode="area")
            rgb = small.permute(0, 2, 3, 1)
        return levels(rgb).to(self.device, memory_format=torch.channels_last)

    def _noise(self, step: Step, name: str) -> Callable[[tuple[int, ...]], Tensor]:
        random = step.generator(name)
        return lambda shape: torch.randn(shape, generator=random)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        x = self.pictures(self.data.batch(step)["rgb"])
        weight = self.options.kl.at(step.index, step.total)
        losses: dict[str, Tensor] = {}
        if self.options.train == "prior":
            with torch.no_grad():
                _, posteriors = self.vae(x, self._noise(step, "posterior"))
        else:
            pixels, posteriors = self.vae(x, self._noise(step, "posterior"))
            losses["reconstruction"] = -pixels.log_prob(x).mean()
        if self.options.train == "vae":
            losses["kl"] = weight * torch.stack([p.kl().mean() for p in posteriors]).sum()
        else:
            losses |= self._prior_losses(step, posteriors, weight)
        if self.options.smooth:
            losses["smooth"] = self.options.smooth * self.norms()
        self._report(step, losses, posteriors, x)
        return losses

    def _prior_losses(self, step: Step, posteriors: list[Posterior], weight: float) -> dict[str, Tensor]:
        """The divergence from the score model's distribution, and the score model's own loss."""
        groups, count = self.options.vae.groups, len(posteriors[0].mean)
        top = self.vae.top([p.sample for p in posteriors])
        made = self._through_score(step, top, weight / count)
        step.log(cross_entropy=float(made.cross_entropy.sum()) / count)
        losses = {"score": made.loss}
        if self.options.train == "joint":
            losses["entropy"] = -weight * torch.stack([p.entropy().mean() for p in posteriors]).sum()
            if finer := posteriors[groups:]:
                losses["finer"] = weight * torch.stack([p.unit_cross_entropy().mean() for p in finer]).sum()
        return losses

    def _through_score(self, step: Step, top: Tensor, scale: float) -> JointLoss:
        def drawn(name: str, sampler: TimeSampler) -> tuple[Any, Tensor]:
            noise = self._noise(step, f"{name}-noise")(tuple(top.shape)).to(top)
            return sampler(len(top), step.generator(f"{name}-times"), top.device), noise

        own = drawn("score", self._times)
        if self.options.times == "shared" or self.options.train == "prior":
            return joint_loss(self.score, self.sde, top, *own, self.options.weighting, scale)
        encoder = drawn("encoder", TimeSampler(self.sde, "likelihood"))
        return separate_loss(self.score, self.sde, top, encoder, own, self.options.weighting, scale)

    def _report(self, step: Step, losses: dict[str, Tensor], posteriors: list[Posterior], x: Tensor) -> None:
        if "reconstruction" not in losses:
            return
        groups, kls = self.options.vae.groups, [float(p.kl().mean().detach()) for p in posteriors]
        divergence = sum(kls)
        if "cross_entropy" in step.metrics:
            entropy = sum(float(p.entropy().mean().detach()) for p in posteriors[:groups])
            divergence = step.metrics["cross_entropy"] - entropy + sum(kls[groups:])
        bound = float(losses["reconstruction"].detach()) + divergence
        step.log(bits=bits_per_value(bound, tuple(x.shape[1:])), **{f"kl_{k}": v for k, v in enumerate(kls)})

    @torch.no_grad()
    def latents(
        self, count: int, generator: torch.Generator, *, sampler: str | None = None, tolerance: float | None = None
    ) -> Drawn:
        """[count, C, h, w] of the averaged score model, or of N(0, I) before there is one, and its calls."""
        vae, score = self.average.model["vae"], self.average.model["score"]
        start = torch.randn((count, vae.top_channels, vae.side, vae.side), generator=generator).to(self.device)
        if not self.has_prior:
            return Drawn(start, 0)
        start = self.sde.end_std * start
        if (sampler or self.options.sampler) == "ancestral":
            return ancestral_samples(score, self.sde, start, generator, steps=self.options.sampler_steps)
        return ode_samples(score, self.sde, start, tolerance=tolerance or self.options.tolerance)

    @torch.no_grad()
    def decode(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """[B, S, S, 3] in [0, 1], the mean of the pixels' distribution; finer groups are drawn."""
        pixels = self.average.model["vae"].decode(latents, lambda shape: torch.randn(shape, generator=generator))
        return ((pixels.mean().permute(0, 2, 3, 1) + 1) / 2).clamp(0, 1)

    def sample(self, count: int, asked: Asked | None, generator: torch.Generator) -> list[Scene | Tensor]:
        """``count`` pictures [S, S, 3] in [0, 1].

        Raises:
            UserError: something was asked for: the model is unconditional.
        """
        if asked is not None and (asked.prompt or asked.views is not None):
            what = f"'{asked.prompt}'" if asked.prompt else "a picture"
            raise UserError(f"lsgm draws whatever it has learned: it cannot be asked for {what}")
        pictures: list[Scene | Tensor] = []
        for first in range(0, count, _CHUNK):
            drawn = self.latents(min(_CHUNK, count - first), generator).latents
            pictures += self.decode(drawn, generator).cpu().unbind()
        return pictures

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Pictures, what the autoencoder makes of them, and samples, eight each."""
        rgb = self.data.batch(step)["rgb"][:8]
        x = self.pictures(rgb)
        pixels, _ = self.average.model["vae"](x, self._noise(step, "preview"))
        random = step.generator("samples")
        drawn = self.decode(self.latents(8, random, tolerance=1e-2).latents, random).permute(0, 3, 1, 2)
        rows = [(x + 1) / 2, (pixels.mean() + 1) / 2, drawn]
        sheet = torch.cat([torch.cat(list(row[:8].float().cpu()), -1) for row in rows], -2)
        return {"samples": (sheet.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()}
