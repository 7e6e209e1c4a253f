"""Training end to end, stage by stage, and sampling."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lsgm import tiny
from torch import Tensor

from core.asked import Asked
from core.contracts import Step
from core.diffusion.sde_objective import cross_entropy, squared_error
from core.errors import UserError
from core.generative.drawing import ask
from plugins.lsgm.lsgm import Lsgm
from plugins.lsgm.options import LsgmConfig

STEP = Step(index=5, total=10)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def joint() -> Lsgm:
    task = tiny(mixing=0.0, smooth=0.0, sampler_steps=20, tolerance=0.1)
    with torch.no_grad():  # the score network's last layer, as if it had been trained
        task.score.network.all_modules[-1].weight.normal_(0, 0.1, generator=seeded())  # type: ignore[operator]
    return task


def gradients(loss: Tensor, parameters: Any) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


def test_the_encoder_learns_through_the_score_model(joint: Lsgm) -> None:
    """The gradient of the loss named `score` in the encoder is that of the cross entropy with the score model frozen,
    and in the score model that of its own objective on detached latents."""
    losses = joint.training_step(STEP)
    encoder, network = joint.vae.enc_sampler.parameters(), joint.score.parameters()
    got = gradients(losses["score"], encoder)
    assert max(float(g.abs().max()) for g in got) > 1e-3

    x = joint.pictures(joint.data.batch(STEP)["rgb"])
    _, posteriors = joint.vae(x, joint._noise(STEP, "posterior"))
    top = joint.vae.top([p.sample for p in posteriors])
    times = joint._times(len(x), STEP.generator("score-times"))
    noise = joint._noise(STEP, "score-noise")(tuple(top.shape))
    entropy = cross_entropy(joint.sde, squared_error(joint.score, joint.sde, top, times, noise), times).sum() / len(x)
    for mine, theirs in zip(got, gradients(entropy, joint.vae.enc_sampler.parameters()), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    error = squared_error(joint.score, joint.sde, top.detach(), times, noise).flatten(1).sum(1)
    own = (0.5 * joint.sde.diffusion_squared(times.t) / times.density * error).mean()
    for mine, theirs in zip(gradients(losses["score"], network), gradients(own, joint.score.parameters()), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_separate_times_teach_the_encoder_too() -> None:
    task = tiny(mixing=0.0, smooth=0.0, times="separate")
    losses = task.training_step(STEP)
    assert max(float(g.abs().max()) for g in gradients(losses["score"], task.vae.enc_sampler.parameters())) > 1e-3


def test_a_fixed_encoder_learns_nothing(joint: Lsgm) -> None:
    task = tiny("prior", joint)
    before = {k: v.clone() for k, v in task.vae.state_dict().items()}
    losses = task.training_step(STEP)
    assert set(losses) == {"score", "smooth"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None for p in task.vae.parameters())
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in task.score.parameters())
    trained = {id(p) for g in task.param_groups() for p in g["params"]}
    assert not trained & {id(p) for p in task.vae.parameters()}
    assert all(torch.equal(v, before[k]) for k, v in task.vae.state_dict().items()), "nor do its statistics change"


def test_terms_are_sums_in_nats() -> None:
    """Reconstruction and divergence add up to the bits that are logged; of a fresh decoder these are about nine."""
    task = tiny("vae", smooth=0.0, kl=0.5)
    step = Step(index=5, total=10)
    losses = task.training_step(step)
    nats = float((losses["reconstruction"] + losses["kl"] / 0.5).detach())
    assert step.metrics["bits"] == pytest.approx(nats / (math.log(2) * 3 * 16 * 16), rel=1e-5)
    assert 7 < step.metrics["bits"] < 11
    assert float(losses["kl"].detach()) == pytest.approx(0.5 * (step.metrics["kl_0"] + step.metrics["kl_1"]), rel=1e-5)


def test_the_share_of_own_scales_follows_its_schedule_and_is_kept() -> None:
    task = tiny("vae", own_scale={"from": 0.0, "to": 1.0})
    for index, wanted in ((0, 0.0), (9, 1.0)):
        step = Step(index=index, total=10)
        task.update(step)
        task.adapt(step, None)
        assert float(task.vae.own_scale) == float(task.average.model["vae"].own_scale) == pytest.approx(wanted)
    assert "live.vae.own_scale" in task.state_dict(), "an evaluation knows with which pixels a stage ended"


def test_stages_hand_over(joint: Lsgm) -> None:
    first = tiny("vae")
    with torch.no_grad():
        first.vae.prior_ftr0.fill_(0.25)
        first.average.model["vae"].prior_ftr0.fill_(0.5)
    second = tiny("joint", first)
    assert (
        float(second.vae.prior_ftr0.detach().mean()) == 0.25
        and float(second.average.model["vae"].prior_ftr0.mean()) == 0.5
    )
    third = tiny("prior", second)
    assert float(third.vae.prior_ftr0.mean()) == 0.5, "a fixed autoencoder is the averaged one"
    assert torch.equal(tiny("joint", joint).score.network.all_modules[-1].weight,
                       joint.score.network.all_modules[-1].weight)  # fmt: skip
    assert not torch.equal(tiny("prior", joint).score.network.all_modules[-1].weight,
                           joint.score.network.all_modules[-1].weight), "and a new score model is fitted to it"  # fmt: skip


def test_a_score_model_may_go_on_alone(joint: Lsgm) -> None:
    """With anew=false both the trained and the averaged weights start from the averaged ones."""
    before = joint.average.model["score"].state_dict()
    task = tiny("prior", joint, anew=False)
    for model in (task.score, task.average.model["score"]):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {id(p) for g in task.param_groups() for p in g["params"]} == {id(p) for p in task.score.parameters()}


def test_samples_follow_from_the_averaged_weights(joint: Lsgm) -> None:
    joint.eval()
    one = joint.sample(2, ask(""), seeded())
    with torch.no_grad():
        joint.vae.prior_ftr0.add_(1.0)
    two = joint.sample(2, None, seeded())
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))  # type: ignore[arg-type]
    assert one[0].shape == (16, 16, 3) and 0 <= float(one[0].min()) <= float(one[0].max()) <= 1  # type: ignore[union-attr]
    with torch.no_grad():
        joint.average.model["vae"].prior_ftr0.add_(1.0)
    assert not torch.equal(joint.sample(2, None, seeded())[0], one[0])  # type: ignore[arg-type]


def test_samplers(joint: Lsgm) -> None:
    coarse, fine = (joint.latents(2, seeded(), tolerance=tol) for tol in (1e-2, 1e-4))
    assert 0 < coarse.calls < fine.calls
    assert joint.latents(2, seeded(), sampler="ancestral").calls == joint.options.sampler_steps
    assert tiny("vae").latents(4, seeded()).calls == 0


def test_channels_that_carry_nothing_are_left_to_the_normal() -> None:
    task = tiny(inactive=1e9)
    task.update(Step(index=0, total=10))
    assert not task.score.active.any() and float(task.score.share.max()) < 1e-6
    assert torch.equal(task.average.model["score"].active, task.score.active)


def test_what_is_refused(tmp_path: Path) -> None:
    task = tiny("vae")
    with pytest.raises(UserError, match="cannot be asked for 'a chair'"):
        task.sample(1, ask("a chair"), seeded())
    with pytest.raises(UserError, match="data.images is 8, too few for batches of 8: at least two batches"):
        tiny(data={"images": 8})
    with pytest.raises(UserError, match="size is 18, which cannot be halved 1 times by vae.widths and 1 times by"):
        tiny(size=18)
    with pytest.raises(UserError, match="vae.scales is 3, but vae.widths names 2 resolutions only"):
        tiny(vae={"channels": 8, "widths": [1, 2], "scales": 3})
    with pytest.raises(UserError, match="start: there is no checkpoint"):
        tiny(start=tmp_path / "none.pt")
    assert isinstance(ask(""), Asked) and issubclass(Lsgm.Config, LsgmConfig)
