"""Scores: how well each source position answers the decoder's query.

A score has two halves. The key half runs once a sentence, in the encoder; the score half runs for every query, in the
decoder. Both see sizes after the common projection of ``--attention-dim``, where that is given.
"""

import math
from typing import Optional

import torch
from torch import Tensor, nn

from .registry import Registry


class AttentionKeys(nn.Module):
    """Key half of a score: values → keys, by a linear map without bias, or the values themselves.

    Args:
        value_dim: M, size of an encoder output.
        attention_dim: A, size of a key; None = the keys are the values, and no copy is made.
    """

    def __init__(self, value_dim: int, attention_dim: Optional[int] = None):
        super().__init__()
        self.projection = None if attention_dim is None else nn.Linear(value_dim, attention_dim, bias=False)

    def forward(self, values: Tensor, padding_mask: Optional[Tensor] = None) -> Tensor:
        """B×S×M values, B×S bool mask (True = padding) or None → B×S×A keys."""
        return values if self.projection is None else self.projection(values)


class AttentionScore(nn.Module):
    """Score half: a subclass writes ``forward``, and ``__init__`` where it has parameters.

    Args:
        query_dim: size of a query, after the projection of ``--attention-dim``.
        key_dim: A, size of a key.
    """

    keys_class = AttentionKeys
    """The key half that belongs to this score."""

    reads_query = True
    """False where the score does not depend on the query: then there is nothing for ``--attention-dim`` to project."""

    always_projects = False
    """True where the score is defined on projections: ``--attention-dim`` then defaults to the query's size."""

    needs_equal_sizes = False
    """True where query and keys must have one size."""

    def __init__(self, query_dim: int, key_dim: int):
        super().__init__()

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """B×T×Q queries, B×S×A keys → B×T×S scores; padding is masked later."""
        raise NotImplementedError


ATTENTION_SCORES: Registry[AttentionScore] = Registry("--attention-score")


@ATTENTION_SCORES.register("dot")
class DotScore(AttentionScore):
    """e(j) = q · k(j) (Luong et al., 2015, eq. 8)."""

    needs_equal_sizes = True

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.bmm(query, keys.transpose(1, 2))


@ATTENTION_SCORES.register("scaled_dot")
class ScaledDotScore(DotScore):
    """e(j) = q · k(j) / sqrt(A) (Vaswani et al., 2017, eq. 1)."""

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return super().forward(query / math.sqrt(keys.size(2)), keys)


@ATTENTION_SCORES.register("general")
class GeneralScore(AttentionScore):
    """e(j) = q · (W k(j)), computed as (W' q) · k(j), so that the keys stay as they are (Luong et al., 2015, eq. 8)."""

    def __init__(self, query_dim: int, key_dim: int):
        super().__init__(query_dim, key_dim)
        self.linear = nn.Linear(query_dim, key_dim, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.bmm(self.linear(query), keys.transpose(1, 2))


@ATTENTION_SCORES.register("additive")
class AdditiveScore(AttentionScore):
    """e(j) = u · tanh(W_q q + W_k v(j) + b) (Bahdanau et al., 2015, appendix A.1.2).

    W_q and W_k are the projections to ``--attention-dim``: query and keys arrive here projected.
    """

    always_projects = True
    needs_equal_sizes = True

    def __init__(self, query_dim: int, key_dim: int):
        super().__init__(query_dim, key_dim)
        self.bias = nn.Parameter(torch.zeros(key_dim))
        self.vector = nn.Parameter(torch.empty(key_dim).uniform_(-1.0, 1.0) / math.sqrt(key_dim))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        hidden = (query + self.bias).unsqueeze(2) + keys.unsqueeze(1)  # B×T×S×A
        return torch.tanh(hidden).matmul(self.vector)


class LastKeys(AttentionKeys):
    """0 at the last token that is not padding, -inf elsewhere: B×S×1."""

    def forward(self, values: Tensor, padding_mask: Optional[Tensor] = None) -> Tensor:
        positions = torch.arange(values.size(1), device=values.device).expand(values.size(0), -1)
        if padding_mask is not None:
            positions = positions.masked_fill(padding_mask, -1)
        is_last = positions == positions.amax(dim=1, keepdim=True)
        return torch.zeros_like(values[:, :, :1]).masked_fill(~is_last.unsqueeze(2), float("-inf"))


@ATTENTION_SCORES.register("last")
class LastScore(AttentionScore):
    """All weight on the last token: the fixed context of Cho et al. (2014), a baseline for attention."""

    keys_class = LastKeys
    reads_query = False

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return keys.transpose(1, 2).expand(-1, query.size(1), -1)
