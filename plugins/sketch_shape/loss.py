"""Loss ``sketch-shape``: a field's occupancy against a sketch mesh (Metzer et al. 2023, section 3.2)."""

from __future__ import annotations

from torch import Tensor

from core.contracts import Step
from core.types import Render

_LEAST = 0.01  # of an occupancy that is told: the cross-entropy of a certain mistake stays finite


def sketch_shape(render: Render, step: Step) -> Tensor:
    """Mean of ``CE(alpha, alpha_sketch) (1 - exp(-d^2 / 2 sigma^2))``, with CE(p, q) = -p log q - (1 - p) log(1 - q).

    The sketch's occupancy is 0.01 or 0.99, and the loss is linear in the field's, which moves.
    """
    found, wanted, weight = render.extras["sketch"].float().unbind(1)
    wanted = wanted.clamp(_LEAST, 1 - _LEAST)
    entropy = -found * wanted.log() - (1 - found) * (1 - wanted).log()
    return (weight * entropy).mean()
