"""Readout: what the decoder knows at a step becomes the vector that the vocabulary projection sees."""

from typing import Dict, Optional, Sequence

import torch
from torch import Tensor, nn


class Readout(nn.Module):
    """r(t) = activation(W [inputs]); with no activation and no size, r(t) is the inputs side by side.

    tanh over state and context is the attentional vector of Luong et al. (2015, eq. 5).

    Args:
        sizes: name → size of each input, in the order of the columns of W: state, word, context.
        activation: ``none`` or ``tanh``.
        dim: R; None = H for ``tanh``, the sum of the sizes for ``none``.
    """

    def __init__(self, sizes: Dict[str, int], activation: str, dim: Optional[int] = None):
        super().__init__()
        self.inputs: Sequence[str] = tuple(sizes)
        self.activation = activation
        total = sum(sizes.values())
        self.projection = None if dim is None else nn.Linear(total, dim, bias=False)
        self.output_dim = total if dim is None else dim

    def forward(self, **inputs: Tensor) -> Tensor:
        """Named B×T×size (or B×size) tensors → B×T×R (or B×R)."""
        parts = [inputs[name] for name in self.inputs]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        if self.projection is not None:
            joined = self.projection(joined)
        return torch.tanh(joined) if self.activation == "tanh" else joined
