"""A stack of recurrent layers, over whole sequences or one step at a time. Its state: those of its layers in a list."""

from typing import Any, List, Mapping, Optional, Sequence, Tuple, cast

from torch import Tensor, nn

from ..trial import checked
from .cells import CELLS, LayerState, RecurrentLayer
from .padding import Padding
from .pyramid import join_levels
from .shared_products import once


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
        options: further arguments of the cell.
        pyramid: that many layers, from the second on, read pairs of neighbours in the outputs of the layer below (Chan
            et al., 2016, eq. 5), which halves the length; their inputs have another size than their outputs, so they
            have no residual connection. Only ``forward`` can be used.
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
        options: Optional[Mapping[str, Any]] = None,
        pyramid: int = 0,
    ):
        super().__init__()
        self.output_dim = hidden_dim * (2 if bidirectional else 1)
        self.pyramid = pyramid
        inputs = [input_dim, *((1 + self._joins(layer)) * self.output_dim for layer in range(1, num_layers))]
        layers = nn.ModuleList(_layer(cell, size, hidden_dim, bidirectional, options=options or {}) for size in inputs)
        self.layers = cast(Sequence[RecurrentLayer], layers)  # torch does not say what a list holds
        self.dropout = dropout or nn.Identity()
        self.residual = residual
        self.norms = nn.ModuleList(nn.LayerNorm(self.output_dim) for _ in self.layers) if layer_norm else None

    @property
    def state_tensors(self) -> int:
        """Number of tensors in one layer's state."""
        return self.layers[0].state_tensors

    def forward(
        self, inputs: Tensor, state: Optional[List[LayerState]] = None, padding: Optional[Padding] = None
    ) -> Tuple[Tensor, List[LayerState]]:
        """A whole sequence, one layer after the other.

        Args:
            inputs: B×T×I.
            state: per layer, B×H tensors (one direction); None = zeros.
            padding: where the inputs are padding, which goes with a state of zeros; None = nowhere.

        Returns:
            outputs of the top layer, B×T×DH, zero on padding; per layer, the final state, B×DH. With a pyramid, the T
            columns and the padding of the outputs are those of ``join_levels``.
        """
        final, below = [], inputs
        for depth, layer in enumerate(self.layers):
            of_layer = self.dropout(below) if depth else below
            of_layer, padding = join_levels(of_layer, padding, int(self._joins(depth)))
            before = None if state is None else tuple(part.unsqueeze(0).contiguous() for part in state[depth])
            outputs, after = layer.sequence(of_layer, before, padding)
            final.append(tuple(part.transpose(0, 1).flatten(1) for part in after))  # D×B×H → B×DH
            below = self._leave(depth, outputs, below)
        return below if padding is None else below.masked_fill(padding.mask.unsqueeze(2), 0.0), final

    def step(self, inputs: Sequence[Tensor], state: List[LayerState]) -> Tuple[Tensor, List[LayerState]]:
        """One step of all layers: B×X tensors, side by side the first layer's input, and the state before → output of
        the top layer, B×H, and the state after."""
        after: List[LayerState] = []
        below = inputs[0]  # until the first layer has left something
        for depth, layer in enumerate(self.layers):
            of_layer: Sequence[Tensor] = (self.dropout(below),) if depth else inputs
            after.append(layer(of_layer, state[depth], once(layer.weights)))
            below = self._leave(depth, after[-1][0], below)
        return below, after

    def _joins(self, depth: int) -> bool:
        """Whether a layer reads pairs."""
        return 0 < depth <= self.pyramid

    def _leave(self, depth: int, h: Tensor, below: Tensor) -> Tensor:
        """What leaves a layer: its state, with the residual connection and the norm where they are asked for."""
        if self.residual and depth and not self._joins(depth):
            h = h + below
        return h if self.norms is None else self.norms[depth](h)


def _layer(cell: str, *sizes: int, options: Mapping[str, Any]) -> RecurrentLayer:
    """One layer, of these arguments and options."""
    takes = "takes (input_dim, hidden_dim, bidirectional)"
    return checked(f"{CELLS.flag} {cell}", CELLS[cell], "", lambda cls: cls(*sizes, **options), takes)


def flatten_state(state: List[LayerState]) -> List[Tensor]:
    """Per layer a tuple → one list, layer by layer."""
    return [part for layer in state for part in layer]


def unflatten_state(tensors: List[Tensor], state_tensors: int) -> List[LayerState]:
    """Inverse of ``flatten_state``."""
    return [tuple(tensors[i : i + state_tensors]) for i in range(0, len(tensors), state_tensors)]
