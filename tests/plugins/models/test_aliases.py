"""Aliases against a cache in the hub's layout, and against the errors that the hub's own client raises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from core.cli.catalogue import model_text, models_text, public_models
from core.diffusion.hub import Place, cached, reach, unfinished
from core.discovery import get_registry
from core.errors import UserError
from core.registry import ModelInfo
from plugins.models.aliases import VARIABLE, aliases, listing, resolve

FIRST, SECOND = "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd-legacy/stable-diffusion-v1-5"
PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no network, no folder of models."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: pytest.fail("the network was asked"))
    return tmp_path / "hub"


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def answers(monkeypatch: pytest.MonkeyPatch, by_repo: dict[str, Any]) -> list[str]:
    """Let the hub's client answer with a path or raise; returns the list of repositories asked."""
    asked: list[str] = []

    def download(repo: str, file: str) -> str:
        asked.append(repo)
        if isinstance(by_repo[repo], Exception):
            raise by_repo[repo]
        return str(by_repo[repo])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def http(kind: type[Exception], status: int) -> Exception:
    request = httpx2.Request("GET", "https://huggingface.co/x")
    return kind("no", response=httpx2.Response(status, request=request))  # type: ignore[call-arg]


def store(cache: Path, repo: str, parts: tuple[str, ...] = PARTS, broken: str | None = None) -> Path:
    """A repository as the hub's client leaves it in its cache; ``broken`` is a part whose weights were cut off."""
    root = cache / f"models--{repo.replace('/', '--')}"
    folder = root / "snapshots" / "abc"
    for part in parts:
        (folder / part).mkdir(parents=True)
        weights = folder / part / "diffusion_pytorch_model.safetensors"
        if part == broken:
            weights.symlink_to(root / "blobs" / "never-finished")
        else:
            weights.write_bytes(b"x")
    index: dict[str, Any] = {p: ["diffusers", "X"] for p in parts} | {"scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {
        "_class_name": "StableDiffusionPipeline",
        "safety_checker": [None, None],
        "tokenizer": ["transformers", "T"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    return folder


def test_a_local_folder_comes_before_everything(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(cache, FIRST)
    (tmp_path / "mine" / "sd15").mkdir(parents=True)
    (tmp_path / "mine" / "zero123-xl.ckpt").write_bytes(b"x")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert resolve("sd15") == str(tmp_path / "mine" / "sd15")
    assert resolve("zero123-xl") == str(tmp_path / "mine" / "zero123-xl.ckpt")


def test_a_cached_mirror_comes_before_one_that_is_not(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert aliases()["sd15"].mirrors[:2] == (FIRST, SECOND)
    folder = store(cache, SECOND)
    assert resolve("sd15") == SECOND  # online the libraries look for what is new themselves
    offline(monkeypatch)
    assert resolve("sd15") == str(folder)
    first = store(cache, FIRST)
    assert resolve("sd15") == str(first)


def test_the_hub_is_asked_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, {FIRST: http(errors.RepositoryNotFoundError, 404), SECOND: "/some/model_index.json"})
    assert resolve("sd15") == SECOND
    assert asked == [FIRST, SECOND]


def test_withdrawn_names_are_read_as_their_alias(cache: Path) -> None:
    store(cache, FIRST)
    assert resolve("runwayml/stable-diffusion-v1-5") == FIRST
    assert resolve("somebody/else") is None and resolve("folder") is None


def test_a_single_file_is_given_as_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {"cvlab/zero123-weights": tmp_path / "zero123-xl.ckpt"})
    assert resolve("zero123-xl") == str(tmp_path / "zero123-xl.ckpt")


def test_a_download_that_was_cut_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store(cache, FIRST, broken="unet")
    assert unfinished(folder) == ["unet"]
    asked = answers(monkeypatch, {FIRST: folder / "model_index.json"})
    assert resolve("sd15") == FIRST and asked == [FIRST]  # online it is finished by the libraries
    offline(monkeypatch)
    with pytest.raises(UserError, match=r"incomplete \(unet without weights\).*hf download stable-diffusion-v1-5/"):
        resolve("sd15")


def test_shards_are_counted(cache: Path) -> None:
    folder = store(cache, FIRST)
    (folder / "unet" / "x.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1.st", "b": "2.st"}}))
    (folder / "unet" / "1.st").write_bytes(b"x")
    assert unfinished(folder) == ["unet"]
    (folder / "unet" / "2.st").write_bytes(b"x")
    assert unfinished(folder) == []


