"""Their prompts, guidances and losses as ours."""

from __future__ import annotations

from typing import Any

from core.errors import UserError, did_you_mean
from plugins.threestudio.ours import Ours
from plugins.threestudio.reading import Theirs, component
from plugins.threestudio.values import schedule, tidy, vanishes

_P = "system.prompt_processor"
PRIORS = {
    "stable-diffusion-guidance": "stable-diffusion",
    "stable-diffusion-unified-guidance": "stable-diffusion",
    "stable-diffusion-vsd-guidance": "stable-diffusion",
    "stable-diffusion-sdi-guidance": "stable-diffusion",
    "stable-diffusion-controlnet-guidance": "controlnet",
    "controlnet-guidance": "controlnet",
    "stable-diffusion-instructpix2pix-guidance": "instruct-pix2pix",
    "deep-floyd-guidance": "deepfloyd-if",
    "zero123-guidance": "zero123",
    "stable-zero123-guidance": "zero123",
    "zero123-unified-guidance": "zero123",
}
MODELS = {
    "stable-diffusion": "runwayml/stable-diffusion-v1-5",
    "controlnet": "SG161222/Realistic_Vision_V2.0",
    "deepfloyd-if": "DeepFloyd/IF-I-XL-v1.0",
    "zero123": "bennyguo/zero123-diffusers",
}
"""What their classes load where a file names nothing."""
_SHIFTED = ("stable-diffusion-guidance", "deep-floyd-guidance", "stable-diffusion-sdi-guidance")
"""Guidances whose scale s means ``cond + s (cond - uncond)`` without Perp-Neg: ours is one larger."""
_PROMPTS = {
    "stable-diffusion-prompt-processor": "view-words",
    "deep-floyd-prompt-processor": "view-words",
    "dummy-prompt-processor": "same",
}
_SCALES = {"stable-diffusion-vsd-guidance": 7.5, "deep-floyd-guidance": 20.0, "zero123-guidance": 5.0,
           "stable-zero123-guidance": 5.0, "zero123-unified-guidance": 5.0, "controlnet-guidance": 7.5,
           "stable-diffusion-controlnet-guidance": 7.5, "stable-diffusion-instructpix2pix-guidance": 7.5}  # fmt: skip
_WEIGHTS = {
    "system.guidance": ("lambda_sds", "lambda_sd", "lambda_vsd", "lambda_sdi"),
    "system.guidance_3d": ("lambda_3d_sd",),
}


def prompts(t: Theirs, job: Ours) -> None:
    """Put the sentence and who says it."""
    kind = component(t, f"{_P}_type", _PROMPTS, "stable-diffusion-prompt-processor")
    t.use(f"{_P}_type", "prompts.type")
    sentence = t.get(f"{_P}.prompt", "")
    if sentence:
        job.put("prompt", sentence.replace("lib:", "") if sentence.startswith("lib:") else sentence)
        if sentence.startswith("lib:"):
            t.notes.append("lib: names a sentence of threestudio's library; write the sentence itself")
    t.use(f"{_P}.prompt", "prompt")
    if f"{_P}.negative_prompt" in t:
        job.put("negative_prompt", t.get(f"{_P}.negative_prompt"))
    t.use(f"{_P}.negative_prompt", "negative_prompt")
    if t.get("system.guidance.view_dependent_prompting", True) is False:
        kind = "same"
    t.use("system.guidance.view_dependent_prompting", "prompts.type")
    job.put("prompts.type", kind)
    if kind == "view-words":
        job.put("prompts.front", t.number(f"{_P}.front_threshold"))
        if t.get(f"{_P}.use_perp_neg"):
            job.put("prompts.perp_neg", 1.0)
    t.use(f"{_P}.front_threshold", "prompts.front")
    t.use(f"{_P}.use_perp_neg", "prompts.perp_neg")
    if t.get(f"{_P}.back_threshold", 45.0) == t.number(f"{_P}.front_threshold"):
        t.use(f"{_P}.back_threshold", "prompts.front")
    else:
        t.lose(f"{_P}.back_threshold", "front and back sectors are equally wide")


def guidances(t: Theirs, job: Ours) -> None:
    """Put the list of guidances; one whose weight is 0 throughout repairs pictures instead (see ``editing``)."""
    items = []
    for root in ("system.guidance_3d", "system.guidance"):
        if f"{root}_type" in t or (root == "system.guidance" and "system.guidance_type" not in t):
            items.append(_guidance(t, job, root))
    job.put("guidance", items)


