"""Published checkpoints: names and shapes, averages, and files that are no such thing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.config.loading import load_job
from core.discovery import get_registry
from core.errors import UserError
from core.stages import build_task
from plugins.mesh_diffusion.checkpoint import averaged, load_published, own_state
from plugins.mesh_diffusion.ddpm import Ddpm3d
from plugins.mesh_diffusion.lattice import tet_grid
from plugins.mesh_diffusion.unet import NetworkConfig

Shapes = dict[str, tuple[int, ...]]


def layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def pointwise(name: str, inner: int, outer: int) -> Shapes:
    return {f"{name}.W": (inner, outer), f"{name}.b": (outer,)}


def attention(name: str, width: int) -> Shapes:
    found = layer(f"{name}.GroupNorm_0", width)
    for k in range(4):
        found |= pointwise(f"{name}.NIN_{k}", width, width)
    return found


def block(name: str, inner: int, outer: int, time: int) -> Shapes:
    found = layer(f"{name}.GroupNorm_0", inner) | layer(f"{name}.Conv_0", outer, inner, 3, 3, 3)
    found |= layer(f"{name}.Dense_0", outer, time) | layer(f"{name}.GroupNorm_1", outer)
    found |= layer(f"{name}.Conv_1", outer, outer, 3, 3, 3)
    return found | (pointwise(f"{name}.NIN_0", inner, outer) if inner != outer else {})


def published(side: int, channels: int, widths: list[int], blocks: int, attended: int, kernel: int) -> Shapes:
    """Every name and shape of the state of a published network, in its order, from the description alone."""
    time, cube = 4 * channels, (kernel,) * 3
    found: Shapes = {"coords": (1, 3, *[side] * 3)} if kernel == 3 else {}
    found |= {"mask": (1, 1, *[side] * 3), "sigmas": (1000,)}
    found |= layer("pos_layer", channels, 3, *cube) | layer("mask_layer", channels, 1, *cube)
    parts: list[Any] = [lambda n: layer(n, time, channels), lambda n: layer(n, time, time)]
    parts.append(lambda n: layer(n, channels, 4, *cube))
    kept, at = [channels], channels

    def resampled(width: int) -> Any:
        return lambda n: layer(f"{n}.Conv_0", width, width, 3, 3, 3)

    for k, width in enumerate(channels * w for w in widths):
        for _ in range(blocks):
            parts.append(lambda n, a=at, b=width: block(n, a, b, time))
            at = width
            if side >> k == attended:
                parts.append(lambda n, a=at: attention(n, a))
            kept.append(at)
        if k + 1 < len(widths):
            parts.append(resampled(at))
            kept.append(at)
    parts += [
        lambda n, a=at: block(n, a, a, time),
        lambda n, a=at: attention(n, a),
        lambda n, a=at: block(n, a, a, time),
    ]
    for k, width in reversed(list(enumerate(channels * w for w in widths))):
        for _ in range(blocks + 1):
            joined = at + kept.pop()
            parts.append(lambda n, a=joined, b=width: block(n, a, b, time))
            at = width
        if side >> k == attended:
            parts.append(lambda n, a=at: attention(n, a))
        if k:
            parts.append(resampled(at))
    parts += [lambda n: layer(n, channels), lambda n: layer(n, 4, channels, *cube)]
    for number, part in enumerate(parts):
        found |= part(f"all_modules.{number}")
    return found


@pytest.mark.parametrize(
    ("side", "changes"),
    [(64, []), (128, ["resolution=128", "network.kernel=5", "network.widths=[1,1,2,4,4,4]", "network.blocks=2"])],
)
def test_the_published_networks_have_these_tensors(side: int, changes: list[str]) -> None:
    o = load_job("mesh-diffusion-paper", changes, get_registry()).stages[-1].task.options
    assert o.resolution == side and o.prediction == "epsilon" and o.deform_scale == 3.0
    theirs = published(side, 128, o.network.widths, o.network.blocks, 16, o.network.kernel)
    with torch.device("meta"):
        network = Ddpm3d(o.network, torch.zeros(side, side, side), 1)
        state = own_state({name: torch.zeros(shape) for name, shape in theirs.items()})
    mine = {name: tuple(v.shape) for name, v in network.state_dict().items() if name != "label.weight"}
    assert {name: tuple(v.shape) for name, v in state.items()} == mine
    if side == 64:
        assert mine["all_modules.54.weight"] == (4, 128, 3, 3, 3) and "all_modules.55.weight" not in mine
        assert mine["all_modules.12.NIN_3.W"] == (256, 256), "attention at 16 cells, after the first block there"


SMALL = ["resolution=16", "network.layout=published", "network.fold=1", "network.channels=32", "network.widths=[1,2]",
         "network.attention=[8]"]  # fmt: skip


def made(*changes: str) -> Any:
    job = load_job("mesh-diffusion-smoke", [*SMALL, *changes], get_registry())
    return build_task(job, get_registry(), 0, torch.device("cpu"))


def content() -> dict[str, Any]:
    """A file's content for the small network: weights of ones, averages of halves."""
    shapes = published(16, 32, [1, 2], 1, 8, 3)
    state = {name: torch.ones(shape) for name, shape in shapes.items()}
    state |= {"mask": tet_grid(16).mask[None, None], "coords": torch.zeros(shapes["coords"])}
    trained = [name for name in shapes if name not in ("sigmas", "coords", "mask")]
    ema = {"decay": 0.9999, "num_updates": 3, "shadow_params": [torch.full(shapes[name], 0.5) for name in trained]}
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 2e-5, "params": [0]}]}
    return {"optimizer": optimizer, "model": {f"module.{k}": v for k, v in state.items()}, "ema": ema, "step": 3}


