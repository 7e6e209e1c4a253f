"""The small parts of the embedded family, against closed forms."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from core.errors import UserError
from core.types import Cameras
from plugins.embedded.autoencoder import edges, psnr
from plugins.embedded.camera import CAMERA_DIM, embed_camera, no_camera
from plugins.embedded.classifier import VIEWS, Classifier, degrade
from plugins.embedded.clip import captions_with_views, matches
from plugins.embedded.family import BUILT_IN, Average, family_folder, part, record, save_half
from plugins.embedded.tokenizer import MAX_LENGTH, train_tokenizer, unknown_words
from plugins.procedural.captions import captions
from plugins.procedural.data import ProceduralData

TEXTS = ["a standing corgi dog", "a shiny red mug, side view", "an orange rocket", "a 3d model of a red mug"]


# -- camera ----------------------------------------------------------------------------------------------------------


def test_a_viewpoint_is_a_flag_harmonics_and_the_tilt() -> None:
    a, e = torch.tensor([0.3, -2.0]), torch.tensor([0.2, -0.4])
    found = embed_camera(a, e)
    assert found.shape == (2, CAMERA_DIM)
    for row, (x, y) in enumerate(zip(a.tolist(), e.tolist(), strict=True)):
        wanted = [1.0]
        for k in (1, 2, 3):
            wanted += [math.sin(k * x), math.cos(k * x)]
        wanted += [math.sin(y), math.cos(y), y * 2 / math.pi]
        assert found[row].tolist() == pytest.approx(wanted, abs=1e-6)


def test_no_viewpoint_is_zeros_and_no_viewpoint_looks_like_it() -> None:
    assert torch.equal(no_camera(3), torch.zeros(3, CAMERA_DIM))
    generator = torch.Generator().manual_seed(0)
    a, e = torch.rand(2, 500, generator=generator) * 6 - 3
    assert bool((embed_camera(a, e / 2)[:, 0] == 1).all())


def test_a_full_turn_is_the_same_viewpoint_and_no_other_is_near() -> None:
    turn = torch.arange(0, 360, 10).deg2rad().double()
    tilt = torch.zeros_like(turn)
    torch.testing.assert_close(embed_camera(turn + 2 * math.pi, tilt), embed_camera(turn, tilt))
    distance = torch.cdist(embed_camera(turn, tilt), embed_camera(turn, tilt))
    assert float((distance + 10 * torch.eye(36)).min()) > 0.3
    cameras = Cameras.orbit(turn, tilt, 3 + tilt, 0.7 + tilt, 8, 8)
    torch.testing.assert_close(embed_camera(cameras.azimuth, cameras.elevation), embed_camera(turn, tilt))


# -- tokenizer -------------------------------------------------------------------------------------------------------


def test_every_word_of_the_captions_is_one_token(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, tmp_path)
    words = json.loads((tmp_path / "words.json").read_text())
    assert words == [
        "a",
        "an",
        "corgi",
        "d",
        "dog",
        "model",
        "mug",
        "of",
        "orange",
        "red",
        "rocket",
        "shiny",
        "side",
        "standing",
        "view",
    ]
    for word in [*words, "3", ","]:
        ids = tokenizer(word).input_ids
        assert len(ids) == 3, word
        assert ids[0] == tokenizer.bos_token_id and ids[2] == tokenizer.eos_token_id
        assert tokenizer.decode(ids[1:2]).strip() == word
    assert len({tokenizer(w).input_ids[1] for w in words}) == len(words)
    assert tokenizer("A Red MUG").input_ids == tokenizer("a red mug").input_ids
    assert len(tokenizer("a red mug").input_ids) == 5


def test_the_files_are_those_of_clip(tmp_path: Path) -> None:
    """``vocab.json`` with ``merges.txt``, and ``tokenizer.json``, each give the same tokens."""
    from transformers import CLIPTokenizer

    made = train_tokenizer(TEXTS, tmp_path / "all")
    text = "a standing corgi dog, back view of xylophones 42"
    wanted = made(text, padding="max_length", truncation=True, max_length=MAX_LENGTH).input_ids
    assert len(wanted) == MAX_LENGTH
    (tmp_path / "old").mkdir()
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "old" / name).write_bytes((tmp_path / "all" / name).read_bytes())
    for folder in ("all", "old"):
        found = CLIPTokenizer.from_pretrained(tmp_path / folder)
        ids = found(text, padding="max_length", truncation=True, max_length=MAX_LENGTH).input_ids
        assert ids == wanted, folder
    assert CLIPTokenizer.from_pretrained(tmp_path / "all").model_max_length == MAX_LENGTH


def test_long_texts_are_cut_and_closed(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, tmp_path)
    long = tokenizer("a red mug " * 30, truncation=True, max_length=MAX_LENGTH).input_ids
    assert len(long) == MAX_LENGTH and long[-1] == tokenizer.eos_token_id


def test_other_words_fall_apart_into_letters(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, tmp_path)
    ids = tokenizer("xylophone ü 7").input_ids
    assert len(ids) > 5 and max(ids) < len(tokenizer)
    assert tokenizer.eos_token_id not in ids[1:-1]


def test_training_again_gives_the_same_tokenizer(tmp_path: Path) -> None:
    """A fit that is resumed trains its tokenizer again: the numbers must be those the weights know."""
    files = ("vocab.json", "merges.txt", "words.json")
    train_tokenizer(TEXTS, tmp_path)
    first = [(tmp_path / file).read_bytes() for file in files]
    train_tokenizer([*reversed(TEXTS), *TEXTS], tmp_path / "again")
    assert [(tmp_path / "again" / file).read_bytes() for file in files] == first


def test_unknown_words_are_named_once_in_order() -> None:
    known = ["a", "red", "mug"]
    assert unknown_words("A red zebra beside a ZEBRA, a mug and 7 gnus!", known) == ["zebra", "beside", "and", "gnus"]
    assert unknown_words("a red mug", known) == [] and unknown_words("", known) == []


def test_the_shipped_tokenizer_knows_every_caption() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(BUILT_IN / "tokenizer")
    known = json.loads((BUILT_IN / "tokenizer" / "words.json").read_text())
    texts = [t for nouns in ProceduralData.nouns.values() for c in ("red", "gray") for t in captions(nouns, c)]
    texts += [f"a shiny {c} mug, {v}" for c in ProceduralData.color_names[:-1] for v in VIEWS]
    texts += ["a standing corgi dog", "a castle on a hill"]
    for text in texts:
        assert unknown_words(text, known) == [], text
        assert len(tokenizer(text).input_ids) <= MAX_LENGTH, text
    assert all(len(tokenizer(word).input_ids) == 3 for word in known)


# -- clip ------------------------------------------------------------------------------------------------------------


def pool_batch() -> dict[str, object]:
    return {
        "category": torch.tensor([0, 0, 0, 1, 0]), "color": torch.tensor([2, 2, 2, 2, 3]),
        "material": torch.tensor([0, 0, 0, 0, 0]),
        "view_word": ["front view", "back view", "front view", "front view", "front view"],
        "caption": ["a red mug", "a red mug", "red mug", "a red car", "a blue mug"],
    }  # fmt: skip


def test_a_text_is_true_of_every_picture_that_it_describes() -> None:
    """Written out: same category, colour and material, and the same side where the text tells one."""
    batch, told = pool_batch(), torch.tensor([True, False, False, False, True])
    wanted = [[1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert matches(batch, told).int().tolist() == wanted
    batch["material"] = torch.tensor([0, 1, 0, 0, 0])
    assert matches(batch, told)[1].int().tolist() == [0, 1, 0, 0, 0]


def test_captions_name_the_side_where_told() -> None:
    told = torch.tensor([True, False, True, False, False])
    assert captions_with_views(pool_batch(), told) == [
        "a red mug, front view", "a red mug", "red mug, front view", "a red car", "a blue mug",
    ]  # fmt: skip


# -- classifier ------------------------------------------------------------------------------------------------------


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(ProceduralData.nouns, list(ProceduralData.color_names), width=8)


@pytest.mark.parametrize(
    ("prompt", "category", "color"),
    [
        ("a standing corgi dog", "corgi", None), ("a castle on a hill", "castle", None), ("a race car", "race car", None),
        ("a blue chair", "chair", "blue"), ("a purple mug", "mug", "purple"), ("A SHINY Red Airplane!", "airplane", "red"),
        ("a race-car, green, back view", "race car", "green"), ("an orange rocket", "rocket", "orange"),
        ("a natural mug", "mug", None), ("something else", None, None), ("", None, None), ("a redcar", None, None),
    ],
)  # fmt: skip
def test_what_a_prompt_names(classifier: Classifier, prompt: str, category: str | None, color: str | None) -> None:
    wanted = (
        None if category is None else classifier.categories.index(category),
        None if color is None else classifier.colors.index(color),
    )
    assert classifier.expected(prompt) == wanted


def test_every_caption_is_understood(classifier: Classifier) -> None:
    for index, (name, nouns) in enumerate(ProceduralData.nouns.items()):
        for shade, color in enumerate(classifier.colors[:-1]):
            for text in captions(nouns, color, "glossy"):
                assert classifier.expected(text) == (index, shade), (name, text)
        for text in captions(nouns, None):
            assert classifier.expected(text) == (index, None), (name, text)


def test_the_evaluation_s_prompts_are_understood(classifier: Classifier) -> None:
    import plugins.metrics

    file = Path(str(plugins.metrics.__file__)).with_name("prompts.yaml")
    for texts in yaml.safe_load(file.read_text()).values():
        for text in texts:
            category, color = classifier.expected(text)
            assert category is not None, text
            assert (color is not None) == any(f" {c} " in text for c in classifier.colors), text


def test_the_heads_have_a_logit_each_and_any_size_will_do(classifier: Classifier) -> None:
    out = classifier(torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0)))
    assert {k: tuple(v.shape) for k, v in out.items()} == {"category": (2, 29), "color": (2, 13), "view": (2, 4)}
    rows = classifier(torch.rand(3, 48, 48, 3, generator=torch.Generator().manual_seed(1)))
    assert rows["view"].shape == (3, 4)


def test_a_saved_judge_is_read_back(classifier: Classifier, tmp_path: Path) -> None:
    classifier.save(tmp_path / "classifier")
    again = Classifier.load(str(tmp_path))
    assert not again.training
    assert (again.nouns, again.colors, again.width) == (classifier.nouns, classifier.colors, 8)
    rgb = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    halves = {k: v.half().float() for k, v in classifier.state_dict().items()}
    assert all(torch.equal(v, halves[k]) for k, v in again.state_dict().items())
    for name, logits in classifier.eval()(rgb).items():
        torch.testing.assert_close(again(rgb)[name], logits, rtol=0.02, atol=0.02)


def test_a_family_without_a_judge_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="classifier does not exist; it is made by: python launch.py fit embedded-cl"):
        Classifier.load(str(tmp_path))


def test_degrading_keeps_shape_range_and_mean() -> None:
    rgb = torch.full((8, 64, 64, 3), 0.5)
    rgb[:, 16:48, 16:48] = torch.rand(8, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    copied = rgb.clone()
    blurred = 0
    for seed in range(20):
        found = degrade(rgb, torch.Generator().manual_seed(seed))
        assert found.shape == rgb.shape and float(found.min()) >= 0 and float(found.max()) <= 1
        assert torch.equal(found, degrade(rgb, torch.Generator().manual_seed(seed)))
        inner, wanted = (x[:, 24:40, 24:40].mean((1, 2)) for x in (found, rgb))
        # Contrast by 0.8 to 1.2 about 0.5; noise of at most 0.06 averages out over 256 pixels, clipping takes a little.
        assert float(((inner - 0.5) - (wanted - 0.5)).abs().max()) < 0.2 * 0.5 + 0.03
        blurred += int(float((found[:, 15, 32] - found[:, 16, 32]).abs().mean()) < 0.15)
    assert torch.equal(rgb, copied)
    assert 3 <= blurred <= 17


# -- autoencoder and family -----------------------------------------------------------------------------------------


def test_psnr_of_images_in_minus_one_to_one() -> None:
    a = torch.zeros(2, 3, 8, 8)
    assert psnr(a, a + 0.2) == pytest.approx(20.0, abs=1e-4)  # peak 2: 20 log10(2 / 0.2)
    assert psnr(a, a + 2.0) == pytest.approx(0.0, abs=1e-4)


def test_edges_are_differences_between_neighbours() -> None:
    image = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    found = edges(image)
    assert found.shape == (4, 3, 4, 5)
    torch.testing.assert_close(found[:2], image[..., 1:, 1:] - image[..., :-1, 1:])
    torch.testing.assert_close(found[2:], image[..., 1:, 1:] - image[..., 1:, :-1])
    assert float(F.l1_loss(edges(image + 0.3), edges(image))) < 1e-6


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_the_moving_average_is_the_closed_form(decay: float) -> None:
    """avg_n = d_n avg_{n-1} + (1 - d_n) w_n with d_n = min(decay, (1 + n) / (10 + n)), n counted from 0."""
    model = nn.Linear(3, 2)
    average = Average(model, decay)
    wanted = model.weight.detach().clone().double()
    generator = torch.Generator().manual_seed(0)
    for n in range(30):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=generator))
        average.update(model)
        d = min(decay, (1 + n) / (10 + n))
        wanted = d * wanted + (1 - d) * model.weight.detach().double()
    torch.testing.assert_close(average.model.weight.double(), wanted, rtol=1e-5, atol=1e-6)
    assert int(average.count) == 30


def test_the_moving_average_is_apart_from_its_model_and_in_the_checkpoint() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    average = Average(model, 0.9)
    assert not any(p.requires_grad for p in average.parameters()) and not average.model.training
    assert model.training and model[0].weight.requires_grad
    average.update(model)
    other = Average(copy.deepcopy(model), 0.9)
    other.load_state_dict(average.state_dict())
    assert int(other.count) == 1


def test_families_are_folders(tmp_path: Path) -> None:
    assert family_folder("built-in") == BUILT_IN and family_folder("~/x") == Path.home() / "x"
    (tmp_path / "unet").mkdir()
    assert part(str(tmp_path), "unet", "embedded-unet") == tmp_path / "unet"
    with pytest.raises(UserError, match="vae does not exist; it is made by: python launch.py fit embedded-autoencoder"):
        part(str(tmp_path), "vae", "embedded-autoencoder")


def test_facts_are_kept_part_by_part(tmp_path: Path) -> None:
    record(str(tmp_path), "vae", {"psnr": 30.0, "steps": 5})
    record(str(tmp_path), "clip", {"steps": 1})
    record(str(tmp_path), "vae", {"psnr": 31.0})
    assert json.loads((tmp_path / "card.json").read_text()) == {"vae": {"psnr": 31.0, "steps": 5}, "clip": {"steps": 1}}


def test_saving_half_precision_leaves_the_model_alone(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    model = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, mid_block_add_attention=False)
    save_half(model, tmp_path)
    assert next(model.parameters()).dtype == torch.float32
    stored = AutoencoderKL.from_pretrained(tmp_path).float()
    assert all(torch.equal(b, a.half().float()) for a, b in zip(model.parameters(), stored.parameters(), strict=True))
