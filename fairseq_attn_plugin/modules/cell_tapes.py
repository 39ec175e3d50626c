"""Tapes of the recurrent cells: see ``step_tapes``. ``forward(t, inputs, state)`` → state, where the inputs are B×X
tensors, the columns that become known at step t; ``backward(t, grads)``, with a gradient or None for each tensor of the
state, → gradient of the inputs, side by side, and those of the state before."""

from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .step_tapes import Grads, PreparedWeights, add, linear_tape, tanh_backward, tanh_backward_to

State = Tuple[Tensor, ...]
sigmoid_backward = torch.ops.aten.sigmoid_backward.default
sigmoid_backward_to = torch.ops.aten.sigmoid_backward.grad_input


class CellTape:
    """A layer's linear maps, and what its steps keep.

    Args:
        layer: a one-directional ``RecurrentLayer``.
        prepared: of this pass.
        known: B×T×I', the first I' columns of the inputs; None where I' = 0.
        steps: T.
    """

    def __init__(self, layer, prepared: PreparedWeights, known: Optional[Tensor], steps: int):
        self.hidden_size = layer.hidden_size
        self.linears = self._linears(layer, prepared, known, steps)
        self.kept: List[Tuple[Tensor, ...]] = [()] * steps

    def _linears(self, layer, prepared: PreparedWeights, known: Optional[Tensor], steps: int) -> list:
        weights = [layer.weight_ih_l0, layer.weight_hh_l0]
        return [linear_tape(prepared, weights, layer.input_bias(), known, steps)]

    @property
    def shared(self) -> List[Optional[Tensor]]:
        return [tensor for linear in self.linears for tensor in linear.shared]

    def shared_grads(self) -> Grads:
        return [grad for linear in self.linears for grad in linear.shared_grads()]


class LSTMTape(CellTape):
    """See ``LSTMLayer``."""

    def forward(self, t: int, inputs: Sequence[Tensor], state: State) -> State:
        h, c = state
        size = self.hidden_size
        gates = self.linears[0].forward(t, (*inputs, h), c.dtype)
        gates[:, : 2 * size].sigmoid_()
        parts = i, f, g, o = gates.split(size, dim=1)
        g.tanh_()
        o.sigmoid_()
        after = torch.mul(f, c).addcmul_(i, g)
        tanh_after = torch.tanh(after)
        self.kept[t] = gates, parts, c, tanh_after
        return torch.mul(o, tanh_after), after

    def backward(self, t: int, grads: Grads) -> Tuple[Tensor, Grads]:
        gates, (i, f, g, o), c, tanh_after = self.kept[t]
        size = self.hidden_size
        grad_h, of_after = grads
        of_gates = self.linears[0].grad_room(t, gates)
        of_i, of_f, of_g, of_o = of_gates.split(size, dim=1)
        if grad_h is None:
            of_o.zero_()
        else:
            torch.mul(grad_h, tanh_after, out=of_o)
            of_after = add(tanh_backward(grad_h * o, tanh_after), of_after)
        torch.mul(of_after, g, out=of_i)
        torch.mul(of_after, c, out=of_f)
        sigmoid_backward_to(of_gates[:, : 2 * size], gates[:, : 2 * size], grad_input=of_gates[:, : 2 * size])
        sigmoid_backward_to(of_o, o, grad_input=of_o)
        tanh_backward_to(of_after * i, g, grad_input=of_g)
        of_inputs = self.linears[0].backward(t, of_gates)
        return of_inputs[:, :-size], [of_inputs[:, -size:], of_after * f]


