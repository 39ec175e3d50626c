"""Attention: score, normalise, average. The only place where the three meet."""

from typing import Any, Dict, NamedTuple, Optional

from torch import Tensor, nn

from ..carry import Tree, tree_map
from ..recurrence.shared_products import multiply
from .memory import AttentionMemory
from .normalizers import AttentionNormalizer
from .scores import AttentionScore


class Attended(NamedTuple):
    """What attention gives."""

    context: Tensor
    """c(t), R×T×M, in the type of the query."""

    weights: Tensor
    """a(t), R×T×S in float32 (see ``AttentionNormalizer``), before dropout."""

    state: Dict[str, Tree]
    """What its parts remember after the step; empty where none does."""


class Attention(nn.Module):
    """a(t) = normalise(score(q(t), k)), c(t) = sum over j of a(t, j) v(j).

    A score or a normaliser may remember: it then says ``remembers = True``, has a method ``first(memory)`` that gives
    what it remembers before the first step (tensors of B rows, alone or in lists, tuples, dictionaries), and is called
    with one more argument, the tensors that it remembers, B×n×… for the n rows of each sentence; it returns a pair, its
    result and what it remembers from then on. Reordering in the search is not its business.

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

    @property
    def remembers(self) -> bool:
        """Whether a step depends on those before, by other ways than the query."""
        return self.score.remembers or self.normalizer.remembers

    def first(self, memory: AttentionMemory) -> Dict[str, Tree]:
        """What the parts remember before the first step, R rows each."""
        parts: Dict[str, Any] = {"score": self.score, "normalizer": self.normalizer}
        state = {name: part.first(memory) for name, part in parts.items() if part.remembers}
        return tree_map(memory.each_row, state)

    def forward(self, query: Tensor, memory: AttentionMemory, state: Optional[Dict[str, Tree]] = None) -> Attended:
        """
        Args:
            query: R×T×Q, one row for each of the memory's rows; T = 1 where a part remembers.
            memory: B sentences, R = B without search.
            state: what the parts remember; None where none does.
        """
        (rows, steps, _), beam = query.shape, memory.beam
        if self.query_projection is not None:
            query = self.query_projection(query)
        if beam > 1:  # the hypotheses of a sentence are further steps of it: values and keys are never expanded
            query = query.reshape(rows // beam, beam * steps, -1)
        state = tree_map(lambda tensor: tensor.unflatten(0, (-1, beam)), state or {})
        scores = self._ask("score", state, query, memory.keys)
        weights = self._ask("normalizer", state, scores, memory.padding_mask)
        context = multiply(self.dropout(weights), memory.values).type_as(query)
        state = tree_map(lambda tensor: tensor.flatten(0, 1), state)
        if beam > 1:
            context, weights = context.reshape(rows, steps, -1), weights.reshape(rows, steps, -1)
        return Attended(context, weights, state)

    def _ask(self, name: str, state: Dict[str, Tree], *inputs) -> Tensor:
        """What a part gives; what it remembers is put into ``state``."""
        part = getattr(self, name)
        if not part.remembers:
            return part(*inputs)
        result, state[name] = part(*inputs, state[name])
        return result
