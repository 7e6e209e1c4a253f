"""Their data, optimiser, stages and exporters as ours."""

from __future__ import annotations

from typing import Any

from plugins.threestudio.leading import base_rate, prior
from plugins.threestudio.ours import Ours
from plugins.threestudio.reading import Theirs, component
from plugins.threestudio.values import decay, milestones, points, tidy

_DATA = {
    "random-camera-datamodule": "random-cameras",
    "eff-random-camera-datamodule": "random-cameras",
    "single-image-datamodule": "given-views",
    "multiview-camera-datamodule": "given-views",
    "co3d-datamodule": "given-views",
}
_O = "system.optimizer"
_TURN = (
    ("eval_camera_distance", "distance", None),
    ("eval_fovy_deg", "fov", 1.0),
    ("eval_elevation_deg", "elevation", 1.0),
    ("eval_height", "size", 1),
    ("n_test_views", "frames", 1),
)
"""What theirs renders as its test: its key, the option of our video, a factor (None: of lengths)."""
_RATES = ("density_network", "sdf_network", "feature_network", "network")


def data(t: Theirs, job: Ours) -> None:
    """Put the cameras, and what is to be seen from some."""
    named = t.get("data_type", "random-camera-datamodule")
    kind = component(t, "data_type", _DATA, named)
    if named.startswith("eff"):
        t.lose("data_type", "pictures are rendered whole")
    elif named.startswith("co3d"):
        t.lose("data_type", "CO3D has to be a folder of pictures and cameras")
    t.use("data_type", "data.type")
    if kind == "random-cameras":
        job.put("data", _cameras(t, job, "data"))
        return
    shown: dict[str, Any] = {"type": "given-views"}
    if named == "single-image-datamodule":
        shown["cameras"] = _cameras(t, job, "data.random_camera")
        _picture(t, job)
        shown["size"] = _one_size(t)
    elif named == "co3d-datamodule":
        _co3d(t, shown)
    if "data.dataroot" in t:
        job.put("image", str(t.get("data.dataroot")))
    t.use("data.dataroot", "image")
    if job.get("background.type") == "solid":
        shown["background"] = tidy(sum(job.get("background.color")) / 3)
    job.put("data", shown)


def _cameras(t: Theirs, job: Ours, root: str) -> dict[str, Any]:
    steps = t.get(f"{root}.resolution_milestones", [])
    found: dict[str, Any] = {"type": "random-cameras", "batch": _batch(t, root)}
    found["size"] = milestones(_of(t, root, "height"), steps, f"{t.name}: {root}.height")
    t.use(f"{root}.height", "data.size")
    t.use(f"{root}.resolution_milestones", "data.size")
    if _of(t, root, "width") == _of(t, root, "height"):
        t.use(f"{root}.width", "data.size")
    else:
        t.lose(f"{root}.width", "pictures are square")
    for theirs, ours in (
        ("elevation_range", "elevation"),
        ("fovy_range", "fov"),
        ("camera_distance_range", "distance"),
    ):
        ends = t.pair(f"{root}.{theirs}" if f"{root}.{theirs}" in t else f"data.{theirs}")
        factor = job.length if ours == "distance" else 1.0
        found[ours] = [tidy(float(v) * factor) for v in ends]
        t.use(f"{root}.{theirs}", f"data.{ours}")
    _light(t, job, root)
    return found


def _of(t: Theirs, root: str, key: str) -> Any:
    return t.get(f"{root}.{key}", t.defaults.get(f"data.{key}"))


def _batch(t: Theirs, root: str) -> int:
    """Views of a step; ours do not change over the run: the last."""
    count = _of(t, root, "batch_size")
    if not isinstance(count, list):
        t.use(f"{root}.batch_size", "data.batch")
        return int(count)
    if len(set(count)) == 1:
        t.use(f"{root}.batch_size", "data.batch")
    else:
        t.lose(f"{root}.batch_size", f"the number of views is the same in every step; the last, {count[-1]}, is taken")
    return int(count[-1])


def _light(t: Theirs, job: Ours, root: str) -> None:
    spread = t.get(f"{root}.light_position_perturb", 1.0)
    if t.get(f"{root}.light_sample_strategy", "dreamfusion") == "magic3d":
        spread = 0.3
    if job.get("material.type") == "diffuse":
        job.put("material.light_spread", spread)
    for key in ("light_position_perturb", "light_sample_strategy"):
        t.use(f"{root}.{key}", "material.light_spread")


