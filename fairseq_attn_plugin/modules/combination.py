"""Combination: some of what the decoder knows at a step, side by side, and where wanted mapped to another size."""

from typing import Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .step_tapes import FunctionTape, Grads, PreparedWeights, TanhTape, dropout_tape, linear_tape


def _maxout(inputs: Tensor) -> Tensor:
    return inputs.unflatten(-1, (-1, 2)).amax(dim=-1)


ACTIVATIONS: Dict[str, Tuple[int, Callable[[Tensor], Tensor]]] = {
    "none": (1, lambda inputs: inputs),
    "tanh": (1, torch.tanh),
    "relu": (1, torch.relu),
    "maxout": (2, _maxout),
}
"""Name → numbers that one output takes, function. maxout: the larger of each pair (Goodfellow et al., 2013, k = 2)."""


def activation_tape(activation: Callable[[Tensor], Tensor]):
    """None for the identity."""
    tapes = {ACTIVATIONS["none"][1]: None, ACTIVATIONS["tanh"][1]: TanhTape()}
    return tapes[activation] if activation in tapes else FunctionTape(activation)


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
        self.sizes = list(sizes.values())
        pieces, self.activation = ACTIVATIONS[activation]
        total = sum(sizes.values())
        self.projection = None if dim is None else nn.Linear(total, pieces * dim, bias=bias)
        self.output_dim = total if dim is None else dim

    def forward(self, **inputs: Optional[Tensor]) -> Tensor:
        """Named B×T×size (or B×size) tensors, of which it takes its own → B×T×R (or B×R)."""
        parts = [inputs[name] for name in self.inputs]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return joined if self.projection is None else self.activation(self.projection(joined))

    def tape(
        self, prepared: PreparedWeights, steps: int, dropout: Optional[nn.Module] = None
    ) -> "CombinationTape":
        """Itself, and dropout where that is given, for the steps of a ``FusedLoop``."""
        return CombinationTape(self, prepared, steps, dropout)


class CombinationTape:
    """See ``step_tapes``; a step takes a dictionary of B×size tensors, and gives B×R."""

    def __init__(self, combination: Combination, prepared: PreparedWeights, steps: int, dropout: Optional[nn.Module]):
        self.inputs, self.sizes = combination.inputs, combination.sizes
        self.linear = self.activation = None
        if combination.projection is not None:
            linear = combination.projection
            self.linear = linear_tape(prepared, [linear.weight], linear.bias, steps=steps)
            self.activation = activation_tape(combination.activation)
        self.dropout = None if dropout is None else dropout_tape(dropout, steps)

    @property
    def shared(self) -> Sequence[Optional[Tensor]]:
        return () if self.linear is None else self.linear.shared

    def parts(self, t: int, inputs: Dict[str, Optional[Tensor]]) -> List[Tensor]:
        """What ``forward`` gives, in pieces to be taken side by side."""
        parts = [inputs[name] for name in self.inputs]
        return parts if self.linear is None else [self.forward(t, inputs)]

    def forward(self, t: int, inputs: Dict[str, Optional[Tensor]]) -> Tensor:
        parts = [inputs[name] for name in self.inputs]
        if self.linear is None:
            output = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        else:
            output = self.linear.forward(t, parts, parts[0].dtype)
        for tape in (self.activation, self.dropout):
            output = output if tape is None else tape.forward(t, output)
        return output

    def backward(self, t: int, grad: Optional[Tensor]) -> Dict[str, Tensor]:
        """Name → gradient; nothing where it is zero."""
        if grad is None or not self.inputs:
            return {}
        for tape in (self.dropout, self.activation):
            grad = grad if tape is None else tape.backward(t, grad)
        if self.linear is not None:
            grad = self.linear.backward(t, grad)
        return dict(zip(self.inputs, grad.split(self.sizes, dim=1)))

    def shared_grads(self) -> Grads:
        return [] if self.linear is None else self.linear.shared_grads()
