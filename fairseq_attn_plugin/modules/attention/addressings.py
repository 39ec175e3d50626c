"""Addressings: where the attention looks follows from where it has looked, and from what it finds there.

An addressing comes after the normaliser, or in its place, and remembers a(t-1). Positions count real tokens, whichever
side is padded; all numbers are float32 (float64 stays float64).
"""

from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..options import Option, finite, odd
from ..recurrence.shared_products import Linear, once
from ..registry import Registry
from .memory import AttentionMemory
from .normalizers import Softmax

SHIFT_WIDTH = Option(
    "attention_shift_width",
    int,
    None,
    "shifts that --attention-addressing shift chooses from, an odd number (default: 3, for -1, 0 and 1)",
    check=odd,
    fallback=3,
    absent="does not shift; leave it out",
    argument="width",
)
STARTS = ("uniform", "first", "last")
ADDRESSING_START = Option(
    "attention_addressing_start",
    str,
    None,
    "where shift is before the first step: on all real tokens alike, on the first one or on the last one, </s> "
    "(default: uniform)",
    choices=STARTS,
    fallback="uniform",
    absent="has no start to choose; leave it out",
    argument="start",
)
MONOTONIC_BIAS = Option(
    "attention_monotonic_bias",
    float,
    None,
    "start of the learned number r that monotonic adds to every score; the lower, the further it first looks "
    "(default: -1)",
    check=finite,
    fallback=-1.0,
    absent="has no such bias; leave it out",
    argument="bias",
)
MONOTONIC_NOISE = Option(
    "attention_monotonic_noise",
    float,
    None,
    "standard deviation of the noise that monotonic adds to every score in training, so that it decides (default: 1)",
    check=lambda value: None if value >= 0 and finite(value) is None else "give 0 or more",
    fallback=1.0,
    absent="adds no noise; leave it out",
    argument="noise",
)
MONOTONIC_SEARCH = Option(
    "attention_monotonic_search",
    str,
    None,
    "outside training monotonic has the expected alignment (soft), or looks at the first token from the last one on "
    "whose probability is more than a half (hard; default: soft)",
    choices=("soft", "hard"),
    fallback="soft",
    absent="has one way to search; leave it out",
    argument="hard",
    convert=lambda value: value == "hard",
)


class AttentionAddressing(nn.Module):
    """A subclass writes ``first`` and ``forward``.

    Args:
        query_dim: Q, size of a query.
        others: one for each of its options that has an ``argument``.
    """

    options: ClassVar[Tuple[Option, ...]] = ()
    """Options that mean something to this addressing alone."""

    takes_scores: ClassVar[bool] = False
    """True where it reads the scores, and no normaliser is called."""

    sparse: ClassVar[bool] = False
    """True where a weight of a real position can be exactly zero."""

    remembers: ClassVar[bool] = True
    """See ``Attention``."""

    def __init__(self, query_dim: int):
        super().__init__()

    def first(self, memory: AttentionMemory) -> Tensor:
        """What is remembered before the first step, B rows: here a(0), B×S."""
        raise NotImplementedError

    def forward(
        self, weights: Tensor, query: Tensor, memory: AttentionMemory, remembered: Tensor
    ) -> Tuple[Tensor, Tensor]:
        """
        Args:
            weights: w(t), B×n×S, zero on padding; with ``takes_scores`` the scores, -inf there.
            query: q(t), B×n×Q.
            memory: B sentences.
            remembered: here a(t-1), B×n×S.

        Returns:
            a(t), B×n×S, which sums to one over real tokens and is zero on padding; and what is remembered from then on.
        """
        raise NotImplementedError


ADDRESSINGS: Registry[AttentionAddressing] = Registry("--attention-addressing", AttentionAddressing, optional=True)


def start_weights(memory: AttentionMemory, start: str) -> Tensor:
    """B×S: all weight on the ``first`` or the ``last`` real token, or ``uniform``; zero on padding."""
    positions, lengths, _ = memory.places
    dtype = torch.promote_types(memory.values.dtype, torch.float32)
    if start == "uniform":
        weights = (1.0 / lengths.clamp(min=1).to(dtype)).expand_as(positions)
    else:
        weights = (positions == (lengths - 1 if start == "last" else 0)).to(dtype)
    return weights if memory.padding_mask is None else weights.masked_fill(memory.padding_mask, 0.0)


