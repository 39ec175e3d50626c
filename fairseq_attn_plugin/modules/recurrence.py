"""A stack of recurrent layers over a whole sequence, or one step at a time with everything hoisted.

A stack's state is a list of its layers' states.
"""

from typing import Callable, List, Optional, Sequence, Tuple

from torch import Tensor, nn

from .padding import Padding
from .recurrent_cells import CELLS, LayerState
from .step_tapes import FunctionTape, Grads, PreparedWeights, add, dropout_tape

Step = Callable[[int, Optional[Tensor], List[LayerState]], Tuple[Tensor, List[LayerState]]]


class RecurrentStack(nn.Module):
    """Layers of one cell, dropout between them.

    Residual connections and layer norm change what leaves a layer, never its recurrence; both come after the cell, so
    that torch's kernels serve: output(l) = norm(h(l) + output(l-1)), from the second layer on (Wu et al., 2016, eq. 6).

    Args:
        cell: name in ``CELLS``.
        input_dim: I, size of the first layer's input.
        hidden_dim: H.
        num_layers: at least 1.
        bidirectional: run every layer both ways; outputs then have size 2H, and only ``forward`` can be used.
        dropout: applied between layers; None = none.
        residual: add a layer's input to its output; the first layer, whose input has another size, goes without.
        layer_norm: normalise the outputs of every layer (Ba et al., 2016, eq. 4).
    """

    def __init__(
        self,
        cell: str,
        input_dim: int,
        hidden_dim: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: Optional[nn.Module] = None,
        residual: bool = False,
        layer_norm: bool = False,
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
        self.residual = residual
        self.norms = nn.ModuleList(nn.LayerNorm(self.output_dim) for _ in self.layers) if layer_norm else None

    @property
    def state_tensors(self) -> int:
        """Number of tensors in one layer's state."""
        return self.layers[0].state_tensors

    def forward(
        self, inputs: Tensor, state: Optional[List[LayerState]] = None, padding_mask: Optional[Tensor] = None
    ) -> Tuple[Tensor, List[LayerState]]:
        """A whole sequence, one call of torch's kernel a layer.

        Args:
            inputs: B×T×I.
            state: per layer, B×H tensors (one direction); None = zeros.
            padding_mask: B×T bool, True = padding, which goes with a state of zeros; None = no padding.

        Returns:
            outputs of the top layer, B×T×DH, zero on padding; per layer, the final state, B×DH.
        """
        padding = None if padding_mask is None else Padding(padding_mask)
        final, below = [], inputs
        for depth, layer in enumerate(self.layers):
            of_layer = self.dropout(below) if depth else below
            if padding is None:
                before = None if state is None else tuple(part.unsqueeze(0).contiguous() for part in state[depth])
                outputs, after = layer.run(of_layer, before)
            else:
                outputs, after = layer.run_padded(of_layer, padding)
            final.append(tuple(part.transpose(0, 1).flatten(1) for part in after))  # D×B×H → B×DH
            below = self._leave(depth, outputs, below)
        return below if padding is None else below.masked_fill(padding_mask.unsqueeze(2), 0.0), final

    def _leave(self, depth: int, h: Tensor, below: Optional[Tensor]) -> Tensor:
        """What leaves a layer: its state, with the residual connection and the norm where they are asked for."""
        if self.residual and depth:
            h = h + below
        return h if self.norms is None else self.norms[depth](h)

    def stepper(self, inputs: Optional[Tensor]) -> Step:
        """Hoists what does not depend on the recurrence, and returns the function that does one step.

        Args:
            inputs: B×T×I', the first I' columns of the first layer's input at all steps; None where I' = 0.

        Returns:
            step(t, fed, state) → (output, state), where ``fed`` is B×(I - I'), the other columns, or None where
            I' = I; ``output`` is that of the top layer, B×H.
        """
        known = None if inputs is None else self.layers[0].gates_of(inputs).unbind(1)
        biases = [layer.input_bias() for layer in self.layers]

        def step(t: int, fed: Optional[Tensor], state: List[LayerState]) -> Tuple[Tensor, List[LayerState]]:
            after, below = [], None
            for depth, layer in enumerate(self.layers):
                if depth == 0:
                    after.append(layer.step(biases[0] if known is None else known[t], fed, state[0]))
                else:
                    after.append(layer.step(biases[depth], self.dropout(below), state[depth]))
                below = self._leave(depth, after[-1][0], below)
            return below, after

        return step

    def tape(self, prepared: PreparedWeights, known: Optional[Tensor], steps: int) -> "StackTape":
        """The layers' steps for a ``FusedLoop``; ``known`` is ``inputs`` of ``stepper``."""
        return StackTape(self, prepared, known, steps)


class StackTape:
    """See ``step_tapes``: a step takes B×X tensors, the other columns of the first layer's input, and the state."""

    def __init__(self, stack: RecurrentStack, prepared: PreparedWeights, known: Optional[Tensor], steps: int):
        depth = len(stack.layers)
        self.residual = stack.residual
        self.cells = [
            layer.tape_class(layer, prepared, of_inputs, steps)
            for layer, of_inputs in zip(stack.layers, [known] + [None] * (depth - 1))
        ]
        self.norms = [None] * depth
        if stack.norms is not None:
            self.norms = [FunctionTape(norm, module=norm) for norm in stack.norms]
        self.dropouts = [dropout_tape(stack.dropout, steps) for _ in self.cells]
        self._tapes = [*self.cells, *(norm for norm in self.norms if norm is not None)]

    @property
    def shared(self) -> List[Optional[Tensor]]:
        return [tensor for tape in self._tapes for tensor in tape.shared]

    def shared_grads(self) -> Grads:
        return [grad for tape in self._tapes for grad in tape.shared_grads()]

    def forward(self, t: int, fed: Sequence[Tensor], state: List[LayerState]) -> Tuple[Tensor, List[LayerState]]:
        after, below = [], None
        for depth, cell in enumerate(self.cells):
            dropout, norm = self.dropouts[depth], self.norms[depth]
            if depth:
                fed = [below if dropout is None else dropout.forward(t, below)]
            after.append(cell.forward(t, fed, state[depth]))
            h = after[-1][0]
            h = h + below if self.residual and depth else h
            below = h if norm is None else norm.forward(t, h)
        return below, after

    def backward(self, t: int, top: Optional[Tensor], states: List[Grads]) -> Optional[Tensor]:
        """Gradient of the output, and of the states after the step, which become those of the states before → gradient
        of ``fed``, side by side."""
        below = top
        for depth in reversed(range(len(self.cells))):
            dropout, norm = self.dropouts[depth], self.norms[depth]
            left = below if norm is None or below is None else norm.backward(t, below)
            states[depth][0] = add(states[depth][0], left)
            if all(grad is None for grad in states[depth]):
                below = left
                continue
            below, states[depth] = self.cells[depth].backward(t, states[depth])
            if depth:
                below = below if dropout is None else dropout.backward(t, below)
                below = add(below, left if self.residual else None)
        return below
