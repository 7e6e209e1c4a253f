"""Pipelines of every public prior with random weights, small enough to build in a moment, in diffusers' own classes."""

from __future__ import annotations

import string
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
from tiny_pipeline import TEXTS, scheduler  # noqa: E402

from plugins.embedded.tokenizer import train_tokenizer  # noqa: E402

LETTERS = string.ascii_lowercase + ","


@dataclass
class Peer:
    """A prior and the pipeline it stands for.

    Attributes:
        prior, pipeline: names.  parts: builds the pipeline's parts.  options: of the prior.
        scale, call: the pipeline's name for the guidance scale, and further arguments.
        more: arguments of the pipeline's own construction.
    """

    prior: str
    pipeline: str
    parts: Callable[[Path], dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    scale: str = "guidance_scale"
    call: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def build(self, folder: Path) -> Any:
        """The pipeline, saved in ``folder`` as ``save_pretrained`` has it."""
        import diffusers

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = getattr(diffusers, self.pipeline)(**self.parts(folder / "words"), **self.more)
        made.set_progress_bar_config(disable=True)
        made.save_pretrained(folder)
        return made


def clip_tokenizer(folder: Path) -> Any:
    return train_tokenizer(TEXTS, folder)


def t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)] + [(c, -3.0) for c in LETTERS]
    return transformers.T5TokenizerFast(vocab=pieces, extra_ids=0)


def gemma_tokenizer() -> Any:
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    return transformers.GemmaTokenizerFast(vocab={word: k for k, word in enumerate(words)}, merges=[])


def clip_tower(tokenizer: Any, kind: str = "CLIPTextModel", width: int = 16, act: str = "quick_gelu") -> Any:
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length, pad_token_id=tokenizer.pad_token_id, projection_dim=width,
        hidden_act=act, **ids,
    )  # fmt: skip
    return getattr(transformers, kind)(config).eval()


def t5_tower(width: int) -> Any:
    config = transformers.T5Config(
        vocab_size=len(LETTERS) + 4, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return transformers.T5EncoderModel(config).eval()


def gemma_tower() -> Any:
    config = transformers.Gemma2Config(
        vocab_size=len(LETTERS) + 6, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8, max_position_embeddings=1024,
    )  # fmt: skip
    return transformers.Gemma2Model(config).eval()


def autoencoder(channels: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=channels, norm_num_groups=4, sample_size=16,
        mid_block_add_attention=False, scaling_factor=0.7, **more,
    ).eval()  # fmt: skip


def unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    config: dict[str, Any] = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": 2, "norm_num_groups": 4,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 16,
    }  # fmt: skip
    return UNet2DConditionModel(**config | more).eval()


def stable_diffusion(words: Path, kind: str) -> dict[str, Any]:
    tokenizer = clip_tokenizer(words)
    tower = clip_tower(tokenizer, act="gelu" if kind == "v_prediction" else "quick_gelu")
    return {"vae": autoencoder(), "text_encoder": tower, "tokenizer": tokenizer, "unet": unet(),
            "scheduler": trailing(kind), "safety_checker": None, "feature_extractor": None}  # fmt: skip


def sdxl(words: Path) -> dict[str, Any]:
    tokenizer = clip_tokenizer(words)
    network = unet(
        cross_attention_dim=40, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=24 + 6 * 4, use_linear_projection=True,
    )  # fmt: skip
    second = clip_tower(tokenizer, "CLIPTextModelWithProjection", 24, "gelu")
    return {"vae": autoencoder(), "text_encoder": clip_tower(tokenizer), "text_encoder_2": second, "unet": network,
            "tokenizer": tokenizer, "tokenizer_2": tokenizer, "scheduler": trailing("epsilon")}  # fmt: skip


def deepfloyd(words: Path) -> dict[str, Any]:
    network = unet(
        in_channels=3, out_channels=6, encoder_hid_dim=32, addition_embed_type="text", cross_attention_dim=16,
        addition_embed_type_num_heads=2, down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim_type="text_proj", resnet_time_scale_shift="scale_shift", only_cross_attention=(False, True),
    )  # fmt: skip
    steps = trailing("epsilon", beta_schedule="squaredcos_cap_v2")
    steps.register_to_config(variance_type="fixed_small")  # asked for by the pipeline, which drops the variance then
    return {"text_encoder": t5_tower(32), "tokenizer": t5_tokenizer(), "unet": network, "scheduler": steps,
            "safety_checker": None, "feature_extractor": None, "watermarker": None}  # fmt: skip


