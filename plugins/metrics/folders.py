"""What evaluations share: folders of their runs, rows of pictures, the machine in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


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


def machine() -> str:
    """The machine in a few words."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
