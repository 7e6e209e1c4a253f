"""Maquette from a checkout: ``python launch.py text "a red mug"``. Installed, the program is called ``maquette``."""

from __future__ import annotations

import sys

from core.cli import main

if __name__ == "__main__":
    sys.exit(main())
