"""Published checkpoints: names and shapes, averages, and files that are no such thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lion import tiny
from torch import Tensor

from core.config.loading import load_job
from core.discovery import get_registry
from core.errors import UserError
from plugins.lion.checkpoint import load_published, prior_name, shaped_like
from plugins.lion.lion import Lion
from plugins.lion.priors import GlobalPrior, LocalPrior
from plugins.lion.vae import PointVae

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int, style: int) -> Shapes:
    """A group norm; with a style one that is told it."""
    if not style:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    own = {f"{name}.norm.weight": (width,), f"{name}.norm.bias": (width,)}
    return own | {f"{name}.emd.weight": (2 * width, style), f"{name}.emd.bias": (2 * width,)}


def mlp(name: str, into: int, widths: tuple[int, ...], style: int, dims: int) -> Shapes:
    """Shared maps over points (``dims`` 1) or neighbours (2): convolution, norm, swish."""
    out: Shapes = {}
    for k, width in enumerate(widths):
        out |= {f"{name}.layers.{3 * k}.weight": (width, into, *[1] * dims), f"{name}.layers.{3 * k}.bias": (width,)}
        out |= norm(f"{name}.layers.{3 * k + 1}", width, style)
        into = width
    return out


def attention(name: str, width: int, heads: int = 4) -> Shapes:
    inner = 32 * heads
    out = {f"{name}.to_qkv.weight": (3 * inner, width, 1, 1), f"{name}.to_out.weight": (width, inner, 1, 1)}
    return out | {f"{name}.to_out.bias": (width,)}


def pvconv(name: str, into: int, width: int, style: int, attended: bool = False) -> Shapes:
    out: Shapes = {}
    for k, channels in ((0, into), (4, width)):
        out |= {
            f"{name}.voxel_layers.{k}.weight": (width, channels, 3, 3, 3),
            f"{name}.voxel_layers.{k}.bias": (width,),
        }
        out |= norm(f"{name}.voxel_layers.{k + 1}", width, style)
    out |= {f"{name}.voxel_layers.6.fc.0.weight": (width // 8, width),
            f"{name}.voxel_layers.6.fc.2.weight": (width, width // 8)}  # fmt: skip
    out |= mlp(f"{name}.point_features", into, (width,), style, 1)
    return out | (attention(f"{name}.attn", width) if attended else {})


def unet(name: str, extra: int, out: int, time: int, third: tuple[int, ...]) -> Shapes:
    """The published U-net: four levels down, attention, four up; a level after the first has one convolution."""
    style, n = 128, f"{name}." if name else ""
    found: Shapes = {}
    if time:
        found |= {
            f"{n}embedf.{k}.{w}": (time, time)[: 2 if w == "weight" else 1] for k in (0, 2) for w in ("weight", "bias")
        }
    found |= pvconv(f"{n}sa_layers.0.0", 3 + extra, 32, style) | pvconv(f"{n}sa_layers.0.1", 32, 32, style)
    found |= mlp(f"{n}sa_layers.0.2.mlps.0", 35, (32, 64), style, 2)
    found |= pvconv(f"{n}sa_layers.1.0", 64 + time, 64, style, True)
    found |= mlp(f"{n}sa_layers.1.1.mlps.0", 67, (64, 128), style, 2)
    found |= pvconv(f"{n}sa_layers.2.0", 128 + time, 128, style)
    found |= mlp(f"{n}sa_layers.2.1.mlps.0", 131, third, style, 2)
    found |= mlp(f"{n}sa_layers.3.mlps.0", third[-1] + time + 3, (128, 128, 128), style, 2)
    found |= attention(f"{n}global_att", 128, 8)
    beside, below = (third[-1], 128, 64, extra), 128
    for k, (widths, width, blocks) in enumerate((((128, 128), 128, 3), ((128, 128), 128, 3), ((128, 128), 128, 2),
                                                 ((128, 128, 64), 64, 2))):  # fmt: skip
        found |= mlp(f"{n}fp_layers.{k}.0.mlp", below + beside[k] + time, widths, style, 1)
        for block in range(blocks):
            found |= pvconv(f"{n}fp_layers.{k}.{block + 1}", widths[-1] if block == 0 else width, width, style)
        below = width
    found |= mlp(f"{n}classifier.0", 64, (128,), style, 1)
    return found | {f"{n}classifier.2.weight": (out, 128, 1), f"{n}classifier.2.bias": (out,)}


def published_vae() -> Shapes:
    found = pvconv("style_encoder.layers.0.0", 3, 32, 0) | pvconv("style_encoder.layers.0.1", 32, 32, 0)
    found |= mlp("style_encoder.layers.0.2.mlps.0", 35, (32, 32), 0, 2)
    found |= pvconv("style_encoder.layers.1.0", 32, 32, 0, True)
    found |= mlp("style_encoder.layers.1.1.mlps.0", 35, (32, 64), 0, 2)
    found |= {"style_encoder.mlp.weight": (256, 64), "style_encoder.mlp.bias": (256,)}
    return found | unet("encoder.layers", 0, 8, 0, (128, 256)) | unet("decoder.layers", 1, 3, 0, (128, 256))


def published_priors() -> Shapes:
    """Names and shapes of ``dae_state_dict``: 1x1 convolutions, then the U-net."""
    width, found = 2048, {f"1.{k}": v for k, v in unet("", 1, 4, 64, (128, 128)).items()}

    def conv(name: str, into: int, out: int, bias: bool = True) -> Shapes:
        weight = {f"0.{name}.weight": (out, into, 1, 1)}
        return weight | ({f"0.{name}.bias": (out,)} if bias else {})

    found |= conv("temb_layer.0", 128, 512) | conv("temb_layer.1", 512, width)
    found |= conv("input_layer", 128, width) | conv("output_layer", width, 128)
    for k in range(8):
        found |= conv(f"all_modules.{k}.conv1", width, width) | conv(f"all_modules.{k}.conv2", width, width)
        found |= conv(f"all_modules.{k}.SE.fc.0", width, width // 8, False)
        found |= conv(f"all_modules.{k}.SE.fc.2", width // 8, width, False)
    return found


def test_the_published_networks_have_these_tensors() -> None:
    options = load_job("lion-paper", (), get_registry()).stages[-1].task.options
    with torch.device("meta"):
        vae = PointVae(options.vae)
        shape = GlobalPrior(options.shape_prior, options.vae.size, 0)
        points = LocalPrior(options.point_prior, options.vae.unet, options.vae.features, options.vae.size, 0)
        theirs = {name: torch.zeros(size) for name, size in published_priors().items()}
    assert {name: tuple(v.shape) for name, v in vae.state_dict().items()} == published_vae()
    for prefix, network in (("0.", shape), ("1.", points)):
        own = {prior_name(k, prefix).removeprefix("network."): v for k, v in theirs.items() if k.startswith(prefix)}
        found = {name: tuple(v.shape) for name, v in shaped_like(network, own).items()}
        assert found == {name: tuple(v.shape) for name, v in network.state_dict().items()}


def published(task: Lion, average: float | None) -> dict[str, Any]:
    """A file's content: weights of ones, averages of another value in the priors' optimiser."""
    ones: dict[str, Tensor] = {}
    for prefix, name in (("0.", "shape"), ("1.", "points")):
        for key, value in task.live[name].state_dict().items():
            if key.startswith("network."):
                shape = (*value.shape, 1, 1) if prefix == "0." and value.dim() == 2 else value.shape
                ones[prefix + key.removeprefix("network.")] = torch.ones(shape)
    content: dict[str, Any] = {"dae_state_dict": ones, "global_step": 3}
    content["vae_state_dict"] = {k: torch.ones_like(v) for k, v in task.live["vae"].state_dict().items()}
    if average is not None:
        moments = {k: {"ema": torch.full_like(v, average)} for k, v in enumerate(ones.values())}
        content["dae_optimizer"] = {"state": moments, "param_groups": []}
    return content


@pytest.mark.parametrize("average", [None, 0.5])
def test_a_published_file_fills_all_networks(tmp_path: Path, average: float | None) -> None:
    task = tiny(condition="none", mixing=None)
    torch.save(published(task, average), tmp_path / "lion.pt")
    fresh = tiny(condition="none", mixing=None, start=tmp_path / "lion.pt")
    for networks in (fresh.live, fresh.average.model):
        for name, value in (("vae", 1.0), ("shape", average or 1.0), ("points", average or 1.0)):
            assert all(torch.equal(p, torch.full_like(p, value)) for p in networks[name].parameters())


def test_files_that_are_refused(tmp_path: Path) -> None:
    task, path = tiny(condition="none", mixing=None), tmp_path / "lion.pt"
    whole = published(task, None)

    def refused(match: str, networks: Any = task.live) -> None:
        with pytest.raises(UserError, match=match) as found:
            load_published(path, networks)
        assert "\n" not in str(found.value)

    torch.save(whole, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused("is truncated or damaged; expected a published LION checkpoint")
    torch.save({"state_dict": {}}, path)
    refused("has no vae_state_dict and no dae_state_dict")
    torch.save(whole | {"vae_state_dict": whole["vae_state_dict"] | {"style_mlp.weight": torch.ones(2)}}, path)
    refused("vae_state_dict of .* other sizes than this configuration's: style_mlp.weight is not known here")
    torch.save(whole | {"dae_state_dict": {"0.input_layer.weight": torch.ones(3, 3, 1, 1)}}, path)
    refused(r"dae_state_dict \(0\) of .* other sizes")
    refused("a published lion has a global latent", tiny(condition="none", hierarchical=False).live)
