"""Whether a job fits the run that it is to go on with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from core import checkpoint
from core.config.dump import dump_yaml
from core.errors import UserError
from core.stages import used_plugins

if TYPE_CHECKING:
    from core.checkpoint import Position
    from core.run import Run

# The rest of a configuration decides what the saved tensors mean, or cannot be told apart from what does.
_FREE = {"name", "output", "keep", "listeners", "plugins", "log_every", "checkpoint_every", "preview_every"}
_TUNING = {"steps", "optimizer", "accumulate", "gradient_clip", "device", "devices", "precision", "losses"}


def find_checkpoint(path: Path) -> Path:
    """The checkpoint meant by a run's folder (its newest) or by a checkpoint's own folder.

    Raises:
        UserError: it is neither, or the run has no checkpoint.
    """
    if (path / "state.json").is_file():
        return path
    if path.parent.name == "checkpoints" and not (path / "checkpoints").is_dir():
        checkpoint.read_position(path)  # says what is wrong with it and which one to take
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path} is not a run (it has no config.yaml) nor one of a run's checkpoints")
    found = checkpoint.list_checkpoints(path / "checkpoints")
    if not found:
        raise UserError(f"{path} has no checkpoint to resume from; start the job anew")
    return found[-1]


def check_resume(run: Run, position: Position, offsets: list[int]) -> list[str]:
    """Warnings, one sentence each, about what differs without harm.

    Args:
        offsets: updates done before each stage of the job, and in all.

    Raises:
        UserError: a plugin that the run used is missing, or the configuration differs where it must not.
    """
    _check_steps(run, position, offsets)
    return _check_config(run) + _check_plugins(run)


def _check_steps(run: Run, position: Position, offsets: list[int]) -> None:
    """Earlier stages must be as long as they were, else steps would be counted differently."""
    if position.stage + 1 >= len(offsets):
        raise UserError(f"{run.folder} was in stage {position.stage + 1}, the job has {len(offsets) - 1}")
    start, end = offsets[position.stage], offsets[position.stage + 1]
    if start + position.index != position.step:
        raise UserError(
            f"{run.folder}: 'steps' of a stage before '{run.job.stages[position.stage].config.name}' changed"
        )
    if position.step > end:
        raise UserError(f"{run.folder} has taken {position.index} steps of this stage, 'steps' is now {end - start}")


def _check_config(run: Run) -> list[str]:
    path = run.folder / "config.yaml"
    try:
        old = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    new = yaml.safe_load(dump_yaml(run.job.resolved))
    changed = [(k, a, b) for k, a, b in differences(_by_stage(old), _by_stage(new)) if _area(k) not in _FREE]
    fatal = [f"'{k}' was {a!r}, is now {b!r}" for k, a, b in changed if _area(k) not in _TUNING]
    if fatal:
        raise UserError(
            f"{run.folder} cannot go on with another configuration: {'; '.join(fatal[:5])}. Start a new run"
        )
    return [f"'{k}' was {a!r}, is now {b!r}: the result differs from that of one run" for k, a, b in changed]


def _check_plugins(run: Run) -> list[str]:
    path = run.folder / "plugins.json"
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    keys = {"name", "version", "used"}
    if not isinstance(recorded, list) or not all(isinstance(p, dict) and keys <= set(p) for p in recorded):
        raise UserError(f"{path} is no list of plugins with {', '.join(sorted(keys))}; delete it to go on without")
    present = {p.name: p.version for p in run.registry.plugins if p.status == "loaded"}
    missing = [p["name"] for p in recorded if p["used"] and p["name"] not in present]
    if missing:
        raise UserError(f"{run.folder} was made with plugins that are not loaded now: {', '.join(missing)}")
    used = used_plugins(run.job, run.registry)
    return [
        f"plugin {p['name']} was version {p['version']}, is now {present[p['name']]}"
        for p in recorded
        if p["name"] in used and present.get(p["name"], p["version"]) != p["version"]
    ]


def differences(old: Any, new: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves that differ between two plain trees, as (dotted key, old, new)."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{where}.{k}" if where else str(k))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in differences(a, b, f"{where}.{i}")]
    return [] if old == new else [(where, old, new)]


def _by_stage(resolved: Any) -> Any:
    """A job's plain values with everything that stages share written out in each."""
    if not isinstance(resolved, dict) or not resolved.get("stages"):
        return resolved
    shared = {k: v for k, v in resolved.items() if k != "stages"}
    return {"stages": [shared | stage for stage in resolved["stages"]]}


def _area(key: str) -> str:
    """The top-level option that a dotted key belongs to, seen through ``stages.N``."""
    return re.sub(r"^stages\.\d+\.", "", key).split(".")[0]
