"""Windows: the attention looks at a stretch of the source alone, and most at its centre."""

from typing import ClassVar, Tuple

import torch
from torch import Tensor, nn

from ..options import Option, at_least_one
from ..recurrence.shared_products import Linear
from ..registry import Registry
from .memory import AttentionMemory

WINDOW_WIDTH = Option(
    "attention_window_width",
    int,
    None,
    "D: positions that the window reaches to either side of its centre (default: 10)",
    check=at_least_one,
    fallback=10,
    absent="has no width; leave it out",
    argument="width",
)


class AttentionWindow(nn.Module):
    """e(t, j) gets -(j - p(t))² / (2 σ²), σ = D/2, and -inf where j is more than D from p(t) (Luong et al., 2015,
    section 3.2, eq. 10). There the Gaussian is a factor of the weights, after the softmax; here its logarithm is added
    before the normaliser, so that a row still sums to one, with any normaliser.

    A subclass writes ``centre``. Positions count real tokens from 0, whichever side is padded.

    Args:
        query_dim: Q, size of a query.
        width: D.
    """

    options: ClassVar[Tuple[Option, ...]] = (WINDOW_WIDTH,)
    """Options that mean something to this window alone."""

    sparse: ClassVar[bool] = True
    """True where a weight of a real position can be exactly zero."""

    def __init__(self, query_dim: int, width: int = 10):
        super().__init__()
        self.width = width

    def centre(self, query: Tensor, steps: Tensor, last: Tensor) -> Tensor:
        """p(t), at least 0 and less than one beyond ``last``, so that some token is within reach.

        Args:
            query: B×n×Q.
            steps: n int64, the target position of each query, from 0.
            last: B×1×1, position of each sentence's last token, in the type of the result.

        Returns:
            B×n×1 positions, or what can be expanded to that.
        """
        raise NotImplementedError

    def forward(self, query: Tensor, steps: Tensor, memory: AttentionMemory) -> Tensor:
        """B×n×Q queries at n target positions → what the scores get, B×n×S in float32 (float64 for float64)."""
        query = query.to(torch.promote_types(query.dtype, torch.float32))
        places = memory.places
        last = (places.lengths - 1).clamp(min=0).unsqueeze(2).type_as(query)
        distance = places.positions.unsqueeze(1) - self.centre(query, steps, last).type_as(query)
        allowance = -2.0 * (distance / self.width).square()
        return allowance.masked_fill(distance.abs() > self.width, float("-inf"))


WINDOWS: Registry[AttentionWindow] = Registry("--attention-window", AttentionWindow, optional=True)


@WINDOWS.register("local_m")
class MonotonicWindow(AttentionWindow):
    """p(t) = t, and the last token for a longer target (Luong et al., 2015, section 3.2, local-m)."""

    def centre(self, query: Tensor, steps: Tensor, last: Tensor) -> Tensor:
        return torch.minimum(steps.view(1, -1, 1).type_as(last), last)


@WINDOWS.register("local_p")
class PredictedWindow(AttentionWindow):
    """p(t) = S sigmoid(u · tanh(W q(t))), S the number of real tokens (Luong et al., 2015, eq. 9, local-p). W is Q×Q;
    the centre gets its gradient through the Gaussian."""

    def __init__(self, query_dim: int, width: int = 10):
        super().__init__(query_dim, width)
        self.hidden = Linear(query_dim, query_dim, bias=False)
        self.vector = Linear(query_dim, 1, bias=False)

    def centre(self, query: Tensor, steps: Tensor, last: Tensor) -> Tensor:
        return (last + 1) * torch.sigmoid(self.vector(torch.tanh(self.hidden(query))))