def _guidance(t: Theirs, job: Ours, root: str) -> dict[str, Any]:
    named = t.get(f"{root}_type", "stable-diffusion-guidance")
    item: dict[str, Any] = {"prior": prior(t, root), "score": _score(t, root, named)}
    weight = _weight(t, root)
    if weight != 1:
        item["weight"] = weight
    if job.get("material.type") == "textureless" and root == "system.guidance":
        item["sees"] = "normals"
    return item


def prior(t: Theirs, root: str) -> dict[str, Any]:
    """The prior of a guidance."""
    kind = component(t, f"{root}_type", PRIORS, "stable-diffusion-guidance")
    t.use(f"{root}_type", "guidance.prior")
    key = f"{root}.pretrained_model_name_or_path"
    found: dict[str, Any] = {"type": kind}
    model = t.get(key, t.get(f"{_P}.pretrained_model_name_or_path") if kind == "controlnet" else None)
    model = model or MODELS.get(kind)
    if model:
        found["model"] = str(model)
    t.use(key, "guidance.prior.model")
    if kind == "zero123":
        for end, ours in (("image_path", "image"), ("elevation_deg", "picture.elevation"),
                          ("azimuth_deg", "picture.azimuth"), ("camera_distance", "picture.distance")):  # fmt: skip
            t.use(f"{root}.cond_{end}", ours)
    else:
        found["precision"] = "float16" if t.get(f"{root}.half_precision_weights", True) else "float32"
    for theirs, ours in (
        ("control_type", "control"),
        ("condition_scale", "control_scale"),
        ("fixed_size", "image_size"),
    ):
        if f"{root}.{theirs}" in t:
            found[ours] = t.get(f"{root}.{theirs}")
            t.use(f"{root}.{theirs}", f"guidance.prior.{ours}")
    return found


def _score(t: Theirs, root: str, named: str) -> dict[str, Any]:
    kind = _kind_of_score(t, root, named)
    found: dict[str, Any] = {"type": kind, "scale": _scale(t, root, named)}
    t.use(f"{root}.guidance_scale", "guidance.score.scale")
    weighting = t.get(f"{root}.weighting_strategy", "sds")
    if kind in ("sds", "hifa"):
        found["weighting"] = {"dreamfusion": "sds"}.get(weighting, weighting)
        t.use(f"{root}.weighting_strategy", "guidance.score.weighting")
    t.same(f"{root}.weighting_strategy", "the score's own weighting, which threestudio does not read here either")
    for end, ours, default in (("min", "low", 0.02), ("max", "high", 0.98)):
        key = f"{root}.{end}_step_percent"
        found[ours] = schedule(t.get(key, default), f"{t.name}: {key}")
        t.use(key, f"guidance.score.{ours}")
    if f"{root}.grad_clip" in t:
        found["clip"] = schedule(t.get(f"{root}.grad_clip"), f"{t.name}: {root}.grad_clip")
        t.use(f"{root}.grad_clip", "guidance.score.clip")
    _own_options(t, root, kind, found)
    return found


def _kind_of_score(t: Theirs, root: str, named: str) -> str:
    """Which score their guidance, with its switches, is."""
    t.use(f"{root}.guidance_type", "guidance.score.type")
    t.use(f"{root}.use_sjc", "guidance.score.type")
    if named == "stable-diffusion-vsd-guidance" or t.get(f"{root}.guidance_type") == "vsd":
        return "vsd"
    if named == "stable-diffusion-sdi-guidance":
        return "sdi"
    if t.get(f"{root}.use_sjc"):
        return "sjc"
    return "hifa" if _image_weight(t, root) else "sds"


def _image_weight(t: Theirs, root: str) -> float:
    """The weight of the loss on colours, as a share of that on latents."""
    if root != "system.guidance" or not t.get(f"{root}.use_img_loss"):
        return 0.0
    for colours, latents in (("lambda_sds_img", "lambda_sds"), ("lambda_sd_img", "lambda_sd")):
        one, other = t.get(f"system.loss.{colours}", 0.0), t.get(f"system.loss.{latents}", 0.0)
        if isinstance(one, (int, float)) and isinstance(other, (int, float)) and one and other:
            return one / other
    return 0.0


