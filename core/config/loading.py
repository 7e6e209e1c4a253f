"""``load_job``: from a file to a checked job, or to every problem at once.

The order: the file over what it extends, ``extra`` over that, the settings of ``vram``, the overrides over everything,
and each stage over the top level. Then names are looked up (which imports the named components, and builds nothing),
options are validated and signals matched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from core.config import vram
from core.config.base import ComponentSpec
from core.config.dump import to_plain
from core.config.job import Job, JobConfig, PluginsConfig, Stage, StageConfig
from core.config.merging import Override, apply, holds, in_order, merge, parse_override
from core.config.nodes import Node, from_python
from core.config.sources import read_source
from core.config.values import FAILED, Checker, Use
from core.config.wiring import job_gives, unmet
from core.config.words import join
from core.errors import ConfigError, UserError, did_you_mean

TASK_KINDS = ("task", "generator")
"""The kinds of what ``task:`` may name."""

_JOB = tuple(JobConfig.model_fields)
_STAGE = tuple(name for name in StageConfig.model_fields if name != "name")


def load_job(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    registry: Any = None,
    extra: Mapping[str, Any] | None = None,
) -> Job:
    """Read, merge and check a job.

    Args:
        source: a YAML file, the name of a shipped preset, or a mapping (a job's ``resolved`` values).
        overrides: ``key=value`` with dotted keys; the value is YAML, for text fields it is the text itself.
        registry: where names are looked up; None discovers plugins, without those the job disables.
        extra: values of a command's own options, between the file and the overrides; None values are passed over.

    Raises:
        ConfigError: with all problems, one sentence each, in the order of the file where that is known.
    """
    problems: list[str] = []
    tree, shown, stem = read_source(source, problems)
    changes = [o for o in (parse_override(text, problems) for text in overrides) if o is not None]
    if tree is None:
        raise ConfigError(problems)
    sizes = [change.node for change in changes if change.path == (vram.KEY,)]
    changes = [change for change in changes if change.path != (vram.KEY,)]
    given = {k: v for k, v in (extra or {}).items() if v is not None}
    tree = merge(tree, from_python(given, "the command's options"))
    for change in in_order(changes):
        if change.path[0] == "extends":
            problems.append(f"{change.where}: a file names what it extends; it cannot be overridden")
            continue
        tree = apply(tree, change, problems)
    tree = vram.sized(tree, sizes, lambda: _discover([]) if registry is None else registry, problems)
    job = _Checking(tree, shown, stem, registry, problems).run(changes)
    _ask_plugins(job)
    return job


class _Checking:
    """One job's check; ``problems`` collects what is found."""

    def __init__(self, tree: Node, shown: str, stem: str, registry: Any, problems: list[str]) -> None:
        self.top: dict[str, Node] = dict(tree.value)
        self.shown, self.stem, self.problems = shown, stem, problems
        self.place = tree.where
        plugins = self._plugins(Checker(registry))
        self.registry = _discover(plugins.disable) if registry is None else registry
        self.disabled = frozenset(name.replace("_", "-") for name in plugins.disable)
        self._check_plugins(plugins)

    def run(self, changes: Sequence[Override]) -> Job:
        config = self._job_config()
        self.items = items = self._stage_items()
        stages = [self._stage(i, item, staged=bool(items)) for i, item in enumerate(items or [_EMPTY])]
        self._check_names(items)
        self._check_effect(items, changes)
        self.problems += _across_stages(
            [found for _, found in stages], [_stage_name(s, i) for i, s in enumerate(items)]
        )
        if self.problems or config is FAILED:
            raise ConfigError(list(dict.fromkeys(self.problems)))
        done = [stage for stage, _ in stages if stage is not None]
        return Job(config, done, _resolved(config, done, bool(items)), self.shown, self.registry)

    # -- the job's own keys ------------------------------------------------------------------------------------

    def _checker(self) -> Checker:
        return Checker(self.registry, self.disabled)

    def _plugins(self, checker: Checker) -> PluginsConfig:
        """The job's wishes about plugins; faults in them are reported with the rest of the job."""
        node = self.top.get("plugins")
        made = checker.value(PluginsConfig, None, node, "plugins") if node is not None else FAILED
        return made if isinstance(made, PluginsConfig) else PluginsConfig()

    def _check_plugins(self, plugins: PluginsConfig) -> None:
        names = [p.name for p in self.registry.plugins]
        loaded = {p.name for p in self.registry.plugins if p.status == "loaded"}
        for key, wanted in (("require", plugins.require), ("disable", plugins.disable)):
            for index, name in enumerate(wanted):
                dashed = name.replace("_", "-")
                where = self._plugin_place(key, index)
                if dashed not in names:
                    problem = f"there is no plugin '{name}'.{did_you_mean(dashed, names)}"
                    self.problems.append(f"{where}: plugins.{key}: {problem}")
                elif key == "require" and dashed not in loaded:
                    reason = next(p.reason for p in self.registry.plugins if p.name == dashed)
                    self.problems.append(f"{where}: plugins.{key}: plugin '{name}' did not load: {reason}")

    def _plugin_place(self, key: str, index: int) -> str:
        node = self.top["plugins"].value[key]
        return str(node.value[index].where)

    def _job_config(self) -> Any:
        values = {key: node for key, node in self.top.items() if key in _JOB}
        values.setdefault("name", Node(self.stem, self.place, self.stem))
        checker = self._checker()
        made = checker.model(JobConfig, Node(values, self.place), "", self.place)
        self.problems += checker.problems
        return made

    # -- stages ------------------------------------------------------------------------------------------------

    def _stage_items(self) -> list[Node]:
        node = self.top.pop("stages", None)
        if node is None or node.is_null:
            return []
        if not isinstance(node.value, list) or not all(isinstance(item.value, dict) for item in node.value):
            items = node.value if isinstance(node.value, list) else []
            bad = next((item for item in items if not isinstance(item.value, dict)), node)
            self.problems.append(f"{bad.where}: stages: expected a list of blocks of keys, found {bad.shown()}")
            return []
        for index, item in enumerate(node.value):
            for key, child in item.value.items():
                if key in _JOB and key != "name":
                    path = join("stages", index, key)
                    self.problems.append(f"{child.place}: {path}: it holds for the whole job; write it at the top")
        return list(node.value)

    def _stage(self, index: int, item: Node, staged: bool) -> tuple[Stage | None, list[str]]:
        """The stage (None where something is wrong) and its problems."""
        base = Node(self._defaults(item), self.place)
        own = {k: v for k, v in item.value.items() if k not in _JOB}
        merged = merge(base, replace(item, value=own)).value
        checker = self._checker()
        loop = {k: v for k, v in merged.items() if k in _STAGE}
        if staged:
            name = _stage_name(item, index)
            loop["name"] = item.value.get("name", Node(name, self.place, name))
        config = checker.model(StageConfig, Node(loop, self.place), "", self.place)
        rest = {k: v for k, v in merged.items() if k not in (*_STAGE, "task")}
        task = self._task(checker, merged.get("task"), rest)
        if checker.problems or config is FAILED or task is FAILED:
            return None, checker.problems
        return Stage(index, config, task), []

    def _defaults(self, item: Node) -> dict[str, Node]:
        """The top level's keys that are this stage's defaults: where stages have different tasks, a key that only
        another stage's task has is meant for that one."""
        mine = {k: v for k, v in self.top.items() if k not in _JOB}
        own = self._options_of(item)
        others = set().union(*(self._options_of(other) for other in self.items)) if self.items else set()
        return {k: v for k, v in mine.items() if not own or k in own or k not in others}

    def _options_of(self, item: Node) -> set[str]:
        """The options of a stage's task; empty where the task is not known, which is told elsewhere."""
        node = item.value.get("task", self.top.get("task"))
        try:
            name = "" if node is None else str(node.raw)
            target = self.registry.find(_kind_of(name, self.registry), name).load() if name else None
        except UserError:
            return set()
        config = getattr(target, "Config", None)
        return {*config.model_fields, *_STAGE, "task"} if config is not None else set()

    def _task(self, checker: Checker, node: Node | None, options: dict[str, Node]) -> Any:
        if node is None or node.raw is None or isinstance(node.value, (dict, list)):
            names = did_you_mean("", [e.name for kind in TASK_KINDS for e in self.registry.entries(kind)])
            what = "the name of a task is required" + ("; its options stand at the top level" if node else "")
            return checker.fail(node.where if node else self.place, "task", f"{what}.{names}")
        kind = _kind_of(node.raw, self.registry)
        found = checker.find(kind, node.raw, node.where, "task")
        if found is FAILED:
            return FAILED
        entry, target = found
        known = (*_JOB, *_STAGE, "stages", "task", "extends")
        config = getattr(target, "Config", None)
        clash = set(getattr(config, "model_fields", ())) & set(known)
        for key in sorted(clash):
            checker.fail(
                node.where,
                "task",
                f"task '{node.raw}' has an option '{key}', a name that the job itself uses",
            )
        made = FAILED
        if config is not None:
            made = checker.model(config, Node(options, self.place), "", self.place, known)
        spec = ComponentSpec(kind, node.raw, None if made is FAILED else made)
        given = job_gives(spec.options, options)
        uses = [*checker.uses, Use(spec, entry, target, node.where)]
        checker.problems += unmet(uses, given, self.registry, checker.lost)
        return FAILED if made is FAILED else spec

    def _check_names(self, items: list[Node]) -> None:
        names: set[str] = set()
        for index, item in enumerate(items):
            name = _stage_name(item, index)
            if name in names:
                self.problems.append(f"{item.where}: stages.{index}.name: another stage is called '{name}' already")
            names.add(name)

    def _check_effect(self, items: list[Node], changes: Sequence[Override]) -> None:
        """An override that every stage's own value hides would be lost without a word."""
        for change in changes:
            if items and change.path[0] not in (*_JOB, "stages") and all(holds(item, change.path) for item in items):
                path = ".".join(change.path)
                self.problems.append(
                    f"{change.where}: has no effect, every stage has its own {path}; write stages.0.{path}=…"
                )


_EMPTY = Node({}, "")


def _kind_of(name: str, registry: Any) -> str:
    """Whether ``task: NAME`` is a task or a generator; a name that is neither is taken for the nearer."""
    short = name.rpartition("/")[2]
    known = {kind: {e.name for e in registry.entries(kind)} for kind in TASK_KINDS}
    exact = [kind for kind in TASK_KINDS if short in known[kind]]
    near = [kind for kind in TASK_KINDS if get_close_matches(short.lower(), known[kind], n=1)]
    return (exact or near or [TASK_KINDS[0]])[0]


def _stage_name(item: Node, index: int) -> str:
    name = item.value.get("name")
    return f"stage-{index + 1}" if name is None or not name.raw else str(name.raw)


def _across_stages(found: Sequence[list[str]], names: Sequence[str]) -> list[str]:
    """The problems of all stages; one that not every stage has says whose it is."""
    everywhere = set(found[0]).intersection(*found[1:])
    marked = []
    for index, problems in enumerate(found):
        for problem in problems:
            marked.append(problem if problem in everywhere else f"{problem} (stage '{names[index]}')")
    return marked


def _resolved(config: JobConfig, stages: Sequence[Stage], staged: bool) -> dict[str, Any]:
    """The job as plain values: what all stages share at the top, the rest in each."""
    flat = [_flat(stage) for stage in stages]
    shared = {k: v for k, v in flat[0].items() if all(k in f and f[k] == v for f in flat)}
    task = {"task": shared.pop("task")} if "task" in shared else {}
    resolved = {**task, **to_plain(config), **shared}
    if staged:
        own = [{k: v for k, v in f.items() if k not in shared and k not in task} for f in flat]
        resolved["stages"] = [{"name": stage.config.name, **rest} for stage, rest in zip(stages, own, strict=True)]
    return resolved


def _flat(stage: Stage) -> dict[str, Any]:
    loop = to_plain(stage.config)
    del loop["name"]
    return {"task": stage.task.name, **loop, **(to_plain(stage.task.options) or {})}


def _discover(disabled: Sequence[str]) -> Any:
    from core.discovery import get_registry, load_registry

    return load_registry(blocked=disabled) if disabled else get_registry()


def _ask_plugins(job: Job) -> None:
    """The plugins' last look; any of them may refuse the job."""
    try:
        job.registry.hooks.on_config(config=job)
    except UserError as error:
        raise ConfigError([f"{job.source}: {error}"]) from error
