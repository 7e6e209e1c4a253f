"""LoRA weights (Hu et al. 2022) added into a pipeline's networks once and for all: ``W + scale alpha / rank B A``.

Files are read by diffusers' own reader, which knows the layouts of diffusers, PEFT and kohya; PEFT itself is not
needed, because nothing is trained here and the sum costs nothing later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import UserError

_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "pytorch_lora_weights.bin")
_NETWORKS = ("unet", "transformer")
_OTHER = {"hada_": "LoHa", "lokr_": "LoKr", "dora_scale": "DoRA", "magnitude_vector": "DoRA", "oft_": "OFT"}
_READERS = {
    "FluxTransformer2DModel": "FluxLoraLoaderMixin",
    "SD3Transformer2DModel": "SD3LoraLoaderMixin",
    "UNet2DConditionModel": "StableDiffusionLoraLoaderMixin",
}


@dataclass
class LowRank:
    """One layer's addition: ``down`` [r, in, ...], ``up`` [out, r, ...], multiplied by ``factor``."""

    down: Tensor
    up: Tensor
    factor: float

    def product(self, like: Tensor) -> Tensor:
        """What is added to a weight of the shape of ``like``, in float32."""
        return self.factor * (self.up.float().flatten(1) @ self.down.float().flatten(1)).reshape(like.shape)


class Lora:
    """A file's additions, read once and added to one network after another, as these are loaded.

    Args:
        file: ``.safetensors`` or ``.bin``, or a folder with one of the usual names.
        network: the denoiser's name in the pipeline, ``unet`` or ``transformer``.
        model: the denoiser, whose kind settles how names are to be read.
        parts: the names of all parts that the pipeline has.
        scale: multiplies what the file adds.

    Raises:
        UserError: the file is missing, no LoRA, or was made for a model with other parts.
    """

    def __init__(self, file: Path, network: str, model: Any, parts: Iterable[str], scale: float = 1.0) -> None:
        self.file, self.scale = _located(file), scale
        self.found = read_lora(self.file, network, model)
        lost = sorted({key.partition(".")[0] for key in self.found} - {*parts})
        if lost:
            raise UserError(f"{file} is a LoRA of another model: it changes {', '.join(lost)}, which this one lacks")

    @property
    def identity(self) -> list[Any]:
        """What changes whenever the additions do."""
        about = self.file.stat()
        return [str(self.file.resolve()), about.st_size, about.st_mtime_ns, self.scale]

    @torch.no_grad()
    def add(self, part: str, model: Any) -> Any:
        """``model``, which is the pipeline's ``part``, with its additions, in place.

        Raises:
            UserError: a layer is not there, or of another shape.
        """
        mine = {key: low for key, low in self.found.items() if key.startswith(f"{part}.")}
        layers = {key: _layer(model, key.partition(".")[2]) for key in mine}
        lost = [key for key, layer in layers.items() if layer is None]
        if lost:
            raise UserError(
                f"{self.file} is a LoRA of another model: {len(lost)} of its {len(mine)} layers of {part}, such as "
                f"{lost[0]}, are not in this one"
            )
        for key, layer in layers.items():
            _check_shape(self.file, key, layer, mine[key])
        for key, layer in layers.items():
            layer.weight += self.scale * mine[key].product(layer.weight).to(layer.weight)
        return model


def read_lora(file: Path, network: str, model: Any) -> dict[str, LowRank]:
    """The additions of a file by layer, ``unet.mid_block….to_q``; ``model`` settles how names are to be read."""
    state, alphas, general = _read(file, model)
    _refuse_others(file, " ".join(state))
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, _, end = _named(key, network).partition(".lora_")
        if end in ("A.weight", "B.weight"):
            (downs if end[0] == "A" else ups)[layer] = value
    if not downs or downs.keys() != ups.keys():
        raise UserError(f"{file} holds no LoRA weights (down and up, or A and B, of each layer)")
    known = {_named(k.removesuffix(".alpha"), network).partition(".lora_")[0]: float(v) for k, v in alphas.items()}
    return {
        layer: LowRank(down, ups[layer], _factor(known.get(layer), general.get(layer.partition(".")[0], {}), down))
        for layer, down in downs.items()
    }


