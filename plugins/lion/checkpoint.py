"""Published LION checkpoints (``.pt``), supplied by the user; their licence allows non-commercial research only.

``dae_state_dict`` holds both priors, the global one under ``0.``, that of latent points under ``1.``; what else is in a
file is in :mod:`core.generative.published`. The modules bear the published names. Maps that are 1x1 convolutions there
are linear here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.generative.published import averaged, fill, read

_PRIORS = {"shape": "0.", "points": "1."}


def load_published(path: Path, networks: Any) -> None:
    """Fill the autoencoder and both priors, with the moving averages where the file holds them.

    Args:
        networks: modules ``vae``, ``shape`` and ``points``, of the published sizes.

    Raises:
        UserError: the file is missing, empty, truncated, of another kind, would run code, or was made with other sizes;
            or the networks have no global latent.
    """
    if "shape" not in networks:
        raise UserError("start: a published lion has a global latent; set hierarchical=true")
    content = read(path, "LION")
    fill(
        networks["vae"], shaped_like(networks["vae"], averaged(content, "vae_state_dict")), f"vae_state_dict of {path}"
    )
    priors = averaged(content, "dae_state_dict")
    for name, prefix in _PRIORS.items():
        score = networks[name]
        own = {prior_name(key, prefix): value for key, value in priors.items() if key.startswith(prefix)}
        own.setdefault("active", torch.ones_like(score.state_dict()["active"]))
        fill(score, shaped_like(score, own), f"dae_state_dict ({prefix[0]}) of {path}")


def prior_name(name: str, prefix: str) -> str:
    """Of a prior's tensor in a file: its name here."""
    bare = name.removeprefix(prefix)
    return "logit" if bare == "mixing_logit" else f"network.{bare}"


def shaped_like(network: nn.Module, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """1x1 convolutions as linear maps, where the network has these; other shapes stay what they are."""
    wanted = network.state_dict()

    def one(name: str, value: Tensor) -> Tensor:
        like = wanted.get(name)
        bare = value.shape[:2] + tuple(n for n in value.shape[2:] if n != 1)
        return value.view(bare) if like is not None and like.dim() < value.dim() and like.shape == bare else value

    return {name: one(name, value) for name, value in found.items()}
