"""The compiled loops of the CPU rasteriser."""

# Numba infers the kernels' types from their arguments.
# mypy: allow-untyped-defs, no-check-untyped-defs
from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

BAND = 16  # rows of a picture that one thread takes at a time


@njit(cache=True, error_model="numpy")
def _area(p, i, j, k):
    """Twice the area on screen in square pixels, by the corner farthest off; 0 where it is not finite."""
    if abs(p[j, 2]) > abs(p[i, 2]):
        i, j = j, i
    if abs(p[k, 2]) > abs(p[i, 2]):
        i, k = k, i
    w = p[i, 2] if p[i, 2] != 0.0 else 1.0
    x, y = p[i, 0] / w, p[i, 1] / w
    jx, jy = p[j, 0] - p[j, 2] * x, p[j, 1] - p[j, 2] * y
    kx, ky = p[k, 0] - p[k, 2] * x, p[k, 1] - p[k, 2] * y
    area = abs(jx * ky - jy * kx) / (w * w)
    return area if math.isfinite(area) else 0.0


@njit(parallel=True, cache=True, error_model="numpy")
def bounds(points, faces, near, least, height, width, out):
    """Pixels [B, F, 4] that a face can cover: first and last column, first and last row; an empty range if none."""
    total = faces.shape[0]
    for item in prange(points.shape[0] * total):
        i = np.int64(item)
        b, f = i // total, i % total
        p = points[b]
        box = out[b, f]
        box[0], box[1], box[2], box[3] = 0, -1, 0, -1
        if not _area(p, faces[f, 0], faces[f, 1], faces[f, 2]) > 2.0 * least:
            continue
        left, right, top, bottom = np.inf, -np.inf, np.inf, -np.inf
        for k in range(3):
            i, j = faces[f, k], faces[f, (k + 1) % 3]
            if p[i, 2] >= near:
                x, y = p[i, 0] / p[i, 2], p[i, 1] / p[i, 2]
                left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
            if (p[i, 2] >= near) != (p[j, 2] >= near):  # where the edge meets the near plane
                t = (near - p[i, 2]) / (p[j, 2] - p[i, 2])
                x, y = (p[i, 0] + t * (p[j, 0] - p[i, 0])) / near, (p[i, 1] + t * (p[j, 1] - p[i, 1])) / near
                left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
        if not (left <= right and top <= bottom):
            continue
        # One millionth of a pixel more than needed: the pixel's own test decides.
        box[0] = int(min(max(math.ceil(left - 0.500001), 0.0), float(width)))
        box[1] = int(max(min(math.floor(right - 0.499999), width - 1.0), -1.0))
        box[2] = int(min(max(math.ceil(top - 0.500001), 0.0), float(height)))
        box[3] = int(max(min(math.floor(bottom - 0.499999), height - 1.0), -1.0))


@njit(cache=True, error_model="numpy")
def _fill(p, face, near, left, right, top, bottom, f, first, out, best):
    """Draw one face into rows ``top`` to ``bottom`` of a band that begins at row ``first``."""
    x0, y0, w0 = p[face[0], 0], p[face[0], 1], p[face[0], 2]
    x1, y1, w1 = p[face[1], 0], p[face[1], 1], p[face[1], 2]
    x2, y2, w2 = p[face[2], 0], p[face[2], 1], p[face[2], 2]
    for row in range(top, bottom + 1):
        py = row + 0.5
        r0, r1, r2 = y0 - py * w0, y1 - py * w1, y2 - py * w2
        for col in range(left, right + 1):
            px = col + 0.5
            c0, c1, c2 = x0 - px * w0, x1 - px * w1, x2 - px * w2
            a, b, c = c1 * r2 - r1 * c2, c2 * r0 - r2 * c0, c0 * r1 - r0 * c1
            if not ((a >= 0.0 and b >= 0.0 and c >= 0.0) or (a <= 0.0 and b <= 0.0 and c <= 0.0)):
                continue
            total = a + b + c
            if total == 0.0:
                continue
            depth = (a * w0 + b * w1 + c * w2) / total
            if depth >= near and depth < best[row - first, col]:
                best[row - first, col] = depth
                out[row, col] = f