def _picture(t: Theirs, job: Ours) -> None:
    if "data.image_path" in t:
        job.put("image", str(t.get("data.image_path")))
    t.use("data.image_path", "image")
    defaults = {"elevation_deg": 0.0, "azimuth_deg": 0.0, "camera_distance": 1.2, "fovy_deg": 60.0}
    for theirs, ours in (
        ("elevation_deg", "elevation"),
        ("azimuth_deg", "azimuth"),
        ("camera_distance", "distance"),
        ("fovy_deg", "fov"),
    ):
        value = float(t.number(f"data.default_{theirs}", defaults[theirs]))
        job.put(f"picture.{ours}", tidy(value * job.length) if ours == "distance" else value)
        t.use(f"data.default_{theirs}", f"picture.{ours}")
    job.put("picture.frame", None)


def _one_size(t: Theirs) -> int:
    """Ours shows the given picture at one size: the last."""
    size = t.get("data.height", 96)
    if isinstance(size, list) and len(set(size)) > 1:
        for key in ("height", "width", "resolution_milestones"):
            t.lose(f"data.{key}", f"the given picture is looked at in one size; the last, {size[-1]}, is taken")
    else:
        for key in ("height", "width", "resolution_milestones"):
            t.use(f"data.{key}", "data.size")
    return int(size[-1] if isinstance(size, list) else size)


def _co3d(t: Theirs, shown: dict[str, Any]) -> None:
    shown["size"] = int(t.number("data.height"))
    for key in ("height", "width"):
        t.use(f"data.{key}", "data.size")
    t.use("data.root_dir", "image")
    for key in t.values:
        if key.startswith("data.") and key not in t.fates and ".random_camera." not in key:
            t.lose(key, "CO3D has to be a folder of pictures and cameras (docs: pictures)")


def loop(t: Theirs, job: Ours) -> None:
    """Put what a run and its optimiser are told; the keys that stand for themselves are in the table."""
    job.put("steps", int(t.number("trainer.max_steps")))
    t.use("trainer.max_steps", "steps")
    name = t.get(f"{_O}.name", "Adam")
    job.put("optimizer.type", "adamw" if name == "AdamW" else "adam")
    if name in ("Adam", "AdamW", "FusedAdam"):
        t.use(f"{_O}.name", "optimizer.type")
    else:
        t.lose(f"{_O}.name", f"no {name}; adam is taken")
    rate = base_rate(t)
    job.put("optimizer.lr", rate)
    for key in ("params.geometry.lr", "params.geometry.encoding.lr", "args.lr"):
        t.use(f"{_O}.{key}", "optimizer.lr")
    _shares(t, job, rate)
    _schedule(t, job)


def _shares(t: Theirs, job: Ours, rate: float) -> None:
    """Rates of parts, as shares of the stage's."""
    if job.get("geometry.type") in ("hash-grid", "sdf", "tetrahedra"):
        named = [f"{_O}.params.geometry.{n}.lr" for n in _RATES if f"{_O}.params.geometry.{n}.lr" in t]
        job.put("geometry.network_lr", tidy(t.number(named[0]) / rate if named else 1.0))
        for key in named:
            t.use(key, "geometry.network_lr")
    for key in (f"{_O}.params.background.lr", f"{_O}.params.background.network.lr"):
        kind, share = job.get("background.type"), t.number(key, rate) / rate
        if kind == "textured" and key in t:
            job.put("background.lr", tidy(share))
            t.use(key, "background.lr")
        elif kind == "neural" and abs(share - 0.1) < 1e-9:
            t.same(key, "a tenth of the stage's")
        elif kind == "solid":
            t.same(key, "it is not learned")
        else:
            t.lose(key, "the background's rate is a tenth of the stage's")
    key = f"{_O}.params.renderer.lr"
    if job.get("geometry.learn_width") and key in t:
        job.put("geometry.width_lr", tidy(t.number(key) / rate))
        t.use(key, "geometry.width_lr")
    t.same(key, "nothing in the renderer is learned")


def _schedule(t: Theirs, job: Ours) -> None:
    """A warm-up and an exponential decay, in straight pieces."""
    kinds = t.get("system.scheduler.schedulers", [])
    args = {str(s.get("name")): s.get("args", {}) for s in kinds if isinstance(s, dict)}
    keys = [key for key in t.values if key.startswith("system.scheduler.")]
    if not keys:
        return
    if set(args) == {"LinearLR", "ExponentialLR"} and t.get("system.scheduler.name") == "SequentialLR":
        warm, gamma = args["LinearLR"], float(args["ExponentialLR"]["gamma"])
        falling = decay(
            int(warm["total_iters"]), float(warm["start_factor"]), gamma, int(t.number("trainer.max_steps"))
        )
        job.put("optimizer.schedule", falling)
        for key in keys:
            t.use(key, "optimizer.schedule")
        return
    for key in keys:
        t.lose(key, "write optimizer.schedule: points of time and factor")


