"""What VSD learns: additions to a UNet's attention, the camera, checkpoints, and its place in the one loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from core.contracts import Context, Prior, Step
from core.diffusion.process import DiffusionProcess
from core.errors import UserError
from core.types import Cameras, Condition, Render
from plugins.score.lora import attention_layers
from plugins.score.vsd import VSD

from mixture import Mixture, points, told  # isort: skip

B, STEP = 3, Step(2, 10, seed=1)


class Tiny(Prior):
    """A random UNet of diffusers, 4 channels of 8 x 8."""

    def __init__(self) -> None:
        from diffusers import UNet2DConditionModel

        super().__init__(None, Context())
        torch.manual_seed(0)
        self.unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
            attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ).requires_grad_(False)  # fmt: skip
        self.process = DiffusionProcess(torch.linspace(0.999, 0.01, 1000), "v_prediction")
        self.rows: list[int] = []

    def encode(self, rgb: Tensor) -> Tensor:
        return rgb.movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        raise AssertionError("VSD decodes nothing")

    def condition(self, texts: list[str], cameras: Cameras | None = None, views: Any = None) -> Condition:
        tokens = torch.randn(2, 8, generator=torch.Generator().manual_seed(5))
        return Condition(text=torch.stack([tokens * (1 + len(t)) for t in texts]))

    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.rows.append(len(noisy))
        out: Tensor = self.unet(noisy, t, encoder_hidden_states=condition.text).sample
        return out


@pytest.fixture(scope="module")
def prior() -> Tiny:
    return Tiny()


def made(**options: Any) -> VSD:
    return VSD(VSD.Config(**options), Context())


def latents() -> Tensor:
    return torch.randn(B, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def seen() -> Render:
    views = Cameras.turntable(torch.tensor([0.0, 1.0, 2.0]), 0.2, 8)
    return Render(torch.zeros(B, 8, 8, 3), torch.zeros(B, 8, 8, 1), views)


def asked(prior: Tiny) -> tuple[Condition, Condition]:
    return prior.condition(["mug"] * B), prior.condition([""] * B)


def stirred(score: VSD, prior: Tiny) -> VSD:
    """As after some learning: nothing is zero any more."""
    score.attach(prior)
    with torch.no_grad():
        for k, p in enumerate(score.parameters()):
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(k)))
    return score


def test_at_first_it_predicts_what_the_prior_does(prior: Tiny) -> None:
    """Then, without guidance, nothing is left of the gradient."""
    score = made(scale=1.0)
    assert float(score.gradient(prior, latents(), *asked(prior), STEP, render=seen()).abs().max()) < 1e-5
    assert len(attention_layers(prior)) == 4 * 2 * 4  # of one, one and two transformers, down, in the middle and up


def test_learning_leaves_the_prior_alone_and_reaches_all_of_its_own(prior: Tiny) -> None:
    score, t = stirred(made(), prior), torch.tensor([100, 500, 900])
    before = {k: v.clone() for k, v in prior.state_dict().items()}
    plain = prior.predict(latents(), t, asked(prior)[0])
    x = latents().requires_grad_()
    loss = score.loss(prior, x, *asked(prior), STEP, render=seen())
    (learned,) = score.losses().values()
    assert score.losses() == {}
    (loss + learned).backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in score.parameters())
    assert all(p.grad is None for p in prior.parameters())
    assert all(torch.equal(before[k], v) for k, v in prior.state_dict().items())
    assert torch.equal(plain, prior.predict(latents(), t, asked(prior)[0]))
    alone = torch.autograd.grad(score.loss(prior, x, *asked(prior), STEP, render=seen()), x)[0]
    torch.testing.assert_close(x.grad, alone)  # what is learned leads no latents


def test_the_camera_is_heard(prior: Tiny) -> None:
    score = stirred(made(), prior)
    here = score.gradient(prior, latents(), *asked(prior), STEP, render=seen())
    other = seen()
    other.cameras = Cameras.turntable(torch.tensor([3.0, 1.0, 2.0]), 0.2, 8)
    there = score.gradient(prior, latents(), *asked(prior), STEP, render=other)
    assert float((here - there)[0].abs().max()) > 1e-4
    torch.testing.assert_close(here[1:], there[1:])


def test_no_half_of_a_batch_is_wasted(prior: Tiny) -> None:
    """D5: 2 B rows for guidance, B for its own prediction, B to learn; the rival asks for 2 B and 2 B."""
    score = made()
    score.attach(prior)
    prior.rows.clear()
    score.loss(prior, latents().requires_grad_(), *asked(prior), STEP, render=seen())
    assert sorted(prior.rows) == [B, B, 2 * B]


def test_a_checkpoint_holds_what_was_learned(prior: Tiny) -> None:
    score = stirred(made(rank=3), prior)
    saved = score.state_dict()
    assert saved and all(name.startswith("particles.") for name in saved)
    again = made(rank=3)
    again.load_state_dict(saved)  # as an export does it: without a prior
    wanted = score.gradient(prior, latents(), *asked(prior), STEP, render=seen())
    found = again.gradient(prior, latents(), *asked(prior), STEP, render=seen())
    torch.testing.assert_close(found, wanted)


def test_a_small_network_learns_where_there_is_no_attention() -> None:
    with pytest.raises(UserError, match="Mixture has no attention for lora; set score.network=small"):
        made(network="lora").attach(Mixture())
    score, prior = made(width=24, high=0.98), Mixture()
    score.attach(prior)
    optimizer, start = torch.optim.Adam(score.parameters(), lr=5e-3), []
    for k in range(60):
        score.loss(prior, points(64).requires_grad_(), *told(prior, 64), Step(k, 60))
        (learned,) = score.losses().values()
        optimizer.zero_grad()
        learned.backward()
        optimizer.step()
        start.append(float(learned.detach()))
    assert sum(start[-10:]) < 0.9 * sum(start[:10])
    again = made(width=24)
    again.load_state_dict(score.state_dict())
    x = points(5)
    torch.testing.assert_close(
        again.gradient(prior, x, *told(prior, 5), STEP), score.gradient(prior, x, *told(prior, 5), STEP)
    )
