"""Their materials and backgrounds as ours."""

from __future__ import annotations

from typing import Any

from plugins.threestudio.ours import Ours
from plugins.threestudio.reading import Theirs, component
from plugins.threestudio.values import tidy

_G, _M = "system.geometry", "system.material"
BACKGROUNDS = {
    "neural-environment-map-background": "neural",
    "solid-color-background": "solid",
    "textured-background": "textured",
}
MATERIALS = {
    "no-material": "plain",
    "diffuse-with-point-light-material": "diffuse",
    "pbr-material": "pbr",
    "neural-radiance-material": "neural-radiance",
    "sd-latent-adapter-material": "latent-to-rgb",
    "hybrid-rgb-latent-material": "hybrid-latent",
}


def material(t: Theirs, job: Ours) -> None:
    kind = component(t, "system.material_type", MATERIALS, "no-material")
    if kind == "plain" and t.get(f"{_M}.n_output_dims", 3) > 3:
        kind = "latent"
    if kind == "plain" and (t.get(f"{_M}.n_output_dims", 3) == 0 or t.get(f"{_G}.geometry_only")):
        kind = "textureless"
    job.put("material.type", kind)
    t.use("system.material_type", "material.type")
    if kind == "diffuse":
        _diffuse(t, job)
    elif kind == "pbr":
        for ours, default in (("metallic", (0.0, 0.9)), ("roughness", (0.08, 0.9))):
            ends = [t.number(f"{_M}.{end}_{ours}", d) for end, d in zip(("min", "max"), default, strict=True)]
            job.put(f"material.{ours}", ends)
            t.use(f"{_M}.min_{ours}", f"material.{ours}")
            t.use(f"{_M}.max_{ours}", f"material.{ours}")
        job.put("material.exposure", t.number(f"{_M}.environment_scale", 2.0))
        t.use(f"{_M}.environment_scale", "material.exposure")


def _diffuse(t: Theirs, job: Ours) -> None:
    """Theirs shades ``diffuse_prob`` of the steps after ``ambient_only_steps``, of those a share without texture."""
    lit, white = t.number(f"{_M}.diffuse_prob"), t.number(f"{_M}.textureless_prob")
    steps, first = t.number("trainer.max_steps"), t.number(f"{_M}.ambient_only_steps")
    for theirs, ours in (("ambient_light_color", "ambient"), ("diffuse_light_color", "light")):
        colour = t.get(f"{_M}.{theirs}")
        job.put(f"material.{ours}", tidy(sum(colour) / 3))
        t.use(f"{_M}.{theirs}", f"material.{ours}")
    unlit: Any = tidy(1 - lit)
    if first >= steps:
        unlit, white = 1.0, 0.0
    elif first > 0:
        unlit = {"points": {int(first) - 1: 1.0, int(first): unlit}} if unlit < 1 else 1.0
    job.put("material.unlit", unlit)
    job.put("material.textureless", tidy(lit * white))
    for key, ours in (("ambient_only_steps", "unlit"), ("diffuse_prob", "unlit"), ("textureless_prob", "textureless")):
        t.use(f"{_M}.{key}", f"material.{ours}")
    job.put("material.soft", bool(t.get(f"{_M}.soft_shading", False)))
    t.use(f"{_M}.soft_shading", "material.soft")


def background(t: Theirs, job: Ours) -> None:
    b, kind = "system.background", component(t, "system.background_type", BACKGROUNDS, "solid-color-background")
    job.put("background.type", kind)
    t.use("system.background_type", "background.type")
    if kind == "solid":
        colour = [max(0.0, min(1.0, float(v))) for v in t.get(f"{b}.color", [1.0, 1.0, 1.0])[:3]]
        job.put("background.color", colour)
        t.use(f"{b}.color", "background.color")
        if t.get(f"{b}.learned"):
            job.put("background.learn", True)
        t.use(f"{b}.learned", "background.learn")
    elif kind == "neural":
        for theirs, ours in (
            ("dir_encoding_config.n_frequencies", "harmonics"),
            ("mlp_network_config.n_neurons", "hidden"),
        ):
            if f"{b}.{theirs}" in t:
                job.put(f"background.{ours}", int(t.number(f"{b}.{theirs}")))
                t.use(f"{b}.{theirs}", f"background.{ours}")
        if t.get(f"{b}.random_aug"):
            job.put("background.random", t.number(f"{b}.random_aug_prob", 0.5))
        t.use(f"{b}.random_aug", "background.random")
        t.use(f"{b}.random_aug_prob", "background.random")
    else:
        job.put("background.height", int(t.number(f"{b}.height", 64)))
        job.put("background.learn", True)
        t.use(f"{b}.height", "background.height")
        t.lose(f"{b}.width", "a panorama is twice as wide as high")
