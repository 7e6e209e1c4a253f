"""MVDream: three formats of the same weights, what a camera is told as, views that see each other, what is refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.contracts import Context
from core.diffusion.folder import open_pipeline
from core.diffusion.ldm_networks import unet_from, unet_tensors
from core.errors import UserError
from core.types import Cameras, Condition
from plugins.mvdream.mvdream import MVDream, camera_matrix

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "core"))
from tiny_mvdream import network, write_own  # noqa: E402
from tiny_pipeline import write_pipeline  # noqa: E402

AROUND = Cameras.turntable(torch.arange(4) * math.pi / 2, 0.2, 16)


@pytest.fixture(scope="module")
def unet():
    return network(text_width=16)


@pytest.fixture(scope="module")
def own(unet, tmp_path_factory):
    return write_own(tmp_path_factory.mktemp("own"), unet)


@pytest.fixture(scope="module")
def single(unet, tmp_path_factory):
    file = tmp_path_factory.mktemp("single") / "sd-v2.1-base-4view.pt"
    torch.save(unet_tensors(unet), file)
    return file


def prior(**options):
    return MVDream(MVDream.Config(text_cache=False, **options), Context())


def predicted(model, seed=0):
    noisy = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    cameras = Cameras.cat([AROUND, AROUND])
    told = model.condition(["a red ball"] * 4 + ["a blue cube"] * 4, cameras)
    with torch.no_grad():
        return noisy, told, model.predict(noisy, torch.full((8,), 500), told)


def test_all_three_formats_predict_the_same(own, single, unet, tmp_path):
    folder = write_pipeline(tmp_path / "diffusers")
    for file in (folder / "unet").iterdir():
        file.unlink()
    unet.save_pretrained(folder / "unet")
    base = {"base": str(write_pipeline(tmp_path / "base")), "image_size": 16}
    mine = predicted(prior(model=str(own)))[2]
    assert mine.std() > 1e-3
    assert torch.equal(mine, predicted(prior(model=str(folder)))[2])
    assert torch.equal(mine, predicted(prior(model=str(single), **base))[2])
    options = MVDream.Config(model=str(single), **base)
    assert MVDream.space(options, Context()) == MVDream.space(MVDream.Config(model=str(own)), Context()) == (4, 8, 8)


def test_names_there_and_back_are_the_same_bit_for_bit(own, unet):
    state = load_file(own / "unet" / "diffusion_pytorch_model.safetensors")
    assert {"camera_embed.0.weight", "camera_embed.2.bias", "time_embed.0.weight"} <= set(state)
    again = unet_from(state, own, "", head_width=64)
    assert list(again.config.attention_head_dim) == [1, 2]
    for key, value in unet.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_a_camera_is_its_matrix_at_distance_one():
    front = camera_matrix(Cameras.turntable(torch.zeros(1), 0.0, 16, distance=2.5))[0]
    # Seen from +x: right is +y, up is +z, the camera's own z points back at it.
    assert torch.allclose(front, torch.tensor([0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1.0]), atol=1e-6)
    up = camera_matrix(Cameras.turntable(torch.tensor([math.pi / 2]), 0.5, 16))[0].view(4, 4)
    assert torch.allclose(up[:3, 3], torch.tensor([0, math.cos(0.5), math.sin(0.5)]), atol=1e-6)
    assert torch.allclose(up[:3, :3] @ up[:3, :3].T, torch.eye(3), atol=1e-6)


def test_four_equal_views_answer_as_one_alone(own, unet):
    """Attention over the same tokens four times is attention over them once, so the plain UNet is the reference."""
    model = prior(model=str(own))
    one = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    text, camera = torch.randn(1, 7, 16), torch.randn(1, 16)
    told = Condition(text=text.expand(4, -1, -1), camera=camera.expand(4, -1))
    with torch.no_grad():
        joint = model.predict(one.expand(4, -1, -1, -1), torch.full((4,), 300), told)
        alone = unet(one, torch.tensor([300]), encoder_hidden_states=text, class_labels=camera).sample
    assert torch.allclose(joint, alone.expand(4, -1, -1, -1), atol=1e-5)


def test_views_of_a_set_see_each_other_and_no_others(own):
    model = prior(model=str(own))
    noisy, told, before = predicted(model)
    changed = noisy.clone()
    changed[0] += 1
    with torch.no_grad():
        after = model.predict(changed, torch.full((8,), 500), told)
    moved = (after - before).abs().amax((1, 2, 3))
    assert (moved[:4] > 1e-4).all() and (moved[4:] < 1e-6).all()


def test_guidance_keeps_the_cameras(own):
    model = prior(model=str(own))
    told = model.condition(["a red ball"] * 4, AROUND)
    other = model.opposite(told, [""] * 4, AROUND)
    assert torch.equal(told.camera, other.camera) and not torch.equal(told.text, other.text)


def test_sets_must_be_whole(own):
    model = prior(model=str(own))
    with pytest.raises(UserError, match="sets of 4 views and got 3"):
        model.predict(torch.zeros(3, 4, 8, 8), torch.zeros(3), model.condition([""] * 3, AROUND[:3]))


def config_of(folder, **changes):
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def test_what_is_no_mvdream_is_refused_before_it_is_loaded(unet, tmp_path, monkeypatch):
    monkeypatch.setattr("core.diffusion.folder.Pipeline.load", lambda *a, **k: pytest.fail("loaded"))
    imagedream = config_of(write_own(tmp_path / "a", unet), ip_dim=16)
    with pytest.raises(UserError, match="is ImageDream"):
        prior(model=str(imagedream))
    with pytest.raises(UserError, match="no multi-view model: its UNet is told no camera"):
        prior(model=str(write_pipeline(tmp_path / "b")))
    with pytest.raises(UserError, match="told 12 numbers of a camera instead of 16"):
        prior(model=str(config_of(write_own(tmp_path / "c", unet), camera_dim=12)))


def test_checkpoints_of_other_models_are_refused(single, unet, tmp_path):
    base = {"base": str(write_pipeline(tmp_path / "base")), "image_size": 16}
    state = torch.load(single, weights_only=True)
    plain = {k: v.contiguous() for k, v in state.items() if "camera_embed" not in k}
    save_file(plain, tmp_path / "sd.safetensors")
    with pytest.raises(UserError, match="no camera_embed; expected MVDream's weights"):
        prior(model=str(tmp_path / "sd.safetensors"), **base)
    (tmp_path / "cut.pt").write_bytes(single.read_bytes()[:2000])
    with pytest.raises(UserError, match="truncated or damaged; expected MVDream's weights"):
        prior(model=str(tmp_path / "cut.pt"), **base)
    short = {k: v for k, v in state.items() if "middle_block.2" not in k}
    torch.save(short, tmp_path / "short.pt")
    with pytest.raises(UserError, match="lacks"):
        prior(model=str(tmp_path / "short.pt"), **base)


def test_the_folder_opens_as_what_it_names(own):
    assert open_pipeline(str(own), {"unet": "diffusers.UNet2DConditionModel"}, MVDream.pipelines).folder == own
