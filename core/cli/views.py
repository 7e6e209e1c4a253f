"""``views``: a viewpoint-conditioned prior's pictures of an object from elsewhere, without any 3D."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from core.cli.runs import Overrides, check_overrides
from core.errors import ConfigError, UserError

DEFAULT_PRIOR = "embedded-zero123"


def attach(app: typer.Typer) -> None:
    """Add this module's verb."""
    app.command("views")(views)


def views(
    picture: Annotated[Path, typer.Argument(metavar="FILE", help="A picture of one object.")],
    overrides: Overrides = None,
    azimuth: Annotated[
        list[float] | None,
        typer.Option(help="Degrees to turn, counter-clockwise seen from above; repeatable. Default: eight."),
    ] = None,
    elevation: Annotated[float | None, typer.Option(help="Degrees to rise; default: as in the picture.")] = None,
    given_elevation: Annotated[float, typer.Option(help="Degrees above the horizon that it was taken from.")] = 15.0,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture, white on the object.")] = None,
    prior: Annotated[str, typer.Option(help="A prior that looks at one; KEY=VALUE are its options.")] = DEFAULT_PRIOR,
    scale: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 2.0,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps.")] = 50,
    size: Annotated[int, typer.Option(min=8, help="Side of the pictures written, pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder that receives the pictures.")] = Path("views"),
) -> None:
    """Show an object from other sides: `views photo.png --azimuth 30 --azimuth 180`."""
    check_overrides(overrides or [])
    if not picture.exists():
        raise UserError(f"there is no picture {picture}")
    import torch

    from core.asked import PictureConfig, read_given
    from core.diffusion.sampler import ddim
    from core.types import Cameras

    given = read_given(picture, PictureConfig(mask=mask, elevation=given_elevation))
    turns = torch.tensor(azimuth or [45.0 * k for k in range(8)])
    tilt = given_elevation + (elevation or 0.0)
    if not -90 <= tilt <= 90:
        raise UserError(f"--elevation {elevation:g} leads to {tilt:g} degrees; a camera stands between -90 and 90")
    model = _prior(prior, overrides or [])
    cameras = Cameras.turntable(turns.deg2rad(), torch.tensor(tilt).deg2rad().item(), size)
    nobody = [""] * len(turns)
    told = model.condition(nobody, cameras, given)
    rgb = ddim(model, told, model.opposite(told, nobody, cameras), scale, steps, seed)
    output.mkdir(parents=True, exist_ok=True)
    _write(given.over(0.5)[0], size, output / "given.png")
    for turn, one in zip(turns.tolist(), rgb, strict=True):
        path = output / f"azimuth{round(turn):+04d}.png"
        _write(one, size, path)
        print(path)


def _prior(name: str, overrides: list[str]) -> Any:
    """A checked and loaded prior that looks at pictures."""
    from core.config.merging import apply, parse_override
    from core.config.nodes import from_python
    from core.config.values import Checker
    from core.contracts import Context
    from core.discovery import get_registry

    registry, problems = get_registry(), list[str]()
    entry = registry.find("prior", name)
    if "image" not in entry.needs:
        known = [e.name for e in registry.entries("prior") if "image" in e.needs]
        raise UserError(f"the prior '{name}' looks at no picture. These do: {', '.join(known)}")
    node = from_python({"type": name}, "--prior")
    for change in (parse_override(text, problems) for text in overrides):
        node = node if change is None else apply(node, change, problems)
    checker = Checker(registry)
    spec = checker.component("prior", node, name)
    if problems or checker.problems:
        raise ConfigError([*problems, *checker.problems])
    context = Context(parts={"registry": registry})
    return entry.load()(spec.options, context).eval().requires_grad_(False)


def _write(rgb: Any, size: int, path: Path) -> None:
    from PIL import Image

    picture = Image.fromarray((rgb.clamp(0, 1) * 255).round().byte().cpu().numpy())
    picture.resize((size, size), Image.Resampling.BICUBIC).save(path)
