"""Prior ``karlo``: Karlo 1.0 (Lee et al. 2022), unCLIP (Ramesh et al. 2022) with a decoder over 64 x 64 pixels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.contracts import stream_seed
from core.diffusion import unclip
from core.diffusion.pretrained import Pretrained, PretrainedConfig
from core.diffusion.texts import Said
from core.types import Condition


class Karlo(Pretrained):
    """The decoder alone, over pixels in [-1, 1]; the upsamplers that follow it in the pipeline are not loaded.

    It hears the text and a picture embedding that is drawn from it, once for each text and seed. The empty text has the
    embedding that was learned for guidance. The network answers with the noise and a variance of its own, which is not
    taken.

    Raises:
        UserError: the folder lacks a part, is damaged or another pipeline's, or the hub cannot give it.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("UnCLIPPipeline",)
    kinds: ClassVar[dict[str, str]] = {
        **unclip.KINDS, "prior_scheduler": "diffusers.UnCLIPScheduler",
        "text_proj": "diffusers.pipelines.deprecated.unclip.UnCLIPTextProjModel",
        "decoder": "diffusers.UNet2DConditionModel", "decoder_scheduler": "diffusers.UnCLIPScheduler",
    }  # fmt: skip
    network_name = "decoder"
    decoder: Any
    guidance_scale = 4.0

    class Config(PretrainedConfig):
        model: str = Field("karlo", min_length=1)
        """A local folder, an alias, or a name on the hub."""
        embedding_steps: int = Field(25, ge=2)
        """Steps in which a picture embedding is drawn."""
        embedding_scale: float = 4.0
        """Classifier-free guidance while it is drawn."""

    def load_networks(self, pipeline: Any, options: Any) -> dict[str, Any]:
        return {
            "decoder": pipeline.load("decoder", getattr(torch, options.precision)),
            "scheduler": pipeline.load("decoder_scheduler"),
        }

    def text_settings(self) -> list[Any]:
        o = self.options
        files = self.pipeline.identity(["prior", "text_proj"])
        return [*super().text_settings(), files, o.embedding_steps, o.embedding_scale, self.context.seed]

    def say(self, text: str) -> Said:
        """``text`` [4 + L, D]: the embedding's tokens and the text's; ``pooled`` [E] joins the timestep."""
        tower, tokenizer = self.tower("text_encoder"), self.tokenizer_of("text_encoder")
        told = unclip.Heard.by(tower, tokenizer, text, self.device)
        projection = self.tower("text_proj")
        embedding = projection.learned_classifier_free_guidance_embeddings[None]
        if text:
            untold = unclip.Heard.by(tower, tokenizer, "", self.device)
            generator = torch.Generator().manual_seed(stream_seed(self.context.seed, "init", text))
            embedding = unclip.draw_embedding(
                self.tower("prior"), self.pipeline.load("prior_scheduler"), told, untold, self.options.embedding_scale,
                self.options.embedding_steps, generator,
            )  # fmt: skip
        states, added = projection(
            image_embeddings=embedding, prompt_embeds=told.embedding, text_encoder_hidden_states=told.states,
            do_classifier_free_guidance=False,
        )  # fmt: skip
        mask = F.pad(told.mask, (projection.clip_extra_context_tokens, 0), value=True)
        return {"text": states[0], "pooled": added[0], "mask": mask[0]}

    def answer(self, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
        found: Any = self.decoder(
            noisy, t, encoder_hidden_states=condition.text, class_labels=condition.pooled,
            attention_mask=condition.extras["mask"],
        )  # fmt: skip
        return found.sample[:, : noisy.shape[1]]  # type: ignore[no-any-return]
