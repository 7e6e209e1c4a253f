"""Their geometry and renderer as ours, and with material and background the whole scene."""

from __future__ import annotations

import math

from plugins.threestudio.looks import background, material
from plugins.threestudio.ours import Ours
from plugins.threestudio.reading import Theirs, component
from plugins.threestudio.values import schedule, tidy, vanishes

_G, _R = "system.geometry", "system.renderer"
GEOMETRIES = {
    "implicit-volume": "hash-grid",
    "implicit-sdf": "sdf",
    "tetrahedra-sdf-grid": "tetrahedra",
    "volume-grid": "voxel",
    "custom-mesh": "mesh",
}
RENDERERS = {
    "nerf-volume-renderer": "volume",
    "neus-volume-renderer": "volume",
    "nvdiff-rasterizer": "mesh-rasterizer",
    "patch-renderer": "volume",
    "gan-volume-renderer": "volume",
}


def scene(t: Theirs, job: Ours) -> None:
    """Put the parts of a scene."""
    renderer = component(t, "system.renderer_type", RENDERERS, "nerf-volume-renderer")
    geometry = component(t, "system.geometry_type", GEOMETRIES, "implicit-volume")
    if geometry == "sdf" and renderer == "mesh-rasterizer":
        geometry = "tetrahedra"  # theirs is a field of distances whose surface is rasterised: ours lies on the grid
    job.put("geometry.type", geometry)
    t.use("system.geometry_type", "geometry.type")
    _encoding(t, job, geometry)
    {"hash-grid": _blob, "voxel": _voxel, "sdf": _distance, "tetrahedra": _tetrahedra}.get(geometry, _nothing)(t, job)
    material(t, job)
    background(t, job)
    _renderer(t, job, renderer)
    _colours_of_latents(t, job)


def _nothing(t: Theirs, job: Ours) -> None:
    """A geometry of which no key is left."""


def _encoding(t: Theirs, job: Ours, geometry: str) -> None:
    t.same(f"{_G}.radius", "sets how long our unit is: a scene has a half side of 1")
    t.number(f"{_G}.radius")
    if geometry == "voxel":
        return
    e = f"{_G}.pos_encoding_config"
    levels = int(t.number(f"{e}.n_levels"))
    base, growth = t.number(f"{e}.base_resolution"), t.number(f"{e}.per_level_scale")
    job.put("geometry.levels", levels)
    for theirs, ours in (("n_features_per_level", "features"), ("log2_hashmap_size", "log2_table")):
        job.put(f"geometry.{ours}", int(t.number(f"{e}.{theirs}")))
        t.use(f"{e}.{theirs}", f"geometry.{ours}")
    job.put("geometry.base_resolution", int(base))
    job.put("geometry.finest", round(base * growth ** (levels - 1)))
    for theirs, ours in (("n_levels", "levels"), ("base_resolution", "base_resolution"), ("per_level_scale", "finest")):
        t.use(f"{e}.{theirs}", f"geometry.{ours}")
    if f"{e}.start_level" in t:
        start, first, every = (int(t.number(f"{e}.{k}")) for k in ("start_level", "start_step", "update_steps"))
        last = first + (levels - start) * every
        job.put("geometry.active", {"points": {0: start / levels, first: start / levels, last: 1.0}})
        for k in ("start_level", "start_step", "update_steps"):
            t.use(f"{e}.{k}", "geometry.active")
    t.same(f"{e}.otype", "a hash grid; levels come in where geometry.active says so")
    _network(t, job)
    _channels(t, job)


def _network(t: Theirs, job: Ours) -> None:
    """The small network behind the encoding."""
    n = f"{_G}.mlp_network_config"
    for theirs, ours, default in (("n_neurons", "hidden", 64), ("n_hidden_layers", "hidden_layers", 1)):
        job.put(f"geometry.{ours}", int(t.number(f"{n}.{theirs}", default)))
        t.use(f"{n}.{theirs}", f"geometry.{ours}")
    if t.get(f"{n}.activation", "ReLU") == "ReLU":
        job.put("geometry.activation", "relu")
        t.use(f"{n}.activation", "geometry.activation")
    else:
        t.lose(f"{n}.activation", "silu is taken")


