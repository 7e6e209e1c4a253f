"""Regularisers of a lift: functions of what was rendered, each a scalar, weighted by the job's ``losses``.

A loss is a component of kind ``loss``: ``function(render: Render, step: Step) -> Tensor``. What it needs of the
renderer is registered with it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from core.contracts import Step
from core.errors import UserError
from core.types import Render


def _of(render: Render, name: str) -> Tensor:
    value = getattr(render, name, None)
    value = render.extras.get(name) if value is None else value
    if value is None:
        raise UserError(f"a loss needs '{name}', which the renderer did not give")
    return value


def image(render: Render, step: Step) -> Tensor:
    """Mean squared difference from the pictures that the data gives."""
    return (render.rgb.float() - _of(render, "target")).square().mean()


def image_l1(render: Render, step: Step) -> Tensor:
    """Mean absolute difference from the pictures that the data gives."""
    return (render.rgb.float() - _of(render, "target")).abs().mean()


def mask(render: Render, step: Step) -> Tensor:
    """Mean squared difference of the opacity from the masks that the data gives."""
    return (render.opacity.float() - _of(render, "target-mask")).square().mean()


def nearness(render: Render, step: Step) -> Tensor:
    """1 minus the correlation of what is near in a given depth map with what is near in the render, where both show
    the object: an estimated depth has neither scale nor shift (Ranftl et al. 2022; Qian et al. 2023, eq. 6)."""
    given, depth = _of(render, "target-nearness"), _of(render, "depth")
    shown = (_of(render, "target-mask") > 0.5) & (render.opacity > 0.5)
    if shown.sum() < 2:
        return depth.sum() * 0
    near, told = (x - x.mean() for x in (-depth[shown].float(), given[shown].float()))
    return 1 - (near * told).mean() / (near.square().mean() * told.square().mean()).clamp(min=1e-12).sqrt()


def normal(render: Render, step: Step) -> Tensor:
    """1 minus the cosine between rendered and given normals, where both show the object."""
    given, found = _of(render, "target-normal"), _of(render, "normal").float()
    shown = ((_of(render, "target-mask") > 0.5) & (render.opacity > 0.5))[..., 0]
    if not shown.any():
        return found.sum() * 0
    return 1 - F.cosine_similarity(found[shown], given[shown], dim=-1).mean()


def sparsity(render: Render, step: Step) -> Tensor:
    """Mean of sqrt(opacity^2 + 0.01): pulls empty space to empty (threestudio's form of DreamFusion's prior)."""
    return (render.opacity.float().square() + 0.01).sqrt().mean()


def opacity(render: Render, step: Step) -> Tensor:
    """Binary entropy of the opacity: a pixel is covered or it is not (Poole et al. 2022, appendix A.2 in spirit)."""
    o = render.opacity.float().clamp(1e-3, 1 - 1e-3)
    return -(o * o.log() + (1 - o) * (1 - o).log()).mean()


def orientation(render: Render, step: Step) -> Tensor:
    """Weights times squared cosine of normals that face away (Verbin et al. 2022, eq. 11); weights are detached."""
    weights, facing = _of(render, "weights").detach(), _of(render, "facing")
    return (weights * facing.clamp(min=0).square()).sum() / render.opacity.numel()


def distortion(render: Render, step: Step) -> Tensor:
    """Variance of depth along each ray (a cheap form of Barron et al. 2022, eq. 15): one thin surface, no fog."""
    return _of(render, "depth_variance").mean()


def z_variance(render: Render, step: Step) -> Tensor:
    """Variance of depth along the rays that see the object (opacity above 0.5), in squared world units, mean over all
    rays (Zhu et al. 2023, "HiFA", section 3.3); ``distortion`` counts faint rays too."""
    opacity = render.opacity.float().flatten()
    variance = _of(render, "depth_variance").float().clamp(min=0) / opacity.clamp(min=1e-6)
    return (variance * (opacity.detach() > 0.5)).mean()


def centre_depth(render: Render, step: Step) -> Tensor:
    """-log of how much nearer the middle of a picture (half its height and width) is than the rest, in world units:
    keeps the object in the middle (Wang et al. 2023, "Score Jacobian Chaining", section 5.2). Empty pixels count as
    lying one world unit, the reach of a scene, behind its centre."""
    opacity, far = render.opacity.float(), render.cameras.distance.view(-1, 1, 1, 1).to(render.rgb) + 1
    depth = opacity * _of(render, "depth").float() + (1 - opacity) * far
    height, width = depth.shape[1:3]
    middle = torch.zeros_like(depth, dtype=torch.bool)
    middle[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return -(depth[~middle].mean() - depth[middle].mean()).clamp(min=1e-3).log()


def smoothness(render: Render, step: Step) -> Tensor:
    """Squared differences of the normal picture between neighbouring pixels, where both are covered."""
    normal = _of(render, "normal")
    cover = render.opacity.detach()
    dx = (normal[:, :, 1:] - normal[:, :, :-1]).square() * cover[:, :, 1:] * cover[:, :, :-1]
    dy = (normal[:, 1:] - normal[:, :-1]).square() * cover[:, 1:] * cover[:, :-1]
    return dx.mean() + dy.mean()


def saturation(render: Render, step: Step) -> Tensor:
    """Squared excess of chroma over 0.9: keeps guidance from burning colours out."""
    rgb = render.rgb.float()
    return torch.relu(rgb.amax(-1) - rgb.amin(-1) - 0.9).square().mean()


def emptiness(render: Render, step: Step) -> Tensor:
    """Mean of log(1 + 10 w) over the samples (Wang et al. 2023, "Score Jacobian Chaining", section 5.2): fog that is
    spread thin costs more than the same opacity in one place."""
    return torch.log1p(10 * _of(render, "weights").float()).sum() / render.opacity.numel()


def eikonal(render: Render, step: Step) -> Tensor:
    """Mean of (|slope| - 1)^2 (Gropp et al. 2020, eq. 2): a signed distance grows by one per unit of length."""
    return (_of(render, "sdf-gradient").float().norm(dim=-1) - 1).square().mean()


def sdf_entropy(render: Render, step: Step) -> Tensor:
    """Cross-entropy of signed distances across the grid edges that the surface crosses (Munkberg et al. 2022, eq. 2):
    fewer changes of sign, hence no floaters and no inner walls. 0 where there is no surface."""
    edges = _of(render, "sdf-edges").float()
    if not len(edges):
        return edges.sum()
    signs = (edges.detach() > 0).to(edges)
    return F.binary_cross_entropy_with_logits(edges, signs.flip(1))


def normal_consistency(render: Render, step: Step) -> Tensor:
    """Mean of 1 - cos between the normals of neighbouring faces (as PyTorch3D's mesh_normal_consistency)."""
    normals = _of(render, "face-normals").float()
    return (1 - (normals[:, 0] * normals[:, 1]).sum(-1)).sum() / max(len(normals), 1)


def laplacian(render: Render, step: Step) -> Tensor:
    """Mean squared distance of a surface's vertices to the mean of their neighbours (Nealen et al. 2006, uniform), in
    squared world units."""
    umbrella = _of(render, "umbrella").float()
    return umbrella.square().sum() / max(len(umbrella), 1)


def total_variation(render: Render, step: Step) -> Tensor:
    """Mean squared difference of neighbouring values of a grid or of planes, as the geometry gives it."""
    return _of(render, "variation").float()
