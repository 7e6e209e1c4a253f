"""``python -m plugins.unclip SOURCE TARGET --clip FOLDER``: Karlo's original checkpoints to a folder in its layout."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from core.errors import UserError

_FILES = {"prior": "prior*.ckpt", "decoder": "decoder*.ckpt", "upsampler": "*sr*.ckpt", "statistics": "*stats*.th"}


def read(source: Path, what: str) -> Any:
    """What the checkpoint of a part holds, read without running anything in it.

    Raises:
        UserError: it is missing, damaged, or would run code.
    """
    found = sorted(source.glob(_FILES[what]))
    if not found:
        raise UserError(f"{source} has no {_FILES[what]}: the {what} of Karlo's original release")
    try:
        held = torch.load(found[0], map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{found[0]} is damaged, or holds more than tensors: {reason}") from error
    return held.get("state_dict", held) if isinstance(held, dict) else held


def converted(source: Path, tower: Any, options: Any) -> dict[str, Any]:
    """The networks of ``source`` by name, of the sizes that ``options`` (of the generator) say.

    Raises:
        UserError: a file is missing or another model's.
    """
    from plugins.unclip.karlo_layout import from_karlo
    from plugins.unclip.networks import PARTS, build_part

    networks: dict[str, Any] = {}
    mean, std = read(source, "statistics")
    for part, names in PARTS.items():
        state: dict[str, Tensor] = read(source, part)
        for name in (*names, "super_res_last") if part == "upsampler" else names:
            with torch.device("meta"):
                empty = build_part(part, options, tower.width, tower.length)
                network: Any = empty[names[0] if name == "super_res_last" else name]
            made = from_karlo(name, network, state, (mean, std) if name == "prior" else None)
            network.load_state_dict(made, assign=True)
            networks[name] = network
    return networks


def convert(
    source: Annotated[Path, typer.Argument(help="A folder with Karlo's original checkpoints.")],
    target: Annotated[Path, typer.Argument(help="The folder to write.")],
    clip: Annotated[Path, typer.Option(help="A folder with CLIP ViT-L/14 in transformers' format.")],
    preset: Annotated[str, typer.Option(help="The job whose sizes the checkpoints have.")] = "unclip-paper",
) -> None:
    """Convert Karlo's original checkpoints."""
    from core.config.loading import load_job
    from core.discovery import get_registry
    from plugins.unclip.folder import Family, save_family
    from plugins.unclip.networks import build_schedulers
    from plugins.unclip.tower import Tower

    try:
        options = load_job(preset, [], get_registry()).stages[0].task.options
        tower = Tower.of_clip(clip)
        networks = converted(source, tower, options)
    except UserError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    print(save_family(Family(tower, networks, build_schedulers(options.prior.clip)), target))


if __name__ == "__main__":
    typer.run(convert)
