"""Surfaces, pictures and files of points."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
import trimesh
from tiny_lion import random

from core.types import Points
from plugins.lion.point_ply import points_bytes
from plugins.lion.surface import dots, sheet, surface_of


def ball(count: int = 400, radius: float = 0.6) -> Points:
    normals = torch.nn.functional.normalize(random(count, 3), dim=-1)
    return Points(radius * normals, normals)


def test_a_surface_passes_through_its_points_with_and_without_normals() -> None:
    given = ball()
    for points in (given, Points(given.positions)):
        radius = surface_of(points, 1.0, 32, 2.0).vertices.norm(dim=-1)
        assert abs(float(radius.mean()) - 0.6) < 0.03 and float(radius.std()) < 0.05


def test_points_beyond_the_cube_are_brought_back() -> None:
    given = ball()
    assert given.normals is not None
    far = Points(torch.cat([given.positions, torch.full((1, 3), 5.0)]), torch.cat([given.normals, given.normals[:1]]))
    assert float(surface_of(far, 1.0, 32, 2.0).vertices.abs().max()) < 1.1


def test_pictures_show_where_points_are_and_which_are_near() -> None:
    towards = torch.tensor([[0.9, 0.0, 0.0]])
    near, far = dots(towards[None], 48, azimuth=0, elevation=0), dots(-towards[None], 48, azimuth=0, elevation=0)
    assert float(near[0, 24, 24].mean()) < float(far[0, 24, 24].mean()) < 0.95
    assert float(near[0, 2, 2].mean()) > 0.99, "white behind"
    assert sheet([near, far]).shape == (96, 48, 3)


def test_a_cloud_is_read_back() -> None:
    given = ball(20)
    given.colors = torch.linspace(0, 1, 60).view(20, 3)
    found: Any = trimesh.load(io.BytesIO(points_bytes(given)), file_type="ply")
    np.testing.assert_allclose(found.vertices, given.positions, atol=1e-6)
    np.testing.assert_allclose(found.colors[:, :3], (given.colors * 255).round(), atol=0)
    data = points_bytes(Points(given.positions))
    assert b"property float nz" in data and b"red" not in data
