"""What VSD learns: the noise in pictures of the scene as it is, by low-rank additions to the prior, or a network alone.

Both hear the camera. Both answer in the prior's own parametrisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.contracts import Prior
from core.diffusion.process import DiffusionProcess
from core.types import Condition

CAMERA_DIM = 16
_ENDS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_TIMES = ("time_embedding", "timestep_embedder")


def network_of(prior: Prior) -> nn.Module:
    """The prior's denoiser."""
    found: Any = getattr(prior, "unet", None) or getattr(prior, "transformer", None) or prior
    return found


def attention_layers(prior: Prior) -> list[nn.Linear]:
    """The linear layers of the attentions in the prior's denoiser, of a UNet or a transformer."""
    layers = network_of(prior).named_modules()
    return [layer for name, layer in layers if name.endswith(_ENDS) and isinstance(layer, nn.Linear)]


class LowRank(nn.Module):
    """LoRA (Hu et al. 2022) on attention layers, and a camera added to the timestep's embedding.

    The prior is left as it is: its layers only ask, while :meth:`predict` runs, what is to be added to their outputs.
    At first that is nothing.

    Args:
        shapes: (in, out) of each layer.  rank: of the additions.  embedding: width of the timestep's embedding, 0 where
            none was found.
    """

    def __init__(self, shapes: list[tuple[int, int]], rank: int, embedding: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.ParameterList(torch.randn(rank, i, generator=generator) / rank for i, _ in shapes)
        self.up = nn.ParameterList(torch.zeros(o, rank) for _, o in shapes)
        self.camera = _camera(embedding, generator) if embedding else None
        self._told: Tensor | None = None
        self._active = False

    @classmethod
    def of(cls, prior: Prior, rank: int, generator: torch.Generator) -> LowRank:
        """Additions that fit a prior; still to be put on it with :meth:`install`."""
        shapes = [(layer.in_features, layer.out_features) for layer in attention_layers(prior)]
        times = _time_embedding(prior)
        return cls(shapes, rank, 0 if times is None else int(times.linear_2.out_features), generator)

    @classmethod
    def like(cls, state: dict[str, Tensor]) -> LowRank:
        """Of the shapes in a saved state."""
        down = [state[f"down.{k}"].shape for k in range(sum(name.startswith("down.") for name in state))]
        shapes = [(i, int(state[f"up.{k}"].shape[0])) for k, (_, i) in enumerate(down)]
        last = state.get("camera.2.weight")
        return cls(shapes, down[0][0], 0 if last is None else len(last), torch.Generator())

    def install(self, prior: Prior) -> None:
        """Let the prior's layers ask."""
        for k, layer in enumerate(attention_layers(prior)):
            layer.register_forward_hook(self._addition(k))
        times = _time_embedding(prior)
        if times is not None:
            times.register_forward_hook(self._pose)

    def _addition(self, k: int) -> Any:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if not self._active:
                return None
            x = inputs[0].to(self.down[k].dtype)
            return output + F.linear(F.linear(x, self.down[k]), self.up[k]).to(output.dtype)

        return add

    def _pose(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if not self._active or self._told is None or self.camera is None:
            return None
        return output + self.camera(self._told).to(output.dtype)

    @contextmanager
    def _asked(self, camera: Tensor) -> Iterator[None]:
        self._active, self._told = True, camera
        try:
            yield
        finally:
            self._active, self._told = False, None

    def predict(self, prior: Prior, noisy: Tensor, t: Tensor, condition: Condition, camera: Tensor) -> Tensor:
        """The prior's prediction with the additions; ``camera`` [B, 16], zeros where it is not told."""
        with self._asked(camera.to(self.down[0])):
            return prior.predict(noisy, t, condition)


def _time_embedding(prior: Prior) -> Any:
    for name, module in network_of(prior).named_modules():
        if name.endswith(_TIMES) and isinstance(getattr(module, "linear_2", None), nn.Linear):
            return module
    return None


def _camera(width: int, generator: torch.Generator) -> nn.Sequential:
    """A pose [B, 16] to what is added to an embedding; nothing at first."""
    layers = nn.Sequential(nn.Linear(CAMERA_DIM, width), nn.SiLU(), nn.Linear(width, width))
    first: Any = layers[0]
    with torch.no_grad():
        first.weight.copy_(torch.randn(first.weight.shape, generator=generator) / CAMERA_DIM**0.5)
        first.bias.zero_()
        layers[2].weight.zero_()  # type: ignore[operator]
        layers[2].bias.zero_()  # type: ignore[operator]
    return layers


class SmallNetwork(nn.Module):
    """Residual convolutions, told the noise and the camera; for priors without attention (or few pixels).

    It answers with the velocity ``a eps - s x0`` of the process scaled to ``a^2 + s^2 = 1``, which is of the size of
    one at every level, and is converted to what the prior would say.
    """

    def __init__(self, channels: int, width: int, generator: torch.Generator, blocks: int = 3) -> None:
        super().__init__()
        self.inward = nn.Conv2d(channels, width, 3, padding=1)
        self.told = nn.Sequential(nn.Linear(17, width), nn.SiLU(), nn.Linear(width, width))
        self.camera = _camera(width, generator)
        self.first = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.outward = nn.Conv2d(width, channels, 3, padding=1)
        layers = [m for m in self.modules() if isinstance(m, nn.Conv2d)] + [self.told[0], self.told[2]]
        with torch.no_grad():
            for layer in layers:
                weight: Any = layer.weight
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
                layer.bias.zero_()  # type: ignore[union-attr, operator]
            self.outward.weight.zero_()

    @classmethod
    def like(cls, state: dict[str, Tensor]) -> SmallNetwork:
        """Of the shapes in a saved state."""
        width, channels = state["inward.weight"].shape[:2]
        blocks = sum(name.startswith("first.") and name.endswith("weight") for name in state)
        return cls(int(channels), int(width), torch.Generator(), blocks)

    def install(self, prior: Prior) -> None:
        """Nothing: it stands alone."""

    def predict(self, prior: Prior, noisy: Tensor, t: Tensor, condition: Condition, camera: Tensor) -> Tensor:
        """As :meth:`LowRank.predict`; the text is not heard: a scene has one."""
        process: DiffusionProcess = prior.process
        a, s = process.scales(t, noisy)
        size = (a**2 + s**2).sqrt()
        x = noisy / size
        velocity = self(x.to(self.inward.weight), (a / s).log().flatten().to(self.inward.weight), camera).to(noisy)
        x0 = (a * x - s * velocity) / size
        return process.target(x0, (noisy - a * x0) / s, t)

    def forward(self, x: Tensor, log_ratio: Tensor, camera: Tensor) -> Tensor:
        """[B, C, h, w] velocities of [B, C, h, w] at ``log(a / s)`` [B]."""
        angles = log_ratio[:, None] * 2.0 ** torch.arange(-2, 6, device=x.device)
        told = torch.cat([log_ratio[:, None] / 4, angles.sin(), angles.cos()], 1)
        embedding = (self.told(told) + self.camera(camera.to(x)))[:, :, None, None]
        hidden = self.inward(x)
        for first, second in zip(self.first, self.second, strict=True):
            hidden = hidden + second(F.silu(first(F.silu(hidden + embedding))))
        out: Tensor = self.outward(F.silu(hidden))
        return out
