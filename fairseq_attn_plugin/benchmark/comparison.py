"""Measures systems beside fairseq's ``lstm``, and beside those of another checkout, and works out ratios."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Callable, Dict, Hashable, Iterator, List, NamedTuple, Optional, Sequence

import torch

from . import rounds
from .checkout import HERE, Checkout
from .memory import MemoryMeter
from .systems import REFERENCE, Setting
from .work import Work, counted_training_step, give_back_memory, product, search
from .workloads import WORKLOADS

TIMED: Dict[str, Callable[[Setting], Work]] = {
    "train": counted_training_step,
    "greedy": partial(search, beam=1),
    "beam5": partial(search, beam=5),
}
MEASURES = (*TIMED, "memory")


class Variant(NamedTuple):
    """A column of the table."""

    system: str
    dtype: str
    """Type of its numbers."""

    other: bool = False
    """The model is that of the other checkout."""


def variants_of(systems: Sequence[str], dtypes: Sequence[str], both: bool) -> List[Variant]:
    """Of every system all types of numbers, and of ours those of both checkouts side by side where there are two."""
    return [
        Variant(system, dtype, other)
        for system in systems
        for dtype in dtypes
        for other in ([False, True] if both and system != REFERENCE else [False])
    ]


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long."""

    workloads: Sequence[str]
    systems: Sequence[str]
    measures: Sequence[str] = MEASURES
    dtypes: Sequence[str] = ("float32",)
    device: str = "cpu"
    rounds: int = 5
    seconds: float = 0.8
    """How long one round of one system takes, about."""

    steps: Optional[int] = None
    """Steps of a round instead."""

    dropout: float = 0.1
    criterion: Optional[str] = None
    mixed: bool = False
    threads: int = 1
    against: Optional[str] = None
    """Folder of another checkout."""

    @property
    def label(self) -> Optional[str]:
        """What the other checkout is called: by the name of its folder."""
        return None if self.against is None else Path(self.against).resolve().name

    @property
    def roots(self) -> Dict[bool, Path]:
        """Our folder, and under True that of the other checkout, where there is one."""
        return {False: HERE} if self.against is None else {False: HERE, True: Path(self.against)}

    def variants(self) -> List[Variant]:
        """Columns of the table, the other checkout's each beside ours; fairseq's float32, which all others are compared
        with, is always among fairseq's."""
        wanted = variants_of(self.systems, self.dtypes, self.against is not None)
        reference = Variant(REFERENCE, "float32")
        return wanted if REFERENCE not in self.systems or reference in wanted else [reference, *wanted]

    def setting(self, workload: str, variant: Variant) -> Setting:
        return Setting(
            WORKLOADS[workload], variant.system, variant.dtype, device=self.device, dropout=self.dropout,
            criterion=self.criterion, mixed=self.mixed,
        )  # fmt: skip


@dataclass
class Result:
    """One cell of the table."""

    workload: str
    measure: str
    system: str
    dtype: str
    other: bool = False
    unit: str = ""
    raw: List[float] = field(default_factory=list)
    """Seconds of one step in every round, or bytes."""

    steps: int = 0
    """Steps of a round."""

    values: List[float] = field(default_factory=list)
    """Of every round, in ``unit``."""

    value: Optional[float] = None
    """Their median; None where the system does not run."""

    spread: Optional[float] = None
    """Their interquartile range as a share of the median."""

    ratio: Optional[float] = None
    """Median of the rounds' ratios to fairseq's lstm in float32."""

    ratio_of_medians: Optional[float] = None
    ratio_to_other: Optional[float] = None
    """Median of the rounds' ratios to the same system of the other checkout."""

    operations: Optional[int] = None
    """Of the matrix products of a training step."""

    floor_share: Optional[float] = None
    """Time of these operations at the matrix-product rate, as a share of the time of a step."""

    criterion: Optional[str] = None
    reason: Optional[str] = None
    """Why the system does not run."""

    @property
    def variant(self) -> Variant:
        return Variant(self.system, self.dtype, self.other)


def compare(plan: Plan) -> Iterator[List[Result]]:
    """Yields the results of one workload and measure after another; progress goes to stderr.

    Raises:
        ValueError: the other checkout cannot be imported.
    """
    with ExitStack() as stack:
        meter = stack.enter_context(MemoryMeter())
        checkouts = _open_checkouts(plan, stack)
        for workload in plan.workloads:
            for measure in plan.measures:
                say(f"{workload} {measure} ...")
                if measure == "memory":
                    results = _measure_memory(plan, workload, meter)
                else:
                    results = _time(plan, workload, measure, checkouts)
                set_ratios(results)
                say(f"{workload} {measure}: {', '.join(describe(plan, result) for result in results)}")
                yield results


