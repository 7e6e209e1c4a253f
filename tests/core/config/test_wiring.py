"""Who needs what, and who would give it."""

from __future__ import annotations

from collections.abc import Callable

from core.config.job import Job

Load = Callable[..., Job]
Problems = Callable[..., list[str]]

TOP = "task: lift\nprompt: a red chair\ngeometry: grid\n"
GUIDED = TOP + "guidance:\n  - prior: {type: tiny, model: base}\n    score: sds\n"


def test_a_score_without_pictures(problems: Problems) -> None:
    assert problems(GUIDED) == [
        "job.yaml:6: score 'sds' needs rgb|latent; nothing here gives it. What does: renderer toys/volume"
    ]


def test_a_prior_without_a_prompt(problems: Problems, load: Load) -> None:
    text = GUIDED.replace("a red chair", "''") + "renderer: volume\n"
    assert problems(text) == [
        "job.yaml:5: prior 'tiny' needs text; nothing here gives it. What does: a prompt (key 'prompt')"
    ]
    load(text, "prompt=a blue chair")


def test_a_need_of_a_component_within_a_component(problems: Problems) -> None:
    text = TOP.replace("a red chair", "''") + (
        "renderer: volume\nguidance:\n  - prior:\n      type: tiny\n      model: a\n      backup:\n"
        "        type: tiny\n        model: b\n"
    )
    assert [p.partition(":")[2].split(":")[0] for p in problems(text)] == ["10", "7"]


def test_options_refine_signals(problems: Problems, load: Load) -> None:
    text = TOP + "renderer: volume\nlosses:\n  sparsity: 1\n  orient: 0.1\n"
    assert problems(text) == [
        "job.yaml:7: loss 'orient' needs normal; nothing here gives it, and no loaded plugin has a component that does"
    ]
    load(text, "renderer.normals=true")


def test_the_stage_that_lacks_it_is_named(problems: Problems) -> None:
    text = GUIDED + "renderer: volume\nstages:\n  - name: coarse\n  - {name: fine, renderer: null}\n"
    assert problems(text) == [
        "job.yaml:6: score 'sds' needs rgb|latent; nothing here gives it. What does: renderer toys/volume (stage 'fine')"
    ]


def test_no_second_complaint_about_what_was_misspelt(problems: Problems) -> None:
    assert problems(GUIDED + "renderer: volum\n") == [
        "job.yaml:7: renderer: no renderer named 'volum'. Did you mean 'volume'?"
    ]
    assert problems(GUIDED + "renderer: {type: volume, samples: x}\n") == [
        "job.yaml:7: renderer.samples: expected a whole number, found 'x'"
    ]