def stages(t: Theirs, job: Ours) -> None:
    """Put the stages of what their systems change at a step."""
    total = int(t.number("trainer.max_steps"))
    if t.get("system.latent_steps"):
        first = int(t.number("system.latent_steps"))
        guidance = [{**item, "sees": "normals-as-latents"} for item in job.get("guidance")]
        job.put("stages", [{"name": "rough", "steps": first, "guidance": guidance},
                           {"name": "geometry", "steps": max(total - first, 1)}])  # fmt: skip
        t.use("system.latent_steps", "stages")
        job.values.pop("steps")
    if "system.start_editing_step" in t or "system.per_editing_step" in t:
        _editing(t, job, total)
    t.same("system.stage", "follows from the geometry and the material")
    t.same("system_type", "any prior, score and geometry go together")


def _editing(t: Theirs, job: Ours, total: int) -> None:
    """InstructNeRF2NeRF: a scene from pictures, then pictures that a prior repairs every few steps."""
    begin, every = int(t.number("system.start_editing_step", 600)), int(t.number("system.per_editing_step", 10))
    job.put("guidance", [])
    size = int(job.get("data").get("size", 256))
    follows = dict(job.get("losses"))
    edit = {
        "type": "dataset-update",
        "prior": prior(t, "system.guidance"),
        "keep_originals": "pix2pix" in t.get("system.guidance_type", ""),
        "cameras": {"type": "given-views", "batch": 32, "size": size},
        "shared_noise": False,
        "reference": 0,
        "updates": max(1, (total - begin) // (every * 32)),
        "denoise_steps": 20,
        "scale": t.number("system.guidance.guidance_scale", 7.5),
        "level": {"from": _end(t, "max", 0.98, first=True), "to": _end(t, "min", 0.02, first=False)},
    }
    follows["image-l1"] = t.number("system.loss.lambda_l1", 10.0)
    job.put("losses", {})
    first = {"name": "scene", "steps": begin, "data": {"type": "given-views", "batch": 4, "size": size}}
    second = {"name": "edit", "steps": total - begin, "data": edit}
    job.put("stages", [{**stage, "losses": follows} for stage in (first, second)])
    for key in ("steps", "data"):
        job.values.pop(key)
    for key, ours in (("start_editing_step", "stages"), ("per_editing_step", "data.updates")):
        t.use(f"system.{key}", ours)
    for key in ("min_step_percent", "max_step_percent"):
        t.use(f"system.guidance.{key}", "data.level")
    t.use("system.loss.lambda_l1", "losses.image-l1")
    t.same("system.loss.lambda_sds", "no loss")


def _end(t: Theirs, which: str, default: float, first: bool) -> float:
    """The first or the last value of a bound of the noise."""
    key = f"system.guidance.{which}_step_percent"
    value = t.get(key, default)
    if isinstance(value, list):
        value = list(points(value, f"{t.name}: {key}").values())[0 if first else -1]
    return float(value)


def exports(t: Theirs, job: Ours) -> None:
    """Put what is written in the end: the mesh, and the turn that theirs renders as its test."""
    surface = job.values.pop("surface", {})
    named = t.get("system.exporter_type", "mesh-exporter")
    latent = job.get("material.type") == "latent"
    found: list[Any] = [] if named == "dummy-exporter" or latent else [{"type": "obj", **surface}]
    t.use("system.exporter_type", "export")
    t.use("system.exporter.fmt", "export")
    root = next((r for r in ("data.random_camera", "data") if any(k.startswith(f"{r}.eval") for k in t.values)), "data")
    video: dict[str, Any] = {"type": "video"}
    for theirs, ours, factor in _TURN:
        factor = job.length if factor is None else factor
        for key in (f"{root}.{theirs}", f"data.{theirs}"):
            if key in t:
                video[ours] = tidy(t.number(key) * factor)
                t.use(key, f"export.video.{ours}")
    for key in (f"{root}.eval_width", "data.eval_width"):
        t.use(key, "export.video.size")
    if video.get("distance", 0) or "fov" in video:
        video["fit"] = False
    job.put("export", [*found, video])
