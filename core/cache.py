"""Where what is made once and used again is kept on disk."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(*within: str) -> Path:
    """``MAQUETTE_CACHE``, else ``~/.cache/maquette``, or a folder in it; it need not exist yet."""
    return Path(os.environ.get("MAQUETTE_CACHE", Path.home() / ".cache" / "maquette")).joinpath(*within)
