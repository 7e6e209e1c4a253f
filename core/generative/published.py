"""Published checkpoints: ``.pt`` files that the user supplies.

:func:`read` and :func:`fill` serve all. A file of LSGM, or of a model built on its code (LION), holds
``vae_state_dict`` and ``dae_state_dict`` (the score models) beside the settings of its training. Moving averages, where
there are any, lie in the states of the two optimisers, one tensor ``ema`` per parameter in the order of the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from core.errors import UserError
from core.untrusted import read_pickled

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_OPTIMIZERS = {"vae_state_dict": "vae_optimizer", "dae_state_dict": "dae_optimizer"}


def read(path: Path, whose: str, keys: Sequence[str] = tuple(_OPTIMIZERS)) -> dict[str, Any]:
    """The content of a checkpoint, read without running anything in it.

    Args:
        whose: name of the model, for messages.
        keys: of the dictionaries that it must hold.

    Raises:
        UserError: the file is missing, empty, truncated, of another kind, or would run code.
    """
    expected = f"expected a published {whose} checkpoint (a .pt file with {' and '.join(keys)})"
    content = read_pickled(path, expected)
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), dict)]
    if missing:
        raise UserError(f"{path} has no {' and no '.join(missing)}; {expected}")
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


def fill(network: nn.Module, found: dict[str, Tensor], what: str) -> None:
    """Load a state under the names of ``network``.

    Raises:
        UserError: a tensor is missing, is not known, or has another shape; ``what`` names the state.
    """
    wanted = network.state_dict()
    absent, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    odd = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    if absent or extra or odd:
        first = f"{odd[0]} is {list(found[odd[0]].shape)} instead of {list(wanted[odd[0]].shape)}" if odd else (
            f"{absent[0]} is not there" if absent else f"{extra[0]} is not known here"
        )  # fmt: skip
        raise UserError(f"{what} was made with other sizes than this configuration's: {first}")
    network.load_state_dict(found)
