"""The plugin ``core``: what the core itself provides, declared through the same interface as everyone's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.hookspecs import hookimpl

if TYPE_CHECKING:
    from core.registry import Registrar

API = 1

_LOSSES = [
    ("image", "squared difference from the data's pictures", ["rgb", "target"]),
    ("image-l1", "absolute difference from the data's pictures", ["rgb", "target"]),
    ("mask", "opacity as in the data's masks", ["opacity", "target-mask"]),
    ("nearness", "near and far as in a given depth map, on any scale",
     ["depth", "opacity", "target-nearness", "target-mask"]),
    ("normal", "normals as in a given normal map", ["normal", "opacity", "target-normal", "target-mask"]),
    ("sparsity", "pulls empty space to empty", ["opacity"]),
    ("opacity", "a pixel is covered or it is not", ["opacity"]),
    ("orientation", "visible surfaces face the camera", ["weights", "normal"]),
    ("distortion", "one thin surface along each ray, no fog", ["weights"]),
    ("z-variance", "one thin surface along each ray that sees the object", ["weights"]),
    ("centre-depth", "the object is in the middle of the picture", ["depth", "opacity"]),
    ("smoothness", "neighbouring normals agree", ["normal"]),
    ("emptiness", "thin fog costs most", ["weights"]),
    ("eikonal", "a signed distance has slope 1", ["sdf-gradient"]),
    ("sdf-entropy", "few changes of a distance's sign: no floaters, no inner walls", ["sdf-edges"]),
    ("normal-consistency", "neighbouring faces of a surface look the same way", ["face-normals"]),
    ("laplacian", "vertices of a surface lie amid their neighbours", ["umbrella"]),
    ("total-variation", "neighbouring values of a grid agree", ["variation"]),
    ("saturation", "keeps colours from burning out", ["rgb"]),
]


@hookimpl
def register(registry: Registrar) -> None:
    """Add the task ``lift``, the regularisers and the kernels' benchmark."""
    registry.add("task", "lift", "core.lift:Lift", "optimise a 3D scene against priors and losses")
    for name, doc, needs in _LOSSES:
        registry.add("loss", name, f"core.losses:{name.replace('-', '_')}", doc, needs=needs)
    registry.add("command", "bench-kernels", "core.cli.kernels:bench_kernels", "time of each kernel's backends here")
