"""Makes the pictures at the top of the README: ``make gallery``.

Lifts the three showcase prompts with the default preset and copies the colour and depth pictures of each into
``docs/gallery``; prints how long each job took and on what machine.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from core.cli.environment import prepare

PROMPTS = ("a standing corgi dog", "a castle on a hill", "a race car")
ROOT = Path(__file__).parent.parent


def main() -> None:
    """Lift, export, copy."""
    prepare()
    from core.config.loading import load_job
    from core.discovery import get_registry
    from core.job import run_job

    registry = get_registry()
    into = ROOT / "docs" / "gallery"
    into.mkdir(parents=True, exist_ok=True)
    for prompt in PROMPTS:
        start = time.perf_counter()
        run = run_job(load_job("text-to-3d", [], registry, {"prompt": prompt}), registry)
        for picture in sorted(run.assets.glob("*.png")):
            if picture.stem.endswith(("-rgb", "-depth", "-sheet")):
                shutil.copy(picture, into / picture.name)
        print(f"{prompt}: {time.perf_counter() - start:.0f} s, {run.assets}")


if __name__ == "__main__":
    main()
