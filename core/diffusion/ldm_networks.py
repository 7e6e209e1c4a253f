"""Networks of diffusers from tensors named by the LDM layout, and those tensors from the networks; both are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.diffusion import ldm_layout as ldm
from core.diffusion.ldm_configs import unet_config, vae_config
from core.errors import UserError


def part(state: dict[str, Tensor], prefix: str) -> ldm.State:
    """The tensors under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def unet_from(state: ldm.State, path: Path, expected: str, head_width: int | None = None) -> Any:
    """A ``UNet2DConditionModel`` of the tensors ``model.diffusion_model.*`` without that prefix.

    Args:
        path, expected: for the sentence that refuses a file.  head_width: see :func:`unet_config`.

    Raises:
        UserError: tensors are missing or of another shape.
    """
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**unet_config(state, path, head_width))
    fill(unet, ldm.renamed(state, ldm.inverse(unet_table(unet.config))), f"the unet of {path}", expected)
    return unet


def vae_from(state: ldm.State, whole: dict[str, Tensor], path: Path, expected: str) -> Any:
    """An ``AutoencoderKL`` of the tensors ``first_stage_model.*`` without that prefix; ``whole``: all of the file's.

    Raises:
        UserError: tensors are missing or of another shape.
    """
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae: Any = AutoencoderKL(**vae_config(state, whole, path))
    fill(vae, ldm.renamed(state, ldm.inverse(vae_table(vae.config))), f"the vae of {path}", expected)
    return vae


def unet_tensors(unet: Any) -> ldm.State:
    """A UNet's tensors by their names in the LDM layout, with the prefix."""
    return {ldm.UNET + k: v for k, v in ldm.renamed(unet.state_dict(), unet_table(unet.config)).items()}


def vae_tensors(vae: Any) -> ldm.State:
    """An autoencoder's tensors by their names and in their shapes in the LDM layout, with the prefix."""
    named = ldm.as_convolutions(ldm.renamed(vae.state_dict(), vae_table(vae.config)))
    return {ldm.VAE + k: v for k, v in named.items()}


def unet_table(config: Any) -> dict[str, str]:
    """Prefixes of the modules of a UNet with this configuration, here to there."""
    layers = int(config.layers_per_block)
    kinds = list(config.up_block_types)
    attended = {(b + 1) * (layers + 1) - 1 for b, kind in enumerate(kinds) if kind.startswith("CrossAttn")}
    return ldm.unet_names(len(kinds), layers, attended)


def vae_table(config: Any) -> dict[str, str]:
    """As :func:`unet_table`, of an autoencoder."""
    return ldm.vae_names(len(config.block_out_channels), int(config.layers_per_block))


def fill(network: nn.Module, given: ldm.State, what: str, expected: str) -> None:
    """Give a network on the meta device these tensors as they are (a half stays a half), and set it to evaluate.

    Raises:
        UserError: tensors are missing or of another shape; ``what`` names the network, ``expected`` the right file.
    """
    wanted = network.state_dict()
    given = ldm.reshaped(given, {k: v.shape for k, v in wanted.items()})
    if absent := sorted(set(wanted) - set(given)):
        raise UserError(f"{what} lacks {len(absent)} tensors, {absent[0]} among them; {expected}")
    if odd := [k for k, v in wanted.items() if given[k].shape != v.shape]:
        sizes = f"{list(given[odd[0]].shape)} instead of {list(wanted[odd[0]].shape)}"
        raise UserError(f"{what} has tensors of another shape: {odd[0]} is {sizes}; {expected}")
    network.load_state_dict({k: given[k] for k in wanted}, assign=True)
    for name, buffer in list(network.named_buffers()):  # what is no part of a state: CLIP's counter of positions
        if buffer.is_meta:
            owner = network.get_submodule(name.rpartition(".")[0])
            fresh = torch.arange(buffer.numel()).reshape(buffer.shape)
            owner.register_buffer(name.rpartition(".")[2], fresh, persistent=False)
    network.eval()