def _refuse_others(file: Path, names: str) -> None:
    kinds = [kind for word, kind in _OTHER.items() if word in names]
    if kinds:
        raise UserError(f"{file} holds {kinds[0]} weights; only plain LoRA is read (down and up, or A and B)")


def _factor(alpha: float | None, general: Mapping[str, Any], down: Tensor) -> float:
    rank = len(down)
    alpha = general.get("lora_alpha") if alpha is None else alpha
    return 1.0 if alpha is None else float(alpha) / (rank**0.5 if general.get("use_rslora") else rank)


def _read(file: Path, model: Any) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, dict[str, Any]]]:
    """Tensors, alphas by layer, and PEFT's settings by part (those of a whole file under every name)."""
    import diffusers.loaders as loaders

    reader = getattr(loaders, _READERS.get(type(model).__name__, "StableDiffusionLoraLoaderMixin"))
    more = {"unet_config": model.config} if "StableDiffusion" in reader.__name__ else {"return_alphas": True}
    if "SD3" in reader.__name__:
        more = {}
    try:
        found = reader.lora_state_dict(str(file.parent), weight_name=file.name, return_lora_metadata=True, **more)
    except Exception as error:  # the reader has no error of its own: what it cannot read is no LoRA of this family
        _refuse_others(file, str(error))
        what = str(error).strip().splitlines()[0][:120]
        raise UserError(f"{file} cannot be read as a LoRA: {what}") from error
    state, *others, metadata = found
    alphas = {k: float(v) for k, v in state.items() if k.endswith(".alpha")} | ((others or [None])[0] or {})
    general: dict[str, dict[str, Any]] = {}
    for key, value in (metadata or {}).items():
        part, _, setting = key.partition(".")
        general.setdefault(part, {})[setting] = value
    settings = file.parent / "adapter_config.json"
    if settings.is_file() and file.name.startswith("adapter_model"):
        general |= dict.fromkeys(_NETWORKS, json.loads(settings.read_text(encoding="utf-8")))
    return state, alphas, general


def _named(key: str, network: str) -> str:
    """A key in PEFT's layout, with the pipeline's part in front: ``unet.….to_q.lora_A.weight``."""
    from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
    from diffusers.utils.state_dict_utils import StateDictType

    key = key.replace(".default.", ".")
    if key.startswith("base_model.model."):
        key = key.removeprefix("base_model.model.")
    if not key.startswith((f"{network}.", "text_encoder.", "text_encoder_2.", "text_encoder_3.")):
        key = f"{network}.{key}"
    part = key.partition(".")[0]
    if part == network:
        (key,) = convert_unet_state_dict_to_peft({key: None})
    else:
        (key,) = convert_state_dict_to_peft({key: None}, StateDictType.DIFFUSERS_OLD)
    return str(key)


def _layer(model: nn.Module, name: str) -> Any:
    """The layer of that name; text towers have their layers under ``text_model`` or not, by transformers' version."""
    for candidate in (name, name.removeprefix("text_model."), f"text_model.{name}"):
        try:
            layer = model.get_submodule(candidate)
        except AttributeError:
            continue
        return layer if isinstance(getattr(layer, "weight", None), Tensor) else None
    return None


def _check_shape(file: Path, key: str, layer: Any, low: LowRank) -> None:
    wanted = list(layer.weight.shape)
    given = [low.up.shape[0], *low.down.shape[1:]]
    if given[:2] != wanted[:2] or low.up.shape[0] * low.down[0].numel() != layer.weight.numel():
        raise UserError(f"{file} is a LoRA of another model: {key} is {wanted} here, and {given} in the file")


def _located(file: Path) -> Path:
    file = file.expanduser()
    if file.is_dir():
        inside = [file / name for name in _FILES if (file / name).is_file()] or sorted(file.glob("*.safetensors"))
        if len(inside) == 0:
            raise UserError(f"lora: the folder {file} holds no {_FILES[0]}")
        return inside[0]
    if not file.is_file():
        raise UserError(f"lora: there is no file {file}")
    return file
