"""Fits the family's AutoencoderKL: 64x64 pictures to 16x16 latents (Rombach et al. 2022, section 3.1, no critic)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from core.config.base import ComponentSpec, Slot
from core.config.base import Config as BaseConfig
from core.contracts import Context, Step, Task
from plugins.embedded.card import training_facts
from plugins.embedded.family import Average, family_folder, record, save_half


def edges(image: Tensor) -> Tensor:
    """Horizontal and vertical differences of [B, C, H, W], stacked along the batch, [2B, C, H-1, W-1]."""
    return torch.cat([image[..., 1:, 1:] - image[..., :-1, 1:], image[..., 1:, 1:] - image[..., 1:, :-1]])


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1]."""
    return float(10 * torch.log10(4.0 / F.mse_loss(a.float(), b.float())))


class EmbeddedAutoencoder(Task):
    """Reconstruction (L1 of pixels and of their differences, squared error) with a small KL term."""

    class Config(BaseConfig):
        data: Annotated[ComponentSpec, Slot("data")]
        """Pictures."""
        family: str = "built-in"
        """Folder of the family that is filled, or `built-in`."""
        channels: tuple[int, ...] = (16, 48, 96)
        """Width at each resolution, the finest first; each further one halves the resolution."""
        latent_channels: int = Field(8, ge=1)
        """Channels of the latents."""
        kl: float = Field(1e-4, ge=0)
        """Weight of the mean KL divergence to the unit Gaussian."""
        edge: float = Field(1.0, ge=0)
        """Weight of the L1 error of differences between neighbours (keeps outlines sharp)."""
        average: float = Field(0.999, ge=0, lt=1)
        """Decay of the moving average of the weights that is saved."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        from diffusers import AutoencoderKL

        self.data = context.build(options.data)  # type: ignore[misc]
        levels = len(options.channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.generator("autoencoder").initial_seed() % 2**32)
            self.model: Any = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                block_out_channels=options.channels,
                layers_per_block=1,
                latent_channels=options.latent_channels,
                norm_num_groups=8,
                sample_size=self.data.options.size,
                mid_block_add_attention=False,
            )
        self.average = Average(self.model, options.average)

    def param_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters())}]

    def update(self, step: Step) -> None:
        if step.index:
            self.average.update(self.model)

    def training_step(self, step: Step) -> dict[str, Tensor]:
        image = self._images(self.data.batch(step)["rgb"])
        posterior = self.model.encode(image).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=step.generator("posterior")).to(image.device)
        output = self.model.decode(posterior.mean + posterior.std * noise).sample.float()
        step.log(psnr=psnr(output.detach(), image))
        reconstruction = F.l1_loss(output, image) + F.mse_loss(output, image)
        # Divided by the number of latents, so the weight does not depend on the size.
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        losses = {"reconstruction": reconstruction, "kl": self.options.kl * kl}
        return losses | {"edge": self.options.edge * F.l1_loss(edges(output), edges(image))}

    def _images(self, rgb: Tensor) -> Tensor:
        device = next(self.model.parameters()).device
        return (rgb.permute(0, 3, 1, 2).contiguous() * 2 - 1).to(device)

    @torch.no_grad()
    def preview(self, step: Step) -> dict[str, Any]:
        image = self._images(self.data.batch(step)["rgb"][:16])
        model: Any = self.average.model
        output = model.decode(model.encode(image).latent_dist.mode()).sample
        rows = torch.cat([torch.cat(list(x[:16]), -1) for x in (image, output)], -2)
        return {"reconstruction": ((rows.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy()}

    @torch.no_grad()
    def finish(self, run: Any) -> None:
        """Set the latent scale to unit variance, as diffusers expects, and save ``vae/``."""
        model: Any = self.average.model
        first = torch.arange(min(1024, self.data.options.images)).split(64)
        images = [self._images(self.data.take(index.numpy())["rgb"]) for index in first]
        latents = torch.cat([model.encode(x).latent_dist.mode() for x in images])
        model.register_to_config(scaling_factor=round(float(1 / latents.std()), 5))
        quality = sum(psnr(model.decode(model.encode(x).latent_dist.mode()).sample, x) for x in images) / len(images)
        save_half(model, family_folder(self.options.family) / "vae")
        facts = {"parameters": sum(p.numel() for p in model.parameters()), "psnr_train": round(quality, 2)}
        facts |= training_facts(run, self)
        record(self.options.family, "vae", facts)
