"""Coverage loss: what it costs to attend again to what has been attended to before."""

import torch
from torch import Tensor


def repeated_attention(weights: Tensor) -> Tensor:
    """For each target position Σ over j of min(a(t, j), Σ over t' < t of a(t', j)): See et al. (2017), eq. 12.

    Sums are in float32 at least.

    Args:
        weights: a(t, j), B×T×S, zero on source padding.

    Returns:
        B×T, each 0 to the sum of the position's weights; 0 at the first.
    """
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    before = torch.cat([torch.zeros_like(weights[:, :1]), weights[:, :-1].cumsum(dim=1)], dim=1)
    return torch.minimum(weights, before).sum(dim=2)
