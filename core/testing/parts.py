"""Contracts of geometry, material, background and renderer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.contracts import Geometry, Module, Step
from core.signals import FIELD_SIGNALS
from core.testing import reference
from core.testing.check import Checked
from core.types import Mesh


def finite(*values: Tensor) -> bool:
    """Whether all numbers are finite."""
    return all(bool(torch.isfinite(v).all()) for v in values)


def in_unit_range(value: Tensor) -> bool:
    """Whether all numbers lie in [0, 1]."""
    return finite(value) and bool(((value >= 0) & (value <= 1)).all())


def points(count: int = 257) -> Tensor:
    """[N, 3] points in the scene's cube, the same each time."""
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(7)) * 2 - 1


def unit(count: int = 257) -> Tensor:
    """[N, 3] unit directions, the same each time."""
    directions = torch.randn(count, 3, generator=torch.Generator().manual_seed(8))
    return nn.functional.normalize(directions, dim=-1)


def check_module(c: Checked, module: Module) -> None:
    """Initial values, state dictionary and parameter groups."""
    again, other = c.build(noise=1), c.build(seed=1)
    state, second = module.state_dict(), again.state_dict()
    same = state.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in state.items())
    c.require(same, "initial values follow from Context.generator alone, not from the global stream")
    other.load_state_dict(state)
    loaded = other.state_dict()
    whole = all(torch.equal(v, loaded[k]) for k, v in state.items())
    c.require(whole, "its state_dict loads into another instance")
    grouped = [id(p) for group in module.param_groups() for p in group["params"]]
    wanted = {id(p) for p in module.parameters() if p.requires_grad}
    c.require(len(grouped) == len(set(grouped)), "param_groups names no parameter twice")
    c.require(set(grouped) == wanted, "param_groups covers every trainable parameter")
    module.update(Step(0, 10))


