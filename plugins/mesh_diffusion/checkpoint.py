"""Published MeshDiffusion checkpoints (``.pt``), supplied by the user; MIT licence.

A file holds ``model``, the network's state, and ``ema``, whose ``shadow_params`` are the moving averages: a bare list
in the order of the trainable parameters. Our modules bear the same names; what differs is in :func:`own_state`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.generative.published import fill, read

_CONSTANTS = ("sigmas", "coords", "mask")
"""In the state, but not trained: a table of noise levels that nothing reads, positions, and the grid's mask."""


def load_published(path: Path, network: nn.Module) -> None:
    """Fill a network of the published layout, with the moving averages.

    Raises:
        UserError: the file is missing, empty, truncated, of another kind, would run code, was made with other sizes, or
            for another grid.
    """
    content = read(path, "MeshDiffusion", ("model", "ema"))
    state = {name.removeprefix("module."): value for name, value in content["model"].items()}
    own: dict[str, Tensor] = network.state_dict()
    _check_grid(state, network.get_buffer("mask"), path)
    found = own_state(averaged(state, content["ema"], path))
    found["label.weight"] = torch.zeros_like(own["label.weight"])
    fill(network, found, f"model of {path}")


def averaged(state: dict[str, Tensor], ema: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The state with each trained parameter replaced by its average.

    Raises:
        UserError: there are not as many averages as parameters, or one has another shape.
    """
    names, shadows = [name for name in state if name not in _CONSTANTS], list(ema.get("shadow_params", ()))
    if [tuple(s.shape) for s in shadows] != [tuple(state[n].shape) for n in names]:
        raise UserError(f"{path} has averages (ema.shadow_params) that do not match its parameters one by one")
    return state | dict(zip(names, shadows, strict=True))


def own_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published state under the names here.

    At resolution 64 positions pass through a layer of their own, but they are all zero there: what remains of the layer
    is its bias, which is added to that of the mask's layer. At 128 (no ``coords``) that layer is not used at all.
    """
    found = {name: value for name, value in state.items() if name not in _CONSTANTS}
    found.pop("pos_layer.weight", None)
    bias = found.pop("pos_layer.bias", None)
    if bias is not None and "coords" in state:
        found["mask_layer.bias"] = found["mask_layer.bias"] + bias
    return found


def _check_grid(state: dict[str, Tensor], mask: Tensor, path: Path) -> None:
    theirs = state.get("mask")
    if theirs is None:
        raise UserError(f"{path} says nothing of its grid (no 'mask'), so it is no published MeshDiffusion checkpoint")
    side = theirs.shape[-1]
    if side != len(mask):
        raise UserError(f"{path} was made for resolution={side}, not {len(mask)}")
    different = int((theirs.reshape(mask.shape).to(mask) != mask).sum())
    if different:
        raise UserError(
            f"{path} was made for another grid: {different} of its {mask.numel()} cells differ from this one"
        )
    if "coords" in state and bool(state["coords"].any()):
        raise UserError(f"{path} was made with positions as input, which no published model has")
