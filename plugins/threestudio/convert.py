"""One file of theirs as one job of ours, and several as the stages of one."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError, did_you_mean
from plugins.threestudio import values
from plugins.threestudio.leading import guidances, losses, prompts
from plugins.threestudio.ours import Ours
from plugins.threestudio.reading import MISSING, Theirs, read
from plugins.threestudio.running import data, exports, loop, stages
from plugins.threestudio.scene import scene, sketch

_WHOLE = ("name", "task", "seed", "output", "precision", "keep", "prompt", "negative_prompt", "image", "picture")
"""Keys of ours that hold for all stages."""


@cache
def tables() -> dict[str, Any]:
    """What keys.yaml says."""
    found: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "keys.yaml").read_text(encoding="utf-8"))
    return found


def convert(file: Path) -> tuple[dict[str, Any], Theirs]:
    """A job's values, and what became of each key of the file.

    Raises:
        UserError: the file cannot be read, or holds what cannot be meant.
    """
    table = tables()
    t = read(file, table["defaults"])
    job = Ours(values.length_of(t.number("system.geometry.radius")))
    job.put("name", str(t.get("name", file.stem)))
    t.use("name", "name")
    job.put("task", "lift")
    scene(t, job)
    loop(t, job)
    prompts(t, job)
    data(t, job)
    guidances(t, job)
    losses(t, job, table["losses"], _known_losses(table))
    stages(t, job)
    exports(t, job)
    sketch(t, job)
    _tag(t)
    for key, value in t.values.items():
        if key not in t.fates:
            _by_table(t, job, key, value, table["keys"])
    return job.values, t


def _known_losses(table: dict[str, Any]) -> list[str]:
    named = [key.removeprefix("system.loss.") for key in table["keys"] if key.startswith("system.loss.")]
    scores = ["lambda_sds", "lambda_sd", "lambda_vsd", "lambda_sdi", "lambda_3d_sd", "lambda_sds_img", "lambda_sd_img"]
    return sorted({*named, *table["losses"], *scores})


def _tag(t: Theirs) -> None:
    """A run's folder has the job's name and the time; assets are titled by the prompt or the picture."""
    tag = t.values.get("tag", "")
    parts = [str(t.get("system.prompt_processor.prompt", "")).replace(" ", "_"), MISSING]
    parts += [Path(str(t.get(key))).name.replace(" ", "_") for key in ("data.image_path", "data.dataroot") if key in t]
    rest = str(tag)
    for part in filter(None, parts):
        rest = rest.replace(part, "")
    if rest.strip("-_"):
        t.lose("tag", "a run's folder has the job's name and the time, assets the prompt")
    else:
        t.same("tag", "assets are titled by the prompt or the picture")


def _by_table(t: Theirs, job: Ours, key: str, value: Any, rules: dict[str, Any]) -> None:
    rule = next((rule for pattern, rule in rules.items() if fnmatchcase(key, pattern)), None)
    if rule is None:
        names = [pattern for pattern in rules if "*" not in pattern] + list(t.defaults)
        near = did_you_mean(key, names) if len(key) > 6 else ""
        t.lose(key, f"not known here.{near if 'Did you' in near else ''}")
    elif "to" in rule:
        if rule.get("only", job.get("renderer.type")) == job.get("renderer.type"):
            job.put(rule["to"], _converted(t, job, key, value, rule.get("by", "")))
        t.use(key, rule["to"])
    elif rule.get("holds") == "any" or value in rule.get("holds", []):
        t.same(key, rule["why"])
    else:
        t.lose(key, rule["lost"])


def _converted(t: Theirs, job: Ours, key: str, value: Any, by: str) -> Any:
    if by == "precision":
        return values.precision(value)
    if by == "keep":
        every = t.get("checkpoint.every_n_train_steps", 0)
        return max(1, int(t.number("trainer.max_steps")) // every) if value == -1 and every else max(1, int(value))
    if value is None or isinstance(value, (bool, str)):
        if isinstance(value, str) and key == "exp_root_dir":
            return value
        raise UserError(f"{t.name}: {key}: expected a number, found {value!r}")
    return value


def chain(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Jobs as the stages of one: what holds for all is the first one's."""
    if len(jobs) == 1:
        return jobs[0]
    whole = {key: value for job in reversed(jobs) for key, value in job.items() if key in _WHOLE}
    ordered = {key: whole[key] for key in _WHOLE if key in whole}
    listed: list[dict[str, Any]] = []
    for number, job in enumerate(jobs, 1):
        own = {key: value for key, value in job.items() if key not in (*_WHOLE, "stages")}
        for stage in job.get("stages", [{"name": f"{number}-{job['name']}"}]):
            listed.append({"name": stage["name"], **own, **stage})
    return ordered | {"stages": listed}
