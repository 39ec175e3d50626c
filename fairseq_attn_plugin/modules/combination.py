"""Combination: some of what the decoder knows at a step, side by side, and where wanted mapped to another size."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .recurrence.deferred_gradients import joined
from .recurrence.shared_products import Linear, linear


def _maxout(inputs: Tensor) -> Tensor:
    return inputs.unflatten(-1, (-1, 2)).amax(dim=-1)


ACTIVATIONS: Dict[str, Tuple[int, Callable[[Tensor], Tensor]]] = {
    "none": (1, lambda inputs: inputs),
    "tanh": (1, torch.tanh),
    "relu": (1, torch.relu),
    "maxout": (2, _maxout),
}
"""Name → numbers that one output takes, function. maxout: the larger of each pair (Goodfellow et al., 2013, k = 2)."""


class Combination(nn.Module):
    """r = activation(W [inputs] + b); with no size, r is the inputs side by side.

    As a readout, tanh over state and context is the attentional vector of Luong et al. (2015, eq. 5), maxout over
    state, word and context the readout of Bahdanau et al. (2015, A.2.2).

    Args:
        sizes: name → size of each input, in the order of the columns of W.
        activation: name in ``ACTIVATIONS``; needs a size unless it is ``none``.
        dim: R; None = the sum of the sizes, without W.
        bias: whether there is b.
    """

    def __init__(self, sizes: Dict[str, int], activation: str = "none", dim: Optional[int] = None, bias: bool = False):
        super().__init__()
        self.inputs: Sequence[str] = tuple(sizes)
        pieces, self.activation = ACTIVATIONS[activation]
        total = sum(sizes.values())
        self.projection = None if dim is None else Linear(total, pieces * dim, bias=bias)
        self.output_dim = total if dim is None else dim

    def forward(self, **inputs: Optional[Tensor]) -> Tensor:
        """Named B×T×size (or B×size) tensors, of which it takes its own → B×T×R (or B×R)."""
        parts = self.parts(**inputs)
        if self.projection is None:
            return joined(parts)
        if parts[0].dim() == 2:
            return self.activation(linear(parts, [self.projection.weight], self.projection.bias))
        return self.activation(self.projection(joined(parts)))

    def parts(self, **inputs: Any) -> List[Tensor]:
        """Its own of the named tensors, in order; the others may be None."""
        return [inputs[name] for name in self.inputs]
