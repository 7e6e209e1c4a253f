"""A prior that denoises several views of one object together.

MVDream (Shi et al. 2024): the self-attention of a text-to-image UNet runs over the tokens of all views of a set, and
each view is told its camera beside the timestep. A given picture joins the set as one more view without noise, as
ImageDream's pixel controller has it (Wang & Shi 2023, sec. 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.diffusion.latent import LatentPrior
from core.errors import UserError
from core.types import Condition


class JointAttention:
    """An attention processor: rows come in sets of ``frames`` consecutive views, and a set's tokens attend to each
    other. One object serves all layers, so that a set's size is told in one place."""

    def __init__(self) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self._within = AttnProcessor2_0()
        self.frames = 1

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **more: Any) -> Tensor:
        rows, tokens, width = hidden_states.shape
        joined = hidden_states.reshape(rows // self.frames, self.frames * tokens, width)
        out: Tensor = self._within(attn, joined, *args, **more)
        return out.reshape(rows, tokens, width)


def join_views(unet: Any) -> JointAttention:
    """Make every self-attention of a UNet run over all views of a set; no weights are added."""
    joint = JointAttention()
    own = unet.attn_processors
    unet.set_attn_processor({name: joint if ".attn1." in name else p for name, p in own.items()})
    return joint


class MultiViewPrior(LatentPrior):
    """Rows of a batch are sets of ``frames`` consecutive views.

    ``condition.image`` [B, C, h, w], where given, repeats a set's given picture (scaled latents) for each of its rows;
    ``condition.extras["given"]`` [B, K] is what that picture is told beside the timestep.
    """

    frames: int = 4

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.joint = join_views(self.unet)

    def predict(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if len(noisy) % self.frames:
            raise UserError(
                f"a multi-view prior takes sets of {self.frames} views and got {len(noisy)}; set the cameras' batch to "
                f"a multiple of {self.frames}"
            )
        with torch.autocast(noisy.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return predict_jointly(self.unet, self.joint, noisy, t, condition, self.frames).float()


def predict_jointly(
    unet: Any, joint: JointAttention, noisy: Tensor, t: Tensor, condition: Condition, frames: int
) -> Tensor:
    """[B, C, h, w] predictions for B rows, sets of ``frames`` views each."""
    text: Any = condition.text
    camera: Any = condition.camera
    if condition.image is not None:
        one = condition.extras["given"]
        noisy, t, text, camera = (
            _with_first(rows, frames, given)
            for rows, given in ((noisy, condition.image), (t, torch.zeros_like(t)), (text, text), (camera, one))
        )
        joint.frames = frames + 1
        out: Tensor = unet(noisy, t, encoder_hidden_states=text, class_labels=camera).sample
        return out.unflatten(0, (-1, frames + 1))[:, 1:].flatten(0, 1)
    joint.frames = frames
    out = unet(noisy, t, encoder_hidden_states=text, class_labels=camera).sample
    return out


def _with_first(rows: Tensor, frames: int, given: Tensor) -> Tensor:
    """Each set's rows [B, ...] with the first of ``given`` [B, ...] before them: [B / frames * (frames + 1), ...]."""
    sets, first = rows.unflatten(0, (-1, frames)), given.unflatten(0, (-1, frames))[:, :1]
    return torch.cat([first.to(sets), sets], 1).flatten(0, 1)
