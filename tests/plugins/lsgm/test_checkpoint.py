"""Published checkpoints: names, averages, and files that are no such thing."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lsgm import tiny
from torch import nn

from core.config.loading import load_job
from core.diffusion.mixed import MixedScore
from core.discovery import get_registry
from core.errors import UserError
from core.generative.published import averaged
from plugins.lsgm.checkpoint import load_published, read, score_name, vae_name
from plugins.lsgm.ncsnpp import Ncsnpp
from plugins.lsgm.vae import Vae


@pytest.fixture(scope="module")
def paper() -> tuple[Vae, MixedScore]:
    """The published networks for CIFAR-10, without memory."""
    options = load_job("lsgm-paper", (), get_registry()).stages[-1].task.options
    with torch.device("meta"):
        vae = Vae(options.vae, options.size)
        network = Ncsnpp(options.score, vae.top_channels, vae.side)
        return vae, MixedScore(network, options.sde.build(), vae.top_channels, logit=options.mixing)


def cell(kind: str) -> set[str]:
    """Tensors of a residual cell in a published file: two batch norms with convolutions, squeeze-excite, the skip."""
    conv = ("weight", "bias", "log_weight_norm")
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {f"_ops.{k}.bn_act.{n}" for k in (0, 1) for n in norm}
    names |= {f"_ops.{k}.conv_0.{n}" for k in (0, 1) for n in conv}
    names |= {f"se.se.{k}.{n}" for k in (0, 2) for n in ("weight", "bias")}
    skips = {"down": [f"skip.conv_{k}" for k in (1, 2, 3, 4)], "up": ["skip.1"], "normal": []}[kind]
    return names | {f"{s}.{n}" for s in skips for n in conv}


def published_vae() -> set[str]:
    """Every name in ``vae_state_dict`` of the CIFAR-10 models with 20 groups, from the published description alone."""
    conv = {"weight", "bias", "log_weight_norm"}
    names = {"prior_ftr0"} | {f"stem.{n}" for n in conv} | {f"image_conditional.1.{n}" for n in conv}
    cells = {"pre_process.0": "normal", "pre_process.1": "down", "post_process.0": "up", "post_process.1": "normal"}
    for group in range(20):
        names |= {f"enc_sampler.{group}.1.{n}" for n in conv} | {f"eps_conv.{group}.{n}" for n in conv}
        cells |= {f"enc_tower.{3 * group + k}": "normal" for k in (0, 1)}
        cells |= {f"dec_tower.{3 * group + k}": "normal" for k in (1, 2)}
        names |= {f"dec_tower.{3 * group}.conv.{n}" for n in conv}
        if group < 19:
            names |= {f"enc_tower.{3 * group + 2}.conv.{n}" for n in conv}
    return names | {f"{place}.{n}" for place, kind in cells.items() for n in cell(kind)}


def test_the_published_autoencoder_has_these_tensors(paper: tuple[Vae, MixedScore]) -> None:
    mine = paper[0].state_dict()
    assert {vae_name(name) for name in published_vae()} == set(mine) - {"own_scale"}
    shapes = {"prior_ftr0": (256, 16, 16), "stem.weight": (128, 3, 3, 3), "enc_sampler.19.1.weight": (18, 256, 3, 3),
              "eps_conv.0.weight": (9, 9, 3, 3), "dec_tower.0.conv.weight": (256, 265, 1, 1),
              "image_conditional.1.weight": (100, 128, 3, 3), "pre_process.1.skip.conv_4.weight": (64, 128, 1, 1),
              "enc_tower.0.se.se.0.weight": (16, 256), "post_process.0.skip.1.weight": (128, 256, 1, 1)}  # fmt: skip
    assert {name: tuple(mine[name].shape) for name in shapes} == shapes


def test_the_published_score_model_has_these_tensors(paper: tuple[Vae, MixedScore]) -> None:
    mine = paper[1].state_dict()
    assert {int(n.split(".")[2]) for n in mine if n.startswith("network.all_modules.")} == set(range(72))
    shapes = {"mixing_logit": (1, 180, 1, 1), "all_modules.0.weight": (512, 128), "all_modules.1.weight": (512, 512),
              "all_modules.2.weight": (512, 180, 3, 3), "all_modules.3.Dense_0.weight": (512, 512),
              "all_modules.4.NIN_3.W": (512, 512), "all_modules.19.Conv_2.weight": (512, 512, 1, 1),
              "all_modules.38.NIN_0.b": (512,), "all_modules.40.Conv_2.weight": (512, 1024, 1, 1),
              "all_modules.69.GroupNorm_0.weight": (512,), "all_modules.70.weight": (512,),
              "all_modules.71.weight": (180, 512, 3, 3)}  # fmt: skip
    assert {name: tuple(mine[score_name(name)].shape) for name in shapes} == shapes


def test_names_of_wrapped_norms() -> None:
    assert vae_name("dec_tower.1._ops.0.conv.0.bn.running_mean") == "dec_tower.1._ops.0.conv.0.running_mean"
    assert vae_name("dec_tower.1._ops.0.conv.1.conv.1.weight") == "dec_tower.1._ops.0.conv.1.conv.1.weight"
    wanted = set(tiny(vae={"channels": 8, "widths": [1, 2], "decoder": "mobile"}).vae.state_dict())
    assert "dec_tower.1._ops.0.conv.0.running_mean" in wanted and "dec_tower.1._ops.0.conv.1.conv.1.weight" in wanted


def published(vae: nn.Module, score: MixedScore, average: float | None) -> dict[str, Any]:
    """A file's content: weights of ones, averages of another value in the optimisers' states."""
    names = {"vae": {k: k for k in vae.state_dict() if k != "own_scale"}, "dae": {}}
    for key in score.state_dict():
        if key != "active":
            names["dae"][key] = "mixing_logit" if key == "logit" else key.removeprefix("network.")
    content: dict[str, Any] = {"epoch": 3, "global_step": 7, "args": argparse.Namespace(num_nf=0)}
    for part, module in (("vae", vae), ("dae", score)):
        state = {theirs: torch.ones_like(module.state_dict()[mine]) for mine, theirs in names[part].items()}
        content[f"{part}_state_dict"] = state
        if average is not None:
            learned = [k for k in state if not k.endswith(("running_mean", "running_var", "num_batches_tracked"))]
            moments = {i: {"step": 7, "ema": torch.full_like(state[k], average)} for i, k in enumerate(learned)}
            content[f"{part}_optimizer"] = {"state": moments, "param_groups": []}
    return content


@pytest.mark.parametrize("average", [None, 0.5])
def test_a_published_file_fills_both_networks(tmp_path: Path, average: float | None) -> None:
    task = tiny()
    torch.save(published(task.vae, task.score, average), tmp_path / "checkpoint.pt")
    fresh = tiny(start=tmp_path / "checkpoint.pt")
    value = average or 1.0
    for p in [*fresh.live.parameters(), *fresh.average.model.parameters()]:
        assert torch.equal(p, torch.full_like(p, value))
    assert float(fresh.vae.pre_process[0]._ops[0].bn_act.running_mean.mean()) == 1  # type: ignore[union-attr,index]


def test_averages_are_matched_in_the_order_of_parameters() -> None:
    state = {"a.weight": torch.zeros(2), "a.running_mean": torch.zeros(2), "b.weight": torch.zeros(3)}
    content = {
        "vae_state_dict": state,
        "vae_optimizer": {"state": {0: {"ema": torch.ones(2)}, 1: {"ema": torch.ones(3)}}},
    }
    found = averaged(content, "vae_state_dict")
    assert [float(v.sum()) for v in found.values()] == [2, 0, 3]


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harmed",)


def test_files_that_are_refused(tmp_path: Path) -> None:
    task = tiny()
    whole = published(task.vae, task.score, None)
    path = tmp_path / "c.pt"

    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match) as found:
            load_published(path, task.vae, task.score)
        assert "\n" not in str(found.value)

    refused("there is no checkpoint")
    path.touch()
    refused("is empty")
    torch.save(whole, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused("is truncated or damaged; expected a published LSGM checkpoint")
    path.write_bytes(pickle.dumps({"vae_state_dict": Harmful()}))
    refused("could run code when read")
    assert not Path("harmed").exists()
    torch.save({"state_dict": {}}, path)
    refused("has no vae_state_dict and no dae_state_dict")
    torch.save(whole | {"vae_state_dict": whole["vae_state_dict"] | {"nf_cells.0.w": torch.ones(1)}}, path)
    refused("has normalising flows")
    torch.save(whole, path)
    other = tiny(vae={"channels": 12, "widths": [1, 2], "latent_channels": 3, "outer_cells": 1})
    with pytest.raises(UserError, match="was made with other sizes than this configuration's: prior_ftr0 is"):
        load_published(path, other.vae, other.score)
    assert read(path)["epoch"] == 3
