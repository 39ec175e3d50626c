"""Attention: history, score, window, normaliser, addressing, average. The only place where they meet."""

from typing import Any, Dict, NamedTuple, Optional

import torch
from torch import Tensor, nn

from ..carry import Tree, tree_map
from ..recurrence.shared_products import PLAIN, multiply, once
from .addressings import AttentionAddressing
from .histories import AttentionHistory
from .memory import AttentionMemory
from .normalizers import AttentionNormalizer
from .scores import AttentionScore
from .windows import AttentionWindow


class Attended(NamedTuple):
    """What attention gives."""

    context: Tensor
    """c(t), R×T×M, in the type of the query."""

    weights: Tensor
    """a(t), R×T×S in float32 (see ``AttentionNormalizer``), before dropout."""

    state: Dict[str, Tree]
    """What its parts remember after the step; empty where none does."""


class Attention(nn.Module):
    """Of a query q(t), keys k and values v::

        e(t, j) = score(q(t), k(j) + history(t, j)) + window(t, j),  w(t) = normalise(e(t))
        a(t) = address(w(t), a(t-1)),  c(t) = sum over j of a(t, j) v(j)

    A part may remember: it then says ``remembers = True`` and has a method ``first(memory)`` that gives what it
    remembers before the first step (tensors of B rows, alone or in lists, tuples, dictionaries). A score, a normaliser
    or an addressing that remembers is called with one more argument, these tensors, B×n×… for the n rows of each
    sentence, and returns a pair, its result and what it remembers from then on; for a history see its class.
    Reordering in the search is not their business.

    Args:
        score: the score half; the memory's keys come from its key half.
        normalizer: scores → weights.
        query_projection: Q → A, None where the score takes the query as it is; the other parts always do.
        dropout: applied to the weights; those that are returned are the weights before dropout.
        history: what was attended to so far, as part of the keys; None = none.
        window: where the attention may look; None = everywhere.
        addressing: weights of this step from those of the step before; None = they are the normaliser's.
    """

    def __init__(
        self,
        score: AttentionScore,
        normalizer: AttentionNormalizer,
        query_projection: Optional[nn.Linear] = None,
        dropout: Optional[nn.Module] = None,
        history: Optional[AttentionHistory] = None,
        window: Optional[AttentionWindow] = None,
        addressing: Optional[AttentionAddressing] = None,
    ):
        super().__init__()
        self.query_projection = query_projection
        self.score = score
        self.normalizer = normalizer
        self.dropout = dropout or nn.Identity()
        self.history = history
        self.window = window
        self.addressing = addressing

    def _parts_that_remember(self) -> Dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("score", "normalizer", "history", "addressing")}
        return {name: part for name, part in parts.items() if part is not None and part.remembers}

    @property
    def remembers(self) -> bool:
        """Whether a step depends on those before, by other ways than the query."""
        return bool(self._parts_that_remember())

    @property
    def takes_all_steps(self) -> bool:
        """Whether several queries of one sentence can be asked at once, in their order: where nothing remembers, or the
        addressing alone, which comes after all that is worked out at once and goes from step to step by itself."""
        return set(self._parts_that_remember()) <= {"addressing"}

    def first(self, memory: AttentionMemory) -> Dict[str, Tree]:
        """What the parts remember before the first step, R rows each."""
        state = {name: part.first(memory) for name, part in self._parts_that_remember().items()}
        return tree_map(memory.each_row, state)

    def forward(
        self, query: Tensor, memory: AttentionMemory, state: Optional[Dict[str, Tree]] = None, position: int = 0
    ) -> Attended:
        """
        Args:
            query: R×T×Q, one row for each of the memory's rows; T = 1 unless :attr:`takes_all_steps`.
            memory: B sentences, R = B without search.
            state: what the parts remember; None where none does.
            position: target position of the first of the T queries.
        """
        (rows, steps, _), beam = query.shape, memory.beam
        if beam > 1:  # the hypotheses of a sentence are further steps of it: values and keys are never expanded
            query = query.reshape(rows // beam, beam * steps, -1)
        state = tree_map(lambda tensor: tensor.unflatten(0, (-1, beam)), state or {})
        weights = self._weights(query, memory, state, position, steps)
        context = multiply(self.dropout(weights), memory.values).type_as(query)
        if self.history is not None:
            state["history"] = self.history.update(state["history"], weights, query, memory)
        state = tree_map(lambda tensor: tensor.flatten(0, 1), state)
        if beam > 1:
            context, weights = context.reshape(rows, steps, -1), weights.reshape(rows, steps, -1)
        return Attended(context, weights, state)

    def _weights(
        self, query: Tensor, memory: AttentionMemory, state: Dict[str, Tree], position: int, steps: int
    ) -> Tensor:
        """a of B×n queries, B×n×S; what the parts remember is put into ``state``."""
        asked = query if self.query_projection is None else self.query_projection(query)
        scores = self._scores(asked, memory, state)
        if self.window is not None:
            at = torch.arange(position, position + steps, device=query.device).repeat(memory.beam)
            scores = scores + self.window(query, at, memory)
        if self.addressing is None or not self.addressing.takes_scores:
            weights = self._ask("normalizer", state, scores, memory.padding_mask)
        else:
            weights = scores.to(torch.promote_types(scores.dtype, torch.float32))
            if memory.padding_mask is not None:
                weights = weights.masked_fill(memory.padding_mask.unsqueeze(1), float("-inf"))
        if self.addressing is None:
            return weights
        if steps == 1 or not self.addressing.remembers:
            return self._ask("addressing", state, weights, query, memory)
        asked_at = zip(weights.split(1, dim=1), query.split(1, dim=1), strict=True)
        return torch.cat([self._ask("addressing", state, *each, memory) for each in asked_at], dim=1)

    def _scores(self, asked: Tensor, memory: AttentionMemory, state: Dict[str, Tree]) -> Tensor:
        """e of B×n queries, B×n×A → B×n×S.

        A score that is linear in the keys has score(q(t), k(j) + U f(t, j)) = score(q(t), k(j)) + the sum over i of
        f_i(t, j) score(q(t), U_i), so that no key is made anew at a step; for others, each row has keys of its own.
        """
        if self.history is None:
            return self._ask("score", state, asked, memory.keys)
        features = self.history.features(state["history"], memory)  # B×n×S×F
        if self.score.adds_up():
            columns = once(_columns, self.history.key_map.weight)
            of_columns = self.score(asked.reshape(1, -1, asked.size(2)), columns).view(*asked.shape[:2], 1, -1)
            return self.score(asked, memory.keys) + (features * of_columns).sum(dim=3)
        if self.score.remembers:
            state["score"] = tree_map(lambda tensor: tensor.flatten(0, 1).unsqueeze(1), state["score"])
        with PLAIN.active():  # nothing of this step's keys is shared with another step
            keys = self.history.key_map(features).add_(memory.keys.unsqueeze(1))  # B×n×S×A
            scores = self._ask("score", state, asked.flatten(0, 1).unsqueeze(1), keys.flatten(0, 1))
        if self.score.remembers:
            state["score"] = tree_map(lambda tensor: tensor.squeeze(1).unflatten(0, asked.shape[:2]), state["score"])
        return scores.view(features.shape[:3])

    def _ask(self, name: str, state: Dict[str, Tree], *inputs) -> Tensor:
        """What a part gives; what it remembers is put into ``state``."""
        part = getattr(self, name)
        if not part.remembers:
            return part(*inputs)
        result, state[name] = part(*inputs, state[name])
        return result


def _columns(weight: Tensor) -> Tensor:
    """A×F → 1×F×A, so that each column stands where a key would."""
    return weight.t().unsqueeze(0)
