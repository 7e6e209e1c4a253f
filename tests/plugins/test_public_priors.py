"""Every public prior against diffusers' own pipeline of the same folder: texts, predictions, whole samples, pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Context
from core.diffusion.guidance import predict_with_guidance
from core.diffusion.process import FlowProcess
from core.diffusion.sampler import ddim_latents
from core.discovery import get_registry
from core.testing import check_component
from core.testing.check import make_options

sys.path.insert(0, str(Path(__file__).parent))
from tiny_priors import PEERS, Peer  # noqa: E402

PROMPT = "a standing corgi dog, side view"
STEPS = 4


class Case:
    """A peer with its pipeline, folder and prior."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        self.peer, self.folder = peer, folder
        self.pipeline = peer.build(folder)
        self.options = {"model": str(folder), **peer.options}
        entry = get_registry().find("prior", peer.prior)
        self.kind = entry.load()
        self.prior: Any = self.kind(make_options(entry, self.kind, get_registry(), self.options), Context())

    def start(self) -> Tensor:
        return torch.randn(1, *self.prior.latent_shape, generator=torch.Generator().manual_seed(3))

    def sampled(self, scale: float) -> tuple[Tensor, list[tuple[Tensor, Any, Tensor]]]:
        """The pipeline's latents from ``start``, and what its scheduler was given: answer, time, noisy latents."""
        given, step = [], self.pipeline.scheduler.step

        def noted(output: Tensor, t: Any, sample: Tensor, **more: Any) -> Any:
            given.append((unpacked(output), t, unpacked(sample)))
            return step(output, t, sample, **more)

        start = self.start()
        how: dict[str, Any] = {
            "output_type": "latent",
            "latents": packed(start) if self.peer.prior == "flux" else start,
        }
        if self.peer.prior == "deepfloyd-if":  # takes no latents; draws these
            how = {"output_type": "pt", "generator": torch.Generator().manual_seed(3)}
        self.pipeline.scheduler.step = noted
        try:
            how |= {"num_inference_steps": STEPS, self.peer.scale: scale} | self.peer.call
            found = self.pipeline(PROMPT, **how)[0]
        finally:
            self.pipeline.scheduler.step = step
        return unpacked(found), given

    def times(self) -> list[Tensor]:
        """The pipeline's own timesteps, as the prior counts them."""
        steps = self.pipeline.scheduler
        return list(steps.sigmas[:-1] if isinstance(self.prior.process, FlowProcess) else steps.timesteps)


def packed(latents: Tensor) -> Tensor:
    return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpacked(latents: Tensor) -> Tensor:
    if latents.dim() == 4:
        return latents
    side = int(latents.shape[1] ** 0.5)
    return F.pixel_shuffle(latents.transpose(1, 2).unflatten(2, (side, side)), 2)


@pytest.fixture(scope="module", params=list(PEERS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAQUETTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Case(PEERS[request.param], tmp_path_factory.mktemp(request.param))


def encoded(case: Case) -> list[tuple[Tensor, ...]]:
    """What the pipeline makes of the prompt and of nothing: states, then pooled or mask where there are such."""
    pipeline, kind = case.pipeline, case.peer.prior
    if kind in ("stable-diffusion", "deepfloyd-if"):
        more = {} if kind == "deepfloyd-if" else {"device": "cpu", "num_images_per_prompt": 1}
        told, untold = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=True, **more)
        return [(told,), (untold,)]
    if kind == "sdxl":
        told, untold, pooled, unpooled = pipeline.encode_prompt(PROMPT)
        return [(told, pooled), (untold, unpooled)]
    length = case.peer.call.get("max_sequence_length", 256)
    if kind == "stable-diffusion-3":
        told, untold, pooled, unpooled = pipeline.encode_prompt(PROMPT, None, None, max_sequence_length=length)
        return [(told, pooled), (untold, unpooled)]
    if kind == "flux":
        return [pipeline.encode_prompt(text, max_sequence_length=length)[:2] for text in (PROMPT, "")]
    from plugins.sana.prior import pipeline_instruction

    told, mask, untold, unmask = pipeline.encode_prompt(
        PROMPT, max_sequence_length=length, complex_human_instruction=pipeline_instruction().split("\n")
    )
    return [(told, mask), (untold, unmask)]


@torch.no_grad()
def test_texts_are_heard_as_the_pipeline_hears_them(case: Case) -> None:
    told = case.prior.condition([PROMPT])
    for found, wanted in zip((told, case.prior.opposite(told, [""])), encoded(case), strict=True):
        parts = [found.text, *(x for x in (found.pooled, found.extras.get("mask")) if x is not None)]
        for part, peer in zip(parts, wanted, strict=True):
            torch.testing.assert_close(part, peer.to(part), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1.5, 7.0])
