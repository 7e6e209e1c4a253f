"""Speed and memory of presets with full-size networks of random weights, on a GPU: ``python benchmarks/gpu.py``.

Writes folders with the shapes of Stable Diffusion 1.5 and of Zero123-XL (random numbers in half precision: speed does
not depend on them), takes some steps of each preset, and prints a table of steps a second, the largest memory PyTorch
allocated, and which share of the steps' time the prior took: its UNet, and its autoencoder's encoder with its backward
pass. Every part is timed with the device waited for, so steps are a little slower here than in a run.

Without a GPU, ``--small`` takes two steps with tiny networks on the CPU: that the script runs, no figure.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from core.cli.environment import prepare

WARM, STEPS = (6, 20) if torch.cuda.is_available() else (1, 2)
PROMPT = "a standing corgi dog"
FULL: dict[str, dict[str, Any]] = {
    "unet": {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8, "cross_attention_dim": 768},
    "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512},
    "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "clip": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "patch_size": 14, "projection_dim": 768,
    },
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"block_out_channels": (32, 32, 32, 32), "attention_head_dim": 2, "cross_attention_dim": 32},
    "vae": {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "sample_size": 128},
    "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
    "clip": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "patch_size": 56, "projection_dim": 32,
    },
}  # fmt: skip
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip
CUDA = torch.cuda.is_available()
SIZES = FULL if CUDA else SMALL
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "dreamfusion-sd, 64 px": ("dreamfusion-sd", {}),
    "zero123, 64 px, batch 4": ("zero123", {"precision": "16-mixed"}),
    "prolificdreamer, field, 64 px": ("prolificdreamer", {"data.size": "64", "stages.0.data.size": "64"}),
    "prolificdreamer, field, 512 px": ("prolificdreamer", {"stages.0.data.size": "512"}),
    "dreamfusion-sd, 64 px, batch 4": ("dreamfusion-sd", {"data.batch": "4"}),
}


def wait() -> None:
    """Until the device has done what it was given."""
    if CUDA:
        torch.cuda.synchronize()


def vae(side: int = 0) -> Any:
    """Stable Diffusion's autoencoder, for pictures of ``side`` pixels; 0 for its own."""
    from diffusers import AutoencoderKL

    own = SIZES["vae"] | ({"sample_size": side} if side and CUDA else {})
    levels = len(own["block_out_channels"])
    down, up = ("DownEncoderBlock2D",) * levels, ("UpDecoderBlock2D",) * levels
    return AutoencoderKL(down_block_types=down, up_block_types=up, latent_channels=4, **own)


def save(model: Any, folder: Path) -> None:
    """A network in half precision."""
    model.half().save_pretrained(folder)


def stable_diffusion(folder: Path) -> Path:
    """A folder with Stable Diffusion 1.5's shapes; its tokenizer is a small one."""
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from plugins.embedded.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(
        [PROMPT, "a red ball, side view, front view, back view, overhead view"], folder / "tokenizer"
    )
    ids: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = CLIPTextConfig(pad_token_id=ids["eos_token_id"], **SIZES["text"], **ids)
    with torch.device("cuda" if CUDA else "cpu"):
        save(UNet2DConditionModel(sample_size=SIZES["vae"]["sample_size"] // 8, **SIZES["unet"]), folder / "unet")
        save(vae(), folder / "vae")
        save(CLIPTextModel(text), folder / "text_encoder")
    DDIMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
    index |= {k: [None, None] for k in ("safety_checker", "feature_extractor", "image_encoder")}
    index |= {"vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet2DConditionModel"]}
    index |= {"scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def zero123(folder: Path) -> Path:
    """A folder with Zero123-XL's shapes: SD 1.5's with eight input channels, and CLIP ViT-L/14's vision tower."""
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from core.diffusion.novel_view import CameraProjection

    with torch.device("cuda" if CUDA else "cpu"):
        save(
            UNet2DConditionModel(sample_size=32 if CUDA else 8, in_channels=8, out_channels=4, **SIZES["unet"]),
            folder / "unet",
        )
        save(vae(256), folder / "vae")
        save(CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES["clip"])), folder / "image_encoder")
        save(CameraProjection(SIZES["clip"]["projection_dim"]), folder / "cc_projection")
    DDIMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    (folder / "feature_extractor").mkdir(exist_ok=True)
    sizes = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    means = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    told = {"image_processor_type": "CLIPImageProcessor"} | means | sizes
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(told))
    index = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
             "scheduler": ["diffusers", "DDIMScheduler"], "feature_extractor": ["transformers", "CLIPImageProcessor"],
             "image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Zero1to3StableDiffusionPipeline"} | index))
    return folder


