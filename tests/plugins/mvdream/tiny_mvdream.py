"""An MVDream with random weights, as a folder in its own format, as one of diffusers, and as an original checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from core.diffusion.ldm_layout import UNET
from core.diffusion.ldm_networks import unet_tensors

sys.path.insert(0, str(Path(__file__).parents[2] / "core"))
from tiny_pipeline import write_pipeline  # noqa: E402

WIDTHS, SIZE = (64, 128), 8
CONFIG = {
    "_class_name": "MultiViewUNetModel", "image_size": SIZE, "in_channels": 4, "model_channels": 64, "out_channels": 4,
    "num_res_blocks": 1, "attention_resolutions": [1], "channel_mult": [1, 2], "num_head_channels": 64,
    "transformer_depth": 1, "camera_dim": 16,
}  # fmt: skip


def network(text_width: int) -> Any:
    """Two levels, attention on the first and in the middle, heads 64 wide, a camera of 16 numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=SIZE, in_channels=4, out_channels=4, block_out_channels=WIDTHS, layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=text_width, attention_head_dim=[1, 2], use_linear_projection=True,
            class_embed_type="projection", projection_class_embeddings_input_dim=16,
        )  # fmt: skip
        for p in unet.parameters():
            p.data += 0.02 * torch.randn_like(p)
    return unet.eval()


def write_own(folder: Path, unet: Any) -> Path:
    """The published folder format: a class of their own, tensors named by the LDM layout without its prefix."""
    write_pipeline(folder)
    for file in (folder / "unet").iterdir():
        file.unlink()
    state = {k.removeprefix(UNET): v.contiguous() for k, v in unet_tensors(unet).items()}
    save_file(state, folder / "unet" / "diffusion_pytorch_model.safetensors")
    config = CONFIG | {"context_dim": int(unet.config.cross_attention_dim)}
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "MVDreamPipeline"}))
    return folder
