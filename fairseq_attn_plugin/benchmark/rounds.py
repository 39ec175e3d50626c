"""Several pieces of work measured in turn, so that what disturbs the machine disturbs all; medians over the rounds."""

from dataclasses import dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import Callable, Dict, Hashable, List, Mapping, Optional, Sequence, TypeVar

from .work import Work, synchronized_clock

Name = TypeVar("Name", bound=Hashable)


@dataclass
class Timing:
    """How long one run of a piece of work takes, once for every round, or why it does not run."""

    seconds: List[float] = field(default_factory=list)
    runs: int = 0
    """Runs of one round, of which ``seconds`` has the mean."""

    work: Optional[Work] = None
    """None where it does not run."""

    reason: Optional[str] = None


def alternate(
    works: Mapping[Name, Callable[[], Work]],
    rounds: int,
    seconds: float,
    runs: Optional[int] = None,
    clock: Optional[Callable[[], float]] = None,
) -> Dict[Name, Timing]:
    """Measures every piece of work once per round; the order turns round from one round to the next.

    A warm-up goes before the first round: one run that prepares what is prepared once, then runs whose times are
    thrown away, and whose number is that of every round. What fails is left out from there on.

    Args:
        works: name → what builds the piece of work.
        seconds: how long a round takes, about.
        runs: so many runs instead.
        clock: seconds since some time, all work done; None = the machine's.
    """
    clock = clock or synchronized_clock
    timings = {name: Timing() for name in works}

    def attempt(name: Name, action: Callable[[], None]) -> None:
        if timings[name].reason is not None:
            return
        try:
            action()
        except Exception as error:  # whatever a system raises is a result, and the others go on
            timings[name] = Timing(reason=reason_of(error))

    def warm_up(name: Name) -> None:
        work = timings[name].work = works[name]()
        within = work.warm_up(0.0 if runs else seconds, clock)
        timings[name].runs = runs or within

    def one_round(name: Name) -> None:
        timing = timings[name]
        assert timing.work is not None  # once it is warm
        timing.seconds.append(timing.work.time(timing.runs, clock))

    for name in works:
        attempt(name, partial(warm_up, name))
    for number in range(rounds):
        for name in list(works)[:: -1 if number % 2 else 1]:
            attempt(name, partial(one_round, name))
    return timings


def reason_of(error: Exception) -> str:
    """The first line of what went wrong."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


def spread(values: Sequence[float]) -> float:
    """Interquartile range as a share of the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / middle


def ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """Median of the ratios of rounds, each to the reference in the same round."""
    return median(value / other for value, other in zip(values, reference, strict=True))
