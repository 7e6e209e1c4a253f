"""Published LSGM checkpoints (``.pt``), supplied by the user; their licence allows non-commercial research only.

What a file holds is in :mod:`core.generative.published`. Our modules bear the same names as its tensors but for those
that :func:`vae_name` and :func:`score_name` change.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.errors import UserError
from core.generative import published
from core.generative.published import averaged


def load_published(path: Path, vae: nn.Module, score: nn.Module) -> None:
    """Fill both networks, with the moving averages where the file holds them.

    Raises:
        UserError: the file is missing, empty, truncated, of another kind, would run code, or was made with other sizes.
    """
    content = read(path)
    found = {vae_name(key): value for key, value in averaged(content, "vae_state_dict").items()}
    found.setdefault("own_scale", torch.ones_like(vae.state_dict()["own_scale"]))
    published.fill(vae, found, f"vae_state_dict of {path}")
    found = {score_name(key): value for key, value in averaged(content, "dae_state_dict").items()}
    found.setdefault("active", torch.ones_like(score.state_dict()["active"]))
    published.fill(score, found, f"dae_state_dict of {path}")


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        UserError: as :func:`load_published`, but for the sizes.
    """
    content = published.read(path, "LSGM")
    if any(key.startswith("nf_cells.") for key in content["vae_state_dict"]):
        raise UserError(f"{path} has normalising flows in its encoder (num_nf above 0), which this lsgm does not have")
    return content


def vae_name(name: str) -> str:
    """Of an autoencoder's tensor in a file: its name here. Batch norms of MobileNet branches are wrapped there."""
    return re.sub(r"(\.conv\.\d+)\.bn\.", r"\1.", name)


def score_name(name: str) -> str:
    """Of a score model's tensor in a file: its name here."""
    return "logit" if name == "mixing_logit" else f"network.{name}"
