"""``plugins``, ``presets`` and ``describe``: what there is, where it comes from and how it is configured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from core.cli.output import table, write_json
from core.config.sources import PRESETS, preset_names
from core.discovery import get_registry
from core.errors import UserError, did_you_mean
from core.registry import KINDS, Entry, ModelInfo, PluginInfo, Registry
from core.signals import missing

AMBIENT = ("data", "prompt", "material", "background")  # any job may add these, so their signals are within reach
USERS = ("prior", "score", "loss", "metric")


def attach(app: typer.Typer) -> None:
    """Add this module's verbs."""
    app.command("plugins")(plugins)
    app.command("presets")(presets)
    app.command("describe")(describe)


def plugins(
    kind: Annotated[str | None, typer.Option("--kind", help="List the components of one kind.")] = None,
    matrix: Annotated[bool, typer.Option("--matrix", help="Which components fit together.")] = False,
    models: Annotated[bool, typer.Option("--models", help="Public models by short names.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List plugins with their source, version and load time; those that failed come last, with the reason."""
    registry = get_registry()
    if kind is not None and kind not in KINDS:
        raise UserError(f"'{kind}' is not a kind of component.{did_you_mean(kind, KINDS)}")
    if as_json:
        write_json({"plugins": [asdict(p) for p in registry.plugins], "components": _as_dicts(registry.entries(kind))})
    elif matrix:
        print(matrix_text(registry))
    elif models:
        print(models_text(public_models(registry)))
    else:
        print(components_text(registry.entries(kind)) if kind else plugins_text(registry))


def presets(
    words: Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="Only those that mention it.")] = None,
) -> None:
    """List the job files that ship, with what each is for."""
    rows = [[name, about_preset(name)] for name in preset_names()]
    found = [row for row in rows if all(word.lower() in " ".join(row).lower() for word in words or ())]
    if not found:
        raise UserError(f"no preset mentions {' and '.join(words or ())}; `presets` alone lists all {len(rows)}")
    print(table(found))


def about_preset(name: str) -> str:
    """The first line of a preset's file, which says what it is for."""
    with (PRESETS / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def describe(
    name: Annotated[str, typer.Argument(help="A component (NAME or PLUGIN/NAME), a plugin, a kind or a model.")],
    kind: Annotated[str | None, typer.Option("--kind", help="Which kind, where several have the name.")] = None,
) -> None:
    """Show a component's options with types, defaults and an example; or what a plugin or a kind offers."""
    registry = get_registry()
    found = lookup(registry, name, kind)
    if found:
        from core.cli.describe import component_text

        print("\n\n".join(component_text(entry) for entry in found))
        return
    info = registry.plugin(name) if kind is None else None
    if info is not None:
        offered = [e for e in registry.entries() if e.plugin == info.name]
        print(f"{_plugin_text(info)}\n\n{components_text(offered)}".rstrip())
    elif kind is None and name in KINDS:
        print(f"{name}: {KINDS[name]}\n\n{components_text(registry.entries(name))}".rstrip())
    elif kind is None and (model := next((m for m in public_models(registry) if m.name == name), None)):
        print(model_text(model))
    else:
        raise _unknown(registry, name)


def lookup(registry: Registry, name: str, kind: str | None) -> list[Entry]:
    """The components called ``name`` (of ``kind``); several where kinds share the name, none for other words.

    Raises:
        UserError: ``kind`` is given and has no such component, or two plugins offer it within a kind.
    """
    if kind is not None:
        return [registry.find(kind, name)]
    plugin, _, short = name.rpartition("/")
    kinds = {e.kind for e in registry.entries() if e.name == short and plugin.replace("_", "-") in ("", e.plugin)}
    return [registry.find(k, name) for k in KINDS if k in kinds]


def _unknown(registry: Registry, name: str) -> UserError:
    for kind in KINDS:
        try:
            registry.find(kind, name)
        except UserError as error:
            if "Plugin '" in str(error):  # a plugin that did not load offered it
                return error
    known = [e.name for e in registry.entries()] + [p.name for p in registry.plugins] + list(KINDS)
    known += [model.name for model in public_models(registry)]
    return UserError(f"there is no component, plugin, kind or model '{name}'.{did_you_mean(name, known)}")


def public_models(registry: Registry) -> list[ModelInfo]:
    """What all plugins know, by name."""
    return sorted((m for found in registry.hooks.public_models() for m in found), key=lambda m: m.name)


def models_text(models: Sequence[ModelInfo]) -> str:
    """One line per model; a star marks those on this machine."""
    rows = [[m.name, "*" if m.here else "", m.prior or "-", m.size, m.licence, m.about] for m in models]
    return table(rows, ["model", "here", "prior", "size", "licence", "what it is"]) if rows else "(none)"


def model_text(model: ModelInfo) -> str:
    """A model's page: what it is, under which licence, where it is to be had and how it stands in a job."""
    rows = [
        ["licence", model.licence],
        ["size", model.size],
        ["mirrors", ", ".join(model.mirrors)],
        ["withdrawn", ", ".join(model.withdrawn)],
        ["here", model.here or f"no; to fetch it: {model.command}"],
        ["prior", model.prior or "none of those installed loads it"],
    ]
    return f"model {model.name}: {model.about}\n\n{table([row for row in rows if row[1]])}"


def plugins_text(registry: Registry) -> str:
    """One line per plugin, failures last with their reasons."""
    counts: dict[str, Counter[str]] = {p.name: Counter() for p in registry.plugins}
    for entry in registry.entries():
        counts[entry.plugin][entry.kind] += 1
    loaded = [p for p in registry.plugins if p.status == "loaded"]
    rows = [
        [p.name, p.version or "-", p.source, f"{p.ms:.1f} ms", ", ".join(f"{n} {k}" for k, n in counts[p.name].items())]
        for p in loaded
    ]
    lines = [table(rows, ["plugin", "version", "source", "loaded in", "components"])]
    lines += [f"note: {p.name} {p.note}" for p in loaded if p.note]
    gone = sorted((p for p in registry.plugins if p.status != "loaded"), key=lambda p: p.status)
    lines += [f"{p.status}: {p.name} ({p.source}, {p.where}): {p.reason}" for p in gone]
    return "\n".join(lines)


def components_text(entries: Sequence[Entry]) -> str:
    """One line per component."""
    if not entries:
        return "(none)"
    several = len({e.kind for e in entries}) > 1
    header = [*(["kind"] if several else []), "name", "plugin", "needs", "gives", "extra", "what it is"]
    rows = [
        [
            *([e.kind] if several else []),
            *(e.name, e.plugin, ", ".join(e.needs) or "-", ", ".join(e.gives) or "-", e.extra or "-", e.doc),
        ]
        for e in entries
    ]
    return table(rows, header)


def matrix_text(registry: Registry) -> str:
    """Who fits whom, from the declared signals: renderers on geometries, then users of images on renderers."""
    ambient = {signal for kind in AMBIENT for e in registry.entries(kind) for signal in e.gives}
    geometries, renderers = registry.entries("geometry"), registry.entries("renderer")
    users = [e for kind in USERS for e in registry.entries(kind) if e.needs]
    pictures = ambient | {signal for e in renderers for signal in e.gives}
    writers = registry.entries("exporter") + registry.entries("converter")
    blocks = [
        _block("renderer on geometry", renderers, geometries, ambient),
        _block("prior, score, loss, metric on renderer", users, renderers, ambient),
        _block("exporter, converter on geometry", writers, geometries, pictures),
    ]
    legend = (
        "yes: every need is met, counting what data, prompts and materials (for exporters, renderers too) can give; "
        "else: the signals that are missing"
    )
    return "\n\n".join([b for b in blocks if b] + [legend])


def _block(title: str, rows: Sequence[Entry], columns: Sequence[Entry], ambient: Iterable[str]) -> str:
    if not rows or not columns:
        return ""
    cells = [[f"{row.kind} {row.name}", *(_fit(row, column, ambient) for column in columns)] for row in rows]
    return f"{title}\n" + table(cells, ["", *(c.name for c in columns)])


def _fit(user: Entry, giver: Entry, ambient: Iterable[str]) -> str:
    return ", ".join(missing(user.needs, {*giver.gives, *ambient})) or "yes"


def _plugin_text(info: PluginInfo) -> str:
    version = f" {info.version}" if info.version else ""
    text = f"plugin {info.name}{version} ({info.source}, {info.where}): {info.status}"
    return f"{text}: {info.reason}" if info.reason else text


def _as_dicts(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [{**asdict(e), "qualified": e.qualified} for e in entries]
