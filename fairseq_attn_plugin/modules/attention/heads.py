"""Heads: several attentions side by side, each with keys, query and values of its own."""

from dataclasses import replace
from typing import Dict, List, Optional, Sequence, cast

import torch
from torch import Tensor, nn

from ..carry import Tree
from ..recurrence.shared_products import Linear, once
from .attention import Attended, Attention
from .memory import AttentionMemory


class HeadKeys(nn.Module):
    """Key halves of several heads, side by side.

    Args:
        heads: the key half of each head.
    """

    def __init__(self, heads: Sequence[nn.Module]):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, values: Tensor, padding_mask: Optional[Tensor] = None) -> Tensor:
        """B×S×M values → B×S×(N·A) keys."""
        return torch.cat([head(values, padding_mask) for head in self.heads], dim=2)


class MultiHeadAttention(nn.Module):
    """c(t) = W [c_1(t); ...; c_N(t)], each c_i of an attention of its own (Vaswani et al., 2017, section 3.2.2; with a
    recurrent decoder Chiu et al., 2018, section 3.1). The memory's keys and values are those of the heads side by side.

    Args:
        heads: N attentions, of equal sizes.
        context_dim: M, size of a value and of the context; a multiple of N.
    """

    def __init__(self, heads: Sequence[Attention], context_dim: int):
        super().__init__()
        self.heads = cast(Sequence[Attention], nn.ModuleList(heads))  # torch does not say what a list holds
        self.output = Linear(context_dim, context_dim, bias=False)

    @property
    def remembers(self) -> bool:
        """See :class:`Attention`."""
        return self.heads[0].remembers

    @property
    def takes_all_steps(self) -> bool:
        """See :class:`Attention`."""
        return self.heads[0].takes_all_steps

    def first(self, memory: AttentionMemory) -> Dict[str, Tree]:
        """What the heads remember before the first step, R rows each."""
        return {str(i): head.first(part) for i, (head, part) in enumerate(zip(self.heads, self._parts(memory)))}

    def forward(
        self, query: Tensor, memory: AttentionMemory, state: Optional[Dict[str, Tree]] = None, position: int = 0
    ) -> Attended:
        """As of :class:`Attention`; the weights are the mean of those of the heads."""
        found: List[Attended] = [
            head(query, part, state and state[str(i)], position)
            for i, (head, part) in enumerate(zip(self.heads, self._parts(memory)))
        ]
        return Attended(
            context=self.output(torch.cat([each.context for each in found], dim=2)),
            weights=torch.stack([each.weights for each in found]).mean(dim=0),
            state={str(i): each.state for i, each in enumerate(found)} if self.remembers else {},
        )

    def _parts(self, memory: AttentionMemory) -> List[AttentionMemory]:
        """What each head reads."""
        values = once(_split, memory.values, len(self.heads))
        keys = once(_split, memory.keys, len(self.heads))
        return [replace(memory, values=value, keys=key) for value, key in zip(values, keys, strict=True)]


def _split(tensor: Tensor, parts: int) -> Sequence[Tensor]:
    """B×S×(N·A) → N tensors B×S×A, each by itself in memory, as products are fastest."""
    return [part.contiguous() for part in tensor.chunk(parts, dim=2)]
