"""A trained family on disk, in the layout of Karlo's diffusers folders; ``UnCLIPPipeline`` opens it too.

::

    tokenizer/ text_encoder/ image_encoder/ feature_extractor/ prior/ prior_scheduler/ text_proj/ decoder/
    decoder_scheduler/ super_res_first/ super_res_last/ super_res_scheduler/ model_index.json
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from core.errors import UserError
from plugins.unclip.networks import PARTS, build_schedulers, text_projection_class
from plugins.unclip.tower import Tower

NETWORKS = ("prior", "text_proj", "decoder", "super_res_first", "super_res_last")
SCHEDULERS = ("prior_scheduler", "decoder_scheduler", "super_res_scheduler")


@dataclass
class Family:
    """What a folder holds.

    Attributes:
        tower: the CLIP.  networks: by name; a part that is not there is not there.  schedulers: by name.
    """

    tower: Tower
    networks: dict[str, Any] = field(default_factory=dict)
    schedulers: dict[str, Any] = field(default_factory=build_schedulers)


def save_family(family: Family, folder: Path) -> Path:
    """Write a folder in half precision. The last step's network is the first's where there is no other."""
    from transformers import CLIPImageProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would break the status line
    networks = dict(family.networks)
    if "super_res_first" in networks:
        networks.setdefault("super_res_last", networks["super_res_first"])
    tower = family.tower
    kept: dict[str, Any] = {"text_encoder": tower.text} | networks
    if tower.vision is not None:
        kept["image_encoder"] = tower.vision
        mean, std = tower.normal
        size = {"height": tower.size, "width": tower.size}
        CLIPImageProcessor(
            size=size, crop_size=size, image_mean=list(mean), image_std=list(std), do_center_crop=False
        ).save_pretrained(folder / "feature_extractor")
    for name, model in kept.items():
        copy.deepcopy(model).half().save_pretrained(folder / name, safe_serialization=True)
    for name, scheduler in family.schedulers.items():
        scheduler.save_pretrained(folder / name)
    tower.tokenizer.save_pretrained(folder / "tokenizer")
    words = Path(str(tower.tokenizer.name_or_path)) / "words.json"
    if words.is_file():
        shutil.copyfile(words, folder / "tokenizer" / "words.json")
    (folder / "model_index.json").write_text(json.dumps(_index(networks), indent=2) + "\n")
    return folder


def _index(networks: dict[str, Any]) -> dict[str, Any]:
    """What tells diffusers the class of each part; a folder without all of them opens here only."""
    import diffusers

    classes = {"prior": "PriorTransformer", "decoder": "UNet2DConditionModel", "super_res_first": "UNet2DModel",
               "super_res_last": "UNet2DModel"}  # fmt: skip
    index: dict[str, Any] = {"_class_name": "UnCLIPPipeline", "_diffusers_version": diffusers.__version__}
    index |= {"text_encoder": ["transformers", "CLIPTextModelWithProjection"]}
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"]}
    index |= {name: ["diffusers", classes[name]] for name in networks if name in classes}
    if "text_proj" in networks:  # named as this diffusers' own ``save_pretrained`` does, or it would not find the class
        kind = text_projection_class()
        index["text_proj"] = ["unclip" if hasattr(diffusers.pipelines, "unclip") else kind.__module__, kind.__name__]
    return index | {name: ["diffusers", "UnCLIPScheduler"] for name in SCHEDULERS}


def load_family(folder: Path) -> Family:
    """Open a folder.

    Raises:
        UserError: it is none, another model's, or damaged, in one sentence.
    """
    from diffusers import UnCLIPScheduler
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it would break the status line
    check_folder(folder)
    found = Family(load_tower(folder))
    for name in NETWORKS:
        if (folder / name).is_dir():
            found.networks[name] = _opened(network_class(name), folder / name)
    for name in SCHEDULERS:
        if (folder / name).is_dir():
            found.schedulers[name] = _opened(UnCLIPScheduler, folder / name)
    return found


def check_folder(folder: Path) -> None:
    """Refuse what is no family, before anything is loaded.

    Raises:
        UserError: naming what it is, or what is missing.
    """
    expected = "expected an unCLIP family in Karlo's layout"
    if not folder.is_dir():
        raise UserError(f"weights: there is no folder {folder}; {expected}")
    index = folder / "model_index.json"
    if index.is_file():
        kind = json.loads(index.read_text()).get("_class_name", "")
        if not str(kind).startswith("UnCLIP"):
            raise UserError(f"weights: {folder} holds a {kind}; {expected}")
    elif any(folder.glob("*.ckpt")):
        raise UserError(
            f"weights: {folder} holds Karlo's original checkpoints; convert them first: "
            f"python -m plugins.unclip {folder} TARGET"
        )
    parts = {part: names for part, names in PARTS.items() if all((folder / n / "config.json").is_file() for n in names)}
    if not parts:
        raise UserError(f"weights: {folder} holds neither prior, decoder nor upsampler; {expected}")
    for name in ("tokenizer", "text_encoder"):
        if not (folder / name).is_dir():
            raise UserError(f"weights: {folder} lacks {name}/; {expected}")


def load_tower(folder: Path) -> Tower:
    """The CLIP of a folder; a text-to-image folder may lack the network that looks at pictures."""
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

    text = _opened(CLIPTextModelWithProjection, folder / "text_encoder")
    vision, normal = None, ((0.5,) * 3, (0.5,) * 3)
    if (folder / "image_encoder").is_dir():
        vision = _opened(CLIPVisionModelWithProjection, folder / "image_encoder")
        file = folder / "feature_extractor" / "preprocessor_config.json"
        if file.is_file():
            settings = json.loads(file.read_text())
            normal = (tuple(settings["image_mean"]), tuple(settings["image_std"]))
    return Tower(_opened(CLIPTokenizer, folder / "tokenizer"), text, vision, normal)


def network_class(name: str) -> Any:
    """diffusers' class of a network of the layout."""
    import diffusers

    classes = {"prior": diffusers.PriorTransformer, "decoder": diffusers.UNet2DConditionModel,
               "super_res_first": diffusers.UNet2DModel, "super_res_last": diffusers.UNet2DModel}  # fmt: skip
    return text_projection_class() if name == "text_proj" else classes[name]


def _opened(kind: Any, folder: Path) -> Any:
    try:
        made = kind.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"weights: {folder} cannot be opened as {kind.__name__}: {reason}") from error
    return made.float() if isinstance(made, nn.Module) else made
