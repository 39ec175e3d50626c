"""The decoder's own past: a second attention, over the decoder's earlier states."""

from typing import Dict

import torch
from torch import Tensor, nn

from ..recurrence.shared_products import PLAIN
from .attention import Attention
from .memory import AttentionMemory


class OwnPast(nn.Module):
    """c'(t) = attention of q(t) over s(1), ..., s(t-1), and zero at the first step (Cheng et al., 2016, section 3.1;
    Paulus et al., 2018, section 2.2). The states are kept, in the search one more for each hypothesis at every step.

    Args:
        keys: key half of the score, which makes each key of one state alone.
        attention: of which nothing remembers.
        state_dim: H, size of a state.
    """

    def __init__(self, keys: nn.Module, attention: Attention, state_dim: int):
        super().__init__()
        self.keys = keys
        self.attention = attention
        self.state_dim = state_dim

    def first(self, state: Tensor) -> Dict[str, Tensor]:
        """What is remembered before the first step: R×0×H states and their keys, in the type of ``state``, R×H."""
        values = state.new_zeros(state.size(0), 0, self.state_dim)
        return {"values": values, "keys": self.keys(values)}

    def append(self, remembered: Dict[str, Tensor], state: Tensor) -> Dict[str, Tensor]:
        """With s(t), R×H, behind the others."""
        value = state.unsqueeze(1)
        new = {"values": value, "keys": self.keys(value)}
        return {name: torch.cat([part, new[name].type_as(part)], dim=1) for name, part in remembered.items()}

    def forward(self, query: Tensor, remembered: Dict[str, Tensor]) -> Tensor:
        """q(t), R×Q → c'(t), R×H."""
        if not remembered["values"].size(1):
            return query.new_zeros(query.size(0), self.state_dim)
        with PLAIN.active():  # no two steps read the same states
            memory = AttentionMemory(remembered["values"], remembered["keys"])
            return self.attention(query.unsqueeze(1), memory).context.squeeze(1)
