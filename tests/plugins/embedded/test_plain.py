"""The plain twin predicts what the camera prior does when told nothing, and is a Stable Diffusion pipeline."""

from __future__ import annotations

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from plugins.embedded.camera import CAMERA_DIM, no_camera
from plugins.embedded.family import BUILT_IN
from plugins.embedded.plain import fold_camera, save_pipeline


def _unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4, class_embed_type="projection",
        projection_class_embeddings_input_dim=CAMERA_DIM,
    ).eval()  # fmt: skip


def test_folding_changes_nothing_but_the_input() -> None:
    unet, t = _unet(), torch.tensor([3, 700])
    x, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 8)
    with torch.no_grad():
        told = unet(x, t, text, class_labels=no_camera(2)).sample
        plain = fold_camera(unet)(x, t, text).sample
        other = unet(x, t, text, class_labels=torch.ones(2, CAMERA_DIM)).sample
    assert torch.allclose(told, plain, atol=1e-5)
    assert not torch.allclose(other, plain, atol=1e-3)


def test_the_family_opens_as_a_stable_diffusion_pipeline(tmp_path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(save_pipeline(tmp_path / "plain"), torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a red mug", num_inference_steps=2, output_type="np", height=64, width=64).images
    assert picture.shape == (1, 64, 64, 3)
    assert (BUILT_IN / "unet").is_dir()
