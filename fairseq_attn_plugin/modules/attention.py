"""Attention: score, normalise, average. The only place where the three meet."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from .attention_memory import AttentionMemory
from .attention_scores import AttentionScore
from .normalizers import AttentionNormalizer


class Attention(nn.Module):
    """a(t) = normalise(score(q(t), k)), c(t) = sum over j of a(t, j) v(j).

    Args:
        score: the score half; the memory's keys come from its key half.
        normalizer: scores → weights.
        query_projection: Q → A, None where the score takes the query as it is.
        dropout: applied to the normalised weights; those that are returned are the weights before dropout.
    """

    def __init__(
        self,
        score: AttentionScore,
        normalizer: AttentionNormalizer,
        query_projection: Optional[nn.Linear] = None,
        dropout: Optional[nn.Module] = None,
    ):
        super().__init__()
        self.query_projection = query_projection
        self.score = score
        self.normalizer = normalizer
        self.dropout = dropout or nn.Identity()

    def forward(self, query: Tensor, memory: AttentionMemory) -> Tuple[Tensor, Tensor]:
        """
        Args:
            query: R×T×Q, one row for each of the memory's rows.
            memory: B sentences, R = B without search.

        Returns:
            R×T×M contexts in the type of the values, R×T×S weights in float32 (see ``AttentionNormalizer``).
        """
        rows, steps, _ = query.shape
        beam = memory.beam_size()
        if beam is None:
            memory, beam = memory.select(memory.row_index), 1
        if self.query_projection is not None:
            query = self.query_projection(query)
        # the hypotheses of a sentence are further steps of that sentence: values and keys are never expanded
        query = query.reshape(rows // beam, beam * steps, -1)
        weights = self.normalizer(self.score(query, memory.keys), memory.padding_mask)
        context = torch.bmm(self.dropout(weights).type_as(memory.values), memory.values)
        return context.view(rows, steps, -1), weights.view(rows, steps, -1)