def _scale(t: Theirs, root: str, named: str) -> float:
    scale = t.number(f"{root}.guidance_scale", _SCALES.get(named, 100.0))
    perp_neg = bool(t.get(f"{_P}.use_perp_neg"))
    return scale + 1 if named in _SHIFTED and not perp_neg else scale


def _own_options(t: Theirs, root: str, kind: str, found: dict[str, Any]) -> None:
    anneal = "sqrt" if t.get(f"{root}.sqrt_anneal") else "linear" if t.get(f"{root}.t_anneal") else "none"
    if kind in ("hifa", "sdi") or anneal != "none":
        found["anneal"] = anneal
    for key in ("sqrt_anneal", "t_anneal"):
        t.use(f"{root}.{key}", "guidance.score.anneal")
    t.use(f"{root}.use_img_loss", "guidance.score.image_weight")
    if kind != "vsd" and root == "system.guidance":
        named = (f"{root}.vsd_use_camera_condition", f"{root}.vsd_phi_model_name_or_path")
        for key in (*named, "system.optimizer.params.guidance.lr"):
            t.same(key, "nothing is learned beside: the score is not vsd")
    if kind == "hifa":
        found |= {"denoise_steps": 1, "image_weight": tidy(_image_weight(t, root))}
    elif kind == "vsd":
        rate = "system.optimizer.params.guidance.lr"
        found["lr_scale"] = tidy(t.number(rate, 1e-4) / base_rate(t))
        t.use(rate, "guidance.score.lr_scale")
        if t.get(f"{root}.vsd_use_camera_condition", True) is False:
            found["camera_dropout"] = 1.0
        t.use(f"{root}.vsd_use_camera_condition", "guidance.score.camera_dropout")
    elif kind == "sjc":
        found["variance_reduction"] = bool(t.get(f"{root}.var_red", True))
        t.use(f"{root}.var_red", "guidance.score.variance_reduction")
    elif kind == "sdi":
        for theirs, ours in (("guidance_scale", "scale"), ("n_steps", "steps"), ("eta", "")):
            key, name = f"{root}.inversion_{theirs}", f"inversion_{ours}" if ours else "eta"
            if key in t:
                found[name] = t.get(key)
                t.use(key, f"guidance.score.{name}")


def _weight(t: Theirs, root: str) -> Any:
    found: Any = 1.0
    for name in _WEIGHTS[root]:
        key = f"system.loss.{name}"
        if key in t.values:
            found = schedule(t.values[key], f"{t.name}: {key}")
            t.use(key, "guidance.weight")
    for name in ("lambda_sds_img", "lambda_sd_img"):
        key = f"system.loss.{name}"
        if key in t.values and root == "system.guidance":
            if _image_weight(t, root):
                t.use(key, "guidance.score.image_weight")
            elif vanishes(t.values[key]):
                t.same(key, "no loss")
            else:
                t.lose(key, "vsd has no loss on colours")
    return found


def base_rate(t: Theirs) -> float:
    """The learning rate that others are shares of: the geometry's."""
    o = "system.optimizer"
    named = (f"{o}.params.geometry.lr", f"{o}.params.geometry.encoding.lr", f"{o}.args.lr")
    return t.number(next((key for key in named if key in t), f"{o}.args.lr"))


def losses(t: Theirs, job: Ours, table: dict[str, Any], known: list[str]) -> None:
    """Put the weights of losses that ours has too; the rest is in the table of keys.

    Raises:
        UserError: a loss that threestudio has not: it would read nothing from it.
    """
    found: dict[str, Any] = {}
    for key, value in t.values.items():
        name = key.removeprefix("system.loss.")
        if name == key:
            continue
        if name not in known:
            raise UserError(
                f"{t.name}: {key}: threestudio has no such loss and would leave it out without a word."
                f"{did_you_mean(name, known)}"
            )
        rule = table.get(name)
        if rule is None:
            continue
        if vanishes(value):
            t.same(key, "no loss")
            continue
        found[rule["to"]] = schedule(value, f"{t.name}: {key}", job.length ** rule.get("length", 0))
        t.use(key, f"losses.{rule['to']}")
        if isinstance(value, list) and isinstance(value[-1], float):
            t.notes.append(f"{key} counts epochs, and the data there has but one: its first value stays")
    job.put("losses", found)
    if {"orientation", "smoothness"} & set(found) and job.get("renderer.type") == "volume":
        job.put("renderer.normals", True)
