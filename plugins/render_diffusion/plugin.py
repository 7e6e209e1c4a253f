"""RenderDiffusion (Anciukevičius et al. 2023)."""

from core import hookimpl

API = 1


@hookimpl
def register(registry):  # type: ignore[no-untyped-def]
    registry.add("generator", "render-diffusion", "plugins.render_diffusion.render_diffusion:RenderDiffusion",
                 "diffusion of single pictures through three feature planes: a scene from one picture or none",
                 gives=["density", "features"])  # fmt: skip
    registry.add("command", "eval-render-diffusion", "plugins.render_diffusion.evaluate:evaluate",
                 "what a fitted render-diffusion shows from other sides, beside what needs no model")  # fmt: skip