REASONS = {
    "gated": (http(errors.GatedRepoError, 403), "is gated: accept its licence at https://huggingface.co/o/m.*hf auth"),
    "withdrawn": (http(errors.RepositoryNotFoundError, 404), "not on the hub: it was withdrawn, renamed or is private"),
    "disabled": (http(errors.DisabledRepoError, 403), "not on the hub"),
    "other": (http(errors.RemoteEntryNotFoundError, 404), "no model_index.json, so it is no model of this kind"),
    "busy": (http(errors.HfHubHTTPError, 503), "the hub answers 503 for 'o/m'; try again later"),
    "no-network": (errors.LocalEntryNotFoundError("no"), "cannot be reached.*check the network.*embedded prior"),
    "unplugged": (OSError("no route to host"), "the hub cannot be reached and 'o/m' is not in the cache"),
}


@pytest.mark.parametrize(("error", "told"), REASONS.values(), ids=REASONS)
def test_what_cannot_be_had_is_told_in_one_sentence(error: Exception, told: str, monkeypatch: Any) -> None:
    answers(monkeypatch, {"o/m": error})
    with pytest.raises(UserError, match=told) as caught:
        reach(Place("o/m"))
    assert "\n" not in str(caught.value)


def test_the_reason_that_can_be_acted_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, gated = http(errors.RepositoryNotFoundError, 404), http(errors.GatedRepoError, 401)
    answers(monkeypatch, {FIRST: gone, SECOND: gated})
    with pytest.raises(UserError, match=rf"sd15 \(tried {FIRST}, .*'{SECOND}' is gated.*\$MAQUETTE_MODELS/sd15"):
        resolve("sd15")
    offline(monkeypatch)
    with pytest.raises(UserError, match="is not in the cache, and HF_HUB_OFFLINE.*hf download"):
        resolve("sd15")


def test_near_misses_are_refused() -> None:
    with pytest.raises(UserError, match="no model called 'sd15x'. Did you mean 'sd15'"):
        resolve("sd15x")
    assert resolve("./sd15x") is None and resolve("sd15.ckpt") is None


def test_the_table_fits_the_registry_and_every_entry_has_a_licence() -> None:
    known = {entry.name for entry in get_registry().entries("prior")}
    for model in listing():
        assert model.licence and model.mirrors and model.about[0].isupper()
        assert not model.prior or model.prior in known
    wanted = {"sd15", "sd21-base", "sd21", "sdxl", "if-xl", "sd3-medium", "sd35-medium", "flux-dev", "flux-schnell"}
    wanted |= {"kandinsky22", "karlo", "ip2p", "zero123-xl", "stable-zero123", "mvdream"}
    assert wanted | {f"controlnet-{k}" for k in ("normal", "depth", "canny")} <= set(aliases())


def test_listings_show_licence_and_place(cache: Path) -> None:
    folder = store(cache, SECOND)
    models = {model.name: model for model in public_models(get_registry())}
    assert models["sd15"].here == str(folder) and not models["sdxl"].here
    assert "CreativeML Open RAIL-M" in model_text(models["sd15"]) and str(folder) in model_text(models["sd15"])
    assert "hf download stabilityai/stable-diffusion-xl-base-1.0" in model_text(models["sdxl"])
    row = next(line for line in models_text(list(models.values())).splitlines() if line.startswith("sd15 "))
    assert "*" in row and "stable-diffusion" in row
    assert model_text(ModelInfo("x", "About", "", "MIT", "1 GB", ("o/m",))).count("none of those installed") == 1


def test_a_place_knows_its_command() -> None:
    assert Place("o/m").command == "hf download o/m" and Place("o/m", "a.ckpt").command == "hf download o/m a.ckpt"
    assert cached(Place("o/m")) is None