def test_predictions_and_a_whole_sample_agree_with_the_pipeline(case: Case, scale: float) -> None:
    """At every noise level that the pipeline comes by, and along our own sampler's way over the same timesteps."""
    wanted, given = case.sampled(scale)
    told = case.prior.condition([PROMPT])
    untold, times = case.prior.opposite(told, [""]), case.times()
    assert len(given) == len(times) == STEPS
    for (output, _, noisy), t in zip(given, times, strict=True):
        with torch.no_grad():
            found = predict_with_guidance(case.prior, noisy, t.expand(1), told, untold, scale)
        torch.testing.assert_close(found, output, rtol=1e-4, atol=1e-4)
    found = ddim_latents(case.prior, case.start(), told, untold, scale, STEPS, times=times)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert float((found - case.start()).abs().mean()) > 0.05


@torch.no_grad()
def test_pictures_go_to_latents_and_back_as_in_the_pipeline(case: Case) -> None:
    side, latents = case.prior.image_size, case.start()
    rgb = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0))
    found, shown = case.prior.encode(rgb), case.prior.decode(latents)
    image = rgb.permute(0, 3, 1, 2) * 2 - 1
    vae: Any = getattr(case.pipeline, "vae", None)
    if vae is None:
        torch.testing.assert_close(found, image)
        torch.testing.assert_close(shown, (latents.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1))
        return
    encoded = vae.encode(image)
    mean = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mean
    shift = vae.config.get("shift_factor") or 0.0
    torch.testing.assert_close(found, (mean - shift) * vae.config.scaling_factor)
    picture = vae.decode(latents / vae.config.scaling_factor + shift).sample
    peer = torch.as_tensor(case.pipeline.image_processor.postprocess(picture, output_type="np"))
    torch.testing.assert_close(shown, peer, rtol=1e-5, atol=1e-5)


def test_it_keeps_its_contract_and_tells_its_space_unloaded(case: Case) -> None:
    assert len(check_component("prior", case.peer.prior, options=case.options)) >= 12
    assert case.kind.space(case.prior.options, Context()) == case.prior.latent_shape
    assert not any(p.requires_grad for p in case.prior.parameters())


def test_levels_are_shifted_as_the_scheduler_shifts_them(case: Case) -> None:
    if not isinstance(case.prior.process, FlowProcess):
        kind = case.pipeline.scheduler.config.prediction_type
        assert case.prior.process.parametrization == kind
        torch.testing.assert_close(case.prior.process.alphas_cumprod, case.pipeline.scheduler.alphas_cumprod.double())
        return
    levels = torch.tensor([0.2, 0.5, 0.9])
    peer = type(case.pipeline.scheduler).from_config(case.pipeline.scheduler.config)
    more = {}
    if peer.config.use_dynamic_shifting:
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        more["mu"] = calculate_shift((case.prior.latent_shape[1] // 2) ** 2)
    peer.set_timesteps(sigmas=levels.flip(0).tolist(), **more)
    torch.testing.assert_close(case.prior.process.timestep(levels).flip(0), peer.sigmas[:-1], rtol=1e-5, atol=1e-6)
