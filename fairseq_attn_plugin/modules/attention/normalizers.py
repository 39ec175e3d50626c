"""Normalisers: scores over the source become attention weights. Masking is written here once, for all of them."""

from typing import ClassVar, Optional, Tuple

import torch
from entmax import entmax15, sparsemax
from torch import Tensor, nn

from ..options import Option
from ..recurrence.shared_products import once
from ..registry import Registry


class AttentionNormalizer(nn.Module):
    """Weights from scores; a subclass writes ``normalize`` for unpadded scores alone.

    Computed in float32 (float64 stays float64), so that half precision loses no small weight. A row of weights sums to
    one and is exactly zero on padding; a row that is all padding has weights zero and gradient zero. Scores of -inf are
    allowed where another of the row is finite.
    """

    sparse: ClassVar[bool] = False
    """True where a weight of a real position can be exactly zero (its logarithm is then -inf)."""

    options: ClassVar[Tuple[Option, ...]] = ()
    """Options that mean something to this normaliser alone."""

    remembers: ClassVar[bool] = False
    """True where a step depends on those before, see ``Attention``."""

    def __init__(self):
        super().__init__()

    def forward(self, scores: Tensor, padding_mask: Optional[Tensor] = None) -> Tensor:
        """
        Args:
            scores: B×T×S.
            padding_mask: B×S bool, True = padding; None = no padding.

        Returns:
            B×T×S weights, float32 (float64 for float64 scores).
        """
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if padding_mask is None:
            return self.normalize(scores)
        mask, hidden = once(_masks, padding_mask)
        return self.normalize(scores.masked_fill(hidden, float("-inf"))).masked_fill(mask, 0.0)

    def normalize(self, scores: Tensor) -> Tensor:
        """B×T×S scores, -inf where nothing may be attended to → B×T×S weights over the last dimension."""
        raise NotImplementedError


def _masks(padding_mask: Tensor) -> Tuple[Tensor, Tensor]:
    """B×1×S: all padding, and that of the rows that have a real token, so that no row is all -inf."""
    mask = padding_mask.unsqueeze(1)
    return mask, mask & ~mask.all(dim=2, keepdim=True)


NORMALIZERS: Registry[AttentionNormalizer] = Registry("--attention-normalizer", AttentionNormalizer)


@NORMALIZERS.register("softmax")
class Softmax(AttentionNormalizer):
    """a(j) = exp(e(j)) / sum over k of exp(e(k))."""

    def normalize(self, scores: Tensor) -> Tensor:
        return torch.softmax(scores, dim=-1)


@NORMALIZERS.register("sparsemax")
class Sparsemax(AttentionNormalizer):
    """The Euclidean projection of the scores onto the simplex (Martins and Astudillo, 2016, eq. 1)."""

    sparse = True

    def normalize(self, scores: Tensor) -> Tensor:
        return sparsemax(scores, dim=-1)


@NORMALIZERS.register("entmax15")
class Entmax15(AttentionNormalizer):
    """1.5-entmax, between softmax and sparsemax (Peters, Niculae and Martins, 2019, eq. 10)."""

    sparse = True

    def normalize(self, scores: Tensor) -> Tensor:
        return entmax15(scores, dim=-1)
