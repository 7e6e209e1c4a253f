"""GSD (Mu et al. 2024, "GSD: View-Guided Gaussian Splatting Diffusion for 3D Reconstruction")."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    at = "plugins.gsd."
    registry.add("generator", "gsd", at + "gsd:Gsd",
                 "diffusion over sets of Gaussian ellipsoids, led by the gradient of rendered views",
                 gives=["gaussians", "features", "text", "camera", "image"])  # fmt: skip
    registry.add("command", "eval-gsd", at + "evaluate:evaluate",
                 "a fitted gsd's objects, free and led by a view, beside what would do without its parts")  # fmt: skip
