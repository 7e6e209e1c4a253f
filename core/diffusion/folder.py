"""Pipelines in diffusers' folder format: found, checked before anything heavy is loaded, and read part by part."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError

if TYPE_CHECKING:
    import torch

    from core.contracts import Context

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
_VOCABULARIES = ("vocab.json", "tokenizer.json", "spiece.model", "tokenizer.model")
_UNUSED = {"safety_checker": None, "feature_extractor": None, "image_encoder": None, "watermarker": None}


@dataclass(frozen=True)
class Pipeline:
    """An opened pipeline folder, whose parts are yet to be loaded.

    Attributes:
        source: as the user named it.  folder: where it lies.
        kinds: the parts that are needed, each with the class that reads it (``"library.Class"``); schedulers are read
            by the class that the index names.
        index: ``model_index.json``, empty where there is none.
        variant: which weight files are taken where a part has them (``fp16``).
    """

    source: str
    folder: Path
    kinds: Mapping[str, str]
    index: Mapping[str, Any] = field(default_factory=dict)
    variant: str | None = None

    def load(self, name: str, dtype: torch.dtype | None = None, folder: Path | None = None) -> Any:
        """The part ``name``; networks in evaluation mode, frozen.

        Args:
            dtype: of a network's weights.  folder: another folder that holds this part.

        Raises:
            UserError: it cannot be read, with the reason.
        """
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # it would break the status line
        place = (folder or self.folder) / name
        more: dict[str, Any] = {} if dtype is None else {"torch_dtype": dtype}
        if self.variant and any(place.glob(f"*.{self.variant}*")):
            more["variant"] = self.variant
        try:
            part = self._loader(name).from_pretrained(str(place), **more)
        except Exception as error:  # each reader has its own kinds, all of which mean the same here
            raise UserError(f"cannot load {name} of '{self.source}': {_first_line(error)}") from error
        return part.eval().requires_grad_(False) if hasattr(part, "requires_grad_") else part

    def config(self, name: str) -> dict[str, Any]:
        """The configuration of a network."""
        return _json(self.folder / name / "config.json")

    def identity(self, names: Iterable[str]) -> list[Any]:
        """What changes whenever the files of these parts do: their paths, sizes and times."""
        files = [f for name in names for f in sorted((self.folder / name).glob("*")) if f.is_file()]
        return [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]

    def _loader(self, name: str) -> Any:
        """The usual class; of a scheduler the one that the index names, if it is one of diffusers."""
        given = self.index.get(name) if name == "scheduler" else None
        if isinstance(given, list) and len(given) == 2 and given[0] == "diffusers":
            found = getattr(importlib.import_module(given[0]), str(given[1]), None)
            if found is not None:
                return found
        library, _, kind = self.kinds[name].rpartition(".")
        return getattr(importlib.import_module(library), kind)


def open_pipeline(
    source: str,
    kinds: Mapping[str, str],
    accepts: Iterable[str] = (),
    context: Context | None = None,
    variant: str | None = None,
    revision: str | None = None,
    optional: Iterable[str] = (),
) -> Pipeline:
    """Find a pipeline and check, without loading anything, that it is one of the right kind, whole and undamaged.

    Args:
        source: a local folder, or a name on the hub, which is downloaded to the hub's cache.
        kinds: the parts that are needed (see :class:`Pipeline`).  optional: which of them may be absent.
        accepts: the pipeline classes that fit; empty takes any that has the parts.
        context: whose registry knows which prior reads a folder of another pipeline.
        variant, revision: of the weights, as the hub calls them.

    Raises:
        UserError: one sentence with what is wrong and what to do.
    """
    folder = located(source, variant, revision)
    index_file = folder / "model_index.json"
    index = _json(index_file) if index_file.is_file() else {}
    found = index.get("_class_name")
    found = found[-1] if isinstance(found, list) else found
    if found and accepts and found not in accepts:
        raise UserError(f"{source} holds a {found}, not a {_either(accepts)}{_better(str(found), context)}")
    absent = [p for p in kinds if not (folder / p).is_dir()]
    missing = [p for p in absent if p not in optional]
    if missing:
        raise UserError(f"{source} is no diffusers pipeline folder: it lacks {', '.join(missing)}")
    needed = {p: kind for p, kind in kinds.items() if p not in absent}
    for name in needed:
        _check_part(source, folder / name, variant)
    return Pipeline(source, folder, needed, index, variant)


def located(source: str, variant: str | None = None, revision: str | None = None) -> Path:
    """The folder of a pipeline: as it is, or in the hub's cache, downloaded first where that is allowed.

    Raises:
        UserError: there is no such folder and the hub cannot give it.
    """
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    if local.exists():
        raise UserError(f"{source} is a file; this prior reads folders in diffusers' format, with a model_index.json")
    if not _HUB_NAME.fullmatch(source):
        raise UserError(f"there is no folder {source}, and it is no name on the hub either (owner/name)")
    from core.diffusion import hub

    place = hub.Place(source)
    if revision is None:
        here = hub.reach(place)
        if here is not None:
            return here
    from diffusers import DiffusionPipeline

    named = {key: value for key, value in (("variant", variant), ("revision", revision)) if value is not None}
    try:
        return Path(DiffusionPipeline.download(source, **named, **_UNUSED))
    except (OSError, ValueError) as error:  # every error of the hub's client is one of these
        raise UserError(hub.reason(place, error)) from error


def open_network(source: str, kind: str, dtype: torch.dtype | None = None) -> Any:
    """A network that is a folder or a repository of its own (a ControlNet), in evaluation mode, frozen.

    Args:
        kind: ``"library.Class"``, which reads it.

    Raises:
        UserError: it is missing, damaged, or another kind of network.
    """
    from core.diffusion import hub

    library, _, name = kind.rpartition(".")
    local, place = Path(source).expanduser(), source
    if local.is_dir():
        found = _json(local / "config.json").get("_class_name", name)
        if found != name:
            raise UserError(f"{source} holds a {found}, not a {name}")
        _check_part(source, local, None)
        place = str(local)
    elif not _HUB_NAME.fullmatch(source):
        raise UserError(f"there is no folder {source}, and it is no name on the hub either (owner/name)")
    else:
        place = str(hub.reach(hub.Place(source, "config.json")) or source)
    try:
        network = getattr(importlib.import_module(library), name).from_pretrained(place, torch_dtype=dtype)
    except Exception as error:  # as in Pipeline.load
        raise UserError(f"cannot load '{source}': {_first_line(error)}") from error
    return network.eval().requires_grad_(False)


def network_config(source: str, name: str, revision: str | None = None) -> dict[str, Any]:
    """The configuration of one part alone; of a hub's model nothing else is downloaded.

    Raises:
        UserError: it cannot be had.
    """
    local = Path(source).expanduser()
    if local.exists() or not _HUB_NAME.fullmatch(source):
        return _json(located(source) / name / "config.json")
    from huggingface_hub import hf_hub_download

    from core.diffusion import hub

    try:
        return _json(Path(hf_hub_download(source, f"{name}/config.json", revision=revision)))
    except (OSError, ValueError) as error:
        raise UserError(hub.reason(hub.Place(source, f"{name}/config.json"), error)) from error


def _check_part(source: str, place: Path, variant: str | None) -> None:
    """A tokenizer needs its vocabulary; weights must not be cut short."""
    if place.name.startswith("tokenizer"):
        found = {name for name in _VOCABULARIES if (place / name).is_file()}
        if not found:
            raise UserError(f"{source}: {place.name} holds neither {' nor '.join(_VOCABULARIES[:2])}")
        if found <= set(_VOCABULARIES[2:]) and find_spec("sentencepiece") is None:
            raise UserError(
                f"{source}: reading {place.name}/{min(found)} needs sentencepiece: pip install sentencepiece"
            )
    files = list(place.glob("*.safetensors"))
    plain = [f for f in files if f.name.count(".") == 1]
    special = [f for f in files if variant and f".{variant}" in f.name]
    if files and not plain and not special:
        variants = sorted({f.name.split(".")[1].partition("-")[0] for f in files})
        raise UserError(
            f"{source}: {place.name} holds only the variant {', '.join(variants)}; set variant={variants[0]}"
        )
    for file in special or plain:
        if not whole(file):
            raise UserError(
                f"cannot load {place.name} of '{source}': {file.name} is damaged or only half written; delete it and "
                "fetch it again (hf download NAME --force-download)"
            )


def whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says: a broken download is not."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 + length:
            return False
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)


def _better(found: str, context: Context | None) -> str:
    """``; load it with prior 'x'`` where a registered prior reads this class."""
    registry = None if context is None else context.parts.get("registry")
    names = []
    for entry in () if registry is None else registry.entries("prior"):
        try:
            accepts = getattr(entry.load(), "pipelines", ())
        except UserError:
            continue  # a plugin that cannot be imported is no help here
        if found in accepts:
            names.append(f"'{entry.name}'")
    return f"; load it with the prior {' or '.join(names)}" if names else "; no prior here reads that"


def _either(names: Iterable[str]) -> str:
    return " or ".join(names)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no JSON object")
    return content
