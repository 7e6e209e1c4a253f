"""PLY files of splats, in the layout of the 3DGS authors that viewers and other programs read.

Vertex properties, float32, little-endian: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_* (all of red, then green, then
blue), opacity (before the logistic function), scale_0..2 (natural logarithms), rot_0..3 (w, x, y, z). ASCII and
big-endian files are read too, and plain clouds of points (x y z with red green blue and nx ny nz where there are any).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.errors import UserError
from core.types import Points, Splats

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_CORE = ["x", "y", "z", *(f"f_dc_{k}" for k in range(3)), "opacity", *(f"scale_{k}" for k in range(3))]
REQUIRED = [*_CORE, *(f"rot_{k}" for k in range(4))]
"""What a splat must have; f_rest_* and normals may be missing."""
_LOGIT_MAX = 16.0

Columns = dict[str, NDArray[Any]]


def ply_bytes(splats: Splats) -> bytes:
    """A set of splats as the bytes of a file; rows as they come."""
    opacity = splats.opacities.detach().double().cpu().clamp(0, 1)
    rest = splats.sh[:, 1:].transpose(1, 2).flatten(1)  # channel-major
    parts = {
        "xyz": splats.means, "n": torch.zeros_like(splats.means), "f_dc": splats.sh[:, 0], "f_rest": rest,
        "opacity": torch.logit(opacity).clamp(-_LOGIT_MAX, _LOGIT_MAX)[:, None],
        "scale": splats.scales.detach().clamp(min=1e-10).log(), "rot": splats.rotations,
    }  # fmt: skip
    table = torch.cat([p.detach().double().cpu() for p in parts.values()], 1).numpy().astype("<f4")
    names = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{k}" for k in range(3))]
    names += [f"f_rest_{k}" for k in range(rest.shape[1])]
    names += ["opacity", *(f"scale_{k}" for k in range(3)), *(f"rot_{k}" for k in range(4))]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(splats)}"]
    lines += [f"property float {name}" for name in names]
    return "\n".join([*lines, "end_header\n"]).encode() + table.tobytes()


def read_ply(path: Path) -> Splats | Points:
    """The splats of a file, or its points where it has nothing of a splat but places.

    Raises:
        UserError: no such file, no PLY, damaged, a property is missing, or a number is not finite.
    """
    columns = read_columns(path)
    if not set(columns) & {"f_dc_0", "opacity", "scale_0", "rot_0"}:
        return _points(columns, path)
    lacking = [name for name in REQUIRED if name not in columns]
    if lacking:
        raise UserError(f"{path} is no file of splats: it lacks the properties {', '.join(lacking)}")
    count = sum(name.startswith("f_rest_") for name in columns)
    if count not in (0, 9, 24, 45):
        raise UserError(f"{path} has {count} properties f_rest_*; degrees 0 to 3 have 0, 9, 24 or 45")
    rest = _table(columns, [f"f_rest_{k}" for k in range(count)], path)
    first = _table(columns, ["f_dc_0", "f_dc_1", "f_dc_2"], path)
    sh = torch.cat([first[:, None], rest.view(len(rest), 3, count // 3).transpose(1, 2)], 1)
    turn = _table(columns, [f"rot_{k}" for k in range(4)], path)
    return Splats(
        means=_table(columns, ["x", "y", "z"], path),
        scales=_table(columns, [f"scale_{k}" for k in range(3)], path).exp(),
        rotations=torch.nn.functional.normalize(turn, dim=-1),
        opacities=torch.sigmoid(_table(columns, ["opacity"], path)[:, 0]),
        sh=sh,
    )


def _points(columns: Columns, path: Path) -> Points:
    positions = _table(columns, ["x", "y", "z"], path)
    colors = _table(columns, ["red", "green", "blue"], path) if {"red", "green", "blue"} <= set(columns) else None
    if colors is not None and columns["red"].dtype.kind in "iu":
        colors = colors / 255
    normals = None
    if {"nx", "ny", "nz"} <= set(columns):
        normals = _table(columns, ["nx", "ny", "nz"], path)
        length = normals.norm(dim=-1, keepdim=True)
        normals = normals / length if bool((length > 0.5).all()) else None
    return Points(positions, normals, colors)


def _table(columns: Columns, names: list[str], path: Path) -> torch.Tensor:
    """[N, len(names)] float32."""
    lacking = [name for name in names if name not in columns]
    if lacking:
        raise UserError(f"{path} lacks the properties {', '.join(lacking)}")
    count = len(next(iter(columns.values())))
    table = np.stack([columns[n].astype(np.float32) for n in names], 1) if names else np.zeros((count, 0), np.float32)
    if not np.isfinite(table).all():
        raise UserError(f"{path}: numbers of {', '.join(names)} are not finite")
    return torch.from_numpy(table)


def read_columns(path: Path) -> Columns:
    """The vertex properties of a PLY file by name, each [N].

    Raises:
        UserError: as :func:`read_ply`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    head, found, body = data.partition(b"end_header")
    lines = head.decode("ascii", "replace").split("\n")
    if lines[0].strip() != "ply" or not found:
        raise UserError(f"{path} is no PLY file")
    order, count, fields = _header([line.split() for line in lines[1:]], path)
    body = body.partition(b"\n")[2]
    if order == "ascii":
        return _ascii(body, count, fields, path)
    kind = np.dtype([(name, _ORDERS[order] + code) for name, code in fields])
    if len(body) < kind.itemsize * count:
        raise UserError(f"{path} is cut off: its header promises {count} vertices")
    table = np.frombuffer(body, kind, count)
    return {name: table[name] for name, _ in fields}


def _header(lines: list[list[str]], path: Path) -> tuple[str, int, list[tuple[str, str]]]:
    """Byte order, number of vertices and their properties (name, type)."""
    order, count, fields, element = "", -1, [], ""
    for words in lines:
        if words[:1] == ["format"] and len(words) > 1:
            order = words[1]
        elif words[:1] == ["element"] and len(words) == 3:
            if count < 0 and words[1] != "vertex" and words[2] != "0":
                raise UserError(f"{path}: its first element is '{words[1]}', expected 'vertex'")
            element = words[1]
            count = int(words[2]) if element == "vertex" and words[2].isdigit() else count
        elif words[:1] == ["property"] and element == "vertex":
            if len(words) != 3 or words[1] not in _TYPES:
                raise UserError(f"{path}: a vertex property is '{' '.join(words[1:])}', expected a number")
            fields.append((words[2], _TYPES[words[1]]))
    if order not in _ORDERS or count < 0 or not fields:
        raise UserError(f"{path} has a header without a known format or without vertices")
    return order, count, fields


def _ascii(body: bytes, count: int, fields: list[tuple[str, str]], path: Path) -> Columns:
    words = body.split()[: count * len(fields)]
    try:
        table = np.array(words, np.float64).reshape(count, len(fields))
    except ValueError:
        raise UserError(f"{path} is damaged: its header promises {count} vertices of {len(fields)} numbers") from None
    return {name: table[:, k].astype(code) for k, (name, code) in enumerate(fields)}
