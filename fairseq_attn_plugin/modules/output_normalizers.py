"""What makes probabilities of the vocabulary's scores: ``--output-normalizer``."""

from typing import Callable, Dict, NamedTuple

import torch
from entmax import entmax15, entmax15_loss, sparsemax, sparsemax_loss
from torch import Tensor

SORTED = 128
"""So many of the largest scores are sorted first, and twice as many as long as more are in the support."""


class SparseOutput(NamedTuple):
    """Probabilities of which most are exactly zero, and the loss that goes with them.

    With Ω the negative Tsallis entropy, Ω(p) = (Σ_v p(v)^α - 1) / (α (α - 1))::

        p = argmax over p of <p, z> - Ω(p),   loss(z, y) = <p - e_y, z> - Ω(p)

    The loss is 0 where p(y) = 1, its gradient by z is p - e_y (Peters, Niculae and Martins, 2019, eq. 7, 10 and 12;
    Blondel, Martins and Niculae, 2019).
    """

    probabilities: Callable[..., Tensor]
    """z → p, over the last axis."""

    losses: Callable[..., Tensor]
    """N×V scores, N targets → N."""

    def log_probabilities(self, scores: Tensor) -> Tensor:
        """…×V scores → log p, in float32 (float64 stays); -inf outside the support."""
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return self.probabilities(scores, dim=-1, k=_sorted(scores)).log()

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """N×V scores, N int64 → N losses, in float32 (float64 stays)."""
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return self.losses(scores, target, k=_sorted(scores))


def _sorted(scores: Tensor) -> int:
    return min(SORTED, scores.size(-1))


SPARSE_OUTPUTS: Dict[str, SparseOutput] = {
    "entmax15": SparseOutput(entmax15, entmax15_loss),
    "sparsemax": SparseOutput(sparsemax, sparsemax_loss),
}
"""Value of ``--output-normalizer`` → what it is; ``softmax`` is none of them."""
