"""How priors with large weights fit: parts that rest on the CPU, streamed layers, tiles, slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from core.errors import UserError

Offload = Literal["none", "text", "idle", "stream"]
Attention = Literal["sdpa", "sliced"]


@contextmanager
def left_out(names: Iterable[tuple[nn.Module, str]]) -> Iterator[None]:
    """While it lasts, these submodules are not their parents': ``to`` and its kin pass them by."""
    held = [(parent, name, parent._modules.pop(name)) for parent, name in names if name in parent._modules]
    try:
        yield
    finally:
        for parent, name, child in held:
            parent._modules[name] = child


@contextmanager
def visiting(part: nn.Module, device: torch.device, at_home: torch.device) -> Iterator[None]:
    """A part on ``device`` while it is used, then back where it rests."""
    part.to(device)
    try:
        yield
    finally:
        part.to(at_home)


def stream_layers(network: nn.Module, device: torch.device) -> None:
    """Keep a network's weights on the CPU and bring each layer's over while it runs (diffusers' group offloading).

    Raises:
        UserError: accelerate is not installed.
    """
    try:
        from diffusers.hooks import apply_group_offloading

        apply_group_offloading(
            network, onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level",
            use_stream=device.type == "cuda",
        )  # fmt: skip
    except ImportError as error:
        raise UserError("offload=stream needs accelerate: pip install accelerate") from error


def tile(vae: Any) -> None:
    """Encode and decode large pictures in overlapping tiles.

    Raises:
        UserError: this autoencoder has no tiles.
    """
    if not hasattr(vae, "enable_tiling"):
        raise UserError(f"vae_tiling: {type(vae).__name__} has no tiles")
    vae.enable_tiling()


def recompute(vae: Any) -> None:
    """Keep no activations of the encoder for the backward pass, but compute them again (gradient checkpointing).

    Raises:
        UserError: this autoencoder cannot.
    """
    if not getattr(vae, "_supports_gradient_checkpointing", False):
        raise UserError(f"vae_checkpointing: {type(vae).__name__} cannot be computed again piece by piece")
    vae.enable_gradient_checkpointing()