@njit(parallel=True, cache=True, error_model="numpy")
def visible(points, faces, near, boxes, out):
    """The nearest face [B, H, W] of each pixel; ``out`` comes filled with -1."""
    height, width = out.shape[1], out.shape[2]
    bands = (height + BAND - 1) // BAND
    for item in prange(points.shape[0] * bands):
        i = np.int64(item)
        b, first = i // bands, i % bands * BAND
        last = min(first + BAND, height) - 1
        best = np.full((BAND, width), np.inf)
        for f in range(faces.shape[0]):
            box = boxes[b, f]
            if box[2] > last or box[3] < first or box[0] > box[1]:
                continue
            top, bottom = max(box[2], first), min(box[3], last)
            _fill(points[b], faces[f], near, box[0], box[1], top, bottom, f, first, out[b], best)


@njit(parallel=True, cache=True, error_model="numpy")
def weights(vertices, faces, face, bary, depth):
    """Fill ``bary`` [B, H, W, 3] and ``depth`` [B, H, W], which come as zeros."""
    height, width = face.shape[1], face.shape[2]
    for item in prange(face.shape[0] * height):
        i = np.int64(item)
        b, row = i // height, i % height
        p = vertices[b]
        for col in range(width):
            f = face[b, row, col]
            if f < 0:
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            px, py = col + 0.5, row + 0.5
            w0, w1, w2 = p[i, 2], p[j, 2], p[k, 2]
            x0, y0 = p[i, 0] - px * w0, p[i, 1] - py * w0
            x1, y1 = p[j, 0] - px * w1, p[j, 1] - py * w1
            x2, y2 = p[k, 0] - px * w2, p[k, 1] - py * w2
            a, e, c = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
            total = a + e + c
            bary[b, row, col, 0], bary[b, row, col, 1], bary[b, row, col, 2] = a / total, e / total, c / total
            depth[b, row, col] = (a * w0 + e * w1 + c * w2) / total


@njit(parallel=True, cache=True, error_model="numpy")
def weights_backward(vertices, faces, face, bary, g_bary, g_depth, out):
    """Add to ``out`` [B, V, 3]. With s = a_0 + a_1 + a_2: d loss / d a_i = (g_i - sum_j g_j b_j) / s."""
    height, width = face.shape[1], face.shape[2]
    for b in prange(face.shape[0]):
        p = vertices[b]
        for row in range(height):
            for col in range(width):
                f = face[b, row, col]
                if f < 0:
                    continue
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                px, py = col + 0.5, row + 0.5
                w0, w1, w2 = p[i, 2], p[j, 2], p[k, 2]
                x0, y0 = p[i, 0] - px * w0, p[i, 1] - py * w0
                x1, y1 = p[j, 0] - px * w1, p[j, 1] - py * w1
                x2, y2 = p[k, 0] - px * w2, p[k, 1] - py * w2
                total = (x1 * y2 - y1 * x2) + (x2 * y0 - y2 * x0) + (x0 * y1 - y0 * x1)
                b0, b1, b2 = bary[b, row, col, 0], bary[b, row, col, 1], bary[b, row, col, 2]
                g = g_depth[b, row, col]
                g0 = g_bary[b, row, col, 0] + g * w0
                g1 = g_bary[b, row, col, 1] + g * w1
                g2 = g_bary[b, row, col, 2] + g * w2
                mean = g0 * b0 + g1 * b1 + g2 * b2
                g0, g1, g2 = (g0 - mean) / total, (g1 - mean) / total, (g2 - mean) / total
                _corner(out[b, i], g1, g2, x1, y1, x2, y2, px, py, g * b0)
                _corner(out[b, j], g2, g0, x2, y2, x0, y0, px, py, g * b1)
                _corner(out[b, k], g0, g1, x0, y0, x1, y1, px, py, g * b2)


@njit(cache=True, error_model="numpy")
def _corner(out, ga, gb, ax, ay, bx, by, px, py, gw):
    """Gradient of one corner: ``ga`` is that of b x corner, ``gb`` of corner x a (the two others, in order)."""
    gx = gb * ay - ga * by
    gy = ga * bx - gb * ax
    out[0] += gx
    out[1] += gy
    out[2] += gw - px * gx - py * gy


@njit(parallel=True, cache=True, error_model="numpy")
def interpolate(values, faces, face, bary, out):
    """``values`` [B or 1, V, C] at pixels: ``out`` [B, H, W, C] comes as zeros."""
    height, width, channels = face.shape[1], face.shape[2], values.shape[2]
    for item in prange(face.shape[0] * height):
        i = np.int64(item)
        b, row = i // height, i % height
        v = values[np.int64(b) if values.shape[0] > 1 else 0]
        for col in range(width):
            f = face[b, row, col]
            if f < 0:
                continue
            for k in range(3):
                corner, share = faces[f, k], bary[b, row, col, k]
                for c in range(channels):
                    out[b, row, col, c] += share * v[corner, c]


