"""The embedded prior: a small latent diffusion model of the procedural objects, loaded as Stable Diffusion is."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field

from core.config.base import Config as BaseConfig
from core.contracts import Away, Context
from core.diffusion.latent import LatentPrior, load_parts
from core.precision import settled_dtype
from core.types import Cameras, Condition, Views
from plugins.embedded.camera import embed_camera, no_camera
from plugins.embedded.family import family_folder, part
from plugins.embedded.tokenizer import unknown_words

log = logging.getLogger("maquette")

Precision = Literal["auto", "float32", "bfloat16"]


class FamilyConfig(BaseConfig):
    """What the family's priors have in common."""

    family: str = "built-in"
    """Folder of the family, or `built-in`."""
    precision: Precision = "auto"
    """Arithmetic of the UNet; auto is bfloat16 where the machine multiplies it in hardware, else float32."""


class Embedded(LatentPrior):
    """64x64 pictures, 16x16 latents; told the viewpoint as a vector (default) or, plain, by view words alone."""

    class Config(FamilyConfig):
        camera: bool = True
        """Tell the UNet the azimuth and elevation of each view; false makes it the plain text-to-image prior."""
        camera_guidance: float = Field(default=0.0, ge=0)
        """How much guidance also leads away from the same text told no viewpoint, as a share of its scale: sides
        differ more, for half as much time again. Composed conditions (Liu et al. 2022, eq. 11), without what text and
        viewpoint share (as Perp-Neg)."""

    @classmethod
    def signals(cls, options: Any) -> tuple[list[str], list[str]] | None:
        return (["rgb", "text", "camera"] if options.camera else ["rgb", "text"]), ["latent"]

    def __init__(self, options: Config, context: Context) -> None:
        part(options.family, "unet", "embedded-unet")
        folder = family_folder(options.family)
        dtype = settled_dtype(options.precision, context.device)
        super().__init__(options, context, load_parts(str(folder)), dtype=dtype)
        self.words = json.loads((folder / "tokenizer" / "words.json").read_text())
        self._warned: set[str] = set()

    @classmethod
    def space(cls, options: Any, context: Context) -> tuple[int, int, int]:
        part(options.family, "unet", "embedded-unet")
        return cls.space_of(str(family_folder(options.family)))

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Views | None = None) -> Condition:
        for text in dict.fromkeys(texts):
            self._warn(text)
        told = super().condition(texts)
        if self.options.camera and cameras is not None:
            camera = embed_camera(cameras.azimuth, cameras.elevation)
        else:
            camera = no_camera(len(texts), told.text.device)  # type: ignore[union-attr]
        return Condition(text=told.text, camera=camera)

    def away(self, told: Condition, untold: Condition) -> list[Away]:
        """The same texts told no viewpoint, where ``camera_guidance`` asks for it."""
        o = self.options
        if not (o.camera and o.camera_guidance):
            return []
        camera: Any = told.camera
        blind = no_camera(len(camera), camera.device)
        return [Away(replace(told, camera=blind), torch.full((len(camera),), o.camera_guidance, device=camera.device))]

    def _warn(self, text: str) -> None:
        text = " ".join(w for w in text.split() if w.strip(",") not in self.tokenizer.get_added_vocab())
        unknown = [w for w in unknown_words(text, self.words) if w not in self._warned]
        if unknown:
            self._warned.update(unknown)
            log.warning(
                "the embedded prior never saw the word%s %s; it knows objects such as %s. For anything else use a "
                "large model, as docs/large-models.md shows: run dreamfusion-sd guidance.0.prior.model=FOLDER",
                "s" if len(unknown) > 1 else "",
                ", ".join(repr(w) for w in unknown),
                ", ".join(_kinds(self.words)),
            )


def _kinds(words: list[str]) -> list[str]:
    """A handful of nouns the prior knows, for the warning."""
    shown = ("corgi", "castle", "car", "chair", "mug", "teapot", "airplane", "rocket", "tree", "snowman", "house")
    return [w for w in shown if w in words]
