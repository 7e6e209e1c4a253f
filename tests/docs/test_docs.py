"""README and docs: links, files, commands, job files and shown outputs are held against the code."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

import core
from core.cli import main
from core.cli.app import app
from core.cli.assets import exporter_specs
from core.cli.catalogue import about_preset, lookup
from core.config.loading import load_job
from core.config.nodes import parse
from core.config.sources import PRESETS, preset_names
from core.discovery import get_registry, load_registry
from core.registry import KINDS
from core.testing import check_component

ROOT = Path(core.__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OURS = [page for page in PAGES if page.name != "plugins.md"]  # its listings have a test of their own
GENERATED = "docs/gallery/"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:core|plugins|configs|docs|tests|benchmarks)/[\w./-]*)`")
VERB = re.compile(r"(?:python launch\.py|maquette) ([a-z][a-z-]+)")
VERBS = set((group := typer.main.get_command(app)).list_commands(typer.Context(group)))  # type: ignore[attr-defined]
LINES = {"text", "image", "run", "fit"}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def files_in(page: Path) -> dict[str, str]:
    """YAML blocks that begin with ``# name.yaml``."""
    found = ((re.match(r"# (\S+\.yaml)\n", body), body) for body in blocks(page, "yaml"))
    return {match[1]: body for match, body in found if match}


def commands(page: Path) -> list[list[str]]:
    """The words after ``python launch.py`` of every command in a shell block, without comments."""
    lines = [line for body in blocks(page, "sh") for line in body.splitlines()]
    split = [shlex.split(line, comments=True) for line in lines]
    starts = [(w, w.index("launch.py") if "launch.py" in w else w.index("maquette")) for w in split if _ours(w)]
    return [words[at + 1 :] for words, at in starts]


def _ours(words: list[str]) -> bool:
    return "launch.py" in words or "maquette" in words


