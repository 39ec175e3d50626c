"""Scheduled sampling: in training the decoder sometimes reads its own word in place of the true one."""

import math
from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from .options import REQUIRED, Option, finite
from .registry import Registry


def _constant(name: str, help: str) -> Option:
    return Option(
        f"scheduled_sampling_{name}",
        float,
        None,
        help,
        check=finite,
        fallback=REQUIRED,
        absent="has no such constant; leave it out",
        required="the probability of the true word is {part.formula}",
        argument=name,
    )


K = _constant(
    "k", "k of constant k, linear k-slope*i, exponential k^i, inverse_sigmoid k/(k+exp(i/k)) at update i"
)
SLOPE = _constant("slope", "slope of linear")


class Schedule:
    """ε(i), the probability of the true word at update i (Bengio et al., 2015, section 2.4).

    Args:
        k, slope: the schedule's constants; None where it has none of that name.
    """

    options: ClassVar[Tuple[Option, ...]] = (K,)
    """The constants that it has."""

    formula = ""
    """ε(i), as text."""

    limits = ""
    """What ``fits`` asks, as text."""

    def __init__(self, k: float, slope: Optional[float] = None):
        self.k = k
        self.slope = slope

    def fits(self) -> bool:
        """Whether ε is a probability at the start, does not rise, and is not always 1."""
        raise NotImplementedError

    def __call__(self, update: int) -> float:
        """ε(i), before the floor."""
        raise NotImplementedError


SCHEDULES: Registry[Schedule] = Registry("--scheduled-sampling", Schedule, optional=True)


@SCHEDULES.register("constant")
class ConstantSchedule(Schedule):
    """ε(i) = k."""

    formula = "k"
    limits = "0 <= k < 1"

    def fits(self) -> bool:
        return 0.0 <= self.k < 1.0

    def __call__(self, update: int) -> float:
        return self.k


@SCHEDULES.register("linear")
class LinearSchedule(Schedule):
    """ε(i) = k - slope · i."""

    slope: float
    options = (K, SLOPE)
    formula = "k - slope * update"
    limits = "0 <= k <= 1 and slope > 0"

    def fits(self) -> bool:
        return 0.0 <= self.k <= 1.0 and 0.0 < self.slope < math.inf

    def __call__(self, update: int) -> float:
        return self.k - self.slope * update


@SCHEDULES.register("exponential")
class ExponentialSchedule(Schedule):
    """ε(i) = k^i."""

    formula = "k to the power of update"
    limits = "0 < k < 1"

    def fits(self) -> bool:
        return 0.0 < self.k < 1.0

    def __call__(self, update: int) -> float:
        return self.k**update


@SCHEDULES.register("inverse_sigmoid")
class InverseSigmoidSchedule(Schedule):
    """ε(i) = k / (k + exp(i / k))."""

    formula = "k / (k + exp(update / k))"
    limits = "k >= 1"

    def fits(self) -> bool:
        return 1.0 <= self.k < math.inf

    def __call__(self, update: int) -> float:
        return 1.0 / (1.0 + math.exp(min(update / self.k - math.log(self.k), 700.0)))  # exp(710) is too large


class ScheduledSampling(nn.Module):
    """The coins and the words of scheduled sampling; no parameters. Random numbers come from torch's generator only.

    Args:
        schedule: update → probability of the true word.
        floor: the least probability.
        samples: draw the model's word from its distribution; False: its most probable word.
    """

    def __init__(self, schedule: Schedule, floor: float = 0.0, samples: bool = False):
        super().__init__()
        self.schedule = schedule
        self.floor = floor
        self.samples = samples
        self.updates = 0

    def set_num_updates(self, num_updates: int) -> None:
        """Called by fairseq before every update, with the number of those done."""
        self.updates = num_updates

    @property
    def probability(self) -> float:
        """That of the true word, at this update."""
        return max(self.floor, self.schedule(self.updates))

    def true_words(self, tokens: Tensor) -> Tensor:
        """B×T decoder inputs → B×T bool, a coin for each token of each sentence; the first one is always true."""
        coins = torch.rand(tokens.shape, device=tokens.device) < self.probability
        coins[:, 0] = True
        return coins

    def words(self, logits: Tensor) -> Tensor:
        """B×V logits of a step → B tokens, no gradient."""
        if not self.samples:
            return logits.argmax(dim=1)
        return torch.multinomial(torch.softmax(logits.detach().float(), dim=1), num_samples=1).squeeze(1)
