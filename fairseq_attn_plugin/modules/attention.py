"""Attention: score, normalise, average. The only place where the three meet."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from .attention_memory import AttentionMemory
from .attention_scores import AttentionScore
from .attention_tapes import LinearThen, MemoryTape
from .normalizers import AttentionNormalizer
from .step_tapes import Grads, PreparedWeights, add, dropout_tape, linear_tape


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
        memory, beam = memory.by_sentence()
        if self.query_projection is not None:
            query = self.query_projection(query)
        # the hypotheses of a sentence are further steps of that sentence: values and keys are never expanded
        query = query.reshape(rows // beam, beam * steps, -1)
        weights = self.normalizer(self.score(query, memory.keys), memory.padding_mask)
        context = torch.bmm(self.dropout(weights).type_as(memory.values), memory.values)
        return context.view(rows, steps, -1), weights.view(rows, steps, -1)

    def tape(self, memory: AttentionMemory, prepared: PreparedWeights, steps: int) -> "AttentionTape":
        """Itself for the steps of a ``FusedLoop``."""
        return AttentionTape(self, memory, prepared, steps)


class AttentionTape:
    """See ``step_tapes``: a step takes R×Q queries, and gives R×M contexts and R×1×S weights."""

    def __init__(self, attention: Attention, memory: AttentionMemory, prepared: PreparedWeights, steps: int):
        # whether the beams are whole is asked of the device only when the rows have changed
        parts = (memory.values, memory.keys, memory.padding_mask, memory.row_index)
        memory, self.beam = prepared.once("memory", parts, memory.by_sentence)
        self.score = attention.score.tape(memory.keys, prepared, steps)
        if attention.query_projection is not None:
            self.score = LinearThen(linear_tape(prepared, [attention.query_projection.weight], steps=steps), self.score)
        self.normalizer = attention.normalizer.tape(memory.padding_mask)
        self.dropout = dropout_tape(attention.dropout, steps)
        self.contexts = MemoryTape(memory.values, False, steps, prepared.dtype)

    @property
    def shared(self) -> List[Optional[Tensor]]:
        return [*self.score.shared, *self.contexts.shared]

    def forward(self, t: int, query: Tensor) -> Tuple[Tensor, Tensor]:
        rows = query.size(0)
        weights = self.normalizer.forward(t, self.score.forward(t, query.view(rows // self.beam, self.beam, -1)))
        kept = weights if self.dropout is None else self.dropout.forward(t, weights)
        context = self.contexts.forward(t, kept).view(rows, -1)
        return context.type_as(query), weights.view(rows, 1, -1)

    def backward(self, t: int, of_context: Optional[Tensor], of_weights: Optional[Tensor]) -> Optional[Tensor]:
        """Gradients of both, None for zero → that of the query."""
        if of_context is not None:
            of_kept = self.contexts.backward(t, of_context.unsqueeze(1))
            of_weights = add(of_weights, of_kept if self.dropout is None else self.dropout.backward(t, of_kept))
        if of_weights is None:
            return None
        of_query = self.score.backward(t, self.normalizer.backward(t, of_weights))
        return None if of_query is None else of_query.squeeze(1)

    def shared_grads(self) -> Grads:
        return [*self.score.shared_grads(), *self.contexts.shared_grads()]