def _channels(t: Theirs, job: Ours) -> None:
    """Features: ours are as many as the material reads."""
    key, count = f"{_G}.n_feature_dims", int(t.number(f"{_G}.n_feature_dims", 3))
    if t.get("system.material_type") == "pbr-material":
        job.put("geometry.channels", 5)  # colour, roughness and metal; theirs has three more for bumps
        t.use(key, "geometry.channels")
    elif count > 0:
        job.put("geometry.channels", count)
        t.use(key, "geometry.channels")
    else:
        t.same(key, "the surface is shown without colours")


def _blob(t: Theirs, job: Ours) -> None:
    """Density softplus(raw + scale (1 - r / std)) of theirs, with lengths and densities in our unit."""
    std = t.number(f"{_G}.density_blob_std") * job.length
    inverted = t.number(f"{_G}.density_blob_scale") < 0
    job.put("geometry.bias", tidy(float(t.number(f"{_G}.density_blob_scale"))))
    job.put("geometry.bias_radius", tidy(std))
    job.put("geometry.gain", 1.0)
    job.put("geometry.scale", tidy(1 / job.length))
    t.use(f"{_G}.density_blob_scale", "geometry.bias")
    t.use(f"{_G}.density_blob_std", "geometry.bias_radius")
    if inverted:
        t.notes.append("the blob is inverted: a room, dense outside")
    _surface_level(t, job)
    _normal_type(t, job)


def _surface_level(t: Theirs, job: Ours) -> None:
    """Where exporters look for the surface of a density."""
    key, level = f"{_G}.isosurface_threshold", t.get(f"{_G}.isosurface_threshold", "auto")
    if isinstance(level, (int, float)) and level > 0:
        job.put("surface.level", tidy(level / job.length))
        t.use(key, "export.level")
    else:
        t.same(key, "the level is found by looking")
    job.put("surface.resolution", int(t.number(f"{_G}.isosurface_resolution")))
    t.use(f"{_G}.isosurface_resolution", "export.resolution")
    t.same(f"{_G}.isosurface_deformable_grid", "vertices are placed by interpolation")


def _normal_type(t: Theirs, job: Ours) -> None:
    key = f"{_G}.normal_type"
    kind = t.get(key) if key in t.values else "finite_difference"
    if kind in (None, "analytic"):
        t.use(key, "renderer.normals")
    else:
        t.lose(key, "normals of a density are its slope, by the network's own derivative")
        t.lose(
            f"{_G}.finite_difference_normal_eps", "normals of a density are its slope, by the network's own derivative"
        )


def _voxel(t: Theirs, job: Ours) -> None:
    sizes = t.get(f"{_G}.grid_size", [100, 100, 100])
    job.put("geometry.cells", max(sizes))
    job.put("geometry.gain", 1.0)
    job.put("geometry.scale", tidy(1 / job.length))
    t.use(f"{_G}.grid_size", "geometry.cells")
    _channels(t, job)
    _normal_type(t, job)


def _distance(t: Theirs, job: Ours) -> None:
    kind = t.get(f"{_G}.normal_type", "finite_difference")
    eps = t.get(f"{_G}.finite_difference_normal_eps", 0.01)
    job.put("geometry.normals", "analytic" if kind == "analytic" else "finite-difference")
    t.use(f"{_G}.normal_type", "geometry.normals")
    if eps == "progressive":
        t.same(f"{_G}.finite_difference_normal_eps", "differences are taken across a cell of the finest level")
    else:
        t.lose(f"{_G}.finite_difference_normal_eps", "differences are taken across a cell of the finest level")
    _first_shape(t, job)
    _surface_level(t, job)
    job.values.get("surface", {}).pop("level", None)
    job.put("geometry.learn_width", True)
    if t.get("system.renderer_type") == "neus-volume-renderer" and not t.get(f"{_R}.use_volsdf"):
        job.put("geometry.density", "neus")
    t.use(f"{_R}.use_volsdf", "geometry.density")


def _tetrahedra(t: Theirs, job: Ours) -> None:
    job.put("geometry.resolution", int(t.number(f"{_G}.isosurface_resolution")))
    t.use(f"{_G}.isosurface_resolution", "geometry.resolution")
    job.put("geometry.sdf_lr", 1.0)
    if t.get(f"{_G}.isosurface_deformable_grid", True):
        t.same(f"{_G}.isosurface_deformable_grid", "the grid is deformed")
    else:
        t.lose(f"{_G}.isosurface_deformable_grid", "the grid is always deformed (offset bounds it)")
    fixed = bool(t.get(f"{_G}.fix_geometry", False))
    job.put("geometry.fixed", fixed)
    t.use(f"{_G}.fix_geometry", "geometry.fixed")
    t.same(f"{_G}.geometry_only", "the surface is shown without colours")
    t.same(f"{_G}.isosurface_threshold", "the surface is the distance's zero")
    t.same(f"{_G}.normal_type", "normals are the surface's own")
    _first_shape(t, job)


