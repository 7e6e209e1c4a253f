"""Prompts are texts, whatever YAML would make of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.config.job import Job
from core.config.nodes import read_scalar

Load = Callable[..., Job]

REST = "task: lift\ngeometry: grid\n"
PROMPTS = [
    "a red chair", "yes", "no", "on", "off", "123", "1e3", "0x10", "007", "1_000", "null", "~", "true", "False", ".inf",
    "2001-01-01", "12:30", "[a, b]", "{a: b}", "<<", "=", "-", "a, b", "50%", "it's", "ein grüner Stuhl ☃ 椅子", "a\tb",
]  # fmt: skip


@pytest.mark.parametrize("prompt", [*PROMPTS, "a cat: sitting", "a #1 cat", '"quoted"', "a=b", "[a, b", "{", "*x", "!x", "a: [", " x "])
def test_an_override_is_taken_as_it_is(load: Load, prompt: str) -> None:
    options = load(REST, f"prompt={prompt}", f"negative={prompt}").stages[0].task.options
    assert options.prompt == prompt
    assert options.negative == (None if prompt in ("null", "~") else prompt)


@pytest.mark.parametrize("prompt", [p for p in PROMPTS if p not in ("-", "a\tb")])
def test_plain_in_a_file(load: Load, prompt: str) -> None:
    options = load(f"{REST}prompt: {prompt}\ntags:\n  - {prompt}\n").stages[0].task.options
    assert options.prompt == prompt
    assert options.tags == [prompt]


@pytest.mark.parametrize("prompt", [*PROMPTS, "a cat: sitting", "a #1 cat", "*x", "a: [", " x "])
def test_quoted_in_a_file(load: Load, prompt: str) -> None:
    double = prompt.replace('"', '\\"')
    options = load(f'{REST}prompt: "{double}"\nnegative: "{double}"\n').stages[0].task.options
    assert (options.prompt, options.negative) == (prompt, prompt)


def test_folded_and_literal_blocks(load: Load) -> None:
    options = load(f"{REST}prompt: >-\n  a red\n  chair: one\nnegative: |\n  a\n  b\n").stages[0].task.options
    assert (options.prompt, options.negative) == ("a red chair: one", "a\nb\n")


def test_nothing_is_an_empty_text(load: Load) -> None:
    assert load(f"{REST}prompt:\n").stages[0].task.options.prompt == ""
    assert load(REST, "prompt=").stages[0].task.options.prompt == ""
    assert load(f"{REST}negative:\n").stages[0].task.options.negative is None


def test_a_mapping_of_python(load: Load) -> None:
    for value, text in ((123, "123"), (True, "true"), ("yes", "yes"), (1.5, "1.5")):
        assert load(REST, extra={"prompt": value}).stages[0].task.options.prompt == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("FALSE", False), ("yes", "yes"), ("n", "n"),
        ("12", 12), ("-3", -3), ("+4", 4), ("1_000", 1000), ("1_0", "1_0"), ("0x1F", 31), ("0o17", 15), ("007", 7),
        ("1.5", 1.5), ("1e3", 1000.0), ("1e-3", 0.001), ("-.5", -0.5), ("5.", 5.0), ("1.e2", 100.0), (".inf", float("inf")),
        ("-.inf", float("-inf")), ("inf", "inf"), ("nan", "nan"), (".", "."), ("e3", "e3"), ("1e", "1e"),
        ("12:30", "12:30"), ("2001-01-01", "2001-01-01"), ("1,5", "1,5"), ("80%", "80%"),
    ],
)  # fmt: skip
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    found = read_scalar(text)
    assert found == value
    assert type(found) is type(value)
