"""What evaluations share: folders of their runs, their settings, rows of pictures, the machine in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch
import yaml

from core.errors import UserError


def fresh(folder: Path) -> Path:
    """``folder``, or the first free ``folder-2``, ``folder-3`` …"""
    count, free = 1, folder
    while free.exists():
        count += 1
        free = folder.with_name(f"{folder.name}-{count}")
    return free


def save_views(rgb: torch.Tensor, path: Path) -> None:
    """[B, H, W, 3] in [0, 1] as one row."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    row = torch.cat(list(rgb.clamp(0, 1).cpu()), 1)
    Image.fromarray((row * 255).byte().numpy()).save(path)


def read_yaml(file: Path) -> Any:
    """What a YAML file holds.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(f"{file} cannot be read: {reason}") from None


def save_grid(rows: list[torch.Tensor], path: Path) -> None:
    """Rows of pictures [B, H, W, 3] in [0, 1], all of the same number."""
    save_views(torch.cat(rows, 1) if len({len(r) for r in rows}) == 1 else torch.cat(rows), path)


def machine() -> str:
    """The machine in a few words."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
