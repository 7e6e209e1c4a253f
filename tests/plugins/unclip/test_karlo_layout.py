"""Karlo's original keys to diffusers' and back, at its published size on the meta device and with numbers when tiny."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.config.loading import load_job
from core.discovery import get_registry
from core.errors import UserError
from plugins.unclip.__main__ import converted
from plugins.unclip.folder import Family
from plugins.unclip.karlo_layout import from_karlo, to_karlo
from plugins.unclip.networks import build_part

from .conftest import WIDTH, Options

PUBLISHED = {  # of Karlo 1.0 alpha: keys of its checkpoints with their shapes
    "prior": {
        "model.time_embed.2.weight": (2048, 2048), "model.text_enc_proj.weight": (2048, 768),
        "model.prd_emb": (1, 1, 2048), "model.positional_embedding": (1, 81, 2048),
        "model.transformer.resblocks.19.attn.c_qkv.weight": (6144, 2048),
        "model.transformer.resblocks.0.mlp.c_fc.weight": (8192, 2048), "model.final_ln.weight": (2048,),
        "model.out_proj.weight": (768, 2048),
    },
    "decoder": {
        "model.input_blocks.0.0.weight": (320, 3, 3, 3), "model.input_blocks.4.0.in_layers.2.weight": (320, 320, 3, 3),
        "model.input_blocks.5.1.qkv.weight": (1920, 640, 1), "model.input_blocks.5.1.encoder_kv.weight": (1280, 1536, 1),
        "model.middle_block.1.proj_out.weight": (1280, 1280, 1), "model.middle_block.2.out_layers.3.weight": (1280, 1280, 3, 3),
        "model.output_blocks.3.2.in_layers.2.weight": (1280, 1280, 3, 3), "model.out.2.weight": (6, 320, 3, 3),
        "model.time_embed.0.weight": (1280, 320),
    },
    "text_proj": {
        "model.cf_param": (768,), "model.clip_tok_proj.weight": (4 * 1536, 768), "model.text_seq_proj.0.weight": (1536, 768),
        "model.text_seq_proj.1.weight": (1536,), "model.clip_emb.weight": (1280, 768), "model.text_feat_proj.weight": (1280, 768),
    },
    "super_res_first": {
        "model_first_steps.input_blocks.0.0.weight": (320, 6, 3, 3), "model_first_steps.middle_block.1.in_layers.2.weight": (1280, 1280, 3, 3),
        "model_first_steps.output_blocks.3.1.in_layers.2.weight": (1280, 1280, 3, 3), "model_first_steps.out.2.weight": (3, 320, 3, 3),
    },
}  # fmt: skip
SIZES = {"prior": 1.0e9, "decoder": 0.9e9, "super_res_first": 0.7e9}
"""Parameters as Karlo's page gives them."""


def test_the_paper_preset_has_karlos_keys_and_loads_them() -> None:
    options = load_job("unclip-paper", [], get_registry()).stages[0].task.options
    with torch.device("meta"):
        networks = {n: m for part in ("prior", "decoder", "upsampler") for n, m in build_part(part, options, 768, 77).items()}
        statistics = (torch.empty(768), torch.empty(768))
    for name, network in networks.items():
        manifest = to_karlo(name, network)
        for key, shape in PUBLISHED[name].items():
            assert tuple(manifest[key].shape) == shape, key
        network.load_state_dict(from_karlo(name, network, manifest, statistics), strict=True, assign=True)
        if name in SIZES:
            assert sum(p.numel() for p in network.parameters()) == pytest.approx(SIZES[name], rel=0.03)


def test_numbers_come_back(family: Family) -> None:
    for name in ("prior", "text_proj", "decoder", "super_res_first"):
        mine = family.networks[name].state_dict()
        stats = (mine["clip_mean"][0], mine["clip_std"][0]) if name == "prior" else None
        back = from_karlo(name, family.networks[name], to_karlo(name, family.networks[name]), stats)
        assert set(back) == set(mine)
        assert all(torch.equal(back[k], mine[k]) for k in mine)


def test_attention_is_fused_head_by_head(family: Family) -> None:
    decoder = family.networks["decoder"]
    original = to_karlo("decoder", decoder)
    mine, head = decoder.state_dict(), 8
    place = "mid_block.attentions.0"
    fused = original["model.middle_block.1.qkv.weight"][..., 0]
    both = original["model.middle_block.1.encoder_kv.weight"][..., 0]
    for k in range(2):
        for j, name in enumerate(("to_q", "to_k", "to_v")):
            rows = slice((3 * k + j) * head, (3 * k + j + 1) * head)
            assert torch.equal(fused[rows], mine[f"{place}.{name}.weight"][k * head : (k + 1) * head])
        for j, name in enumerate(("add_k_proj", "add_v_proj")):
            rows = slice((2 * k + j) * head, (2 * k + j + 1) * head)
            assert torch.equal(both[rows], mine[f"{place}.{name}.weight"][k * head : (k + 1) * head])


def test_another_checkpoint_is_refused(family: Family) -> None:
    network = family.networks["text_proj"]
    state = to_karlo("text_proj", network)
    with pytest.raises(UserError, match="no Karlo checkpoint of 'text_proj': it lacks model.cf_param"):
        from_karlo("text_proj", network, {k: v for k, v in state.items() if k != "model.cf_param"})
    with pytest.raises(UserError, match=r"model\.cf_param has shape \[7\], which is not Karlo's size"):
        from_karlo("text_proj", network, state | {"model.cf_param": torch.zeros(7)})
    with pytest.raises(UserError, match="needs the statistics"):
        from_karlo("prior", family.networks["prior"], to_karlo("prior", family.networks["prior"]))


def test_original_files_become_networks(family: Family, tmp_path: Path) -> None:
    nets: Any = family.networks
    torch.save({"state_dict": to_karlo("prior", nets["prior"])}, tmp_path / "prior-ckpt.ckpt")
    torch.save({"state_dict": to_karlo("decoder", nets["decoder"]) | to_karlo("text_proj", nets["text_proj"])}, tmp_path / "decoder-ckpt.ckpt")
    last = to_karlo("super_res_last", nets["super_res_first"])
    torch.save({"state_dict": to_karlo("super_res_first", nets["super_res_first"]) | last}, tmp_path / "improved-sr-ckpt.ckpt")
    with pytest.raises(UserError, match="the statistics of Karlo's original release"):
        converted(tmp_path, family.tower, Options)
    torch.save((nets["prior"].clip_mean[0], nets["prior"].clip_std[0]), tmp_path / "ViT-L-14_stats.th")
    made = converted(tmp_path, family.tower, Options)
    assert set(made) == {"prior", "text_proj", "decoder", "super_res_first", "super_res_last"}
    x = torch.randn(1, 6, 16, 16)
    with torch.no_grad():
        assert torch.equal(made["super_res_last"](x, 3).sample, nets["super_res_first"](x, 3).sample)
    (tmp_path / "prior-ckpt.ckpt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match=r"prior-ckpt\.ckpt is damaged"):
        converted(tmp_path, family.tower, Options)
    assert nets["prior"].config.embedding_dim == WIDTH