def _first_shape(t: Theirs, job: Ours) -> None:
    """A sphere, an ellipsoid or a mesh, whether theirs is fitted to it or biased by it."""
    for name in ("shape_init", "sdf_bias"):
        key, shape = f"{_G}.{name}", t.get(f"{_G}.{name}")
        size = t.get(f"{key}_params", 0.5)
        if not isinstance(shape, str):
            continue
        if shape.startswith("mesh:"):
            job.put("geometry.start", "mesh")
            job.put("geometry.file", shape.removeprefix("mesh:"))
            job.put("geometry.radius", tidy(float(size) * job.length))
        elif shape == "ellipsoid":
            job.put("geometry.start", "ellipsoid")
            job.put("geometry.radii", [tidy(v * job.length) for v in size])
        else:
            job.put("geometry.start", "sphere")
            job.put("geometry.radius", tidy(min(float(size) * job.length, 0.9)))
        t.use(key, "geometry.start")
        t.use(f"{key}_params", "geometry.radius")


def _renderer(t: Theirs, job: Ours, kind: str) -> None:
    job.put("renderer.type", kind)
    named = t.get("system.renderer_type")
    if named in ("patch-renderer", "gan-volume-renderer"):
        t.lose("system.renderer_type", "pictures are rendered whole" if named == "patch-renderer" else "no GAN")
        t.use(f"{_R}.base_renderer_type", "renderer.type")
    else:
        t.use("system.renderer_type", "renderer.type")
    normals = (f"{_R}.return_comp_normal", f"{_R}.return_normal_perturb")
    if kind == "mesh-rasterizer":
        for key in normals:
            t.same(key, "a rasterised surface has normals")
        return
    key = next((k for k in (f"{_R}.base_renderer.num_samples_per_ray", f"{_R}.num_samples_per_ray") if k in t), "")
    count = t.number(key or f"{_R}.num_samples_per_ray")
    step = 2 * math.sqrt(3) * t.number(f"{_G}.radius") / count  # theirs divides its cube's diagonal
    job.put("renderer.samples", math.ceil(2 / (step * job.length)))
    t.use(key, "renderer.samples")
    told = t.get(f"{_G}.normal_type") if f"{_G}.normal_type" in t.values else "finite_difference"
    shaded = job.get("material.type") in ("diffuse", "pbr", "textureless", "hybrid-latent")
    job.put("renderer.normals", shaded or told is not None or any(t.get(k) for k in normals))
    for k in normals:
        t.use(k, "renderer.normals")
    if t.get(f"{_R}.grid_prune", True) is False:
        job.put("renderer.warmup", int(t.number("trainer.max_steps")))
    t.use(f"{_R}.grid_prune", "renderer.warmup")


def _colours_of_latents(t: Theirs, job: Ours) -> None:
    """A scene of latents has as many features as its prior has latents."""
    if job.get("material.type") in ("latent", "latent-to-rgb") and job.get("geometry.type") != "voxel":
        job.put("geometry.channels", 4)


def sketch(t: Theirs, job: Ours) -> None:
    """A mesh that guides the field (Sketch-Shape): ours is a geometry that holds the field."""
    key, weight = "system.guide_shape", "system.loss.lambda_shape"
    if key not in t.values:
        return
    whole = {"type": "sketched", "field": job.get("geometry"), "radius": 0.9, "leniency": tidy(0.3 * job.length)}
    if key in t:
        whole["file"] = str(t.get(key))
    job.put("geometry", whole | {"stretch": tidy(0.2 * job.length)})
    t.use(key, "geometry.file")
    if weight in t.values and not vanishes(t.values[weight]):
        job.put("losses.sketch-shape", schedule(t.values[weight], f"{t.name}: {weight}", 2.0))
        t.use(weight, "losses.sketch-shape")
        t.notes.append("lambda_shape weighs a sum over samples there and a mean here: twice its value is taken")