def check_gradient(c: Checked, module: nn.Module, output: Callable[[], Tensor], what: str) -> None:
    """Gradients of ``output`` reach a parameter and are finite (components without parameters pass)."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        return
    value = output()
    if not c.require(value.requires_grad, f"{what} depends on its parameters"):
        return
    module.zero_grad(set_to_none=True)
    value.sum().backward()
    found = [p.grad for p in trainable if p.grad is not None]
    reached = bool(found) and any(bool((g != 0).any()) for g in found)
    c.require(reached and finite(*found), f"the gradient of {what} reaches its parameters and is finite")


def check_geometry(c: Checked) -> None:
    """Density, distance and mesh, as far as ``gives`` declares them."""
    geometry = c.build()
    check_module(c, geometry)
    gives = set(c.gives)
    known = gives & {"density", "sdf", "mesh", "gaussians"}
    c.require(bool(known), "it gives density, sdf, mesh or gaussians", f"declared: {sorted(gives) or 'nothing'}")
    if "density" in gives:
        _check_density(c, geometry)
    if "sdf" in gives:
        _check_sdf(c, geometry)
    if "mesh" in gives:
        check_mesh(c, geometry.mesh(32))
    if "gaussians" in gives:
        _check_splats(c, geometry)
    for signal in gives.intersection(FIELD_SIGNALS):
        _check_extra(c, geometry, signal)


def _check_splats(c: Checked, geometry: Geometry) -> None:
    """Shapes and ranges of a set of Gaussians, and the gradient of each of its parts."""
    splats = geometry.splats()
    count, names = len(splats), ("means", "scales", "rotations", "opacities", "sh")
    shapes = [list(getattr(splats, name).shape) for name in names]
    wanted = [[count, 3], [count, 3], [count, 4], [count], [count, *splats.sh.shape[1:2], 3]]
    c.require(shapes == wanted, "splats have the shapes that core.types.Splats gives", f"found {shapes}")
    c.require(splats.sh.shape[1] in (1, 4, 9, 16), "splats have the coefficients of a degree from 0 to 3")
    c.require(finite(*(getattr(splats, name) for name in names)), "splats are finite")
    c.require(bool((splats.scales > 0).all()), "scales of splats are positive")
    c.require(in_unit_range(splats.opacities), "opacities of splats are in [0, 1]")
    length = splats.rotations.norm(dim=-1)
    c.require(torch.allclose(length, torch.ones_like(length), atol=1e-4), "rotations of splats are unit quaternions")
    for name in ("means", "scales", "opacities", "sh"):
        check_gradient(c, geometry, lambda name=name: getattr(geometry.splats(), name), f"splats' {name}")  # type: ignore[misc]


def _check_extra(c: Checked, geometry: Geometry, signal: str) -> None:
    """What losses ask of the geometry itself."""
    with torch.no_grad():
        seen = reference.scene().renderer(reference.cameras(24, 2))
    one, again = (geometry.extra(signal, seen, Step(3, 10)) for _ in range(2))
    shape, scalar = list(one.shape), signal in ("variation", "latent-score")
    fits = shape[1:] == {"sdf-edges": [2], "face-normals": [2, 3]}.get(signal, [] if scalar else [3])
    fits = fits and (len(shape) == 0) == scalar
    c.require(fits, f"{signal} has the shape that core/signals.py gives", f"found {shape}")
    c.require(torch.equal(one, again), f"{signal} follows from the step's streams alone")
    check_gradient(c, geometry, lambda: geometry.extra(signal, seen, Step(3, 10)).square(), signal)


def _check_density(c: Checked, geometry: Geometry) -> None:
    at = points()
    found = geometry.field(at)
    density, features = found["density"], found.get("features")
    shape = list(density.shape)
    if not c.require(shape == [len(at)], "density has shape [N]", f"found {shape} for N = {len(at)}"):
        return
    c.require(density.dtype == at.dtype, "density keeps the points' dtype", f"found {density.dtype}")
    c.require(finite(density) and bool((density >= 0).all()), "density is finite and not negative")
    if features is not None:
        fits = features.dim() == 2 and features.shape[0] == len(at) and finite(features)
        c.require(fits, "features are finite and have shape [N, C]", f"found {list(features.shape)}")
    elif "features" in c.gives:
        c.require(False, "field() returns the features that it declares")
    alone = geometry.density(at)
    c.require(torch.allclose(alone, density, rtol=1e-4, atol=1e-5), "density() agrees with field()")
    part = geometry.field(at[:5])["density"]
    c.require(torch.allclose(part, density[:5], rtol=1e-4, atol=1e-5), "a point's density does not depend on others")
    c.require(list(geometry.field(at[:0])["density"].shape) == [0], "no points give no densities")
    c.require(finite(geometry.field(at * 10)["density"]), "density is finite outside the scene's cube")
    check_gradient(c, geometry, lambda: geometry.field(at)["density"], "density")


def _check_sdf(c: Checked, geometry: Geometry) -> None:
    at = points()
    distance = geometry.sdf(at)
    c.require(list(distance.shape) == [len(at)], "sdf has shape [N]", f"found {list(distance.shape)}")
    c.require(finite(distance), "sdf is finite")
    c.require(bool((distance > 0).any()), "sdf is positive somewhere in the cube")
    check_gradient(c, geometry, lambda: geometry.sdf(at), "sdf")


def check_mesh(c: Checked, mesh: Mesh) -> None:
    """Shapes and indices; an empty mesh passes."""
    v, f = mesh.vertices, mesh.faces
    c.require(v.dim() == 2 and v.shape[1] == 3 and finite(v), "mesh vertices are finite and have shape [V, 3]")
    c.require(f.dim() == 2 and f.shape[1] == 3 and f.dtype == torch.int64, "mesh faces are int64 [F, 3]")
    c.require(f.numel() == 0 or (int(f.min()) >= 0 and int(f.max()) < len(v)), "mesh faces index its vertices")


def check_material(c: Checked) -> None:
    """Range, shape and gradients of colour."""
    material = c.build()
    check_module(c, material)
    at, directions = points(), unit()
    noise = torch.Generator().manual_seed(9)
    features = torch.randn(len(at), material.feature_channels, generator=noise).requires_grad_()
    normals = unit().flip(0)

    def colour(with_normals: bool) -> Tensor:
        return material(features, at, directions, normals if with_normals else None, at + 2.0)

    for with_normals in [True] if material.needs_normal else [True, False]:
        where = "with" if with_normals else "without"
        rgb = colour(with_normals)
        c.require(rgb.shape == at.shape, f"colour {where} normals has shape [N, 3]", f"found {list(rgb.shape)}")
        c.require(in_unit_range(rgb), f"colour {where} normals is in [0, 1]")
    c.require(in_unit_range(material(features * 100, at, directions, normals, None)), "far features stay in [0, 1]")
    value = colour(True)
    if "features" in c.entry.needs and c.require(value.requires_grad, "colour depends on the features that it needs"):
        (gradient,) = torch.autograd.grad(value.sum(), features)
        c.require(finite(gradient) and bool((gradient != 0).any()), "the gradient of colour reaches the features")
    check_gradient(c, material, lambda: colour(True), "colour")


def check_background(c: Checked) -> None:
    """Range and shape, for any leading dimensions."""
    background = c.build()
    check_module(c, background)
    for shape in ([24, 3], [2, 3, 4, 3]):
        rgb = background(unit(24).view(shape))
        c.require(list(rgb.shape) == shape, f"directions {shape} give colours of that shape", f"{list(rgb.shape)}")
        c.require(in_unit_range(rgb), f"colours for directions {shape} are in [0, 1]")
    check_gradient(c, background, lambda: background(unit(24)), "colour")


def check_renderer(c: Checked) -> None:
    """Images of the reference scene."""
    renderer = c.build()
    check_module(c, renderer)
    parts = renderer.context.parts
    views = reference.cameras(24, 2)
    for step in (None, Step(3, 10)):
        renderer.update(Step(3, 10))
        seen = renderer(views, step)
        while_ = "while training" if step else "without a step"
        for name, channels in (("rgb", 3), ("opacity", 1), ("depth", 1), ("normal", 3)):
            value = getattr(seen, name)
            if value is None:
                c.require(name not in c.gives, f"{name} is given {while_}, as declared")
                continue
            shape = [2, 24, 24, channels]
            c.require(list(value.shape) == shape, f"{name} {while_} is {shape}", f"found {list(value.shape)}")
            c.require(finite(value), f"{name} {while_} is finite")
        c.require(in_unit_range(seen.rgb), f"rgb {while_} is in [0, 1]")
        c.require(in_unit_range(seen.opacity), f"opacity {while_} is in [0, 1]")
    with torch.no_grad():
        first, second = renderer(views, None), renderer(views, None)
    c.require(torch.equal(first.rgb, second.rgb), "two renders without a step are equal")
    _check_picture(c, first.rgb, first.opacity)
    check_gradient(c, parts["geometry"], lambda: renderer(views, Step(3, 10)).opacity, "opacity")


def _check_picture(c: Checked, rgb: Tensor, opacity: Tensor) -> None:
    """The reference ball stands in the middle before a grey background, red in front."""
    c.require(bool((opacity[:, 11:13, 11:13] > 0.95).all()), "a ball in the middle is opaque there")
    c.require(bool((opacity[:, 0, 0] < 0.05).all()), "the corner beside the ball is empty")
    c.require(torch.allclose(rgb[:, 0, 0], torch.tensor(0.5), atol=0.05), "the background is seen in the corner")
    front = rgb[0, 11:13, 11:13].mean((0, 1))
    c.require(bool(front[0] > front[1] + 0.2), "from azimuth 0 the side towards +x is seen")


CHECKS = {
    "geometry": check_geometry,
    "material": check_material,
    "background": check_background,
    "renderer": check_renderer,
}
