"""Which backend runs, who decides, and what is said when it cannot."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.errors import UserError
from core.kernels import dispatch
from core.kernels.bench import bench, machine
from core.kernels.dispatch import Backend
from core.kernels.hash_grid import hash_grid

REFERENCE = Backend("reference", "core.kernels.hash_grid.reference")


@pytest.fixture(autouse=True)
def no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    monkeypatch.setattr(dispatch, "_kernels", dict(dispatch._kernels))
    monkeypatch.setattr(dispatch, "_broken", {})


def test_the_machine_decides_then_the_environment_then_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispatch.choose("hash_grid", "mps").name == "reference"
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    assert {dispatch.choose(k, "cpu").name for k in dispatch.kernels()} == {"reference"}
    pytest.importorskip("numba")
    assert dispatch.choose("hash_grid", "cpu", force="numba").name == "numba"
    monkeypatch.setenv(dispatch.VARIABLE, "march=reference, numba")
    assert [dispatch.choose(k, "cpu").name for k in ("hash_grid", "march")] == ["numba", "reference"]
    monkeypatch.delenv(dispatch.VARIABLE)
    assert dispatch.choose("hash_grid", "cpu").name == "numba"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nunba", "no backend 'nunba'. Did you mean 'numba'"),
        ("hashgrid=numba", "no kernel 'hashgrid'. Did you mean 'hash_grid'"),
        ("hash_grid=referense", "no backend 'referense'. Did you mean 'reference'"),
    ],
)
def test_a_slip_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, value: str, words: str) -> None:
    monkeypatch.setenv(dispatch.VARIABLE, value)
    with pytest.raises(UserError, match=words):
        dispatch.choose("hash_grid", "cpu")


def test_a_slip_in_the_argument_is_named() -> None:
    with pytest.raises(UserError, match="no backend 'refrence'. Did you mean 'reference'"):
        hash_grid(torch.rand(2, 3), torch.rand(1, 64, 2), (3,), backend="refrence")
    with pytest.raises(UserError, match="no kernel 'marching'. Did you mean 'march'"):
        dispatch.backends("marching")


def test_a_forced_backend_that_cannot_run_says_why() -> None:
    absent = Backend("fast", "nowhere", needs=("surely_not_installed",), install="pip install fast")
    dispatch.register("thing", [absent, Backend("cpu-only", "os", devices=("cpu",))])
    with pytest.raises(UserError, match="surely_not_installed not installed. To add it: pip install fast"):
        dispatch.choose("thing", "cpu", force="fast")
    with pytest.raises(UserError, match="runs on cpu; the tensors are on 'cuda'"):
        dispatch.choose("thing", "cuda", force="cpu-only")
    with pytest.raises(UserError, match="No backend of the kernel 'thing' runs on 'cuda'"):
        dispatch.choose("thing", "cuda")


def test_a_broken_library_is_reported_once_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    dispatch.register("thing", [Backend("broken", "core.kernels.no_such_module"), REFERENCE])
    with caplog.at_level(logging.WARNING, logger="maquette"):
        assert dispatch.resolve("thing", "cpu").__name__ == REFERENCE.module
        assert dispatch.resolve("thing", "cpu").__name__ == REFERENCE.module
    assert len(caplog.records) == 1 and "no_such_module" in caplog.text
    with pytest.raises(UserError, match="does not import"):
        dispatch.resolve("thing", "cpu", force="broken")


def test_the_report_names_one_choice_per_kernel_and_what_is_missing() -> None:
    absent = Backend("fast", "nowhere", needs=("surely_not_installed",), install="pip install fast", gain="speed")
    dispatch.register("thing", [absent, REFERENCE])
    rows = dispatch.report()
    for kernel in dispatch.kernels():
        assert sum("cpu" in row["chosen_for"] for row in rows if row["kernel"] == kernel) == 1
    row = next(r for r in rows if r["backend"] == "fast")
    assert not row["available"] and row["install"] == "pip install fast" and "surely_not" in str(row["why"])


def test_the_report_needs_no_pytorch() -> None:
    code = (
        "import sys\nfrom core.kernels import dispatch\n"
        "rows = dispatch.report()\nassert rows\n"
        "assert 'torch' not in sys.modules or dispatch.cuda_present()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_declared_backend_lives_where_it_says() -> None:
    for kernel in dispatch.kernels():
        offered = dispatch.backends(kernel)
        assert offered[-1].name == "reference" and not offered[-1].devices
        for backend in offered:
            if backend.available()[0] and backend.runs_on("cpu"):
                assert callable(getattr(dispatch.resolve(kernel, "cpu", backend.name), _entry(kernel)))


def _entry(kernel: str) -> str:
    return {"hash_grid": "encode", "mesh_distance": "closest_face", "mesh_raster": "visible", "splat": "rasterize"}.get(kernel, kernel)


def test_the_bench_compares_every_backend_with_plain_pytorch() -> None:
    rows = bench(threads=1, repeats=1, points=2000, rays=64, device="cpu", faces=64, splats=50)
    assert {str(row["kernel"]) for row in rows} >= {"hash_grid", "march", "composite", "mesh_distance"}
    for row in rows:
        assert float(str(row["ms"])) > 0
        assert row["ratio"] == 1.0 or row["backend"] != "reference"
    assert set(machine()) >= {"processor", "torch", "numba", "gpu"}
    with pytest.raises(UserError, match="no kernel 'compost'"):
        bench(["compost"])


def test_a_module_of_ones_own_is_timed_beside_the_backends_and_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench_peer.py").write_text("from core.kernels.compositing.reference import composite\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dispatch.backends("composite")
    rows = bench(["composite"], threads=1, repeats=1, rays=8, device="cpu", peers=["composite=bench_peer"])
    assert {"bench_peer", "reference"} <= {row["backend"] for row in rows}
    assert dispatch.backends("composite") == before
    for wrong, said in (("composite=no_such_thing", "no_such_thing"), ("composite", "KERNEL=MODULE"), ("x=y", "no kernel")):
        with pytest.raises(UserError, match=said):
            bench(["composite"], peers=[wrong])


def test_compiling_is_announced_once_and_not_for_others(caplog: pytest.LogCaptureFixture) -> None:
    tools = pytest.importorskip("core.kernels.numba_tools")

    class Dispatcher:
        def __init__(self, module: str) -> None:
            self.__module__ = module

    class Event:
        def __init__(self, module: str) -> None:
            self.data = {"dispatcher": Dispatcher(module)}

    announcer = tools._Announcer()
    with caplog.at_level(logging.INFO, logger="maquette"):
        for module in ("elsewhere", "core.kernels.marching.numba_cpu", "core.kernels.hash_grid.numba_kernels"):
            announcer.on_start(Event(module))
    assert len(caplog.records) == 1 and "Compiling" in caplog.text
