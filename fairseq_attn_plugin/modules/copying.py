"""Copying: part of the output's probability is the attention's, on the symbols that it finds in the source."""

from typing import Any, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .combination import Combination


class Copies(NamedTuple):
    """What each column of a source has to copy. Columns with the same symbol share the first one's place."""

    symbols: Tensor
    """B×S int64: the target symbol; padding's where there is nothing to copy."""

    places: Tensor
    """B×S int64: the first column with the same symbol."""

    copied: Tensor
    """B×S bool: whether there is something to copy."""

    @classmethod
    def of(cls, symbols: Tensor, nothing: int) -> "Copies":
        """Of B×S target symbols, ``nothing`` where there is none."""
        same = symbols.unsqueeze(2) == symbols.unsqueeze(1)
        return cls(symbols, same.byte().argmax(dim=2), symbols.ne(nothing))


def symbol_map(source: Sequence[str], target: Sequence[str], left_out: Sequence[str], nothing: int) -> Tensor:
    """Source symbol → the same symbol of the target, int64; ``nothing`` for one that the target lacks, or that is among
    ``left_out``."""
    index = {symbol: i for i, symbol in enumerate(target) if symbol not in left_out}
    return torch.tensor([index.get(symbol, nothing) for symbol in source])


class Mixture(NamedTuple):
    """With which probability each step copies, and what. N are the axes before the last, B×T or a choice of them::

        p(y) = (g softmax(z)(y) + (1 - g) Σ_j [x(j) = y] a(j)) / (g + (1 - g) Σ_j [x(j) can be copied] a(j))

    That is eq. 9 of See et al. (2017) where all that is attended to can be copied. What the attention has on ``</s>``,
    or on a symbol that the target lacks, is left out, and the rest divided by its sum: such a step generates.
    """

    gate: Tensor
    """N×1, the logit of g, the probability to generate."""

    weights: Tensor
    """a, N×S."""

    symbols: Tensor
    """N×S, as those of :class:`Copies`."""

    places: Tensor
    """N×S."""

    copied: Tensor
    """N×S."""

    @classmethod
    def of(cls, gate: Tensor, weights: Tensor, copies: Copies) -> "Mixture":
        """B×T×1 logits, B×T×S weights in the columns of the source, and what these have for B sentences."""
        return cls(gate, weights, *(part.unsqueeze(1).expand_as(weights) for part in copies))

    def select(self, rows: Tensor) -> "Mixture":
        """Rows of a mixture whose N is one axis."""
        return Mixture(*(part.index_select(0, rows) for part in self))

    @classmethod
    def returned(cls, extra: Any) -> Optional["Mixture"]:
        """That of what a decoder returns beside its logits or features; None of one that does not copy."""
        parts = extra.get("copy") if isinstance(extra, dict) else None
        return cls(*parts) if parts else None

    def flatten(self, prefix: int = 0) -> "Mixture":
        """B×T as one axis, without the first ``prefix`` words of each target."""
        return Mixture(*(part[:, prefix:].flatten(0, 1) for part in self))

    def logits(self, scores: Tensor) -> Tensor:
        """N×V scores z → logits whose softmax is p, float32 (float64 for float64 scores); finite.

        They are z, and of each symbol that is copied log(1 + its share / what it has without) more.
        """
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        gate, weights = self.gate.type_as(scores), self.weights.type_as(scores).masked_fill(~self.copied, 0.0)
        shares = _log(torch.zeros_like(weights).scatter_add(-1, self.places, weights)) - gate  # by g: (1 - g) / g
        without = scores.gather(-1, self.symbols) - scores.logsumexp(dim=-1, keepdim=True)
        return scores.scatter_add(-1, self.symbols, F.softplus(shares - without))


def _log(weights: Tensor) -> Tensor:
    """log a; -inf without a gradient where a is 0."""
    nothing = weights <= 0
    return weights.masked_fill(nothing, 1.0).log().masked_fill(nothing, float("-inf"))


class CopyGate(nn.Module):
    """The logit of g(t), the probability to generate: w [s(t); c(t); y(t-1)] + b (See et al., 2017, eq. 8).

    Args:
        state: H, size of the decoder's state.
        word: E, of an embedded target word.
        context: M, of a context.
    """

    def __init__(self, state: int, word: int, context: int):
        super().__init__()
        self.inputs = Combination({"state": state, "word": word, "context": context}, dim=1, bias=True)

    def forward(self, state: Tensor, word: Tensor, context: Tensor) -> Tensor:
        """R×… or R×T×… tensors → R×1 or R×T×1."""
        return self.inputs(state=state, word=word, context=context)
