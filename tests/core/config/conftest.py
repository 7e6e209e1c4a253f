"""A small family of components to configure; none of them computes anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from core.config.base import ComponentSpec, Config, Slot
from core.config.job import Job
from core.config.loading import load_job
from core.config.schedule import Schedule
from core.errors import ConfigError
from core.registry import PluginInfo, Registrar, Registry


class Part:
    """Keeps what it was built with."""

    Config: type[Config] = Config

    def __init__(self, options: Any, context: Any) -> None:
        self.options, self.context = options, context


class Grid(Part):
    class Config(Config):
        levels: int = Field(default=12, ge=1, le=32)
        """Number of resolutions. Coarse to fine."""
        growth: float = Field(default=1.5, gt=1)
        size: tuple[int, int] = (64, 64)
        smooth: bool = False
        file: Path | None = None
        reach: float | Literal["auto"] = "auto"


class Mlp(Part):
    class Config(Config):
        width: int = 64
        """Neurons per layer."""
        near: float = 0.1
        far: float = 4.0

        @model_validator(mode="after")
        def _ordered(self) -> Mlp.Config:
            if self.near >= self.far:
                raise ValueError(f"near ({self.near:g}) must be less than far ({self.far:g})")
            return self


class Volume(Part):
    class Config(Config):
        samples: int = 32
        normals: bool = False

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]]:
        return ["density"], ["rgb", "opacity", *(["normal"] if options.normals else [])]


class Sds(Part):
    class Config(Config):
        scale: float = 6.0
        noise: Schedule = Schedule.parse({"from": 0.98, "to": 0.02})


class Prior(Part):
    class Config(Config):
        model: str
        """A public model's name."""
        backup: Annotated[ComponentSpec, Slot("prior")] | None = None


class Guidance(Config):
    prior: Annotated[ComponentSpec, Slot("prior")]
    """What knows what things look like."""
    score: Annotated[ComponentSpec, Slot("score")] = Field(default="sds", validate_default=False)
    weight: Schedule = Schedule([(0, 1.0)])


class Lift(Part):
    class Config(Config):
        prompt: str = ""
        """The sentence."""
        negative: str | None = None
        image: Path | None = None
        tags: list[str] = []
        geometry: Annotated[ComponentSpec, Slot("geometry")]
        """The representation."""
        renderer: Annotated[ComponentSpec, Slot("renderer")] | None = None
        guidance: list[Guidance] = []
        losses: Annotated[dict[str, Schedule], Slot("loss")] = {}
        extras: dict[str, Any] = {}


class Fit(Part):
    class Config(Config):
        rounds: int


class Note(Part):
    class Config(Config):
        text: str = ""


def sparsity() -> None:
    """A loss."""


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    toys = Registrar("toys")
    here = f"{__name__}:"
    toys.add("task", "lift", here + "Lift", "lift")
    toys.add("task", "fit", here + "Fit", "fit")
    toys.add("geometry", "grid", here + "Grid", "grid", gives=["density"])
    toys.add("geometry", "mlp", here + "Mlp", "mlp", gives=["density"])
    toys.add("renderer", "volume", here + "Volume", "rays", needs=["density"], gives=["rgb", "opacity"])
    toys.add("score", "sds", here + "Sds", "sds", needs=["rgb|latent"])
    toys.add("prior", "tiny", here + "Prior", "prior", needs=["text"])
    toys.add("loss", "sparsity", here + "sparsity", "few", needs=["opacity"])
    toys.add("loss", "orient", here + "sparsity", "facing", needs=["normal"])
    toys.add("listener", "note", here + "Note", "note")
    toys.add("metric", "broken", "no.such.module:Thing", "lost", extra="diffusion")
    made.adopt(PluginInfo("toys", "folder"), toys.entries)
    other = Registrar("other")
    other.add("geometry", "mlp", here + "Mlp", "another mlp", gives=["density"])
    made.adopt(PluginInfo("other", "folder"), other.entries)
    made.adopt(PluginInfo("gone", "folder", status="failed", reason="it is broken", offers=(("geometry", "voxels"),)))
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test: messages name its files by their own names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def load(folder: Path, registry: Registry) -> Callable[..., Job]:
    """``load(text, *overrides)``: writes ``job.yaml`` and loads it."""

    def _load(text: str, *overrides: str, **more: Any) -> Job:
        (folder / "job.yaml").write_text(text, encoding="utf-8")
        return load_job("job.yaml", overrides, registry, **more)

    return _load


@pytest.fixture
def problems(load: Callable[..., Job]) -> Callable[..., list[str]]:
    """Like ``load`` for a job that must be refused: its problems."""

    def _problems(text: str, *overrides: str, **more: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides, **more)
        return caught.value.problems

    return _problems
