"""The family's model card, written from what the fits and ``eval embedded`` recorded in ``card.json``."""

from __future__ import annotations

import json
from typing import Any

from core.job import settled_precision
from plugins.embedded.family import family_folder

_PARTS = {
    "vae": "AutoencoderKL: 64x64 pictures to 16x16 latents of 8 channels",
    "clip": "CLIP: text and vision towers; the text tower is also `text_encoder/`",
    "unet": "UNet2DConditionModel: v-prediction under text and, optionally, the camera",
    "sight": "What a picture shows and from where, on latents",
    "zero123": "Zero-1-to-3, small: `unet/` and `cc_projection/`; the other parts are the family's",
    "multi_view": "Four views at once, from text or a picture: a UNet whose self-attention joins the views",
    "classifier": "The judge of evaluations: category, colour and view; trained on a pool of its own",
}
_HEAD = """---
license: apache-2.0
library_name: diffusers
---

# The embedded family

Small diffusion priors that ship with Maquette: a diffusers pipeline folder trained from nothing on the project's own
procedural objects (29 categories, 12 colours, 3 materials). No other data went in. It draws toy-like single objects on
a grey background and knows no other words; `tokenizer/words.json` lists those it knows.

Made by `python launch.py fit embedded-autoencoder`, `embedded-clip`, `embedded-unet`, `embedded-sight`,
`embedded-zero123`, `embedded-multiview` and `embedded-classifier`;
the figures are from `python launch.py eval embedded --card`. Splits: `test` are unseen objects, `heldout` are pairs of
category and colour that no training picture shows.
"""


def write_card(family: str) -> None:
    """``README.md`` beside ``card.json``."""
    folder = family_folder(family)
    facts: dict[str, dict[str, Any]] = json.loads((folder / "card.json").read_text())
    lines = [_HEAD]
    for name, title in _PARTS.items():
        lines.append(f"\n## `{name}/`\n\n{title}.\n\n| | |\n|---|---|\n")
        lines += [f"| {key.replace('_', ' ')} | {value} |\n" for key, value in sorted(facts.get(name, {}).items())]
    (folder / "README.md").write_text("".join(lines))


def training_facts(run: Any, task: Any) -> dict[str, Any]:
    """Steps, batch and pool of a run, for the card; empty when there is no run."""
    if run is None:
        return {}
    return {
        "steps": sum(stage.config.steps for stage in run.job.stages),
        "batch": task.data.options.batch,
        "pictures_in_pool": task.data.options.images,
        "precision": settled_precision(run.job.config),
    }
