"""Pictures of a scene for people: framed, smooth at the edges, over white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor

from core.config.base import Config
from core.contracts import Scene
from core.types import Cameras, Render
from plugins.export.assets import once, to_bytes

F32 = NDArray[np.float32]
Picture = np.ndarray[Any, np.dtype[np.uint8]]

# Near to far: light and warm to dark and cool, lightness falling all the way so that it reads in grey too.
_DEPTH_STOPS = [
    (1.00, 0.92, 0.62),
    (0.99, 0.74, 0.38),
    (0.92, 0.50, 0.33),
    (0.75, 0.30, 0.41),
    (0.51, 0.19, 0.46),
    (0.29, 0.14, 0.41),
    (0.12, 0.09, 0.27),
]
_PIXELS = 1 << 18  # rendered at once
_WORKING = 64  # side of the pictures that the framing is measured on


class ViewConfig(Config):
    """Where the camera stands."""

    size: int = Field(256, ge=16, le=2048)
    """Side of one picture in pixels."""
    elevation: float = Field(15.0, ge=-90, le=90)
    """Degrees above the horizon."""
    distance: float = Field(2.8, gt=0)
    """From the axis of the object, world units."""
    fov: float = Field(40.0, gt=0, lt=170)
    """Vertical field of view in degrees; the widest one where ``fit`` is on."""
    fit: bool = True
    """Raise or lower the view and narrow it until the object fills the picture."""


@dataclass(frozen=True)
class Frame:
    """A fitted camera: the height it looks at (world units) and its field of view (radians)."""

    height: float
    fov: float


def orbit(options: ViewConfig, azimuths: Tensor, size: int, frame: Frame) -> Cameras:
    """Square views from ``azimuths`` [B] in degrees."""
    azimuth = torch.deg2rad(azimuths.float())
    elevation = torch.full_like(azimuth, math.radians(options.elevation))
    distance, fov = torch.full_like(azimuth, options.distance), torch.full_like(azimuth, frame.fov)
    return Cameras.orbit(azimuth, elevation, distance, fov, size, size, torch.tensor([0.0, 0.0, frame.height]))


def look(scene: Scene, cameras: Cameras) -> Render:
    """What the scene's renderer shows, without gradients or randomness, a few cameras at a time; on the CPU."""
    renderer = scene.renderer
    device, training = renderer.context.device, renderer.training
    batch = max(1, _PIXELS // (cameras.height * cameras.width))
    renderer.eval()
    try:
        with torch.no_grad():
            parts = [_kept(renderer(cameras[k : k + batch].to(device))) for k in range(0, len(cameras), batch)]
    finally:
        renderer.train(training)
    joined = {n: _cat([getattr(p, n) for p in parts]) for n in ("depth", "normal")}
    rgb, opacity = torch.cat([p.rgb for p in parts]), torch.cat([p.opacity for p in parts])
    return Render(rgb, opacity, cameras, joined["depth"], joined["normal"])


def _kept(render: Render) -> Render:
    """The pictures alone, on the CPU."""
    depth, normal = (None if t is None else t.detach().float().cpu() for t in (render.depth, render.normal))
    rgb, opacity = (t.detach().float().cpu() for t in (render.rgb, render.opacity))
    return Render(rgb, opacity, render.cameras, depth, normal)


def _cat(parts: list[Tensor | None]) -> Tensor | None:
    known = [p for p in parts if p is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def fitted(scene: Scene, options: ViewConfig) -> Frame:
    """The frame that shows the object as large as it goes from all sides; the widest where nothing is seen."""
    widest = Frame(0.0, math.radians(options.fov))
    if not options.fit:
        return widest
    key = ("export.frame", options.elevation, options.distance, options.fov)
    return once(scene, key, lambda: _fit(scene, options, widest))


def _fit(scene: Scene, options: ViewConfig, widest: Frame) -> Frame:
    azimuths = torch.arange(0, 360, 45)
    solid = look(scene, orbit(options, azimuths, _WORKING, widest)).opacity[..., 0] > 0.2
    if not bool(solid.any()):
        return widest
    place = (torch.arange(_WORKING) + 0.5) / _WORKING * 2 - 1
    half = math.tan(widest.fov / 2)
    rows, cols = place[solid.any(0).any(1)], place[solid.any(0).any(0)]
    top, bottom = -float(rows.min()), -float(rows.max())
    lift = (top + bottom) / 2 * half * options.distance / max(math.cos(math.radians(options.elevation)), 0.3)
    extent = max((top - bottom) / 2, float(cols.abs().max())) + 1 / _WORKING
    return Frame(lift, 2 * math.atan(half * min(max(extent * 1.12, 0.1), 1.0)))


def over_white(scene: Scene, render: Render) -> F32:
    """[B, H, W, 3] sRGB: the render with its background replaced by white."""
    device = scene.background.context.device
    with torch.no_grad():
        behind = scene.background(render.cameras.rays()[1].to(device)).float().cpu()
    gap = 1 - render.opacity
    return np.asarray((render.rgb + gap * (1 - behind)).clamp(0, 1), np.float32)


def depth_range(render: Render) -> tuple[float, float]:
    """Nearest and farthest depth of what is solid in all views, without the last hundredth at each end."""
    assert render.depth is not None
    seen = render.depth[(render.opacity > 0.5) & (render.depth > 0)]
    if seen.numel() == 0:
        return 0.0, 1.0
    near, far = np.quantile(seen.numpy(), [0.01, 0.99])
    return float(near), float(max(far, near + 1e-3))


def depth_picture(render: Render, near: float, far: float) -> F32:
    """[B, H, W, 3] depth in colour over white, light and warm at ``near``, dark and cool at ``far``."""
    assert render.depth is not None
    share = ((render.depth[..., 0] - near) / (far - near)).clamp(0, 1).numpy()
    stops = np.linspace(0, 1, len(_DEPTH_STOPS))
    table = np.array(_DEPTH_STOPS)
    colour = np.stack([np.interp(share, stops, table[:, k]) for k in range(3)], -1)
    return _on_white(colour, render.opacity)


def normal_picture(render: Render) -> F32:
    """[B, H, W, 3] world-space normals over white: red +x (front), green +y, blue +z (up)."""
    assert render.normal is not None
    unit = torch.nn.functional.normalize(render.normal, dim=-1)
    return _on_white((unit * 0.5 + 0.5).numpy(), render.opacity)


def _on_white(colour: F32, opacity: Tensor) -> F32:
    alpha = opacity.numpy().clip(0, 1)
    return np.asarray(colour * alpha + (1 - alpha), np.float32)


def shrink(pictures: F32, size: int) -> Picture:
    """[B, H, W, 3] in [0, 1] to [B, size, size, 3] bytes, filtered."""
    images = [Image.fromarray(picture) for picture in to_bytes(pictures)]
    if pictures.shape[1] != size:
        images = [image.resize((size, size), Image.Resampling.LANCZOS) for image in images]
    return np.stack([np.asarray(image) for image in images])


@dataclass(frozen=True)
class Views:
    """Finished pictures, each [B, size, size, 3] bytes; None where the renderer gives no such thing."""

    rgb: Picture
    depth: Picture | None
    normal: Picture | None


def views(scene: Scene, options: ViewConfig, azimuths: Tensor, finer: int = 2) -> Views:
    """Colour, depth and normals from ``azimuths`` [B] degrees, rendered ``finer`` times larger, filtered down."""
    key = (
        "export.views",
        tuple(azimuths.tolist()),
        finer,
        repr({k: getattr(options, k) for k in ViewConfig.model_fields}),
    )
    return once(scene, key, lambda: _views(scene, options, azimuths, finer))


def _views(scene: Scene, options: ViewConfig, azimuths: Tensor, finer: int) -> Views:
    render = look(scene, orbit(options, azimuths, options.size * finer, fitted(scene, options)))
    rgb = shrink(over_white(scene, render), options.size)
    depth = normal = None
    if render.depth is not None:
        depth = shrink(depth_picture(render, *depth_range(render)), options.size)
    if render.normal is not None:
        normal = shrink(normal_picture(render), options.size)
    return Views(rgb, depth, normal)
