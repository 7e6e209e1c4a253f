"""LION (Zeng et al. 2022, "LION: Latent Point Diffusion Models for 3D Shape Generation")."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    at = "plugins.lion."
    registry.add("generator", "lion", at + "lion:Lion",
                 "diffusion in a global and a point-structured latent of shapes",
                 gives=["mesh", "features"])  # fmt: skip
    registry.add("geometry", "point-latent", at + "point_latent:PointLatent",
                 "points and their surface, decoded from latents of a fitted lion",
                 gives=["gaussians", "mesh", "features", "latent-score"])  # fmt: skip
    registry.add("prior", "lion-prior", at + "lion_prior:LionPrior",
                 "what a fitted lion knows of shapes, for guidance that sees the shape itself")  # fmt: skip
    registry.add("loss", "latent-prior", at + "point_latent:latent_prior",
                 "latents stay where a 3D prior expects them", needs=["latent-score"])  # fmt: skip
    registry.add("exporter", "point-ply", at + "point_ply:PointPlyExporter",
                 "a cloud of points with normals as PLY", needs=["density|sdf|mesh|gaussians"])  # fmt: skip
    registry.add("command", "eval-lion", at + "evaluate:evaluate",
                 "a fitted lion's shapes against held-out ones, beside what would do without its parts")  # fmt: skip
