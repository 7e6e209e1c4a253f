"""The folder of the embedded family: the parts of a diffusers pipeline, filled fit by fit.

::

    tokenizer/  text_encoder/  clip/  vae/  scheduler/  unet/  classifier/
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from core.ema import Average
from core.errors import UserError

__all__ = ["BACKGROUND", "BUILT_IN", "Average", "family_folder", "part", "record", "save_half"]

BUILT_IN = Path(__file__).parent / "weights"
BACKGROUND = 0.5
"""The grey level behind every picture that the family was trained on."""


def family_folder(name: str) -> Path:
    """``built-in`` is the family that ships; anything else is a path."""
    return BUILT_IN if name == "built-in" else Path(name).expanduser()


def part(family: str, name: str, made_by: str) -> Path:
    """The folder of a part that must exist.

    Raises:
        UserError: naming the fit that makes it.
    """
    folder = family_folder(family) / name
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; it is made by: python launch.py fit {made_by}")
    return folder


def save_half(model: Any, folder: Path) -> None:
    """``save_pretrained`` in float16; the model itself keeps its precision."""
    copy.deepcopy(model).half().save_pretrained(folder, safe_serialization=True)


def record(family: str, name: str, facts: dict[str, Any]) -> None:
    """Keep what is known about a part (data, steps, measured quality) for the model card."""
    path = family_folder(family) / "card.json"
    card = json.loads(path.read_text()) if path.exists() else {}
    card[name] = card.get(name, {}) | facts
    path.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