def outputs(page: Path) -> list[tuple[str, str]]:
    """Pairs of a command and what it prints, from console blocks."""
    text = "".join(blocks(page, "console"))
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def each(function: Any, pages: list[Path] = OURS) -> list[Any]:
    return [pytest.param(page, item, id=f"{page.stem}-{k}") for page in pages for k, item in enumerate(function(page))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_named_files_exist(page: Path) -> None:
    text = prose(page)
    links = [link.partition("#")[0] for link in LINK.findall(text) if not re.match(r"\w+:|#", link)]
    paths = [(page.parent / link).resolve() for link in links] + [ROOT / name for name in NAMED.findall(text)]
    missing = sorted({path.relative_to(ROOT).as_posix() for path in paths if not path.exists()})
    assert [name for name in missing if not name.startswith(GENERATED)] == []
    if missing:
        pytest.skip(f"make gallery has not been run: {', '.join(missing)}")


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_pages_are_short_and_reached_from_the_readme(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) < 200
    if page.parent != ROOT:
        assert f"docs/{page.name}" in PAGES[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_verb_is_one(page: Path) -> None:
    assert set(VERB.findall(page.read_text(encoding="utf-8"))) - VERBS == set()


def test_the_readme_has_every_verb() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"| `{verb}" not in text] == []


def test_every_preset_is_on_a_page_and_says_what_it_is_for() -> None:
    text = " ".join(p.read_text(encoding="utf-8") for p in PAGES)
    assert [name for name in preset_names() if f"`{name}`" not in text] == []
    assert [name for name in preset_names() if not about_preset(name)[:1].isupper()] == []
    assert set(re.findall(r"configs/([\w-]+)\.yaml", " ".join(p.read_text() for p in PAGES))) <= set(preset_names())


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = {t for page in PAGES for t in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert shown and shown <= set(targets)


def test_the_readme_lists_what_the_embedded_prior_knows() -> None:
    data = get_registry().find("data", "procedural").load()
    text = PAGES[0].read_text(encoding="utf-8")
    section = text[text.index("## What the embedded prior knows") :].partition("\n## ")[0]
    colors = [name for name in data.color_names if name != "natural"]
    assert f"{len(data.category_names)} kinds of object in {len(colors)} colours" in section
    listed = {word.strip() for line in re.findall(r"^- .*?: (.*)$", section, re.MULTILINE) for word in line.split(",")}
    nouns = {noun for names in data.nouns.values() for noun in names}
    assert listed <= nouns | set(colors)
    assert all(listed & set(names) for names in data.nouns.values()) and set(colors) <= listed


@pytest.mark.parametrize(("page", "words"), each(commands))
def test_commands_are_accepted(page: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, presets and ``key=value`` words of every command shown; nothing is run."""
    for name, text in files_in(page).items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    verb, registry = words[0], get_registry()
    positional = _positional(words[1:])
    assert verb in VERBS
    if verb in LINES:
        _load(verb, words, positional)
    elif verb == "export":
        names = words[words.index("--to") + 1] if "--to" in words else "glb"
        assert exporter_specs(names.split(","), positional[1:], registry)
    elif verb in ("describe", "check"):
        assert lookup(registry, positional[0], None) or positional[0] in KINDS or registry.plugin(positional[0])
    elif verb in ("bench", "eval"):
        assert positional[0] == "list" or registry.find("command", f"{verb}-{positional[0]}")


def _positional(words: list[str]) -> list[str]:
    """Without options; those with a value take the next word along."""
    alone = {"--dry-run", "--print-config", "--card", "--quiet"}
    found, skip = [], False
    for word in words:
        if not skip and not word.startswith("--"):
            found.append(word)
        skip = not skip and word.startswith("--") and word not in alone
    return found


def _load(verb: str, words: list[str], positional: list[str]) -> None:
    default = {"text": "text-to-3d", "image": "zero123-then-detail"}.get(verb)
    config = words[words.index("--config") + 1] if "--config" in words else default
    extra = {"text": {"prompt": positional[0]}, "image": {"image": positional[0]}}.get(verb, {})
    job = load_job(config if default else positional[0], positional[1:], get_registry(), extra)
    assert job.stages


@pytest.mark.parametrize(("page", "text"), each(lambda page: blocks(page, "yaml")))
def test_job_files_load(page: Path, text: str, tmp_path: Path) -> None:
    """Every YAML block is a job, or options of one (then laid over score distillation's preset)."""
    if text.startswith("# mistakes.yaml"):
        pytest.skip("its mistakes are what is shown")
    tree = parse(text, "block", problems := [])
    assert tree is not None and problems == []
    whole = text if {"task", "extends"} & set(tree.value) else f"extends: {PRESETS / 'text-to-3d-sds.yaml'}\n{text}"
    (tmp_path / "job.yaml").write_text(whole)
    assert load_job(tmp_path / "job.yaml", [], get_registry(), {"prompt": "a red mug"}).stages


@pytest.mark.parametrize(("page", "shown"), each(outputs))
def test_shown_outputs_are_real(
    page: Path,
    shown: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, files = shlex.split(shown[0]), files_in(page)
    monkeypatch.chdir(ROOT)
    if set(words) & set(files):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        monkeypatch.chdir(tmp_path)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    assert words[:2] == ["python", "launch.py"]
    main([*words[2:], *([] if "--dry-run" in words else ["--dry-run"])])
    printed = capsys.readouterr()
    assert printed.out + printed.err == shown[1]


def test_the_readme_plugin_keeps_its_contract(tmp_path: Path) -> None:
    (listing,) = blocks(PAGES[0], "python")
    head, _, _ = listing.partition("\n")
    file = tmp_path / Path(head.removeprefix("# ")).relative_to("plugins")
    file.parent.mkdir()
    file.write_text(listing)
    assert len([line for line in listing.splitlines()[1:] if line.strip()]) <= 15
    registry = load_registry([tmp_path], entry_points=False, env=False, strict=True)
    assert check_component("loss", "greyness", registry)


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_python_listings_import_what_exists(page: Path) -> None:
    for listing in blocks(page, "python"):
        imports = "\n".join(line for line in listing.splitlines() if re.match(r"(from|import) ", line))
        ast.parse(listing)
        exec(imports, {})
