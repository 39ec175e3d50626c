"""Histories: what was attended to so far becomes part of the keys."""

import math
from typing import ClassVar, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..carry import Tree
from ..options import Option, at_least_one, finite, odd
from ..recurrence.pointwise import gru_gates
from ..recurrence.shared_products import Linear, once
from ..registry import Registry
from .memory import AttentionMemory

HISTORY_SIZE = Option(
    "attention_history_size",
    int,
    None,
    "numbers that a source position's history has: filters of location, state of gru_coverage (default: 10)",
    check=at_least_one,
    fallback=10,
    absent="has one number at each position; leave it out",
    argument="size",
)
HISTORY_WIDTH = Option(
    "attention_history_width",
    int,
    None,
    "source positions that a filter of location spans, an odd number (default: 5)",
    check=odd,
    fallback=5,
    absent="has no filters; leave it out",
    argument="width",
)
HISTORY_OVER = ("weights", "sum", "both")
HISTORY_FILTERED = Option(
    "attention_history_over",
    str,
    None,
    "what the filters of location run over: the weights of the step before, the sum of those of all steps before, or "
    "both (default: weights)",
    choices=HISTORY_OVER,
    fallback="weights",
    absent="has no filters; leave it out",
    argument="over",
)
FEWEST = 14.0
"""Of Φ = N/(1 + exp(x)) the largest x: about a millionth of N, beyond which 1/Φ would come to be infinite."""

MOST_FERTILE = Option(
    "attention_fertility",
    float,
    None,
    "N of fertility: the number of target words that a source word may have at most (default: 2)",
    check=lambda value: finite(value) if value >= 1e-6 else "give a number above 0, at least 1e-6",
    fallback=2.0,
    absent="has no fertilities; leave it out",
    argument="most",
)


class AttentionHistory(nn.Module):
    """The score reads k(j) + U f(t, j), where f(t, j) are ``features`` of what was attended to before step t.

    A subclass says in ``__init__`` how many features there are, and writes ``first``, ``features`` and ``update``. It
    goes with every score that reads keys. U starts uniform in ±1/sqrt(A).

    Args:
        size: F, the number of features.
        key_dim: A, size of a key.
        value_dim: M, size of a value.
        query_dim: Q, size of a query.
    """

    options: ClassVar[Tuple[Option, ...]] = ()
    """Options that mean something to this history alone."""

    remembers: ClassVar[bool] = True
    """See ``Attention``."""

    def __init__(self, size: int, key_dim: int, value_dim: int, query_dim: int):
        super().__init__()
        self.key_map = Linear(size, key_dim, bias=False)
        nn.init.uniform_(self.key_map.weight, -1 / math.sqrt(key_dim), 1 / math.sqrt(key_dim))

    def first(self, memory: AttentionMemory) -> Tree:
        """What is remembered before the first step: tensors of B rows."""
        raise NotImplementedError

    def features(self, remembered: Tree, memory: AttentionMemory) -> Tensor:
        """f(t): what is remembered, tensors B×n×…, for n rows of each sentence → B×n×S×F."""
        raise NotImplementedError

    def update(self, remembered: Tree, weights: Tensor, query: Tensor, memory: AttentionMemory) -> Tree:
        """What is remembered after a step, given its weights a(t), B×n×S, and its query q(t), B×n×Q."""
        raise NotImplementedError


HISTORIES: Registry[AttentionHistory] = Registry("--attention-history", AttentionHistory, optional=True)


def _nothing(memory: AttentionMemory) -> Tensor:
    """Weights before the first step: B×S zeros."""
    dtype = torch.promote_types(memory.values.dtype, torch.float32)
    return torch.zeros_like(memory.values[:, :, 0], dtype=dtype)


@HISTORIES.register("coverage")
class Coverage(AttentionHistory):
    """C(t, j) = C(t-1, j) + a(t, j), C(0) = 0; the key gets u C(t-1, j) (Tu et al., 2016, eq. 7 without fertility; See
    et al., 2017, eq. 11)."""

    def __init__(self, key_dim: int, value_dim: int, query_dim: int):
        super().__init__(1, key_dim, value_dim, query_dim)

    def first(self, memory: AttentionMemory) -> Tensor:
        return _nothing(memory)

    def features(self, remembered: Tensor, memory: AttentionMemory) -> Tensor:
        return remembered.unsqueeze(3)

    def update(self, remembered: Tensor, weights: Tensor, query: Tensor, memory: AttentionMemory) -> Tensor:
        return remembered + weights


