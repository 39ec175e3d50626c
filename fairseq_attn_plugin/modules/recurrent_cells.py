"""Recurrent cells: one layer that runs over a whole sequence in one call, or does one step with everything hoisted.

A layer's state is a tuple of B×H tensors: (h, c) for an LSTM, (h,) for the others.
"""

from typing import Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .registry import Registry

LayerState = Tuple[Tensor, ...]
Inputs = Union[Tensor, PackedSequence]


class RecurrentLayer:
    """What a stack needs of a layer, mixed into torch's module of one layer, whose parameters and kernels serve.

    Subclasses add ``step``, and ``run`` or ``state_tensors`` where theirs differ.
    """

    state_tensors = 1
    """Number of tensors in a state."""

    has_forget_gate = False
    """True where ``--forget-gate-bias`` means something."""

    def run(self, inputs: Inputs, state: Optional[LayerState]) -> Tuple[Inputs, LayerState]:
        """B×T×I (or packed) inputs, D×B×H state or None → B×T×DH (or packed) outputs, D×B×H final state."""
        outputs, h = self(inputs, None if state is None else state[0])
        return outputs, (h,)

    def step(self, known: Tensor, inputs: Optional[Tensor], state: LayerState) -> LayerState:
        """One step of a one-directional layer.

        Args:
            known: B×G (or G), the share of the gates that ``gates_of`` has worked out beforehand.
            inputs: B×X inputs of the last X columns, known only now; None where there are none.
            state: the layer's state before.
        """
        raise NotImplementedError

    def gates_of(self, inputs: Tensor) -> Tensor:
        """B×T×I' inputs of the first I' columns → their share of the gates, B×T×G, with the bias of the input."""
        return linear(inputs, self.weight_ih_l0[:, : inputs.size(-1)], self.input_bias())

    def input_bias(self) -> Tensor:
        """G, the biases that can be added before the recurrence."""
        return self.bias_ih_l0 + self.bias_hh_l0

    def add_inputs(self, known: Tensor, inputs: Optional[Tensor]) -> Tensor:
        """``known`` plus the share of the last X columns."""
        if inputs is None:
            return known
        return torch.addmm(known, inputs, self.weight_ih_l0[:, -inputs.size(1) :].t())


def _mix(new: Tensor, h: Tensor, update: Tensor) -> Tensor:
    """(1 - z) n + z h in the type of h, which under autocast is not that of the gates."""
    return torch.lerp(new.type_as(h), h, update.type_as(h))


CELLS: Registry[RecurrentLayer] = Registry("--cell", RecurrentLayer)


@CELLS.register("lstm")
class LSTMLayer(RecurrentLayer, nn.LSTM):
    """i, f, o = sigmoid(...), g = tanh(...), c = f c + i g, h = o tanh(c) (Hochreiter and Schmidhuber, 1997)."""

    state_tensors = 2
    has_forget_gate = True

    def run(self, inputs: Inputs, state: Optional[LayerState]) -> Tuple[Inputs, LayerState]:
        return self(inputs, state)

    def step(self, known: Tensor, inputs: Optional[Tensor], state: LayerState) -> LayerState:
        h, c = state
        gates = torch.addmm(self.add_inputs(known, inputs), h, self.weight_hh_l0.t())
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def set_forget_gate_bias(self, value: float) -> None:
        """The sum of both biases of every forget gate becomes ``value``."""
        forget = slice(self.hidden_size, 2 * self.hidden_size)
        with torch.no_grad():
            for name, bias in self.named_parameters():
                if name.startswith("bias"):
                    bias[forget] = value if name.startswith("bias_ih") else 0.0


@CELLS.register("gru")
class GRULayer(RecurrentLayer, nn.GRU):
    """r, z = sigmoid(...), n = tanh(W x + r (U h + b)), h = (1 - z) n + z h: the reset gate after the product, as
    torch and cuDNN have it."""

    def input_bias(self) -> Tensor:
        return self.bias_ih_l0

    def step(self, known: Tensor, inputs: Optional[Tensor], state: LayerState) -> LayerState:
        (h,) = state
        of_input = self.add_inputs(known, inputs)
        of_state = torch.addmm(self.bias_hh_l0, h, self.weight_hh_l0.t())
        size = h.size(1)
        reset, update = torch.sigmoid(of_input[..., : 2 * size] + of_state[:, : 2 * size]).chunk(2, dim=1)
        new = torch.tanh(of_input[..., 2 * size :] + reset * of_state[:, 2 * size :])
        return (_mix(new, h, update),)


@CELLS.register("rnn")
class RNNLayer(RecurrentLayer, nn.RNN):
    """h = tanh(W x + U h + b) (Elman, 1990)."""

    def step(self, known: Tensor, inputs: Optional[Tensor], state: LayerState) -> LayerState:
        return (torch.tanh(torch.addmm(self.add_inputs(known, inputs), state[0], self.weight_hh_l0.t())),)


@CELLS.register("gru_reset_before")
class ResetBeforeGRULayer(RecurrentLayer, nn.GRU):
    """r, z = sigmoid(...), n = tanh(W x + U (r h) + b), h = (1 - z) n + z h: the reset gate before the product (Cho et
    al., 2014, eq. 5-8; Bahdanau et al., 2015, A.1.1). torch has no kernel for it: a sequence is a loop."""

    def step(self, known: Tensor, inputs: Optional[Tensor], state: LayerState) -> LayerState:
        return self._step(self.add_inputs(known, inputs), state[0], self.weight_hh_l0)

    @staticmethod
    def _step(of_input: Tensor, h: Tensor, weight: Tensor) -> LayerState:
        size = h.size(1)
        of_gates, of_new = of_input[..., : 2 * size], of_input[..., 2 * size :]
        reset, update = torch.sigmoid(torch.addmm(of_gates, h, weight[: 2 * size].t())).chunk(2, dim=1)
        new = torch.tanh(torch.addmm(of_new, reset * h, weight[2 * size :].t()))
        return (_mix(new, h, update),)

    def run(self, inputs: Inputs, state: Optional[LayerState]) -> Tuple[Inputs, LayerState]:
        if not isinstance(inputs, PackedSequence):
            return self._run(inputs, state)
        padded, lengths = pad_packed_sequence(inputs, batch_first=True)
        real = torch.arange(padded.size(1)).unsqueeze(0) < lengths.unsqueeze(1)
        outputs, final = self._run(padded, state, real.to(padded.device))
        return pack_padded_sequence(outputs, lengths, batch_first=True, enforce_sorted=False), final

    def _run(
        self, inputs: Tensor, state: Optional[LayerState], real: Optional[Tensor] = None
    ) -> Tuple[Tensor, LayerState]:
        """``run`` on a tensor; where ``real`` (B×T bool) is False, the state stays as it is."""
        outputs, final = [], []
        for direction, suffix in enumerate(("", "_reverse")[: 2 if self.bidirectional else 1]):
            w_ih, w_hh, b_ih, b_hh = (
                getattr(self, name + suffix) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            )
            gates = linear(inputs, w_ih, b_ih + b_hh)
            h = inputs.new_zeros(inputs.size(0), self.hidden_size) if state is None else state[0][direction]
            states = [h] * inputs.size(1)
            for t in sorted(range(inputs.size(1)), reverse=direction == 1):
                (after,) = self._step(gates[:, t], h, w_hh)
                h = after if real is None else torch.where(real[:, t : t + 1], after, h)
                states[t] = h
            outputs.append(torch.stack(states, dim=1))
            final.append(h)
        return torch.cat(outputs, dim=2), (torch.stack(final),)