def stable_diffusion_3(words: Path, t5: bool = True) -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    tokenizer = clip_tokenizer(words)
    network = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=48, caption_projection_dim=16, pooled_projection_dim=40, out_channels=16,
        pos_embed_max_size=12, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    return {"vae": autoencoder(16, shift_factor=0.06), "transformer": network.eval(),
            "text_encoder": clip_tower(tokenizer, "CLIPTextModelWithProjection"), "tokenizer": tokenizer,
            "text_encoder_2": clip_tower(tokenizer, "CLIPTextModelWithProjection", 24, "gelu"), "tokenizer_2": tokenizer,
            "text_encoder_3": t5_tower(48) if t5 else None, "tokenizer_3": t5_tokenizer() if t5 else None,
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0)}  # fmt: skip


def flux(words: Path, dev: bool) -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    tokenizer = clip_tokenizer(words)
    network = FluxTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=dev, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return {"vae": autoencoder(16, shift_factor=0.06), "transformer": network.eval(),
            "text_encoder": clip_tower(tokenizer), "tokenizer": tokenizer, "text_encoder_2": t5_tower(32),
            "tokenizer_2": t5_tokenizer(),
            "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=dev)}  # fmt: skip


def sana(words: Path) -> dict[str, Any]:
    from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaTransformer2DModel

    deep = AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), scaling_factor=0.41,
        downsample_block_type="conv", upsample_block_type="interpolate",
    )  # fmt: skip
    network = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=8,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16,
        timestep_scale=0.5,
    )  # fmt: skip
    return {"vae": deep.eval(), "transformer": network.eval(), "text_encoder": gemma_tower(),
            "tokenizer": gemma_tokenizer(), "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0)}  # fmt: skip


def trailing(kind: str, **more: Any) -> Any:
    """DDIM from the last timestep down."""
    made = scheduler(kind)
    return type(made).from_config({**made.config, "timestep_spacing": "trailing", **more})


PEERS = {
    "sd1": Peer("stable-diffusion", "StableDiffusionPipeline", lambda w: stable_diffusion(w, "epsilon"),
                more={"requires_safety_checker": False}),
    "sd2": Peer("stable-diffusion", "StableDiffusionPipeline", lambda w: stable_diffusion(w, "v_prediction"),
                more={"requires_safety_checker": False}),
    "sdxl": Peer("sdxl", "StableDiffusionXLPipeline", sdxl, {"original_size": 32, "crop": [2, 3]},
                 call={"original_size": (32, 32), "crops_coords_top_left": (2, 3)}, more={"add_watermarker": False}),
    "deepfloyd": Peer("deepfloyd-if", "IFPipeline", deepfloyd, more={"requires_safety_checker": False}),
    "sd3": Peer("stable-diffusion-3", "StableDiffusion3Pipeline", stable_diffusion_3, {"t5_length": 20},
                call={"max_sequence_length": 20}),
    "sd3-no-t5": Peer("stable-diffusion-3", "StableDiffusion3Pipeline", lambda w: stable_diffusion_3(w, False)),
    "flux-dev": Peer("flux", "FluxPipeline", lambda w: flux(w, True),
                     {"t5_length": 20, "image_size": 16, "embedded_guidance": 2.5}, "true_cfg_scale",
                     {"max_sequence_length": 20, "guidance_scale": 2.5, "negative_prompt": "", "height": 16, "width": 16}),
    "flux-schnell": Peer("flux", "FluxPipeline", lambda w: flux(w, False), {"t5_length": 20, "image_size": 16},
                         "true_cfg_scale",
                         {"max_sequence_length": 20, "negative_prompt": "", "height": 16, "width": 16}),
    "sana": Peer("sana", "SanaPipeline", sana, {"text_length": 40},
                 call={"max_sequence_length": 40, "use_resolution_binning": False}),
}  # fmt: skip