@HISTORIES.register("fertility")
class Fertility(Coverage):
    """C(t, j) = C(t-1, j) + a(t, j)/Φ(j), Φ(j) = N sigmoid(w · v(j)), the number of target words that source word j is
    expected to have (Tu et al., 2016, eq. 8-9)."""

    options = (MOST_FERTILE,)

    def __init__(self, key_dim: int, value_dim: int, query_dim: int, most: float = 2.0):
        super().__init__(key_dim, value_dim, query_dim)
        self.most = most
        self.fertility = nn.Linear(value_dim, 1, bias=False)

    def update(self, remembered: Tensor, weights: Tensor, query: Tensor, memory: AttentionMemory) -> Tensor:
        return remembered + weights * once(self._reciprocal, memory.values).type_as(weights)

    def _reciprocal(self, values: Tensor) -> Tensor:
        """1/Φ, B×1×S: 1/sigmoid(x) is 1 + exp(-x), which grows without a limit; Φ is N/(1 + exp(FEWEST)) at least."""
        exponent = -self.fertility(values)
        exponent = exponent.to(torch.promote_types(exponent.dtype, torch.float32)).clamp(max=FEWEST)
        return (1 + torch.exp(exponent)).mT / self.most


@HISTORIES.register("gru_coverage")
class GRUCoverage(AttentionHistory):
    """C(t, j) = GRU(C(t-1, j), [a(t, j); v(j); q(t)]), C(0) = 0; the key gets U C(t-1, j) (Tu et al., 2016, eq. 6; with
    ``--attention-query previous`` q(t) is s(t-1), as it is there). The GRU is torch's."""

    options = (HISTORY_SIZE,)

    def __init__(self, key_dim: int, value_dim: int, query_dim: int, size: int = 10):
        super().__init__(size, key_dim, value_dim, query_dim)
        self.size = size
        self.of_weight = Linear(1, 3 * size, bias=False)  # its weight is read
        self.of_value = nn.Linear(value_dim, 3 * size)
        self.of_query = Linear(query_dim, 3 * size, bias=False)
        self.of_state = Linear(size, 3 * size)

    def first(self, memory: AttentionMemory) -> Tensor:
        return _nothing(memory).unsqueeze(2).expand(-1, -1, self.size)

    def features(self, remembered: Tensor, memory: AttentionMemory) -> Tensor:
        return remembered

    def update(self, remembered: Tensor, weights: Tensor, query: Tensor, memory: AttentionMemory) -> Tensor:
        of_values = once(self.of_value, memory.values).unsqueeze(1)  # B×1×S×3d
        of_weights = weights.unsqueeze(3) * self.of_weight.weight.squeeze(1)
        of_input = of_values + of_weights + self.of_query(query).unsqueeze(2)
        of_input = of_input.type_as(remembered)
        of_state = self.of_state(remembered).type_as(remembered)
        after = gru_gates(of_input.flatten(0, 2), of_state.flatten(0, 2), remembered.flatten(0, 2))
        return after.view_as(remembered)


@HISTORIES.register("location")
class LocationHistory(AttentionHistory):
    """f(t) = F * a(t-1), a convolution over positions with d filters of width w; the key gets U f(t, j) (Chorowski et
    al., 2015, eq. 8). a(0) = 0. ``over``: the sum of all weights so far in its place (``sum``), or filters over both
    (``both``; Shen et al., 2018, section 2.2, take the sum)."""

    options = (HISTORY_SIZE, HISTORY_WIDTH, HISTORY_FILTERED)

    def __init__(
        self, key_dim: int, value_dim: int, query_dim: int, size: int = 10, width: int = 5, over: str = "weights"
    ):
        super().__init__(size, key_dim, value_dim, query_dim)
        self.over = over
        self.filters = nn.Conv1d(2 if over == "both" else 1, size, width, padding=width // 2, bias=False)

    def first(self, memory: AttentionMemory) -> Tensor:
        return _nothing(memory).unsqueeze(1).expand(-1, self.filters.in_channels, -1)

    def features(self, remembered: Tensor, memory: AttentionMemory) -> Tensor:
        """The state is B×n×channels×S; zero on padding, so that the edges of a sentence are those of the batch."""
        found = F.conv1d(remembered.flatten(0, 1), self.filters.weight.type_as(remembered), padding="same")
        return found.mT.unflatten(0, remembered.shape[:2])

    def update(self, remembered: Tensor, weights: Tensor, query: Tensor, memory: AttentionMemory) -> Tensor:
        if self.over == "weights":
            return weights.unsqueeze(2)
        total = remembered[:, :, -1] + weights
        return torch.stack([weights, total] if self.over == "both" else [total], dim=2)