class GRUTape(CellTape):
    """See ``GRULayer``."""

    def _linears(self, layer, prepared: PreparedWeights, known: Optional[Tensor], steps: int) -> list:
        return [
            linear_tape(prepared, [layer.weight_ih_l0], layer.bias_ih_l0, known, steps),
            linear_tape(prepared, [layer.weight_hh_l0], layer.bias_hh_l0, None, steps),
        ]

    def forward(self, t: int, inputs: Sequence[Tensor], state: State) -> State:
        (h,) = state
        size = self.hidden_size
        gates = self.linears[0].forward(t, inputs, h.dtype)
        hidden = self.linears[1].forward(t, state, h.dtype)
        gates[:, : 2 * size].add_(hidden[:, : 2 * size]).sigmoid_()
        reset, update, new = gates.split(size, dim=1)
        new.addcmul_(reset, hidden[:, 2 * size :]).tanh_()
        self.kept[t] = gates, hidden, h
        return (torch.lerp(new, h, update),)

    def backward(self, t: int, grads: Grads) -> Tuple[Tensor, Grads]:
        gates, hidden, h = self.kept[t]
        (grad,) = grads
        size = self.hidden_size
        reset, update, new = gates.split(size, dim=1)
        of_gates = self.linears[0].grad_room(t, gates)
        of_reset, of_update, of_new = of_gates.split(size, dim=1)
        kept = grad * update
        tanh_backward_to(grad - kept, new, grad_input=of_new)
        torch.mul(of_new, hidden[:, 2 * size :], out=of_reset)
        torch.mul(grad, h - new, out=of_update)
        both = of_gates[:, : 2 * size]
        sigmoid_backward_to(both, gates[:, : 2 * size], grad_input=both)
        of_inputs = self.linears[0].backward(t, of_gates)
        of_hidden = torch.cat([both, of_new * reset], dim=1)
        return of_inputs, [self.linears[1].backward(t, of_hidden).add_(kept)]


class RNNTape(CellTape):
    """See ``RNNLayer``."""

    def forward(self, t: int, inputs: Sequence[Tensor], state: State) -> State:
        h = torch.tanh(self.linears[0].forward(t, (*inputs, *state), state[0].dtype))
        self.kept[t] = (h,)
        return (h,)

    def backward(self, t: int, grads: Grads) -> Tuple[Tensor, Grads]:
        of_inputs = self.linears[0].backward(t, tanh_backward(grads[0], self.kept[t][0]))
        return of_inputs[:, : -self.hidden_size], [of_inputs[:, -self.hidden_size :]]


class ResetBeforeGRUTape(CellTape):
    """See ``ResetBeforeGRULayer``."""

    def _linears(self, layer, prepared: PreparedWeights, known: Optional[Tensor], steps: int) -> list:
        split = [2 * layer.hidden_size, layer.hidden_size]
        rows = zip(layer.weight_ih_l0.split(split), layer.weight_hh_l0.split(split), layer.input_bias().split(split))
        return [linear_tape(prepared, weights, bias, known, steps) for *weights, bias in rows]

    def forward(self, t: int, inputs: Sequence[Tensor], state: State) -> State:
        (h,) = state
        gates = self.linears[0].forward(t, (*inputs, h), h.dtype).sigmoid_()
        reset, update = gates.chunk(2, dim=1)
        new = self.linears[1].forward(t, (*inputs, reset * h), h.dtype).tanh_()
        self.kept[t] = gates, new, h
        return (torch.lerp(new, h, update),)

    def backward(self, t: int, grads: Grads) -> Tuple[Tensor, Grads]:
        gates, new, h = self.kept[t]
        (grad,) = grads
        size = self.hidden_size
        reset, update = gates.chunk(2, dim=1)
        kept = grad * update
        by_new = self.linears[1].backward(t, tanh_backward(grad - kept, new))
        of_reset_h = by_new[:, -size:]
        of_gates = torch.cat([of_reset_h * h, grad * (h - new)], dim=1)
        by_gates = self.linears[0].backward(t, sigmoid_backward(of_gates, gates))
        of_h = kept.addcmul_(of_reset_h, reset).add_(by_gates[:, -size:])
        return by_gates[:, :-size] + by_new[:, :-size], [of_h]
