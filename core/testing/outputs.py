"""Contracts of exporter, metric, listener and command."""

from __future__ import annotations

import inspect
import math
import tempfile
from pathlib import Path

import torch

from core import hookspecs
from core.contracts import Context, Step
from core.testing import reference
from core.testing.check import Checked
from core.testing.parts import finite


def check_loss(c: Checked) -> None:
    """A function of a render that gives a finite scalar with a gradient in what it needs."""
    if not c.require(callable(c.target), "the target is a function of a render and a step"):
        return
    scene = reference.scene(Context())
    render = scene.renderer(reference.cameras(24, 2), Step(3, 10))
    seen = [render.rgb, render.opacity, render.depth]
    noise = torch.Generator().manual_seed(5)
    render.normal = torch.randn(2, 24, 24, 3, generator=noise).requires_grad_()
    for name in ("weights", "facing", "depth_variance", "interlevel"):
        render.extras[name] = torch.rand(2 * 24 * 24, generator=noise).requires_grad_()
    render.extras["sdf-gradient"] = torch.randn(64, 3, generator=noise).requires_grad_()
    render.extras["sdf-edges"] = torch.randn(64, 2, generator=noise).requires_grad_()
    render.extras["face-normals"] = torch.randn(64, 2, 3, generator=noise).requires_grad_()
    render.extras["sketch"] = torch.rand(64, 3, generator=noise).requires_grad_()
    render.extras["umbrella"] = torch.randn(64, 3, generator=noise).requires_grad_()
    render.extras["target"] = torch.rand(2, 24, 24, 3, generator=noise)
    for name in ("target-mask", "target-nearness"):
        render.extras[name] = torch.rand(2, 24, 24, 1, generator=noise)
    render.extras["target-normal"] = torch.randn(2, 24, 24, 3, generator=noise)
    for name in ("variation", "latent-score"):
        render.extras[name] = torch.rand((), generator=noise).requires_grad_()
    loss = c.target(render, Step(3, 10))
    c.require(loss.shape == (), "the loss is a scalar", f"found {list(loss.shape)}")
    if c.require(loss.requires_grad and finite(loss), "the loss is finite and differentiable"):
        inputs = [*seen, render.normal, *(v for v in render.extras.values() if v.requires_grad)]
        found = [g for g in torch.autograd.grad(loss, inputs, allow_unused=True) if g is not None]
        c.require(bool(found) and finite(*found), "its gradient in what was rendered is finite")


def check_exporter(c: Checked) -> None:
    """Files in the given folder and nowhere else, each of them named."""
    exporter, scene = c.build(), reference.scene(Context())
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        folder = Path(place) / "assets"
        folder.mkdir()
        named = [Path(p) for p in exporter.export(scene, folder)]
        written = {p for p in Path(place).rglob("*") if p.is_file()}
        c.require(bool(named), "it names at least one file")
        absent = [p.name for p in named if not p.is_file()]
        c.require(not absent, "every file it names exists", f"missing: {', '.join(absent)}")
        empty = [p.name for p in named if p.is_file() and p.stat().st_size == 0]
        c.require(not empty, "no file is empty", f"empty: {', '.join(empty)}")
        c.require(all(p.is_relative_to(folder) for p in written), "it writes into the given folder only")
        unnamed = sorted(p.name for p in written - set(named))
        c.require(not unnamed, "it names every file it writes", f"not named: {', '.join(unnamed)}")


def check_metric(c: Checked) -> None:
    """Finite numbers by name, the same twice."""
    metric, scene = c.build(), reference.scene(Context())
    with torch.no_grad():
        render = scene.renderer(reference.cameras(48, 2), None)
        found = metric.measure(render, "a red and green ball")
        again = metric.measure(render, "a red and green ball")
    c.require(bool(found) and all(isinstance(k, str) for k in found), "it gives numbers by name")
    c.require(all(isinstance(v, float) and math.isfinite(v) for v in found.values()), "every number is a finite float")
    c.require(found == again, "it gives the same twice")


def check_listener(c: Checked) -> None:
    """Methods named like hooks, with arguments that the hooks have."""
    listener = c.build()
    specs = {name: value for name, value in vars(hookspecs).items() if name.startswith("on_")}
    methods = {name: getattr(listener, name) for name in dir(listener) if name.startswith("on_")}
    unknown = [name for name in methods if name not in specs]
    c.require(not unknown, "every on_… method is a hook", f"no hook is called {', '.join(unknown)}")
    c.require(bool(methods.keys() & specs.keys()), "it listens to at least one hook")
    for name in methods.keys() & specs.keys():
        known = inspect.signature(specs[name]).parameters
        extra = [p for p in inspect.signature(methods[name]).parameters if p not in known]
        c.require(not extra, f"{name} takes arguments of its hook only", f"the hook has no {', '.join(extra)}")


def check_command(c: Checked) -> None:
    """A documented function whose parameters become arguments."""
    import typer

    if not c.require(inspect.isfunction(c.target), "the target is a function", f"it is {c.target!r}"):
        return
    bare = [p.name for p in inspect.signature(c.target).parameters.values() if p.annotation is p.empty]
    c.require(not bare, "every parameter is annotated", f"not: {', '.join(bare)}")
    c.require("-" in c.entry.name, "its name is VERB-NAME, as in bench-kernels", f"it is {c.entry.name}")
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(c.target)
    c.require(typer.main.get_command(app) is not None, "its parameters can be arguments and options")


CHECKS = {
    "loss": check_loss,
    "exporter": check_exporter,
    "metric": check_metric,
    "listener": check_listener,
    "command": check_command,
}
