"""Recurrent cells: one layer that runs over a whole sequence in one call, or does one step with everything hoisted.

A layer's state is a tuple of B×H tensors: (h, c) for an LSTM, (h,) for the others.
"""

from typing import Callable, List, Optional, Tuple, Type

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence

from .cell_tapes import CellTape, GRUTape, LSTMTape, ResetBeforeGRUTape, RNNTape
from .padding import Padding
from .registry import Registry

LayerState = Tuple[Tensor, ...]

SATURATION = 2.0**14
"""Far beyond what weights add up to, and finite in every type: its sigmoid is exactly 1, of the negative exactly 0."""
WIDTH_MULTIPLE = 8
"""Inputs of an odd width make bfloat16 kernels several times slower."""


def bfloat16_fails(device: torch.device) -> bool:
    """Whether torch's LSTM would end with an error: under bfloat16 autocast on a CPU where oneDNN has no such LSTM."""
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.is_available():
        return False
    return torch.get_autocast_dtype("cpu") == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


class RecurrentLayer:
    """What a stack needs of a layer, mixed into torch's module of one layer, whose parameters and kernels serve.

    Subclasses add ``step``, and ``run`` or ``state_tensors`` where theirs differ.
    """

    state_tensors = 1
    """Number of tensors in a state."""

    tape_class: Type[CellTape]
    """Its steps in a ``FusedLoop``."""

    has_forget_gate = False
    """True where ``--forget-gate-bias`` means something."""

    kernel: Optional[Callable] = None
    """torch's function behind the module; None = padded batches are packed."""

    plain_in_inference = False
    """True where even without gradients the kernel, on the CPU, is faster on plain tensors than on packed sequences."""

    holding_gates: Tuple[int, ...] = ()
    """Per gate, what holds the state: -1 = saturate at 0, 1 = at 1, 0 = leave alone."""

    def run(self, inputs: Tensor, state: Optional[LayerState]) -> Tuple[Tensor, LayerState]:
        """B×T×I inputs, D×B×H state or None = zeros → B×T×DH outputs, D×B×H final state."""
        outputs, h = self(inputs, None if state is None else state[0])
        return outputs, (h,)

    def run_padded(self, inputs: Tensor, padding: Padding) -> Tuple[Tensor, LayerState]:
        """``run`` from zeros over the real tokens alone; what comes out on padding stands for nothing.

        On a GPU, torch's kernels are made for packed sequences; on the CPU, for plain tensors.
        """
        faster = inputs.device.type == "cpu" and (self.plain_in_inference or torch.is_grad_enabled())
        if self.kernel is not None and faster and padding.is_outside:
            return self._run_plain(inputs, padding)
        packed, final = self.run(padding.pack(inputs), None)
        return padding.unpack(packed), tuple(part.masked_fill(padding.empty, 0.0) for part in final)

    def _run_plain(self, inputs: Tensor, padding: Padding) -> Tuple[Tensor, LayerState]:
        """``run_padded`` on the plain tensor, beside whose columns others tell padding from tokens.

        Before the first token, h is exactly zero. After the last one h is not held (an LSTM has an output gate, a GRU
        rounds), but read where that token stands.
        """
        columns = -inputs.size(2) % WIDTH_MULTIPLE or WIDTH_MULTIPLE
        mask = padding.mask.unsqueeze(2)
        marks = mask if self.holding_gates else ~mask
        inputs = torch.cat([inputs.masked_fill(mask, 0.0), marks.expand(-1, -1, columns).type_as(inputs)], dim=2)
        weights = [w for direction in self.all_weights for w in self._weights_with_marks(columns, *direction)]
        zeros = inputs.new_zeros(len(self.all_weights), inputs.size(0), self.hidden_size)
        state = zeros if self.state_tensors == 1 else (zeros,) * self.state_tensors
        outputs, _, *others = self.kernel(inputs, state, weights, *self._how())
        by_direction = outputs.unflatten(2, (-1, self.hidden_size))
        ends = padding.edges[:, None, : by_direction.size(2), None].expand(-1, -1, -1, self.hidden_size)
        h = by_direction.gather(1, ends).squeeze(1).transpose(0, 1)
        return outputs, (h, *others)

    def _how(self) -> tuple:
        """What the kernel wants to know beside tensors: biases, layers, dropout, training, directions, batch first."""
        return True, 1, 0.0, self.training, self.bidirectional, True

    def _weights_with_marks(self, columns: int, w_ih: Tensor, *others: Tensor) -> Tuple[Tensor, ...]:
        """Marks of padding, in the last columns of the inputs, saturate gates: c of an LSTM is held to the last bit."""
        hold = w_ih.new_tensor(self.holding_gates).mul(SATURATION / columns)
        hold = hold.repeat_interleave(self.hidden_size).unsqueeze(1).expand(-1, columns)
        return torch.cat([w_ih, hold], dim=1), *others

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
    tape_class = LSTMTape
    plain_in_inference = True
    holding_gates = (-1, 1, 0, 0)

    @staticmethod
    def kernel(inputs: Tensor, state: LayerState, weights: List[Tensor], *how):
        """torch.lstm; where that has no bfloat16, in the type of the weights, and what comes out is rounded."""
        if not bfloat16_fails(inputs.device):
            return torch.lstm(inputs, state, weights, *how)
        with torch.autocast("cpu", enabled=False):
            inputs, *state = (part.type_as(weights[0]) for part in (inputs, *state))
            return tuple(part.bfloat16() for part in torch.lstm(inputs, state, weights, *how))

    def run(self, inputs: Tensor, state: Optional[LayerState]) -> Tuple[Tensor, LayerState]:
        if isinstance(inputs, PackedSequence) or not bfloat16_fails(inputs.device):
            return self(inputs, state)
        zeros = inputs.new_zeros(len(self.all_weights), inputs.size(0), self.hidden_size)
        weights = [weight for direction in self.all_weights for weight in direction]
        outputs, *after = self.kernel(inputs, state or (zeros, zeros), weights, *self._how())
        return outputs, tuple(after)

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

    tape_class = GRUTape
    kernel = staticmethod(torch.gru)
    holding_gates = (0, 1, 0)

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

    tape_class = RNNTape

    kernel = staticmethod(torch.rnn_tanh)

    def _weights_with_marks(
        self, columns: int, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor
    ) -> Tuple[Tensor, ...]:
        """Nothing holds the state; marks of tokens add the bias, so that padding before the first is tanh(0) = 0."""
        bias = (b_ih + b_hh).div(columns).unsqueeze(1).expand(-1, columns)
        return torch.cat([w_ih, bias], dim=1), w_hh, torch.zeros_like(b_ih), torch.zeros_like(b_hh)

    def step(self, known: Tensor, inputs: Optional[Tensor], state: LayerState) -> LayerState:
        return (torch.tanh(torch.addmm(self.add_inputs(known, inputs), state[0], self.weight_hh_l0.t())),)


