"""The command line, for ``launch.py`` and the console script ``maquette``: ``core.cli:main``.

Exit codes: 0 done; 1 a fault of the program; 2 a user's mistake; 130 interrupted.
"""

from __future__ import annotations

from core.cli.entry import main

__all__ = ["main"]
