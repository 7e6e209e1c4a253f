"""Tiny networks of the true structure over a tiny CLIP, all with random weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.discovery import get_registry
from plugins.unclip.folder import Family
from plugins.unclip.networks import DecoderConfig, PriorConfig, UpsamplerConfig, build_part, build_schedulers, whiten
from plugins.unclip.tower import Tower

WIDTH = 16


class Options:
    """The sizes of every network here."""

    prior = PriorConfig(width=16, heads=2, layers=2)
    decoder = DecoderConfig(size=8, channels=(8, 16), head=8, context=8, groups=4)
    upsampler = UpsamplerConfig(size=16, channels=(8, 8), groups=4)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pools of this session, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MAQUETTE_CACHE", str(folder))
        patch.setattr("plugins.procedural.data.CHUNK", 256)
        yield folder


def tiny_tower() -> Tower:
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    metric = get_registry().find("metric", "clip").load()
    tokenizer = metric(metric.Config(), None).tokenizer
    shape = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": WIDTH}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
    text = CLIPTextConfig(**shape, **ids, vocab_size=len(tokenizer), max_position_embeddings=24)
    vision = CLIPVisionConfig(**shape, image_size=16, patch_size=8)
    return Tower(tokenizer, CLIPTextModelWithProjection(text), CLIPVisionModelWithProjection(vision))


@pytest.fixture(scope="session")
def made() -> Family:
    torch.manual_seed(0)
    tower = tiny_tower()
    networks: dict[str, Any] = {}
    for part in ("prior", "decoder", "upsampler"):
        networks |= dict(build_part(part, Options, WIDTH, 24).items())
    for network in networks.values():
        network.eval().requires_grad_(False)
    # Positions and query start at zero; without values nothing could tell one token from another.
    for weight in (networks["prior"].positional_embedding, networks["prior"].prd_embedding):
        torch.nn.init.normal_(weight)
    whiten(torch.nn.ModuleDict(networks), torch.randn(WIDTH), 0.5 + torch.rand(WIDTH))
    return Family(tower, networks, build_schedulers())


@pytest.fixture
def family(made: Family) -> Family:
    """A copy that a test may change; CLIP is shared."""
    return Family(made.tower, copy.deepcopy(made.networks), dict(made.schedulers))
