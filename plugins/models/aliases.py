"""Aliases: a local folder first, then mirrors in the cache, then mirrors on the hub, each in the order of the table."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib import resources
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from core.diffusion.hub import INDEX, Place, cached, reach, unfinished
from core.errors import UserError, did_you_mean
from core.registry import ModelInfo

log = logging.getLogger("maquette")

VARIABLE = "MAQUETTE_MODELS"
"""Names a folder of models: ``$MAQUETTE_MODELS/sd15`` is taken before any mirror."""


class Alias(BaseModel):
    """One entry of ``aliases.yaml``, which says what the fields mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    about: str
    prior: str | None
    licence: str
    size: float
    mirrors: tuple[str, ...]
    withdrawn: tuple[str, ...] = ()
    file: str = INDEX

    @property
    def places(self) -> list[Place]:
        """Its mirrors, in order."""
        split = [mirror.partition(":") for mirror in self.mirrors]
        return [Place(repo, file or self.file) for repo, _, file in split]


@cache
def aliases() -> dict[str, Alias]:
    """All aliases by name."""
    text = resources.files("plugins.models").joinpath("aliases.yaml").read_text(encoding="utf-8")
    return {name: Alias(name=name, **entry) for name, entry in yaml.safe_load(text).items()}


def resolve(model_id: str) -> str | None:
    """A folder, a file or a repository's name for an alias or a withdrawn repository; None for any other name.

    Raises:
        UserError: the alias cannot be had, with the reason and what to do; or the name is nearly one.
    """
    alias = aliases().get(model_id) or _gone().get(model_id)
    if alias is None:
        _refuse_misspelt(model_id)
        return None
    if model_id in alias.withdrawn:
        log.info("'%s' was withdrawn from the hub; taking '%s' instead", model_id, alias.name)
    local = local_copy(alias)
    if local is not None:
        return str(local)
    ready = [place for place in alias.places if (here := cached(place)) is not None and not unfinished(here)]
    reasons = []
    for place in ready or alias.places:
        try:
            return str(reach(place) or place.repo)
        except UserError as error:
            reasons.append(str(error))
    tried = f" (tried {', '.join(p.repo for p in alias.places)})" if len(reasons) > 1 else ""
    raise UserError(f"{alias.name}{tried}: {_telling(reasons)}; a folder ${VARIABLE}/{alias.name} would be taken first")


def _telling(reasons: list[str]) -> str:
    """The reason that says most: a licence to accept before a network to repair before a name that is gone."""
    for word in (" is gated", " is incomplete"):
        found = [reason for reason in reasons if word in reason]
        if found:
            return found[0]
    return reasons[-1] if " not on the hub" in reasons[0] else reasons[0]


def local_copy(alias: Alias) -> Path | None:
    """Its folder (or its checkpoint) in ``$MAQUETTE_MODELS``."""
    root = os.environ.get(VARIABLE)
    if not root:
        return None
    names = [alias.name, *(place.file for place in alias.places if place.single)]
    return next((path for name in names if (path := Path(root).expanduser() / name).exists()), None)


def _gone() -> dict[str, Alias]:
    return {repo: alias for alias in aliases().values() for repo in alias.withdrawn}


def _refuse_misspelt(model_id: str) -> None:
    if "/" in model_id or "\\" in model_id or Path(model_id).suffix:
        return
    nearest = did_you_mean(model_id, aliases())
    if "Did you mean" in nearest:
        raise UserError(f"there is no folder and no model called '{model_id}'.{nearest}")


def listing() -> list[ModelInfo]:
    """All aliases, with where each is on this machine."""
    return [_info(alias) for alias in aliases().values()]


def _info(alias: Alias) -> ModelInfo:
    local = local_copy(alias)
    found = [] if local is not None else [here for place in alias.places if (here := cached(place)) is not None]
    here = local or next((folder for folder in found if not unfinished(folder)), None)
    state = str(here) if here is not None else ("an incomplete download" if found else "")
    return ModelInfo(
        alias.name, alias.about, alias.prior or "", alias.licence, f"{alias.size:g} GB", alias.mirrors,
        alias.withdrawn, state, alias.places[0].command,
    )  # fmt: skip