@ADDRESSINGS.register("shift")
class ShiftAddressing(AttentionAddressing):
    """Interpolate, shift, sharpen (Graves et al., 2014, eq. 7-9)::

        m(j)  = g w(t, j) + (1 - g) a(t-1, j)               g = sigmoid of a map of q(t)
        m'(j) = Σ over i of s(i) m(j - i)                   s = softmax of a map of q(t), i in -1, 0, 1
        a(t, j) = (m'(j) + ε)^γ, normalised                 γ = 1 + softplus of a map of q(t), ε = 1e-9

    The shift is cyclic over each sentence's real tokens. The maps have biases. ε, which is not in the article, keeps
    the gradient of γ finite.
    """

    options = (SHIFT_WIDTH, ADDRESSING_START)
    sparse = True  # a power of a small number may be zero

    def __init__(self, query_dim: int, width: int = 3, start: str = "uniform"):
        super().__init__(query_dim)
        self.width, self.start = width, start
        self.softmax = Softmax()
        self.maps = Linear(query_dim, width + 2)  # of g, γ and the shifts, from the most negative one on

    def first(self, memory: AttentionMemory) -> Tensor:
        return start_weights(memory, self.start)

    def forward(
        self, weights: Tensor, query: Tensor, memory: AttentionMemory, remembered: Tensor
    ) -> Tuple[Tensor, Tensor]:
        gate, sharpness, shifts = self.maps(query).type_as(weights).split([1, 1, self.width], dim=2)
        mixed = torch.lerp(remembered, weights, torch.sigmoid(gate))
        sources = once(_shifted_columns, *memory.places, self.width)  # B×1×(width·S)
        neighbours = mixed.gather(2, sources.expand(-1, mixed.size(1), -1)).unflatten(2, (self.width, -1))
        moved = (torch.softmax(shifts, dim=2).unsqueeze(3) * neighbours).sum(dim=2)
        powers = (1 + F.softplus(sharpness)) * torch.log(moved + 1e-9)
        addressed = self.softmax(powers, memory.padding_mask)
        return addressed, addressed


def _shifted_columns(positions: Tensor, lengths: Tensor, columns: Tensor, width: int) -> Tensor:
    """For each shift i, and each column, the column of the token i before its own, cyclic: B×1×(width·S)."""
    reach = width // 2
    shifts = torch.arange(-reach, reach + 1, device=positions.device).view(1, -1, 1)
    before = (positions.unsqueeze(1) - shifts).remainder(lengths.clamp(min=1).unsqueeze(2))
    return columns.unsqueeze(1).expand(-1, width, -1).gather(2, before).flatten(1).unsqueeze(1)


@ADDRESSINGS.register("monotonic")
class MonotonicAddressing(AttentionAddressing):
    """The attention moves forwards alone, token by token, and stays at j with probability p (Raffel et al., 2017,
    eq. 8-11)::

        p(t, j) = sigmoid(e(t, j) + r), in training with noise in the sigmoid; 1 at the last token
        a(t, j) = p(t, j) y(t, j),  y(t, j) = (1 - p(t, j-1)) y(t, j-1) + a(t-1, j)

    a(0) is on the first token. In the article a step that stays nowhere has no context; here the last token takes what
    is left, so that a row sums to one. y is the article's a/p without the division. ``hard`` is its way to decode:
    p is 0 or 1. It takes the place of the normaliser.
    """

    options = (MONOTONIC_BIAS, MONOTONIC_NOISE, MONOTONIC_SEARCH)
    takes_scores = True
    sparse = True

    def __init__(self, query_dim: int, bias: float = -1.0, noise: float = 1.0, hard: bool = False):
        super().__init__(query_dim)
        self.noise, self.hard = noise, hard
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def first(self, memory: AttentionMemory) -> Tensor:
        return start_weights(memory, "first")

    def forward(
        self, weights: Tensor, query: Tensor, memory: AttentionMemory, remembered: Tensor
    ) -> Tuple[Tensor, Tensor]:
        energy = weights + self.bias
        if self.training and self.noise:
            energy = energy + self.noise * torch.randn_like(energy)
        stay = torch.sigmoid(energy)
        if self.hard and not self.training:
            stay = (stay > 0.5).type_as(stay)
        is_last = once(_last_tokens, *memory.places[:2], memory.padding_mask)
        stay = stay.masked_fill(is_last, 1.0)
        passed = F.pad(1 - stay, (1, 0))[:, :, :-1]
        addressed = stay * linear_recurrence(passed, remembered)
        return addressed, addressed


def _last_tokens(positions: Tensor, lengths: Tensor, padding_mask: Optional[Tensor]) -> Tensor:
    """B×1×S bool."""
    is_last = positions == lengths - 1
    return (is_last if padding_mask is None else is_last & ~padding_mask).unsqueeze(1)


def linear_recurrence(factors: Tensor, inputs: Tensor) -> Tensor:
    """y(j) = c(j) y(j-1) + x(j), y(-1) = 0, over the last dimension, for c in [0, 1].

    In log2(S) rounds, each of which lets every position know twice as many of those before it; nothing is divided.

    Args:
        factors: c, …×S.
        inputs: x, …×S.

    Returns:
        y, …×S.
    """
    reach, size = 1, inputs.size(-1)
    while reach < size:
        inputs = inputs + factors * F.pad(inputs, (reach, 0))[..., :size]
        factors = factors * F.pad(factors, (reach, 0))[..., :size]
        reach *= 2
    return inputs
