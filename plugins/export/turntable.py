"""A turn round the object as a film."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from core.contracts import Exporter, Scene
from core.types import Mesh
from plugins.export.assets import TexturedConfig, destination, textured_mesh
from plugins.export.preview import render_mesh
from plugins.export.views import Picture, ViewConfig, Views, fitted, normal_picture, orbit, shrink, views

log = logging.getLogger("maquette")


def write_mp4(frames: Picture, path: Path, fps: int) -> None:
    """H.264 in MP4, 4:2:0 as every player wants it.

    Args:
        frames: [N, H, W, 3] bytes, H and W even.

    Raises:
        ImportError, RuntimeError, OSError: no usable ffmpeg.
    """
    import imageio_ffmpeg

    height, width = frames.shape[1:3]
    options = ["-crf", "18", "-preset", "veryfast", "-movflags", "+faststart"]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        quality=None,
        macro_block_size=2,
        output_params=options,
        ffmpeg_log_level="error",
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


def write_gif(frames: Picture, path: Path, fps: int) -> None:
    """An endless GIF; its times are in hundredths of a second."""
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)


class TurntableExporter(Exporter):
    """Writes ``<name>.mp4``, or ``<name>.gif`` where there is no ffmpeg."""

    class Config(ViewConfig):
        frames: int = Field(48, ge=1, le=1000)
        """Pictures in one turn."""
        fps: int = Field(16, ge=1, le=60)
        """Pictures per second."""
        of: Literal["volume", "mesh"] = "volume"
        """What is filmed: the scene as its renderer shows it, or the exported mesh (several times faster)."""
        normals: bool = False
        """Show the normals to the right of the colours."""

    def export(self, scene: Scene, folder: Path) -> Iterator[Path]:
        frames = self.pictures(scene)
        path = destination(scene, folder, ".mp4")
        try:
            write_mp4(frames, path, self.options.fps)
        except (ImportError, RuntimeError, OSError) as problem:
            path.unlink(missing_ok=True)
            path = path.with_suffix(".gif")
            reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
            log.warning(
                'no MP4: ffmpeg cannot be used (%s); wrote %s. "pip install imageio-ffmpeg" brings one',
                reason,
                path.name,
            )
            write_gif(frames, path, self.options.fps)
        yield path

    def pictures(self, scene: Scene) -> Picture:
        """[N, H, W, 3] bytes, with even sides."""
        azimuths = torch.arange(self.options.frames) * (360 / self.options.frames)
        mesh = textured_mesh(scene, TexturedConfig.model_validate({})) if self.options.of == "mesh" else None
        seen = views(scene, self.options, azimuths, finer=1) if mesh is None else self.turned(scene, mesh, azimuths)
        frames = seen.rgb
        if self.options.normals and seen.normal is not None:
            frames = np.concatenate([frames, seen.normal], 2)
        odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
        return np.pad(frames, odd, mode="edge")

    def turned(self, scene: Scene, mesh: Mesh, azimuths: Tensor) -> Views:
        """The mesh in the same frame as the volume."""
        size = self.options.size
        cameras = orbit(self.options, azimuths, size * 2, fitted(scene, self.options))
        render = render_mesh(mesh, cameras, shaded=True)
        return Views(shrink(render.rgb.numpy(), size), None, shrink(normal_picture(render), size))
