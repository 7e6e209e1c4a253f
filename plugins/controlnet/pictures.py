"""What a ControlNet is shown of a render: pictures [B, H, W, 3] in [0, 1] as its training pictures were made."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.types import Render


def normals(render: Render) -> Tensor:
    """Normals in camera axes as ControlNet 1.1 was shown them: red to the left, green up, blue towards the camera.

    Those are ScanNet's colours, of the estimator of Bae et al. 2021. Where nothing is, a wall that faces the camera.
    """
    assert render.normal is not None  # the prior's signals ask for it
    axes = render.cameras.c2w[:, :3, :3].to(render.normal)  # columns: right, up, towards the viewer
    seen = torch.einsum("bhwk,bki->bhwi", render.normal, axes)
    wall = torch.tensor([0.0, 0.0, 1.0]).to(seen)
    seen = torch.nn.functional.normalize(seen + (1 - render.opacity) * wall, dim=-1)
    return 0.5 + 0.5 * seen * torch.tensor([-1.0, 1.0, 1.0]).to(seen)


def depth(render: Render, bound: float) -> Tensor:
    """Inverse depth, bright where near, as MiDaS estimates it: 1 at the nearest point, 0 at the scene's far side.

    Args:
        bound: half the side of the scene's cube, world units.
    """
    assert render.depth is not None  # the prior's signals ask for it
    hit = (render.opacity > 0.5) & (render.depth > 0)
    inverse = torch.where(hit, 1 / render.depth.clamp(min=1e-6), 0)
    nearest = inverse.amax((1, 2, 3), keepdim=True)
    farthest = 1 / (render.cameras.distance.to(inverse) + bound * 3**0.5).view(-1, 1, 1, 1)
    shown = ((inverse - farthest) / (nearest - farthest).clamp(min=1e-6)).clamp(0, 1)
    return torch.where(hit, shown, 0).expand(-1, -1, -1, 3)


def edges(render: Render, low: float, high: float) -> Tensor:
    """White on Canny's edges of the picture's brightness; thresholds of the Sobel gradient of values in [0, 1]."""
    from skimage.feature import canny

    grey = (render.rgb.detach().float() @ render.rgb.new_tensor([0.299, 0.587, 0.114])).cpu().numpy()
    found = np.stack([canny(picture, low_threshold=low, high_threshold=high) for picture in grey])
    return torch.from_numpy(found).to(render.rgb)[..., None].expand(-1, -1, -1, 3)
