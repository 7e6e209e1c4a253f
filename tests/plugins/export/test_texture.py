"""The atlas and the rasteriser against the field they were made from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from core.meshing import cleanup
from core.meshing.raster import bilinear, blend, rasterise
from core.meshing.texture import bake, fill, seek
from core.meshing.unwrap import unwrap
from core.types import Cameras, Mesh
from plugins.export.assets import TexturedConfig, dense_surface, textured_mesh
from plugins.export.preview import around, render_mesh

SMALL = TexturedConfig(resolution=64, texture=512, faces=4000)


def ball(p):
    return p.norm(dim=-1) - 0.5


def psnr(seen, truth):
    return -10 * math.log10(float(((seen - truth) ** 2).mean()))


def hit_points(render):
    cameras = render.cameras
    origins, directions = cameras.rays()
    along = (directions * -cameras.c2w[:, None, None, :3, 2]).sum(-1, keepdim=True)
    return origins + directions * render.depth / along


@pytest.fixture
def smooth(field_scene):
    scene = field_scene(ball)
    return scene, textured_mesh(scene, SMALL)


def test_texture_shows_the_fields_colours(smooth):
    scene, mesh = smooth
    render = render_mesh(mesh, around(mesh, torch.tensor([20.0, 140.0, 260.0]), 25.0, 128))
    solid = render.opacity[..., 0] > 0
    on_ball = torch.nn.functional.normalize(hit_points(render)[solid], dim=-1) * 0.5
    assert psnr(render.rgb[solid], scene.geometry.colour(on_ball)) > 38
    normal = torch.nn.functional.normalize(on_ball, dim=-1)
    assert float((normal * render.normal[solid]).sum(-1).min()) > 0.99


def test_uvs_and_faces_survive_the_unwrapping(smooth):
    scene, mesh = smooth
    assert float(mesh.uv.min()) >= 0
    assert float(mesh.uv.max()) <= 1
    surface = dense_surface(scene, SMALL)
    vertices, faces = cleanup.decimate(surface.vertices, surface.faces, SMALL.faces)
    flat = unwrap(vertices, faces, 512, 4, 45.0)
    np.testing.assert_array_equal(flat.vertices[flat.faces], vertices[faces])
    np.testing.assert_allclose(np.linalg.norm(flat.normals, axis=1), 1, atol=1e-5)


def test_charts_do_not_overlap_and_use_the_atlas(smooth):
    mesh = smooth[1]
    corner = mesh.uv.numpy()[mesh.faces.numpy()]
    a, b = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    uv_area = float(np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2)
    xy = (corner.reshape(-1, 2) * 1024).astype(np.float32)
    face, _, _ = rasterise(xy, np.arange(len(xy)).reshape(-1, 3), 1024, 1024)
    covered = float((face >= 0).mean())
    assert covered == pytest.approx(uv_area, rel=0.01)
    assert covered > 0.5


def test_no_background_bleeds_across_seams(field_scene):
    """Sampled bilinearly anywhere on the mesh, at full size and three mip levels down, a red ball is red."""
    scene = field_scene(ball, lambda p: p.new_tensor([0.9, 0.1, 0.2]).expand(len(p), 3))
    mesh = textured_mesh(scene, SMALL)
    rng = np.random.default_rng(0)
    weights = rng.dirichlet((0.3, 0.3, 0.3), 20000).astype(np.float32)  # many on edges and corners
    uv = blend(mesh.uv.numpy(), mesh.faces.numpy(), rng.integers(0, len(mesh.faces), 20000), weights)
    texture = mesh.texture.numpy()
    for _ in range(4):
        np.testing.assert_allclose(bilinear(texture, uv), np.tile([0.9, 0.1, 0.2], (20000, 1)), atol=1e-3)
        texture = texture.reshape(texture.shape[0] // 2, 2, -1, 2, 3).mean((1, 3))


def test_both_sides_of_a_seam_agree(smooth):
    """Texture sampled on each side of an edge that the charts split: the colours must not differ visibly."""
    mesh = smooth[1]
    vertices, uv = mesh.vertices.numpy(), mesh.uv.numpy()
    _, place = np.unique(np.round(vertices, 6), axis=0, return_inverse=True)
    order = np.argsort(place.reshape(-1), kind="stable")
    same = place.reshape(-1)[order][1:] == place.reshape(-1)[order][:-1]
    first, second = order[:-1][same], order[1:][same]
    far = np.linalg.norm(uv[first] - uv[second], axis=1) > 0.02
    assert far.sum() > 20
    colours = bilinear(mesh.texture.numpy(), uv)
    assert np.abs(colours[first[far]] - colours[second[far]]).max() < 0.04


def test_seek_stops_where_half_of_the_light_is_gone():
    sigma, cell = 40.0, 0.05

    def density(points):
        return np.where(points[:, 2] < 0, sigma, 0).astype(np.float32)

    points = np.array([[0, 0, 0.03], [0, 0, -0.02], [0, 0, 0.0]], np.float32)
    up = np.tile(np.float32([0, 0, 1]), (3, 1))
    landed = points[:, 2] + seek(density, points, up, cell)
    np.testing.assert_allclose(landed, -math.log(2) / sigma, atol=0.012)  # one step of the search
    assert seek(lambda p: np.zeros(len(p), np.float32), points, up, cell).tolist() == [0, 0, 0]


def test_a_thin_wall_is_met_in_its_middle():
    points, up = np.zeros((1, 3), np.float32), np.float32([[0, 0, 1]])
    landed = seek(lambda p: np.where(np.abs(p[:, 2] + 0.02) < 0.015, 2.0, 0).astype(np.float32), points, up, 0.05)
    assert landed[0] == pytest.approx(-0.02, abs=0.008)


def test_colours_come_from_inside_the_wall(field_scene):
    """White fog colour outside, blue where the density is: a mesh a cell too large must still be painted blue."""
    blue = (0.1, 0.2, 0.8)
    scene = field_scene(
        ball,
        lambda p: torch.where((ball(p) < 0)[:, None], p.new_tensor(blue), p.new_tensor((1.0, 1, 1))),
        peak=300.0,
        softness=0.0,
    )
    surface = dense_surface(scene, SMALL)
    vertices, faces = cleanup.decimate(surface.vertices * 1.03, surface.faces, 2000)
    from core.meshing.texture import density_of, painter

    flat = unwrap(vertices, faces, 256, 4, 45.0)
    texture = bake(painter(scene, surface), density_of(scene, surface), surface, flat, 256)
    assert float((np.abs(texture - blue).max(-1) < 0.05).mean()) > 0.97


def test_fill_takes_the_nearest_known_texel():
    known = np.zeros((5, 5), bool)
    known[0, 0] = known[4, 4] = True
    values = np.zeros((5, 5, 1), np.float32)
    values[0, 0], values[4, 4] = 1, 2
    filled = fill(values, known)[..., 0]
    assert filled[1, 1] == 1
    assert filled[3, 4] == 2
    assert set(np.unique(filled)) == {1.0, 2.0}


def test_rasterised_weights_are_perspective_correct():
    """A floor seen at a slant: the world position from the weights must lie on the pixel's own ray."""
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    mesh = Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), normals=torch.tensor([[0.0, 0, 1]]).expand(4, 3))
    angle = torch.tensor([0.4])
    cameras = Cameras.orbit(angle, angle, torch.tensor([2.5]), torch.tensor([0.9]), 48, 64)
    render = render_mesh(mesh, cameras)
    solid = render.opacity[..., 0] > 0
    origins, directions = cameras.rays()
    truth = origins - directions * (origins[..., 2:] / directions[..., 2:])
    np.testing.assert_allclose(hit_points(render)[solid], truth[solid], atol=1e-4)
    inside = (truth.abs() < 0.999).all(-1) & (directions[..., 2] < 0)
    assert bool(solid[inside].all())


def test_the_nearer_face_wins_and_what_is_behind_the_camera_is_left_out():
    xy = np.array([[0, 0], [8, 0], [0, 8], [0, 0], [8, 0], [0, 8]], np.float32)
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    near = np.array([0.5, 0.5, 0.5, 1, 1, 1], np.float32)
    assert set(np.unique(rasterise(xy, faces, 4, 4, near)[0])) == {1}
    near[3] = 0
    assert set(np.unique(rasterise(xy, faces, 4, 4, near)[0])) == {0}


def test_bilinear_hits_texel_centres():
    texture = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    assert bilinear(texture, np.float32([[0.125, 0.875]]))[0, 0] == 0  # row 0 is at v = 1
    assert bilinear(texture, np.float32([[0.875, 0.125]]))[0, 0] == 15
    assert bilinear(texture, np.float32([[0.25, 0.875]]))[0, 0] == 0.5
