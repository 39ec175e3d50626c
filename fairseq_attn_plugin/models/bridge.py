"""Bridges: the decoder's first state from the encoder's last one."""

from typing import ClassVar, List, Sequence, Tuple, cast

import torch
from torch import nn

from ..modules.attention.memory import AttentionMemory
from ..modules.options import Option
from ..modules.recurrence.cells import LayerState
from ..modules.registry import Registry


class Bridge(nn.Module):
    """Decoder layer l starts from encoder layer min(l, top).

    Args:
        encoder_dim: M, width of an encoder layer's state (both directions side by side).
        hidden_dim: H, width of a decoder layer's state.
        num_layers: decoder layers.
        state_tensors: tensors in a layer's state (2 for an LSTM).
    """

    options: ClassVar[Tuple[Option, ...]] = ()
    """Options that mean something to this bridge alone."""

    needs_equal_sizes = False
    """True where M must equal H."""

    needs_backward_encoder = False
    """True where the encoder must read both ways."""

    reads_states = True
    """Whether the final states of the encoder's layers matter."""

    reads_top = False
    """Whether every decoder layer starts from the encoder's top layer."""

    reads_values = False
    """Whether the outputs of its top layer do."""

    def __init__(self, encoder_dim: int, hidden_dim: int, num_layers: int, state_tensors: int):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers

    def forward(self, final_state: List[LayerState], memory: AttentionMemory) -> List[LayerState]:
        """Per encoder layer, R×M tensors, and the values that R rows read → per decoder layer, R×H tensors."""
        top = len(final_state) - 1
        return [self.bridge(layer, final_state[min(layer, top)]) for layer in range(self.num_layers)]

    def bridge(self, layer: int, state: LayerState) -> LayerState:
        """First state of one decoder layer from the encoder layer that it belongs to."""
        raise NotImplementedError


BRIDGES: Registry[Bridge] = Registry("--bridge", Bridge)


@BRIDGES.register("zero")
class ZeroBridge(Bridge):
    """Zeros: all that the decoder learns of the source comes through the attention."""

    reads_states = False

    def bridge(self, layer: int, state: LayerState) -> LayerState:
        return tuple(part.new_zeros(part.size(0), self.hidden_dim) for part in state)


@BRIDGES.register("copy")
class CopyBridge(Bridge):
    """The encoder's state itself (Sutskever et al., 2014; Luong et al., 2015)."""

    needs_equal_sizes = True

    def bridge(self, layer: int, state: LayerState) -> LayerState:
        return state


@BRIDGES.register("linear")
class LinearBridge(Bridge):
    """A linear map with bias for each decoder layer and each tensor of its state."""

    def __init__(self, encoder_dim: int, hidden_dim: int, num_layers: int, state_tensors: int):
        super().__init__(encoder_dim, hidden_dim, num_layers, state_tensors)
        projections = nn.ModuleList(
            nn.ModuleList(nn.Linear(encoder_dim, hidden_dim) for _ in range(state_tensors)) for _ in range(num_layers)
        )
        self.projections = cast(Sequence[Sequence[nn.Linear]], projections)  # torch does not say what a list holds

    def bridge(self, layer: int, state: LayerState) -> LayerState:
        return tuple(project(part) for project, part in zip(self.projections[layer], state, strict=True))


@BRIDGES.register("tanh")
class TanhBridge(LinearBridge):
    """tanh of such a map."""

    def bridge(self, layer: int, state: LayerState) -> LayerState:
        return tuple(torch.tanh(part) for part in super().bridge(layer, state))


@BRIDGES.register("backward")
class BackwardBridge(TanhBridge):
    """tanh(W h + b) of the backward encoder's state at the first token (Bahdanau et al., 2015, A.2.2)."""

    needs_backward_encoder = True

    def __init__(self, encoder_dim: int, hidden_dim: int, num_layers: int, state_tensors: int):
        super().__init__(encoder_dim // 2, hidden_dim, num_layers, state_tensors)

    def bridge(self, layer: int, state: LayerState) -> LayerState:
        return super().bridge(layer, tuple(part[:, part.size(1) // 2 :] for part in state))


@BRIDGES.register("shared")
class SharedBridge(Bridge):
    """tanh(W h + b) of the top encoder layer's h, by one map, for every decoder layer and every tensor of its state, h
    and c of an LSTM alike (``init_hidden: bridge`` of JoeyNMT, Kreutzer et al., 2019)."""

    reads_top = True

    def __init__(self, encoder_dim: int, hidden_dim: int, num_layers: int, state_tensors: int):
        super().__init__(encoder_dim, hidden_dim, num_layers, state_tensors)
        self.projection = nn.Linear(encoder_dim, hidden_dim)

    def forward(self, final_state: List[LayerState], memory: AttentionMemory) -> List[LayerState]:
        return super().forward(final_state[-1:], memory)

    def bridge(self, layer: int, state: LayerState) -> LayerState:
        return (torch.tanh(self.projection(state[0])),) * len(state)


@BRIDGES.register("mean")
class MeanBridge(TanhBridge):
    """tanh(W m + b) of the mean m of the encoder's outputs (Sennrich et al., 2017, section 2)."""

    reads_states = False
    reads_values = True

    def forward(self, final_state: List[LayerState], memory: AttentionMemory) -> List[LayerState]:
        mean = memory.mean()
        return super().forward([(mean,) * len(state) for state in final_state], memory)