def _open_checkouts(plan: Plan, stack: ExitStack) -> Dict[bool, Checkout]:
    """Ours and the other checkout, each in a process of its own; none of them where there is no other."""
    if plan.against is None:
        return {}
    checkouts = {other: stack.enter_context(Checkout(root)) for other, root in plan.roots.items()}
    for checkout in checkouts.values():
        try:
            checkout.call(torch.set_num_threads, plan.threads)
        except RuntimeError as error:
            raise ValueError(f"--against: {error} (see above)") from None
    return checkouts


def say(text: str) -> None:
    print(f"benchmark: {text}", file=sys.stderr, flush=True)


def describe(plan: Plan, result: Result) -> str:
    """A result in a few words."""
    name = result.system if result.dtype == "float32" else f"{result.system} {result.dtype}"
    name = f"{name} ({plan.label})" if result.other else name
    return f"{name} {'does not run' if result.value is None else f'{number(result.value)} {result.unit}'}"


def number(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def set_values(result: Result, values: List[float]) -> None:
    """Median and spread of the values of all rounds."""
    result.values, result.value, result.spread = values, median(values), rounds.spread(values)


def set_ratios(results: List[Result]) -> None:
    """Ratios of all results to fairseq's lstm among them, and of ours to the other checkout's; none where that is not
    there or does not run."""
    measured = {result.variant: (result, result.value) for result in results if result.value is not None}
    reference = measured.get(Variant(REFERENCE, "float32"))
    for variant, (result, value) in measured.items():
        other = None if result.other else measured.get(variant._replace(other=True))
        if reference is not None:
            result.ratio = rounds.ratio(result.values, reference[0].values)
            result.ratio_of_medians = value / reference[1]
        if other is not None:
            result.ratio_to_other = rounds.ratio(result.values, other[0].values)


def _time(plan: Plan, workload: str, measure: str, checkouts: Dict[bool, Checkout]) -> List[Result]:
    """Seconds of training steps or searches, in alternating rounds. Of two checkouts each has a process of its own, and
    neither does anything else: on a busy machine, a process that has just slept gets more of it."""

    def build(variant: Variant) -> Work:
        function, setting = TIMED[measure], plan.setting(workload, variant)
        if not checkouts or variant.system == REFERENCE:
            return function(setting)
        return checkouts[variant.other].work(function, setting)

    variants = plan.variants()
    works: Dict[Hashable, Callable[[], Work]] = {variant: partial(build, variant) for variant in variants}
    if measure == "train":
        works.update({v.dtype: partial(product, plan.device, v.dtype) for v in variants})
    timings = rounds.alternate(works, plan.rounds, plan.seconds, plan.steps)
    results = []
    for variant in variants:
        timing, result = timings[variant], Result(workload, measure, *variant)
        result.reason, work = timing.reason, timing.work
        if work is not None:
            result.unit, result.raw, result.steps = work.unit, timing.seconds, timing.runs
            set_values(result, [work.amount / seconds for seconds in timing.seconds])
        if work is not None and measure == "train":
            result.criterion, result.operations = work.criterion, work.operations
            result.floor_share = floor_share(result, timings[variant.dtype])
        results.append(result)
    del timings, timing, work
    give_back_memory()
    for checkout in checkouts.values():
        checkout.forget()
    return results


def floor_share(result: Result, products: rounds.Timing) -> Optional[float]:
    """(operations / matrix-product rate) / seconds of a step; None where the product does not run or nobody counted."""
    if products.work is None or result.operations is None:
        return None
    rate = products.work.amount / median(products.seconds)
    return result.operations / rate / median(result.raw)


def _measure_memory(plan: Plan, workload: str, meter: MemoryMeter) -> List[Result]:
    results = []
    for variant in plan.variants():
        result = Result(workload, "memory", *variant, unit="MB", steps=1)
        try:
            result.raw = [meter.peak(plan.setting(workload, variant), plan.threads, plan.roots[variant.other])]
            set_values(result, [number / 1e6 for number in result.raw])
        except RuntimeError as error:
            result.reason = rounds.reason_of(error)
        results.append(result)
    return results
