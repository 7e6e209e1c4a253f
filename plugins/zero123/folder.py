"""A Zero-1-to-3 folder in diffusers' formats, as published conversions have it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from core.diffusion.novel_view import CameraProjection
from core.diffusion.relative_pose import PoseMode
from core.errors import UserError

POSE_KEY = "_pose_mode"
"""In ``model_index.json``: what the fourth number of the relative camera is."""
PROJECTIONS = ("cc_projection", "clip_camera_projection")
_EXPECTED = "expected a Zero-1-to-3 folder (vae, image_encoder, unet, scheduler, cc_projection)"
_WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")


def load_folder(folder: Path) -> dict[str, Any]:
    """The parts that :class:`~core.diffusion.novel_view.NovelViewPrior` takes.

    Raises:
        UserError: the folder is another pipeline's, lacks a part, or a part cannot be read.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPVisionModelWithProjection
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    _check(folder)
    loaders: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "scheduler": DDIMScheduler,
                               "image_encoder": CLIPVisionModelWithProjection}  # fmt: skip
    parts: dict[str, Any] = {}
    for name, loader in loaders.items():
        try:
            parts[name] = loader.from_pretrained(str(folder), subfolder=name)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"cannot load {name} of {folder}: {str(error).splitlines()[0]}") from error
    channels, wanted = int(parts["unet"].config.in_channels), 2 * int(parts["vae"].config.latent_channels)
    if channels != wanted:
        raise UserError(f"the UNet of {folder} has {channels} input channels instead of {wanted}; {_EXPECTED}")
    parts["cc_projection"] = _projection(folder)
    return parts | {"feature_extractor": _features(folder, parts["image_encoder"])}


def pose_mode_of(source: Path) -> PoseMode:
    """As a converted folder notes it; else ``absolute-polar`` for names with "stable zero123", spelled in any way."""
    index = source / "model_index.json"
    if index.is_file():
        noted = _json(index).get(POSE_KEY)
        if noted in ("relative-radius", "absolute-polar"):
            return noted  # type: ignore[no-any-return]
    stable = re.search(r"stable[-_ ]?zero[-_ ]?(123|1to3|1-to-3)", source.name.lower())
    return "absolute-polar" if stable else "relative-radius"


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    missing = [p for p in ("vae", "image_encoder", "unet", "scheduler") if not (folder / p).is_dir()]
    if not any((folder / p).is_dir() for p in PROJECTIONS):
        missing.append(" or ".join(PROJECTIONS))
    if missing:
        index = folder / "model_index.json"
        kind = _json(index).get("_class_name") if index.is_file() else None
        what = f"holds a {kind}" if kind else "is no such folder"
        raise UserError(f"{folder} {what}: it lacks {', '.join(missing)}; {_EXPECTED}")


def _projection(folder: Path) -> CameraProjection:
    """The layer, whose keys are ``projection.*`` or ``proj.*``, from safetensors or a PyTorch file."""
    place = next(folder / p for p in PROJECTIONS if (folder / p).is_dir())
    files = [place / f"{stem}{end}" for stem in _WEIGHTS for end in (".safetensors", ".bin")]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        raise UserError(f"{place} holds no weights ({_WEIGHTS[0]}.safetensors or .bin)")
    try:
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own kinds, all of which mean the same here
        raise UserError(f"{file} is damaged, or holds more than tensors") from error
    ends = {key.rpartition(".")[2]: value for key, value in state.items()}
    width = len(ends["bias"]) if "bias" in ends else 0
    if set(ends) != {"weight", "bias"} or ends["weight"].shape != (width, width + 4):
        raise UserError(f"{file} is no camera projection: expected a weight [D, D + 4] and a bias [D]")
    made = CameraProjection(width)
    made.projection.load_state_dict(ends, assign=True)
    return made


def _features(folder: Path, encoder: Any) -> dict[str, Any]:
    """How CLIP wants its pictures; OpenAI's values where the folder does not say."""
    file = folder / "feature_extractor" / "preprocessor_config.json"
    given = _json(file) if file.is_file() else {}
    mean = given.get("image_mean", [0.48145466, 0.4578275, 0.40821073])
    std = given.get("image_std", [0.26862954, 0.26130258, 0.27577711])
    return {"size": int(encoder.config.image_size), "mean": mean, "std": std}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}
