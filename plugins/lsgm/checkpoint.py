"""Published LSGM checkpoints (``.pt``), supplied by the user; their licence allows non-commercial research only.

A file holds ``vae_state_dict`` and ``dae_state_dict`` (the score model) beside the settings of its training. Moving
averages, where there are any, lie in the states of the two optimisers, one tensor ``ema`` per parameter in the order of
the parameters. Our modules bear the same names but for those that :func:`vae_name` and :func:`score_name` change.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import UserError

EXPECTED = "expected a published LSGM checkpoint (a .pt file with vae_state_dict and dae_state_dict)"
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_OPTIMIZERS = {"vae_state_dict": "vae_optimizer", "dae_state_dict": "dae_optimizer"}


def load_published(path: Path, vae: nn.Module, score: nn.Module) -> None:
    """Fill both networks, with the moving averages where the file holds them.

    Raises:
        UserError: the file is missing, empty, truncated, of another kind, would run code, or was made with other sizes.
    """
    content = read(path)
    for network, key, name in ((vae, "vae_state_dict", vae_name), (score, "dae_state_dict", score_name)):
        _fill(network, averaged(content, key), name, f"{key} of {path}")


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, read without running anything in it.

    Raises:
        UserError: as :func:`load_published`, but for the sizes.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty (0 bytes); {EXPECTED}")
    scalar: Any = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(t)) for t in ("f4", "f8", "i4", "i8", "?")]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals([argparse.Namespace, np.dtype, *kinds, *names]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if re.search(r"[Uu]nsupported|blocked|allowed", str(error)):
            raise UserError(f"{path} could run code when read, so it is refused; {EXPECTED}") from error
        raise UserError(f"{path} is truncated or damaged; {EXPECTED}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f"{path} is truncated or damaged; {EXPECTED}") from error
    missing = [key for key in _OPTIMIZERS if not isinstance(content, dict) or not isinstance(content.get(key), dict)]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)}; {EXPECTED}")
    if any(key.startswith("nf_cells.") for key in content["vae_state_dict"]):
        raise UserError(f"{path} has normalising flows in its encoder (num_nf above 0), which this lsgm does not have")
    return dict(content)


def averaged(content: dict[str, Any], key: str) -> dict[str, Tensor]:
    """A network's state under the names in the file, each parameter replaced by its average where there is one."""
    state: dict[str, Tensor] = dict(content[key])
    optimizer = content.get(_OPTIMIZERS[key])
    moments = optimizer.get("state", {}) if isinstance(optimizer, dict) else {}
    names = [name for name in state if not name.endswith(_STATISTICS)]
    for index, name in enumerate(names):
        average = moments.get(index, {}).get("ema")
        if isinstance(average, Tensor) and average.shape == state[name].shape:
            state[name] = average
    return state


def vae_name(name: str) -> str:
    """Of an autoencoder's tensor in a file: its name here. Batch norms of MobileNet branches are wrapped there."""
    return re.sub(r"(\.conv\.\d+)\.bn\.", r"\1.", name)


def score_name(name: str) -> str:
    """Of a score model's tensor in a file: its name here."""
    return "logit" if name == "mixing_logit" else f"network.{name}"


def _fill(network: nn.Module, given: dict[str, Tensor], name: Callable[[str], str], what: str) -> None:
    wanted = network.state_dict()
    found = {name(key): value for key, value in given.items()}
    if "active" in wanted:
        found.setdefault("active", torch.ones_like(wanted["active"]))
    absent, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    odd = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    if absent or extra or odd:
        first = f"{odd[0]} is {list(found[odd[0]].shape)} instead of {list(wanted[odd[0]].shape)}" if odd else (
            f"{absent[0]} is not there" if absent else f"{extra[0]} is not known here"
        )  # fmt: skip
        raise UserError(f"{what} was made with other sizes than this configuration's: {first}")
    network.load_state_dict(found)
