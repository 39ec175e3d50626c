"""Recurrent cells. A cell is its ``forward``: one step of one direction. Whole sequences are steps in a loop, or, where
torch has a kernel that computes the same, one call of that.

The state of a layer is a tuple of B×H tensors: (h, c) for an LSTM, (h,) for the others; h is what leaves the layer.
"""

import math
from typing import Callable, ClassVar, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..options import Option, finite
from ..registry import Registry
from .padding import Padding
from .pointwise import gru_gates, lstm_gates
from .shared_products import known_steps, linear, once, products_for

LayerState = Tuple[Tensor, ...]

SATURATION = 2.0**14
"""Far beyond what weights add up to, and finite in every type: its sigmoid is exactly 1, of the negative exactly 0."""
WIDTH_MULTIPLE = 8
"""Inputs of an odd width make bfloat16 kernels several times slower."""

FORGET_GATE_BIAS = Option(
    "forget_gate_bias",
    float,
    None,
    "start of the bias of every LSTM forget gate (default: as --parameter-init)",
    check=finite,
    absent="has no forget gate; leave it out, or use --cell {takers}",
)


class CellWeights(NamedTuple):
    """Parameters of one direction of a layer, G rows of gates each."""

    of_input: Tensor
    """G×I."""

    of_state: Tensor
    """G×H."""

    input_bias: Tensor
    """G."""

    state_bias: Tensor
    """G."""

    @property
    def bias(self) -> Tensor:
        """G, the sum of both, for cells that add them in one place."""
        return once(torch.add, self.input_bias, self.state_bias)


