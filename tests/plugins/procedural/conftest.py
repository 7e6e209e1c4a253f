"""One of every primitive, shared by the distance and the renderer tests."""

from __future__ import annotations

import pytest

from plugins.procedural import parts as P

GREY = (0.3, 0.3, 0.3)
ZERO = (0.0, 0.0, 0.0)

PRIMITIVES = {
    "sphere": P.sphere(0.6, (0.1, -0.2, 0.3), GREY),
    "ellipsoid": P.ellipsoid((0.7, 0.3, 0.5), (0.1, 0.0, -0.1), GREY, rotate=(20, 40, 60)),
    "disc": P.ellipsoid((0.8, 0.6, 0.03), ZERO, GREY),
    "box": P.box((0.8, 0.5, 1.1), (0.1, 0.1, 0.0), GREY, rotate=(10, -30, 70)),
    "rounded box": P.box((0.8, 0.5, 1.1), ZERO, GREY, rotate=(0, 30, 0), rounding=0.1),
    "cone": P.cone(0.6, 0.2, 0.9, (0.0, 0.1, 0.0), GREY, rotate=(90, 0, 20)),
    "pointed cone": P.cone(0.5, 0.0, 1.0, ZERO, GREY),
    "rounded cone": P.cone(0.5, 0.0, 1.0, ZERO, GREY, rounding=0.08),
    "cylinder": P.cylinder(0.4, 0.7, ZERO, GREY, rotate=(0, 50, 0), rounding=0.1),
    "capsule": P.capsule((-0.4, 0.1, 0.0), (0.5, -0.2, 0.3), 0.2, GREY),
    "round cone": P.round_cone((-0.4, 0.1, 0.0), (0.5, -0.2, 0.3), 0.3, 0.1, GREY),
    "torus": P.torus(0.6, 0.15, ZERO, GREY, rotate=(30, 0, 0)),
    "arc": P.torus(0.6, 0.1, ZERO, GREY, rotate=(90, 0, 30), arc=200.0),
    "short arc": P.torus(0.7, 0.1, ZERO, GREY, arc=70.0),
    "tube": P.tube(0.6, 0.1, 0.8, ZERO, GREY, rotate=(0, 70, 0)),
    "prism": P.prism(0.8, 0.5, 0.9, ZERO, GREY, rotate=(0, 0, 30)),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`primitive` runs a test on every shape; `name` comes along where asked for."""
    if "primitive" not in metafunc.fixturenames:
        return
    if "name" in metafunc.fixturenames:
        metafunc.parametrize(("name", "primitive"), PRIMITIVES.items(), ids=list(PRIMITIVES))
    else:
        metafunc.parametrize("primitive", PRIMITIVES.values(), ids=list(PRIMITIVES))


@pytest.fixture
def primitives() -> dict[str, P.Part]:
    return PRIMITIVES