@CELLS.register("gru_reset_before")
class ResetBeforeGRULayer(RecurrentLayer, nn.GRU):
    """r, z = sigmoid(...), n = tanh(W x + U (r h) + b), h = (1 - z) n + z h: the reset gate before the product (Cho et
    al., 2014, eq. 5-8; Bahdanau et al., 2015, A.1.1). torch has no kernel for it: a sequence is a loop."""

    tape_class = ResetBeforeGRUTape

    def step(self, known: Tensor, inputs: Optional[Tensor], state: LayerState) -> LayerState:
        return self._step(self.add_inputs(known, inputs), state[0], self.weight_hh_l0)

    @staticmethod
    def _step(of_input: Tensor, h: Tensor, weight: Tensor) -> LayerState:
        size = h.size(1)
        of_gates, of_new = of_input[..., : 2 * size], of_input[..., 2 * size :]
        reset, update = torch.sigmoid(torch.addmm(of_gates, h, weight[: 2 * size].t())).chunk(2, dim=1)
        new = torch.tanh(torch.addmm(of_new, reset * h, weight[2 * size :].t()))
        return (_mix(new, h, update),)

    def run(self, inputs: Tensor, state: Optional[LayerState]) -> Tuple[Tensor, LayerState]:
        return self._run(inputs, state)

    def run_padded(self, inputs: Tensor, padding: Padding) -> Tuple[Tensor, LayerState]:
        return self._run(inputs, None, ~padding.mask)

    def _run(
        self, inputs: Tensor, state: Optional[LayerState], real: Optional[Tensor] = None
    ) -> Tuple[Tensor, LayerState]:
        """``run``; where ``real`` (B×T bool) is False, the state stays as it is."""
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
