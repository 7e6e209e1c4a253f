"""Marching tetrahedra (Doi and Koide 1991): signed distances at the vertices of tetrahedra to triangles.

Four vertices have sixteen sign patterns, and none is ambiguous: the triangles of neighbours fit, and the surface is
closed where the grid's border is outside.
"""

from __future__ import annotations

import torch
from torch import Tensor

EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


def _edge(a: int, b: int) -> int:
    return EDGES.index((min(a, b), max(a, b)))


def _even(first: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers 0 to 3 that begin with ``first``, in an even permutation (an orientation that is kept)."""
    rest = [k for k in range(4) if k not in first]
    order = [*first, *rest]
    swaps = sum(order[a] > order[b] for a in range(4) for b in range(a + 1, 4))
    return tuple(order if swaps % 2 == 0 else [*order[:-2], order[-1], order[-2]])


def _triangles(pattern: int) -> list[tuple[int, int, int]]:
    """Triangles of a sign pattern (bit k: vertex k is inside) as edges, counter-clockwise seen from outside."""
    inside = tuple(k for k in range(4) if pattern >> k & 1)
    if len(inside) == 1:
        i, j, k, m = _even(inside)
        return [(_edge(i, j), _edge(i, k), _edge(i, m))]
    if len(inside) == 3:
        (lone,) = (k for k in range(4) if k not in inside)
        i, j, k, m = _even((lone,))
        return [(_edge(i, j), _edge(i, m), _edge(i, k))]
    if len(inside) == 2:
        i, j, k, m = _even(inside)
        ring = _edge(i, k), _edge(i, m), _edge(j, m), _edge(j, k)
        return [(ring[0], ring[1], ring[2]), (ring[0], ring[2], ring[3])]
    return []


TABLE = torch.full((16, 2, 3), -1, dtype=torch.int64)
for _pattern in range(16):
    for _row, _triangle in enumerate(_triangles(_pattern)):
        TABLE[_pattern, _row] = torch.tensor(_triangle)


def triangulate(inside: Tensor, tets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which edges carry a vertex of the surface, and the triangles between these.

    Args:
        inside: [T, 4] bool, the signs at the corners of ``tets``.
        tets: [T, 4] int64 vertex numbers below ``count``, positively oriented; those on one side give nothing.

    Returns:
        [E, 2] int64: the grid's edges that are crossed, the lower number first; [F, 3] int64 triangles of their places
        in that list, counter-clockwise seen from outside.
    """
    pattern = (inside.long() * inside.new_tensor([1, 2, 4, 8], dtype=torch.int64)).sum(1)
    crossing = (pattern > 0) & (pattern < 15)
    tets, pattern, inside = tets[crossing], pattern[crossing], inside[crossing]
    ends = tets.new_tensor(EDGES)
    first, last = tets[:, ends[:, 0]], tets[:, ends[:, 1]]  # [T, 6]
    key = torch.minimum(first, last) * count + torch.maximum(first, last)  # amin over two numbers is slow
    cut = inside[:, ends[:, 0]] != inside[:, ends[:, 1]]
    unique, where = torch.unique(key[cut], return_inverse=True)
    place = torch.full_like(key, -1)
    place[cut] = where
    table = TABLE.to(tets.device)[pattern]  # [T, 2, 3]
    faces = place.gather(1, table.clamp(min=0).view(-1, 6)).view(-1, 3)
    return torch.stack([unique // count, unique % count], 1), faces[table.view(-1, 3)[:, 0] >= 0]


def cross(first: Tensor, last: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """[E, 3] where distances [E] of opposite sign vanish between ``first`` and ``last`` [E, 3]: linear, and
    differentiable in all four."""
    share = a / (a - b)
    return first + share[:, None] * (last - first)