@njit(parallel=True, cache=True, error_model="numpy")
def interpolate_backward(values, faces, face, bary, grad, g_values, g_bary):
    """Add to ``g_values`` [B, V, C] and ``g_bary`` [B, H, W, 3]."""
    height, width, channels = face.shape[1], face.shape[2], values.shape[2]
    for b in prange(face.shape[0]):
        v = values[np.int64(b) if values.shape[0] > 1 else 0]
        for row in range(height):
            for col in range(width):
                f = face[b, row, col]
                if f < 0:
                    continue
                for k in range(3):
                    corner, share = faces[f, k], bary[b, row, col, k]
                    for c in range(channels):
                        g_bary[b, row, col, k] += grad[b, row, col, c] * v[corner, c]
                        g_values[b, corner, c] += share * grad[b, row, col, c]


@njit(parallel=True, cache=True, error_model="numpy")
def silhouettes(points, faces, across, face, depth, near, steps, edges, front):
    """Fill ``edges`` [B, H, W, 2, 2] (comes as -1) and ``front`` [B, H, W, 2] (comes as 0)."""
    height, width = face.shape[1], face.shape[2]
    for item in prange(face.shape[0] * height):
        i = np.int64(item)
        b, row = i // height, i % height
        for col in range(width):
            for axis in range(2):
                row1, col1 = row + axis, col + 1 - axis
                if row1 >= height or col1 >= width or face[b, row, col] == face[b, row1, col1]:
                    continue
                f0, f1 = face[b, row, col], face[b, row1, col1]
                back = f0 < 0 or (f1 >= 0 and depth[b, row1, col1] < depth[b, row, col])
                px, py = (col1 + 0.5, row1 + 0.5) if back else (col + 0.5, row + 0.5)
                start, sign = (f1, -1.0) if back else (f0, 1.0)
                front[b, row, col, axis] = 1 if back else 0
                _follow(points[b], faces, across, start, px, py, sign, axis, near, steps, edges[b, row, col, axis])


@njit(cache=True, error_model="numpy")
def _local(p, i, px, py, sign, axis):
    """Along and beside the line between the pixels, seen from the first one's centre."""
    x, y = p[i, 0] / p[i, 2] - px, p[i, 1] / p[i, 2] - py
    return (sign * x, y) if axis == 0 else (sign * y, x)


@njit(cache=True, error_model="numpy")
def _follow(p, faces, across, f, px, py, sign, axis, near, steps, edge):
    """Leave face after face towards the other pixel until the edge crossed is a silhouette; its ends into ``edge``."""
    for _ in range(steps):
        leave, k = -np.inf, -1
        for corner in range(3):
            i, j = faces[f, corner], faces[f, (corner + 1) % 3]
            if p[i, 2] <= near:
                return
            if p[j, 2] <= near:
                return
            ax, ay = _local(p, i, px, py, sign, axis)
            bx, by = _local(p, j, px, py, sign, axis)
            if (ay > 0.0) == (by > 0.0):
                continue
            at = ax + ay / (ay - by) * (bx - ax)
            if at > leave:
                leave, k = at, corner
        if k < 0 or leave > 1.0:
            return
        i, j, o = faces[f, k], faces[f, (k + 1) % 3], faces[f, (k + 2) % 3]
        ax, ay = _local(p, i, px, py, sign, axis)
        bx, by = _local(p, j, px, py, sign, axis)
        other = across[f, k]
        silhouette = other < 0
        if not silhouette:
            third = faces[other, 0] + faces[other, 1] + faces[other, 2] - i - j
            if p[third, 2] <= near:
                return
            ox, oy = _local(p, o, px, py, sign, axis)
            tx, ty = _local(p, third, px, py, sign, axis)
            mine = (bx - ax) * (oy - ay) - (by - ay) * (ox - ax)
            theirs = (bx - ax) * (ty - ay) - (by - ay) * (tx - ax)
            silhouette = mine * theirs >= 0.0
        if silhouette:
            run, rise = abs(bx - ax), abs(by - ay)
            if rise > run or (rise == run and axis == 0):
                edge[0], edge[1] = i, j
            return
        f = other
