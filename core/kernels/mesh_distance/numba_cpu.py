"""Closest faces and winding numbers compiled for the CPU: a bounding volume hierarchy, points in parallel.

The tree halves the faces at the median of the longest axis of their centres. A node keeps its box (for closest faces)
and its dipole (for winding numbers): area-weighted centre, summed area vectors, and the radius that holds its faces.
"""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from core.kernels.numba_tools import array, run

_LEAF = 4
_FAR = 3.0  # radii of a group beyond which it counts as a dipole
_STACK = 64


def closest_face(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`core.kernels.mesh_distance.closest_face`."""
    corners, order, tree = _tree(vertices, faces)
    index, bary = np.empty(len(points), np.int64), np.empty((len(points), 3))
    run(_closest, array(points.double()), corners, *tree[:4], index, bary)
    return torch.from_numpy(order[index]), torch.from_numpy(bary).to(points.dtype)


def winding_number(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """See :func:`core.kernels.mesh_distance.winding_number`."""
    corners, _, tree = _tree(vertices, faces)
    out = np.empty(len(points))
    run(_winding, array(points.double()), corners, *tree[2:], out)
    return torch.from_numpy(out).to(points.dtype)


def _tree(vertices: Tensor, faces: Tensor) -> Any:
    """Corners [F, 3, 3] in the tree's order, that order [F], and the nodes (low, high, span, child, dipoles)."""
    corners = array(vertices.double())[array(faces)]
    nodes = 2 * len(corners)
    low, high, dipole = np.empty((nodes, 3)), np.empty((nodes, 3)), np.empty((nodes, 7))
    span, child = np.empty((nodes, 2), np.int64), np.empty((nodes, 2), np.int64)
    order = np.arange(len(corners))
    run(_build, corners, corners.mean(1), order, low, high, span, child, dipole)
    return np.ascontiguousarray(corners[order]), order, (low, high, span, child, dipole)


@njit(cache=True, error_model="numpy")
def _build(corners, centres, order, low, high, span, child, dipole):
    """Fill the nodes; node 0 is the root, ``child`` is -1 in leaves, ``span`` the node's places in ``order``."""
    count = 1
    span[0, 0], span[0, 1] = 0, len(order)
    node = 0
    while node < count:
        start, end = span[node]
        _bounds(corners, order, start, end, low[node], high[node], dipole[node])
        child[node, 0] = child[node, 1] = -1
        if end - start > _LEAF:
            best, axis = -1.0, 0
            for k in range(3):
                least, most = np.inf, -np.inf
                for i in range(start, end):
                    least = min(least, centres[order[i], k])
                    most = max(most, centres[order[i], k])
                if most - least > best:
                    best, axis = most - least, k
            part = order[start:end].copy()
            order[start:end] = part[np.argsort(centres[part, axis])]
            middle = (start + end) // 2
            child[node, 0], child[node, 1] = count, count + 1
            span[count, 0], span[count, 1] = start, middle
            span[count + 1, 0], span[count + 1, 1] = middle, end
            count += 2
        node += 1


@njit(cache=True, error_model="numpy")
def _bounds(corners, order, start, end, low, high, dipole):
    """A node's box, and its dipole: (centre, summed area vectors, radius)."""
    low[:], high[:], dipole[:] = np.inf, -np.inf, 0.0
    total = 0.0
    for i in range(start, end):
        t = corners[order[i]]
        ux, uy, uz = t[1, 0] - t[0, 0], t[1, 1] - t[0, 1], t[1, 2] - t[0, 2]
        vx, vy, vz = t[2, 0] - t[0, 0], t[2, 1] - t[0, 1], t[2, 2] - t[0, 2]
        nx, ny, nz = 0.5 * (uy * vz - uz * vy), 0.5 * (uz * vx - ux * vz), 0.5 * (ux * vy - uy * vx)
        area = math.sqrt(nx * nx + ny * ny + nz * nz)
        dipole[3] += nx
        dipole[4] += ny
        dipole[5] += nz
        total += area
        for k in range(3):
            dipole[k] += area * (t[0, k] + t[1, k] + t[2, k]) / 3.0
            for j in range(3):
                low[k] = min(low[k], t[j, k])
                high[k] = max(high[k], t[j, k])
    for k in range(3):
        dipole[k] = dipole[k] / total if total > 0.0 else 0.5 * (low[k] + high[k])
    for i in range(start, end):
        t = corners[order[i]]
        for j in range(3):
            d = (t[j, 0] - dipole[0]) ** 2 + (t[j, 1] - dipole[1]) ** 2 + (t[j, 2] - dipole[2]) ** 2
            dipole[6] = max(dipole[6], math.sqrt(d))


@njit(cache=True, error_model="numpy", inline="always")
def _gap(px, py, pz, low, high):
    """Squared distance of a point to a box."""
    dx = max(low[0] - px, 0.0, px - high[0])
    dy = max(low[1] - py, 0.0, py - high[1])
    dz = max(low[2] - pz, 0.0, pz - high[2])
    return dx * dx + dy * dy + dz * dz


@njit(cache=True, error_model="numpy")
def _on_triangle(px, py, pz, t):
    """(squared distance, second and third barycentric coordinate) of the nearest point (Ericson 2005, 5.1.5)."""
    ax, ay, az = px - t[0, 0], py - t[0, 1], pz - t[0, 2]
    ux, uy, uz = t[1, 0] - t[0, 0], t[1, 1] - t[0, 1], t[1, 2] - t[0, 2]
    wx, wy, wz = t[2, 0] - t[0, 0], t[2, 1] - t[0, 1], t[2, 2] - t[0, 2]
    uu, uw, ww = ux * ux + uy * uy + uz * uz, ux * wx + uy * wy + uz * wz, wx * wx + wy * wy + wz * wz
    au, aw = ax * ux + ay * uy + az * uz, ax * wx + ay * wy + az * wz
    area = uu * ww - uw * uw
    if area > 1e-24 * uu * ww:
        v, w = (ww * au - uw * aw) / area, (uu * aw - uw * au) / area
        if v >= 0.0 and w >= 0.0 and v + w <= 1.0:
            dx, dy, dz = ax - v * ux - w * wx, ay - v * uy - w * wy, az - v * uz - w * wz
            return dx * dx + dy * dy + dz * dz, v, w
    # The nearest point lies on an edge: that of a and b, of a and c, of b and c.
    best, bv, bw = np.inf, 0.0, 0.0
    for edge in range(3):
        if edge == 0:
            s = min(max(au / uu, 0.0), 1.0) if uu > 0.0 else 0.0
            v, w = s, 0.0
        elif edge == 1:
            s = min(max(aw / ww, 0.0), 1.0) if ww > 0.0 else 0.0
            v, w = 0.0, s
        else:
            length = uu - 2.0 * uw + ww
            s = min(max((aw - au + uu - uw) / length, 0.0), 1.0) if length > 0.0 else 0.0
            v, w = 1.0 - s, s
        dx, dy, dz = ax - v * ux - w * wx, ay - v * uy - w * wy, az - v * uz - w * wz
        d = dx * dx + dy * dy + dz * dz
        if d < best:
            best, bv, bw = d, v, w
    return best, bv, bw


@njit(cache=True, error_model="numpy", parallel=True)
def _closest(points, corners, low, high, span, child, index, bary):
    for n in prange(points.shape[0]):
        px, py, pz = points[n, 0], points[n, 1], points[n, 2]
        nodes, gaps = np.empty(_STACK, np.int64), np.empty(_STACK)
        nodes[0], gaps[0], size = 0, 0.0, 1
        best, face, bv, bw = np.inf, 0, 0.0, 0.0
        while size > 0:
            size -= 1
            node = nodes[size]
            if gaps[size] >= best:
                continue
            near = child[node, 0]
            if near < 0:
                for i in range(span[node, 0], span[node, 1]):
                    d, v, w = _on_triangle(px, py, pz, corners[i])
                    if d < best:
                        best, face, bv, bw = d, i, v, w
                continue
            far = child[node, 1]
            dn, df = _gap(px, py, pz, low[near], high[near]), _gap(px, py, pz, low[far], high[far])
            if df < dn:
                near, far, dn, df = far, near, df, dn
            nodes[size], gaps[size] = far, df
            nodes[size + 1], gaps[size + 1] = near, dn
            size += 2
        index[n] = face
        bary[n, 0], bary[n, 1], bary[n, 2] = max(1.0 - bv - bw, 0.0), bv, bw


@njit(cache=True, error_model="numpy")
def _solid_angle(px, py, pz, t):
    """Van Oosterom and Strackee (1983), eq. 8."""
    ax, ay, az = t[0, 0] - px, t[0, 1] - py, t[0, 2] - pz
    bx, by, bz = t[1, 0] - px, t[1, 1] - py, t[1, 2] - pz
    cx, cy, cz = t[2, 0] - px, t[2, 1] - py, t[2, 2] - pz
    la = math.sqrt(ax * ax + ay * ay + az * az)
    lb = math.sqrt(bx * bx + by * by + bz * bz)
    lc = math.sqrt(cx * cx + cy * cy + cz * cz)
    top = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    ab, bc, ca = ax * bx + ay * by + az * bz, bx * cx + by * cy + bz * cz, cx * ax + cy * ay + cz * az
    return 2.0 * math.atan2(top, la * lb * lc + ab * lc + bc * la + ca * lb)


@njit(cache=True, error_model="numpy", parallel=True)
def _winding(points, corners, span, child, dipole, out):
    for n in prange(points.shape[0]):
        px, py, pz = points[n, 0], points[n, 1], points[n, 2]
        nodes = np.empty(_STACK, np.int64)
        nodes[0], size, total = 0, 1, 0.0
        while size > 0:
            size -= 1
            node = nodes[size]
            d = dipole[node]
            x, y, z = d[0] - px, d[1] - py, d[2] - pz
            squared = x * x + y * y + z * z
            if squared > _FAR * _FAR * d[6] * d[6] and squared > 0.0:
                total += (x * d[3] + y * d[4] + z * d[5]) / (squared * math.sqrt(squared))
            elif child[node, 0] < 0:
                for i in range(span[node, 0], span[node, 1]):
                    total += _solid_angle(px, py, pz, corners[i])
            else:
                nodes[size], nodes[size + 1] = child[node, 0], child[node, 1]
                size += 2
        out[n] = total / (4.0 * math.pi)
