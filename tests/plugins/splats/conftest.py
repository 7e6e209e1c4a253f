"""A small set of splats, a scene of them, and a task that fits one to pictures."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