def test_a_published_file_fills_the_network(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "chair.pt")
    task = made(f"start={tmp_path / 'chair.pt'}")
    for network in (task.live, task.average.model):
        for name, value in network.named_parameters():
            # The positions' bias joins the mask's.
            wanted = {"label.weight": 0.0, "mask_layer.bias": 1.0}.get(name, 0.5)
            assert torch.equal(value, torch.full_like(value, wanted)), name


def test_averages_are_matched_in_the_order_of_parameters() -> None:
    state = {"mask": torch.zeros(1), "a": torch.zeros(2), "sigmas": torch.zeros(4), "b": torch.zeros(3)}
    found = averaged(state, {"shadow_params": [torch.ones(2), torch.ones(3)]}, Path("x"))
    assert [float(v.sum()) for v in found.values()] == [0, 2, 0, 3]


@pytest.fixture(scope="module")
def lively() -> Iterator[Ddpm3d]:
    """A small network whose layers do not start at zero."""
    torch.manual_seed(0)
    options = NetworkConfig(layout="published", channels=32, widths=[1, 2], blocks=1, attention=[8], fold=1)
    network = Ddpm3d(options, tet_grid(16).mask, 2).eval()
    for p in network.parameters():
        p.data = p.data + 0.05 * torch.randn_like(p)
    yield network


def test_the_published_network_is_told_time_class_and_mask(lively: Ddpm3d) -> None:
    mask = lively.mask
    x, t, untold = torch.randn(2, 4, 16, 16, 16), torch.tensor([30, 900]), torch.tensor([-1, -1])
    with torch.no_grad():
        out = lively(x, t, untold)
        assert out.shape == x.shape and not (out * (1 - mask)).any()
        torch.testing.assert_close(lively(x + 3 * (1 - mask), t, untold), out)  # what is no vertex is not heard
        assert float((lively(x, t.flip(0), untold) - out).abs().max()) > 1e-3
        assert float((lively(x, t, torch.tensor([0, 1])) - out).abs().max()) > 1e-3
        torch.testing.assert_close(lively(x[1:], t[1:], untold[1:]), out[1:], rtol=1e-3, atol=1e-4)


def test_times_are_embedded_as_published(lively: Ddpm3d) -> None:
    t = torch.tensor([7.0])
    rates = 10000 ** -(torch.arange(16.0) / 15)
    torch.testing.assert_close(lively.time(t)[0], torch.cat([(7 * rates).sin(), (7 * rates).cos()]))


def test_shapes_that_were_learned_lying_down_are_set_upright() -> None:
    def drawn(up: str) -> Tensor:
        task = made(f"sampling.up={up}", "sampling.smooth=0")
        values = torch.ones(len(task.space.grid), 4) * torch.tensor([1.0, 0, 0, 0])
        low = task.space.grid.points[:, 1] < 6  # more of it at small y, none at the border
        values[low & ~task.space.grid.border, 0] = -1
        return task._scene(values, "").geometry.mesh(16).vertices.detach().mean(0)  # type: ignore[no-any-return]

    along_y, along_z = drawn("z"), drawn("y")
    torch.testing.assert_close(along_z, torch.stack([along_y[0], -along_y[2], along_y[1]]), atol=1e-3, rtol=0)
    assert float(along_z[2]) < -0.2


def test_files_that_are_refused(tmp_path: Path, lively: Ddpm3d) -> None:
    path, whole = tmp_path / "c.pt", content()

    def refused(match: str, changed: dict[str, Any] | None = None, network: Any = lively) -> None:
        if changed is not None:
            torch.save(whole | changed, path)
        with pytest.raises(UserError, match=match) as found:
            load_published(path, network)
        assert "\n" not in str(found.value)

    refused("there is no checkpoint")
    torch.save(whole, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused("is truncated or damaged; expected a published MeshDiffusion checkpoint")
    refused("has no ema", {"ema": 3})
    model: dict[str, Tensor] = whole["model"]
    refused("do not match its parameters", {"ema": {"shadow_params": whole["ema"]["shadow_params"][1:]}})
    refused(
        "was made for another grid: 1 of its 4096", {"model": model | {"module.mask": _one_off(model["module.mask"])}}
    )
    refused("with positions as input", {"model": model | {"module.coords": torch.ones(1, 3, 16, 16, 16)}})
    options = NetworkConfig(layout="published", channels=32, widths=[1, 2], blocks=2, attention=[8], fold=1)
    refused("other sizes than this configuration's", {}, Ddpm3d(options, tet_grid(16).mask, 2))
    refused("was made for resolution=16, not 24", {}, Ddpm3d(options, tet_grid(24).mask, 2))
    with pytest.raises(UserError, match=r"network.layout=published only"):
        made("network.layout=compact", f"start={path}")
    with pytest.raises(UserError, match=r"network.channels a multiple of 32"):
        made("network.channels=8")


def _one_off(mask: Tensor) -> Tensor:
    other = mask.clone()
    other[..., 0, 0, 0] = 1 - other[..., 0, 0, 0]
    return other
