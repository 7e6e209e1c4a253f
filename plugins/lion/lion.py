"""Generator ``lion``: diffusion in the latents of a hierarchical autoencoder of points (Zeng et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from core.contracts import Context, Generator, Scene, Step
from core.diffusion.mixed import MixedScore
from core.diffusion.sde import SDE
from core.diffusion.sde_objective import TimeSampler, squared_error, weight
from core.ema import Average
from core.generative.scene import geometry_scene
from core.types import Points
from plugins.lion.conditions import Conditions
from plugins.lion.options import LionConfig, check
from plugins.lion.priors import GlobalPrior, LocalPrior
from plugins.lion.sampling import Latents, Walk, told_model
from plugins.lion.surface import SampledShape, dots, sheet, surface_of
from plugins.lion.vae import Decoded, Noise, PointVae, Posterior

if TYPE_CHECKING:
    from core.asked import Asked

_CHUNK = 32
_MEASURED = 256


class Lion(Generator):
    """Trains the autoencoder (stage 1), then both priors on its latents (stage 2).

    Terms of stage 1 are summed over a shape's numbers and averaged over the batch; the reconstruction is the absolute
    difference, point by point. Those of stage 2 are means over a latent's numbers.
    """

    class Config(LionConfig):
        pass

    center: Tensor
    scale: Tensor

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.data = context.build(options.data)  # type: ignore[misc]
        check(options, self.data)
        self.sde: SDE = options.sde.build()
        self.conditions = Conditions(options.condition, getattr(self.data, "class_names", ()), options.family)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.generator("lion").initial_seed() % 2**32)
            self.live: Any = self._networks()
        self.average = Average(self.live, options.average)
        self.register_buffer("center", torch.zeros(3))
        self.register_buffer("scale", torch.zeros(()))
        self._times = TimeSampler(self.sde, options.importance or None)
        self.has_prior = options.train == "priors"
        self._take_over(context.parts.get("previous"))

    def _networks(self) -> nn.ModuleDict:
        o, told = self.options, self.conditions.width
        features = o.vae.features
        local = LocalPrior(o.point_prior, o.vae.unet, features, o.vae.size, told)
        parts = {"vae": PointVae(o.vae, o.hierarchical)}
        points = MixedScore(local, self.sde, 3 + features, axis=2, dims=3, logit=o.mixing)
        shape: dict[str, nn.Module] = {}
        if o.hierarchical:
            network = GlobalPrior(o.shape_prior, o.vae.size, told)
            shape["shape"] = MixedScore(network, self.sde, o.vae.size, dims=2, logit=o.mixing)
        return nn.ModuleDict(parts | shape | {"points": points})

    def _take_over(self, previous: Any) -> None:
        """Start from the stage before, or from a published file."""
        if self.options.start is not None:
            from plugins.lion.checkpoint import load_published

            load_published(self.options.start, self.live)
            self.average.model.load_state_dict(self.live.state_dict())
        elif isinstance(previous, Lion):
            for mine in (self.live, self.average.model):
                mine.load_state_dict(previous.average.model.state_dict())
            self.center.copy_(previous.center)
            self.scale.copy_(previous.scale)
        if self.has_prior:
            self.live["vae"].requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.center.device

    def _trained(self) -> list[str]:
        return ["vae"] if not self.has_prior else [n for n in ("shape", "points") if n in self.live]

    def train(self, mode: bool = True) -> Lion:
        super().train(mode)
        self.average.eval()
        if self.has_prior:
            self.live["vae"].eval()
        return self

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.live[name].parameters())} for name in self._trained()]

    def update(self, step: Step) -> None:
        if not float(self.scale):
            self._measure()

    def adapt(self, step: Step, optimizer: Any) -> None:
        self.average.update(self.live)

    @torch.no_grad()
    def _measure(self) -> None:
        """One centre and one scale for all shapes: how far apart they are in size is theirs to keep."""
        count = min(_MEASURED, getattr(self.data.options, "objects", _MEASURED))
        points = self.data.take(torch.arange(count), torch.Generator().manual_seed(0))["points"]
        self.center.copy_(points.mean((0, 1)))
        self.scale.copy_((points - points.mean((0, 1))).square().mean().sqrt())

    def normalised(self, points: Tensor) -> Tensor:
        """World [B, N, 3] to the networks' coordinates, of unit deviation over the data."""
        return (points.to(self.device) - self.center) / self.scale

    def in_world(self, points: Tensor) -> Tensor:
        """The inverse of :meth:`normalised`."""
        return points * self.scale + self.center

    def _noise(self, step: Step, name: str) -> Noise:
        random = step.generator(name)
        return lambda shape: torch.randn(shape, generator=random)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        batch = self.data.batch(step)
        return self._prior_losses(step, batch) if self.has_prior else self._vae_losses(step, batch)

    def _vae_losses(self, step: Step, batch: dict[str, Any]) -> dict[str, Tensor]:
        x = self.normalised(batch["points"])
        made, shape, latent = self.live["vae"](x, self._noise(step, "posterior"))
        share = self.options.kl.at(step.index, step.total)
        kl_z, kl_h = shape.kl().mean(), latent.kl().mean()
        losses = {"reconstruction": (made.points - x).abs().sum((1, 2)).mean()}
        losses["kl"] = share * (kl_h + kl_z if self.options.hierarchical else kl_h)
        if made.normals is not None and self.options.normals:
            away = 1 - (made.normals * batch["normals"].to(x)).sum(-1)
            losses["normals"] = self.options.normals * away.sum(1).mean()
        deviation = float(latent.log_std[..., :3].detach().exp().mean())
        step.log(kl_z=float(kl_z.detach()), kl_h=float(kl_h.detach()), deviation=deviation)
        return losses

    def _prior_losses(self, step: Step, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Both denoisers at one time per shape, on latents that are drawn, not means."""
        latents = self.encode(batch["points"], self._noise(step, "posterior"), self.live["vae"])
        times = self._times(len(latents), step.generator("times"), self.device)
        told = self.conditions.of_batch(batch, step.generator("seen"))
        if told is not None:
            kept = torch.rand(len(told), 1, generator=step.generator("untold")) >= self.options.untold
            told = (told * kept).to(self.device)
        w = weight(self.sde, self.options.weighting, times.t) / times.density
        losses = {}
        for name in self._trained():
            x, before = (latents.z, ()) if name == "shape" else (latents.h, (latents.z,))
            noise = self._noise(step, f"{name}-noise")(tuple(x.shape)).to(x)
            model = told_model(self.live[name], 1.0, told, *before)
            error = squared_error(model, self.sde, x, times, noise)
            losses[name] = (w * error.flatten(1).mean(1)).mean()
        return losses

    @torch.no_grad()
    def encode(self, points: Tensor, noise: Noise, vae: PointVae | None = None) -> Latents:
        """Latents of world points [B, N, 3], drawn from their posteriors; by the averaged autoencoder."""
        net: PointVae = vae or self.average.model["vae"]
        x = self.normalised(points)
        z = net.encode_shape(x, noise).sample
        posterior: Posterior = net.encode_points(x, z, noise)
        return Latents(z, posterior.sample)

    def decode(self, latents: Latents) -> Decoded:
        """World points [B, N, 3] and, where the autoencoder gives them, their normals; by the averaged autoencoder."""
        made: Decoded = self.average.model["vae"].decode(latents.h, latents.z)
        return Decoded(self.in_world(made.points), made.normals)

    def walk(self, **changes: Any) -> Walk:
        """The priors' way through time, with changes to ``sampling``."""
        options = self.options.sampling.model_copy(update=changes)
        return Walk(self.average.model, self.sde, options)

    def noise(self, count: int, random: torch.Generator) -> Latents:
        """Where samples start."""
        o = self.options
        sizes = (o.vae.size, o.data.options.points, 3 + o.vae.features)
        return self.walk().noise(count, sizes, random, self.device)

    @torch.no_grad()
    def latents(self, count: int, told: Tensor | None, random: torch.Generator, **changes: Any) -> Latents:
        """Latents of ``count`` new shapes; N(0, I) before there are priors."""
        start = self.noise(count, random)
        if not self.has_prior:
            return start
        return self.walk(**changes).down(start, None if told is None else told.to(self.device), random)

    def sample(self, count: int, asked: Asked | None, generator: torch.Generator) -> list[Scene | Tensor]:
        """``count`` shapes as scenes, whose geometry is the closed surface of their points.

        Raises:
            UserError: the priors cannot be told what was asked for, or a mesh that is given cannot be used.
        """
        from plugins.lion.modes import drawn

        if not float(self.scale):
            self._measure()
        told = self.conditions.of_asked(asked, count, generator)
        scenes: list[Scene | Tensor] = []
        for latents, again in drawn(self, count, told, generator, _CHUNK):
            made = self.decode(latents)
            more = [self.decode(one) for one in again]
            for k in range(len(latents)):
                scenes.append(self._scene([made, *more], k, "" if asked is None else asked.prompt))
        return scenes

    def _scene(self, made: list[Decoded], k: int, prompt: str) -> Scene:
        """The ``k``-th shape of several draws of its points."""
        own = Context(self.device, self.context.seed, bound=self.context.bound)
        normals = [one.normals[k] for one in made if one.normals is not None]
        points = Points(torch.cat([one.points[k] for one in made]), torch.cat(normals) if normals else None)
        o = self.options.surface
        shape = SampledShape(surface_of(points, own.bound, o.resolution, o.sigma), points, own)
        return geometry_scene(shape, self.options.look, self.context, "lion", prompt)

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        """Shapes, what the autoencoder makes of them, and samples, eight each."""
        points = self.data.batch(step)["points"][:8]
        back = self.decode(self.encode(points, self._noise(step, "preview"))).points
        random = step.generator("samples")
        told = self.conditions.of_asked(None, len(points), random)
        drawn = self.decode(self.latents(len(points), told, random, steps=30, sampler="ancestral")).points
        return {"samples": sheet([dots(points), dots(back), dots(drawn)])}
