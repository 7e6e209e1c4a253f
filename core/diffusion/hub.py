"""Repositories of the Hugging Face hub: what of them is on this machine, and in one sentence why one can't be had.

Nothing is downloaded here but the one file that tells whether a repository answers; weights come with the libraries'
own ``from_pretrained``. ``HF_HUB_OFFLINE`` and ``TRANSFORMERS_OFFLINE`` are honoured: then only the cache is asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError

INDEX = "model_index.json"
"""What a diffusers pipeline begins with; parts alone have a ``config.json``."""
_WEIGHTS = ("*.safetensors", "*.bin", "*.ckpt", "*.pt")
_LIGHT = ("tokenizer", "scheduler", "feature_extractor", "image_processor")


@dataclass(frozen=True)
class Place:
    """A repository and the file that must be there first.

    Attributes:
        repo: ``owner/name``.  file: its index, or the checkpoint itself where it is a single file.
    """

    repo: str
    file: str = INDEX

    @property
    def single(self) -> bool:
        """Whether the file is all that is wanted."""
        return not self.file.endswith(".json")

    @property
    def command(self) -> str:
        """What downloads it."""
        return f"hf download {self.repo}" + (f" {self.file}" if self.single else "")


def offline() -> bool:
    """Whether the environment forbids the network."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def cached(place: Place) -> Path | None:
    """The folder of a repository in the hub's cache (of a single file the file); None where it was never fetched."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place.repo, place.file)
    if not isinstance(found, str) or not Path(found).exists():
        return None
    return Path(found) if place.single else Path(found).parent


def unfinished(folder: Path) -> list[str]:
    """The parts of a cached repository that hold no weights or not all of them: a download was cut off.

    A pipeline's parts are those of its index; a repository without an index is one part itself, named ``""``.
    """
    if folder.is_file():
        return []
    index = folder / INDEX
    if not index.is_file():
        return [] if _whole(folder) else [""]
    content = json.loads(index.read_text(encoding="utf-8"))
    parts = [name for name, kind in content.items() if isinstance(kind, list) and kind[0] is not None]
    needed = [name for name in parts if not name.startswith("safety") and not name.endswith(_LIGHT)]
    return [name for name in needed if not _whole(folder / name)]


def _whole(part: Path) -> bool:
    shards = [name for index in part.glob("*.index.json") for name in _shards(index)]
    if shards:
        return all((part / name).exists() for name in shards)
    return any(file.exists() for pattern in _WEIGHTS for file in part.glob(pattern))  # a broken link does not exist


def _shards(index: Path) -> set[str]:
    return set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())


def reach(place: Place) -> Path | None:
    """Make sure that a repository can be loaded: from the cache, else that the hub gives its first file.

    Returns:
        A single file's path, downloaded where needed; the cached folder of others where the network is forbidden; None
        where ``from_pretrained`` will find what it needs by the repository's name.

    Raises:
        UserError: one sentence with the reason and what to do.
    """
    here = cached(place)
    lacking = unfinished(here) if here is not None else []
    if here is not None and not lacking:
        return here if place.single or offline() else None
    if offline():
        if here is None:
            raise UserError(
                f"'{place.repo}' is not in the cache, and HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids the network; "
                f"unset it, or fetch it elsewhere: {place.command}"
            )
        raise UserError(
            f"the copy of '{place.repo}' in the cache is incomplete{_parts(lacking)} and the network is forbidden; go "
            f"online and finish it: {place.command}"
        )
    found = _fetch(place)
    return found if place.single else None


def _parts(lacking: list[str]) -> str:
    named = [name for name in lacking if name]
    return f" ({', '.join(named)} without weights)" if named else " (no weights)"


def _fetch(place: Place) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(place.repo, place.file))
    except (OSError, ValueError) as error:  # every error of the hub's client is one of these
        raise UserError(reason(place, error)) from error


def reason(place: Place, error: Exception) -> str:
    """What an error of the hub's client means, in one sentence with what to do."""
    from huggingface_hub import errors

    repo, status = place.repo, getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"'{repo}' is gated: accept its licence at https://huggingface.co/{repo}, then `hf auth login` and "
            f"`{place.command}`"
        )
    if isinstance(error, (errors.RepositoryNotFoundError, errors.DisabledRepoError, errors.HFValidationError)):
        return f"'{repo}' is not on the hub: it was withdrawn, renamed or is private; give a folder, or another name"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"'{repo}' has no {place.file}, so it is no model of this kind; give the repository of a diffusers model"
    if status is not None:
        return f"the hub answers {status} for '{repo}'; try again later, or give a folder that holds it"
    return (
        f"the hub cannot be reached and '{repo}' is not in the cache; check the network, give a folder that holds it, "
        "or take the embedded prior, which ships"
    )
