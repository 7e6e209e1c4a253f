"""Materials."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    needs = ["features"]
    registry.add("material", "plain", "plugins.shading.plain:Plain", "colour without shading", needs=needs)
    registry.add("material", "diffuse", "plugins.shading.diffuse:Diffuse",
                 "Lambertian under a point light and ambient light", needs=needs)  # fmt: skip
    registry.add("material", "pbr", "plugins.shading.pbr:Pbr",
                 "metallic and rough surfaces under an environment (split sum)", needs=needs,
                 gives=["pbr"])  # fmt: skip
    registry.add("material", "neural-radiance", "plugins.shading.neural_radiance:NeuralRadiance",
                 "colour that depends on the view, by a small network", needs=needs)  # fmt: skip
    registry.add("material", "textureless", "plugins.shading.textureless:Textureless",
                 "white Lambertian: shape alone")  # fmt: skip