class Clock:
    """Seconds and calls by name, with the device waited for; counts only after ``WARM`` steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.steps = 0

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, timed."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.span(name):
                return call(*args, **kwargs)

        return wrapped

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        wait()
        start = time.perf_counter()
        yield
        wait()
        self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        if self.steps >= WARM:
            self.seconds[name] += seconds
            self.calls[name] += 1


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Loop steps, UNet, encoder (with its backward) and decoder timed by ``clock``."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.models.autoencoders.vae import Encoder

    from core.loop import Loop

    kept = [(Loop, "take"), (UNet2DConditionModel, "forward"), (AutoencoderKL, "decode"), (Encoder, "forward")]
    before = [getattr(owner, name) for owner, name in kept]
    take, unet, decode, encode = before
    timed_step = clock.timed("step", take)

    def step(self: Any, index: int) -> Any:
        report = timed_step(self, index)
        clock.steps += 1
        return report

    def encoded(self: Any, x: Any, *rest: Any, **more: Any) -> Any:
        with clock.span("encode"):
            out = encode(self, x, *rest, **more)
        if out.requires_grad and x.requires_grad:
            began: list[float] = []

            def enter(g: Any) -> None:
                wait()
                began.append(time.perf_counter())

            def leave(g: Any) -> None:
                wait()
                clock.add("encode backward", time.perf_counter() - began[-1])

            out.register_hook(enter)
            x.register_hook(leave)
        return out

    changed = [step, clock.timed("unet", unet), clock.timed("decode", decode), encoded]
    for (owner, name), call in zip(kept, changed, strict=True):
        setattr(owner, name, call)
    try:
        yield
    finally:
        for (owner, name), call in zip(kept, before, strict=True):
            setattr(owner, name, call)


def overrides(preset: str, more: dict[str, str], models: dict[str, Path]) -> list[str]:
    """What makes a preset a short run with the random networks."""
    count = WARM + STEPS
    own = {"steps": count, "export": "[]", "preview_every": 0, "checkpoint_every": 0}
    own |= {"device": "cuda"} if CUDA else {"device": "cpu", "precision": "32-true"}
    if preset == "zero123":
        kept = "float16" if CUDA else "float32"
        own |= {"guidance.0.prior": f"{{type: zero123, model: {models['zero123']}, precision: {kept}}}"}
        own |= {"data.cameras.size": "64"}
    else:
        own |= {"guidance.0.prior.model": str(models["stable-diffusion"])}
        own |= {} if CUDA else {"guidance.0.prior.precision": "float32", "renderer.samples": 16, "data.size": 16}
    if preset == "prolificdreamer":
        own |= {f"stages.{k}.steps": (count, 1, 1)[k] for k in range(3)}
        own |= {"stages.1.geometry.resolution": 32, "stages.2.geometry.resolution": 32}
        del own["steps"]
    return [f"{k}={v}" for k, v in ((own | more) if CUDA else (more | own)).items()]


def measure(preset: str, more: dict[str, str], models: dict[str, Path], picture: Path, folder: Path) -> dict[str, Any]:
    """The figures of one case."""
    from core.config.loading import load_job
    from core.discovery import get_registry
    from core.job import run_job

    registry, clock = get_registry(), Clock()
    asked: dict[str, Any] = {"image": str(picture)} if preset == "zero123" else {"prompt": PROMPT}
    job = load_job(preset, overrides(preset, more, models), registry, asked)
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with watched(clock):
        run_job(job, registry, folder)
    n, total = clock.calls["step"], clock.seconds["step"]
    prior = sum(clock.seconds[k] for k in ("unet", "encode", "encode backward"))
    return {
        "steps/s": round(n / total, 2), "ms/step": round(1000 * total / n, 1),
        "GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2) if CUDA else None,
        "UNet %": round(100 * clock.seconds["unet"] / total, 1), "prior %": round(100 * prior / total, 1),
        "decodes": clock.calls["decode"],
    }  # fmt: skip


def main() -> None:
    """All cases, or those whose names hold the argument."""
    prepare()
    wanted = "".join(word for word in sys.argv[1:] if word != "--small")
    if not CUDA and "--small" not in sys.argv:
        sys.exit("benchmarks/gpu.py needs a CUDA device; there is none here. --small tries the script on the CPU.")
    from PIL import Image

    where = torch.cuda.get_device_name() if CUDA else "CPU, tiny networks: no figures"
    print(f"{where}, PyTorch {torch.__version__}, {STEPS} steps after {WARM}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        models = {"stable-diffusion": stable_diffusion(folder / "sd"), "zero123": zero123(folder / "z")}
        picture = folder / "picture.png"
        square = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
        square.paste((200, 60, 40, 255), (64, 64, 192, 192))
        square.save(picture)
        for k, (name, (preset, more)) in enumerate(CASES.items()):
            if wanted in name:
                try:
                    print(name, json.dumps(measure(preset, more, models, picture, folder / str(k))), flush=True)
                except Exception:  # the other cases are worth their figures
                    print(name, "failed:", flush=True)
                    traceback.print_exc()


if __name__ == "__main__":
    main()
