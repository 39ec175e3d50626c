"""Recurrent layers that run over a whole sequence in one call, or one step at a time with everything hoisted.

A layer's state is a tuple of B×H tensors: (h, c) for an LSTM, (h,) for a GRU. A stack's state is a list of them.
"""

from typing import Callable, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence

from .registry import Registry

LayerState = Tuple[Tensor, ...]
Inputs = Union[Tensor, PackedSequence]


class RecurrentLayer:
    """What a stack needs of a layer, mixed into torch's module of one layer, whose parameters and kernels serve.

    Subclasses add ``state_tensors``, ``run`` and ``step``.
    """

    state_tensors: int
    """Number of tensors in a state."""

    def run(self, inputs: Inputs, state: Optional[LayerState]) -> Tuple[Inputs, LayerState]:
        """B×T×I (or packed) inputs, D×B×H state or None → B×T×DH (or packed) outputs, D×B×H final state."""
        raise NotImplementedError

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
        return self.bias_ih_l0

    def add_inputs(self, known: Tensor, inputs: Optional[Tensor]) -> Tensor:
        """``known`` plus the share of the last X columns."""
        if inputs is None:
            return known
        return torch.addmm(known, inputs, self.weight_ih_l0[:, -inputs.size(1) :].t())


CELLS: Registry[RecurrentLayer] = Registry("--cell")


@CELLS.register("lstm")
class LSTMLayer(RecurrentLayer, nn.LSTM):
    """i, f, o = sigmoid(...), g = tanh(...), c = f c + i g, h = o tanh(c) (Hochreiter and Schmidhuber, 1997)."""

    state_tensors = 2

    def run(self, inputs: Inputs, state: Optional[LayerState]) -> Tuple[Inputs, LayerState]:
        return self(inputs, state)

    def input_bias(self) -> Tensor:
        return self.bias_ih_l0 + self.bias_hh_l0

    def step(self, known: Tensor, inputs: Optional[Tensor], state: LayerState) -> LayerState:
        h, c = state
        gates = torch.addmm(self.add_inputs(known, inputs), h, self.weight_hh_l0.t())
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


@CELLS.register("gru")
class GRULayer(RecurrentLayer, nn.GRU):
    """r, z = sigmoid(...), n = tanh(W x + r (U h + b)), h = (1 - z) n + z h (Cho et al., 2014, as torch has it)."""

    state_tensors = 1

    def run(self, inputs: Inputs, state: Optional[LayerState]) -> Tuple[Inputs, LayerState]:
        outputs, h = self(inputs, None if state is None else state[0])
        return outputs, (h,)

    def step(self, known: Tensor, inputs: Optional[Tensor], state: LayerState) -> LayerState:
        (h,) = state
        of_input = self.add_inputs(known, inputs)
        of_state = torch.addmm(self.bias_hh_l0, h, self.weight_hh_l0.t())
        size = h.size(1)
        reset, update = torch.sigmoid(of_input[..., : 2 * size] + of_state[:, : 2 * size]).chunk(2, dim=1)
        new = torch.tanh(of_input[..., 2 * size :] + reset * of_state[:, 2 * size :])
        return (torch.lerp(new, h, update),)


class RecurrentStack(nn.Module):
    """Layers of one cell, dropout between them.

    Args:
        cell: name in ``CELLS``.
        input_dim: I, size of the first layer's input.
        hidden_dim: H.
        num_layers: at least 1.
        bidirectional: run every layer both ways; outputs then have size 2H, and only ``forward`` can be used.
        dropout: applied between layers; None = none.
    """

    def __init__(
        self,
        cell: str,
        input_dim: int,
        hidden_dim: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: Optional[nn.Module] = None,
    ):
        super().__init__()
        self.output_dim = hidden_dim * (2 if bidirectional else 1)
        self.layers = nn.ModuleList(
            CELLS[cell](
                input_dim if layer == 0 else self.output_dim, hidden_dim, batch_first=True, bidirectional=bidirectional
            )
            for layer in range(num_layers)
        )
        self.dropout = dropout or nn.Identity()

    @property
    def state_tensors(self) -> int:
        """Number of tensors in one layer's state."""
        return self.layers[0].state_tensors

    def forward(self, inputs: Inputs, state: Optional[List[LayerState]] = None) -> Tuple[Inputs, List[LayerState]]:
        """A whole sequence, one call of torch's kernel a layer.

        Args:
            inputs: B×T×I, or a packed sequence.
            state: per layer, B×H tensors (one direction); None = zeros.

        Returns:
            outputs of the top layer, B×T×DH or packed; per layer, the final state, B×DH.
        """
        final = []
        for depth, layer in enumerate(self.layers):
            if depth:
                inputs = self._drop(inputs)
            before = None if state is None else tuple(part.unsqueeze(0).contiguous() for part in state[depth])
            inputs, after = layer.run(inputs, before)
            final.append(tuple(part.transpose(0, 1).flatten(1) for part in after))  # D×B×H → B×DH
        return inputs, final

    def _drop(self, inputs: Inputs) -> Inputs:
        if isinstance(inputs, PackedSequence):
            return inputs._replace(data=self.dropout(inputs.data))
        return self.dropout(inputs)

    def stepper(
        self, inputs: Tensor
    ) -> Callable[[int, Optional[Tensor], List[LayerState]], List[LayerState]]:
        """Hoists what does not depend on the recurrence, and returns the function that does one step.

        Args:
            inputs: B×T×I', the first I' columns of the first layer's input at all steps.

        Returns:
            step(t, fed, state) → state, where ``fed`` is B×(I - I'), the other columns, or None where I' = I.
        """
        known = self.layers[0].gates_of(inputs)
        biases = [layer.input_bias() for layer in self.layers]

        def step(t: int, fed: Optional[Tensor], state: List[LayerState]) -> List[LayerState]:
            after = [self.layers[0].step(known[:, t], fed, state[0])]
            for depth in range(1, len(self.layers)):
                after.append(self.layers[depth].step(biases[depth], self.dropout(after[-1][0]), state[depth]))
            return after

        return step