class RecurrentLayer(nn.Module):
    """One layer of a recurrent cell, in one direction or in both.

    A subclass writes ``forward``, says how many ``gates`` its matrices have and how many ``state_tensors`` it hands
    on. It then trains and decodes, as encoder in both directions and with padding anywhere; with the functions of
    ``shared_products`` it is fast. Its matrices are named as torch's, and start as torch's, uniform in ±1/sqrt(H).

    Args:
        input_dim: I, size of an input.
        hidden_dim: H, size of a state of one direction.
        bidirectional: whether there is a second set of matrices, for reading backwards.
    """

    gates: ClassVar[int] = 1
    """Blocks of H rows in a matrix."""

    state_tensors: ClassVar[int] = 1
    """Number of tensors in a state."""

    options: ClassVar[Tuple[Option, ...]] = ()
    """Options that mean something to this cell alone."""

    final: ClassVar[Tuple[str, ...]] = ("sequence",)
    """What a subclass may not override: it follows from ``forward``."""

    def __init__(self, input_dim: int, hidden_dim: int, bidirectional: bool = False):
        super().__init__()
        self.hidden_dim, self.bidirectional = hidden_dim, bidirectional
        rows, bound = self.gates * hidden_dim, 1 / math.sqrt(hidden_dim)
        shapes: Dict[str, Tuple[int, ...]] = {"weight_ih_l0": (rows, input_dim), "weight_hh_l0": (rows, hidden_dim)}
        shapes.update(bias_ih_l0=(rows,), bias_hh_l0=(rows,))
        for suffix in self._suffixes:
            for name, shape in shapes.items():
                self.register_parameter(name + suffix, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    @property
    def _suffixes(self) -> Sequence[str]:
        """Ends of the names of the parameters, by direction."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def forward(self, inputs: Sequence[Tensor], state: LayerState, weights: CellWeights) -> LayerState:
        """One step.

        Args:
            inputs: B×X tensors, side by side the I columns of the input.
            state: the state before, ``state_tensors`` B×H tensors.
            weights: those of the direction that is read.

        Returns:
            The state after.
        """
        raise NotImplementedError

    def weights(self, backwards: bool = False) -> CellWeights:
        """Parameters of a direction."""
        suffix = self._suffixes[backwards]
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return CellWeights(*(getattr(self, name + suffix) for name in names))

    def sequence(
        self, inputs: Tensor, state: Optional[LayerState] = None, padding: Optional[Padding] = None
    ) -> Tuple[Tensor, LayerState]:
        """All steps of a sequence, as ``forward`` does them; on padding the state stays as it is.

        Args:
            inputs: B×T×I.
            state: the first state of each direction, D×B×H tensors; None = zeros.
            padding: where there is some; it goes with a state of zeros.

        Returns:
            B×T×DH outputs (h of both directions side by side), D×B×H final states.
        """
        device = inputs.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        outputs, finals = [], []
        with products_for(dtype, steps=inputs.size(1)).active():
            steps = known_steps(inputs)
            for direction in range(len(self._suffixes)):
                first = None if state is None else tuple(part[direction] for part in state)
                h, final = self._read(steps, first, padding, bool(direction))
                outputs.append(h)
                finals.append(final)
        return torch.cat(outputs, dim=2), tuple(torch.stack(parts) for parts in zip(*finals))

    def _read(
        self, steps: Sequence[Tensor], state: Optional[LayerState], padding: Optional[Padding], backwards: bool
    ) -> Tuple[Tensor, LayerState]:
        """One direction: T tensors B×I → h at all steps, B×T×H, and the final state."""
        weights = self.weights(backwards)
        if state is None:
            zeros = steps[0].new_zeros(steps[0].size(0), self.hidden_dim)
            state = (zeros,) * self.state_tensors
        h: List[Tensor] = [state[0]] * len(steps)
        for t in sorted(range(len(steps)), reverse=backwards):
            after = self((steps[t],), state, weights)
            if padding is not None:
                real = ~padding.mask[:, t : t + 1]
                after = tuple(torch.where(real, new, old) for new, old in zip(after, state))
            state = after
            h[t] = state[0]
        return torch.stack(h, dim=1), state


CELLS: Registry[RecurrentLayer] = Registry("--cell", RecurrentLayer)


class TorchLayer(RecurrentLayer, nn.RNNBase):
    """A cell that torch has a kernel for. The kernel runs whole sequences unless a subclass has a ``forward`` of its
    own: then that one runs, step by step."""

    mode: str
    """The name of the cell among torch's."""

    kernel: ClassVar[Optional[Callable]] = None
    """torch's function for whole sequences; None = there is none."""

    plain_in_inference: ClassVar[bool] = False
    """True where even without gradients the kernel, on the CPU, is faster on plain tensors than on packed sequences."""

    holding_gates: ClassVar[Tuple[int, ...]] = ()
    """Per gate, what holds the state: -1 = saturate at 0, 1 = at 1, 0 = leave alone."""

    def __init__(self, input_dim: int, hidden_dim: int, bidirectional: bool = False):
        nn.RNNBase.__init__(self, self.mode, input_dim, hidden_dim, batch_first=True, bidirectional=bidirectional)
        self.hidden_dim = hidden_dim

    @property
    def has_kernel(self) -> bool:
        """Whether ``kernel`` computes what this layer's steps compute: ``forward`` and ``weights`` are those of the
        class that has named it."""
        owner = next((cls for cls in type(self).__mro__ if "kernel" in vars(cls)), TorchLayer)
        return self.kernel is not None and all(
            getattr(type(self), name) is getattr(owner, name) and name not in vars(self)
            for name in ("forward", "weights")
        )

    def sequence(
        self, inputs: Tensor, state: Optional[LayerState] = None, padding: Optional[Padding] = None
    ) -> Tuple[Tensor, LayerState]:
        """As of ``RecurrentLayer``; what comes out on padding stands for nothing.

        On a GPU, torch's kernels are made for packed sequences; on the CPU, for plain tensors.
        """
        if not self.has_kernel:
            return super().sequence(inputs, state, padding)
        if padding is None:
            zeros = inputs.new_zeros(len(self._suffixes), inputs.size(0), self.hidden_dim)
            outputs, *final = self._run(inputs, None, state or (zeros,) * self.state_tensors, self._kernel_weights())
            return outputs, tuple(final)
        faster = inputs.device.type == "cpu" and (self.plain_in_inference or torch.is_grad_enabled())
        if faster and padding.is_outside:
            return self._run_marked(inputs, padding)
        return self._run_packed(padding.pack(inputs), padding)

    def _kernel_weights(self) -> List[Tensor]:
        """Parameters of all directions as they are now; torch's list of them is not told when one is parametrised."""
        return [weight for direction in self.all_weights for weight in direction]

    def _run(
        self, inputs: Tensor, batch_sizes: Optional[Tensor], state: LayerState, weights: Sequence[Optional[Tensor]]
    ):
        """The kernel: outputs, then the tensors of the final state."""
        kernel, before = type(self).kernel, state if self.state_tensors > 1 else state[0]
        assert kernel is not None  # see has_kernel
        how = (True, 1, 0.0, self.training, self.bidirectional)  # biases, layers, dropout, training, directions
        if batch_sizes is None:
            return kernel(inputs, before, weights, *how, True)
        return kernel(inputs, batch_sizes, before, weights, *how)

    def _run_packed(self, packed: PackedSequence, padding: Padding) -> Tuple[Tensor, LayerState]:
        zeros = packed.data.new_zeros(len(self._suffixes), padding.mask.size(0), self.hidden_dim)
        state = (zeros,) * self.state_tensors
        outputs, *final = self._run(packed.data, packed.batch_sizes, state, self._kernel_weights())
        outputs = padding.unpack(packed._replace(data=outputs))
        final = [part.index_select(1, packed.unsorted_indices) for part in final]
        return outputs, tuple(part.masked_fill(padding.empty, 0.0) for part in final)

    def _run_marked(self, inputs: Tensor, padding: Padding) -> Tuple[Tensor, LayerState]:
        """On the plain tensor, beside whose columns others tell padding from tokens.

        Before the first token, h is exactly zero. After the last one h is not held (an LSTM has an output gate, a GRU
        rounds), but read where that token stands.
        """
        columns = -inputs.size(2) % WIDTH_MULTIPLE or WIDTH_MULTIPLE
        mask = padding.mask.unsqueeze(2)
        marks = mask if self.holding_gates else ~mask
        inputs = torch.cat([inputs.masked_fill(mask, 0.0), marks.expand(-1, -1, columns).type_as(inputs)], dim=2)
        weights = [w for direction in self.all_weights for w in self._weights_with_marks(columns, *direction)]
        zeros = inputs.new_zeros(len(self.all_weights), inputs.size(0), self.hidden_dim)
        outputs, _, *others = self._run(inputs, None, (zeros,) * self.state_tensors, weights)
        by_direction = outputs.unflatten(2, (-1, self.hidden_dim))
        ends = padding.edges[:, None, : by_direction.size(2), None].expand(-1, -1, -1, self.hidden_dim)
        h = by_direction.gather(1, ends).squeeze(1).transpose(0, 1)
        return outputs, (h, *others)

    def _weights_with_marks(self, columns: int, w_ih: Tensor, *others: Tensor) -> Tuple[Tensor, ...]:
        """Marks of padding, in the last columns of the inputs, saturate gates: c of an LSTM is held to the last bit."""
        hold = w_ih.new_tensor(self.holding_gates).mul(SATURATION / columns)
        hold = hold.repeat_interleave(self.hidden_dim).unsqueeze(1).expand(-1, columns)
        return torch.cat([w_ih, hold], dim=1), *others


def bfloat16_fails(device: torch.device) -> bool:
    """Whether torch's LSTM would end with an error: under bfloat16 autocast on a CPU where oneDNN has no such LSTM."""
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.is_available():
        return False
    return torch.get_autocast_dtype("cpu") == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _torch_lstm(inputs: Tensor, *arguments):
    """torch.lstm; where that has no bfloat16, in the type of the weights, and what comes out is rounded."""
    if not bfloat16_fails(inputs.device) or isinstance(arguments[0], Tensor):  # packed: torch does not ask oneDNN
        return torch.lstm(inputs, *arguments)
    state, weights, *how = arguments
    with torch.autocast("cpu", enabled=False):
        inputs, *state = (part.type_as(weights[0]) for part in (inputs, *state))
        return tuple(part.bfloat16() for part in torch.lstm(inputs, state, weights, *how))


@CELLS.register("lstm")
class LSTMLayer(TorchLayer):
    """i, f, o = sigmoid(W x + U h + b), g = tanh(W x + U h + b), c = f c + i g, h = o tanh(c), with rows of their
    own in W, U and b for each of i, f, g, o (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000)."""

    mode = "LSTM"
    gates = 4
    state_tensors = 2
    options = (FORGET_GATE_BIAS,)
    kernel = staticmethod(_torch_lstm)
    plain_in_inference = True
    holding_gates = (-1, 1, 0, 0)

    def forward(self, inputs: Sequence[Tensor], state: LayerState, weights: CellWeights) -> LayerState:
        h, c = state
        return lstm_gates(linear([*inputs, h], [weights.of_input, weights.of_state], weights.bias), c)

    def set_forget_gate_bias(self, value: float) -> None:
        """The sum of both biases of every forget gate becomes ``value``."""
        forget = slice(self.hidden_dim, 2 * self.hidden_dim)
        with torch.no_grad():
            for name, bias in self.named_parameters():
                if name.startswith("bias"):
                    bias[forget] = value if name.startswith("bias_ih") else 0.0


@CELLS.register("gru")
class GRULayer(TorchLayer):
    """r, z = sigmoid(W x + U h + b), n = tanh(W x + b + r (U h + b')), h = (1 - z) n + z h: the reset gate after the
    product, as torch and cuDNN have it."""

    mode = "GRU"
    gates = 3
    kernel = staticmethod(torch.gru)
    holding_gates = (0, 1, 0)

    def forward(self, inputs: Sequence[Tensor], state: LayerState, weights: CellWeights) -> LayerState:
        (h,) = state
        of_input = linear(inputs, [weights.of_input], weights.input_bias)
        return (gru_gates(of_input.type_as(h), linear([h], [weights.of_state], weights.state_bias), h),)


@CELLS.register("rnn")
class RNNLayer(TorchLayer):
    """h = tanh(W x + U h + b) (Elman, 1990)."""

    mode = "RNN_TANH"
    kernel = staticmethod(torch.rnn_tanh)

    def forward(self, inputs: Sequence[Tensor], state: LayerState, weights: CellWeights) -> LayerState:
        return (torch.tanh(linear([*inputs, *state], [weights.of_input, weights.of_state], weights.bias)),)

    def _weights_with_marks(self, columns: int, w_ih: Tensor, *others: Tensor) -> Tuple[Tensor, ...]:
        """Nothing holds the state; marks of tokens add the bias, so that padding before the first is tanh(0) = 0."""
        w_hh, b_ih, b_hh = others
        bias = (b_ih + b_hh).div(columns).unsqueeze(1).expand(-1, columns)
        return torch.cat([w_ih, bias], dim=1), w_hh, torch.zeros_like(b_ih), torch.zeros_like(b_hh)


@CELLS.register("gru_reset_before")
class ResetBeforeGRULayer(RecurrentLayer):
    """r, z = sigmoid(W x + U h + b), n = tanh(W x + U (r h) + b), h = (1 - z) n + z h: the reset gate before the
    product (Cho et al., 2014, eq. 5-8; Bahdanau et al., 2015, A.1.1). torch has no kernel for it."""

    gates = 3

    def forward(self, inputs: Sequence[Tensor], state: LayerState, weights: CellWeights) -> LayerState:
        (h,) = state
        of_input, of_state, bias = (once(self._split, part) for part in (*weights[:2], weights.bias))
        gates = torch.sigmoid(linear([*inputs, h], [of_input[0], of_state[0]], bias[0]))
        reset, update = gates.chunk(2, dim=1)
        new = torch.tanh(linear([*inputs, reset * h], [of_input[1], of_state[1]], bias[1]))
        return (torch.lerp(new, h, update),)

    def _split(self, rows: Tensor) -> Tuple[Tensor, ...]:
        """Rows of r and z, and of n."""
        return rows.split([2 * self.hidden_dim, self.hidden_dim])
