"""The smoke preset from start to end, cut short: stopped and resumed, sampled, and evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.config.loading import load_job
from core.discovery import get_registry
from core.errors import UserError
from core.generative.drawing import draw, open_generator
from core.job import run_job
from core.run import Run, open_run
from plugins.lsgm.evaluate import evaluate, stages

SHORT = [
    "sampler_steps=10",
    "stages.0.steps=2",
    "stages.1.steps=2",
    "stages.2.steps=1",
    "data.images=64",
    "data.batch=8",
    "log_every=1",
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pools of this module, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAQUETTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def fit(folder: Path, **how: object) -> Run:
    registry = get_registry()
    return run_job(load_job("lsgm-smoke", SHORT, registry), registry, quiet=True, folder=folder, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(tmp_path_factory.mktemp("runs") / "whole")


def test_a_stopped_run_goes_on_as_if_it_had_not_been(run: Run, tmp_path: Path) -> None:
    fit(tmp_path / "cut", max_steps=3)
    registry = get_registry()
    again = run_job(load_job("lsgm-smoke", SHORT, registry), registry, quiet=True, resume=tmp_path / "cut")
    assert again.state == run.state == "finished"
    other = again.task().state_dict()
    for name, value in run.task().state_dict().items():
        torch.testing.assert_close(value, other[name], msg=name)


def test_it_is_sampled_by_the_verb(run: Run) -> None:
    _, task = open_generator(run.folder, ["tolerance=0.05"])
    one, two = (torch.stack(draw(task, 3, seed=4)) for _ in range(2))  # type: ignore[arg-type]
    assert one.shape == (3, 16, 16, 3) and torch.equal(one, two)


def test_each_stage_is_evaluated(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = evaluate(
        run.folder, pictures=16, draws=1, exact=1, sheet=tmp_path / "sheet.png", reconstructions=tmp_path / "made.png"
    )
    assert list(table["stages"]) == ["vae", "joint", "prior"]
    vae, joint = table["stages"]["vae"], table["stages"]["joint"]
    assert vae["bits"] == pytest.approx(vae["reconstruction"] + vae["divergence"])
    assert vae["bits"] == pytest.approx(vae["bits under N(0, I)"]) and set(vae["samples"]) == {"N(0, I)"}
    # After two steps the score model is still that of N(0, I), so both priors say the same, to the estimate's noise.
    assert joint["bits"] == pytest.approx(joint["bits under N(0, I)"], abs=0.5)
    assert joint["bits by the ODE"] == pytest.approx(joint["bits"], abs=0.5)
    calls = [joint["samples"][f"ode, tolerance {t}"]["calls"] for t in ("1e-3", "1e-5")]
    assert 0 < calls[0] < calls[1]
    assert table["references"]["other pictures"] > 0 and (tmp_path / "sheet.png").is_file()
    assert 5 < vae["psnr"] < 30 and 5 < table["psnr of the mean picture"] < 30 and (tmp_path / "made.png").is_file()
    assert "nats of each group" in capsys.readouterr().out


def test_other_runs_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run"):
        evaluate(tmp_path)
    empty = open_run(run.folder)
    empty.folder = tmp_path
    with pytest.raises(UserError, match="has no checkpoint yet"):
        list(stages(empty))
