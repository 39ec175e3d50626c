"""Measures systems beside fairseq's ``lstm`` and works out ratios."""

import gc
import sys
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch

from . import rounds
from .floor import count_operations
from .memory import peak_memory
from .systems import REFERENCE, Setting, criterion_of
from .work import Work, product, search, training_step
from .workloads import WORKLOADS

TIMED: Dict[str, Callable[[Setting], Work]] = {
    "train": training_step,
    "greedy": partial(search, beam=1),
    "beam5": partial(search, beam=5),
}
MEASURES = (*TIMED, "memory")
Variant = Tuple[str, str]
"""Name of a system, type of its numbers."""


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

    def variants(self) -> List[Variant]:
        """Columns of the table; fairseq's float32, which all others are compared with, is always among fairseq's."""
        wanted = [(system, dtype) for system in self.systems for dtype in self.dtypes]
        reference = (REFERENCE, "float32")
        return wanted if REFERENCE not in self.systems or reference in wanted else [reference, *wanted]

    def setting(self, workload: str, variant: Variant) -> Setting:
        return Setting(
            WORKLOADS[workload], *variant, device=self.device, dropout=self.dropout, criterion=self.criterion,
            mixed=self.mixed,
        )  # fmt: skip


@dataclass
class Result:
    """One cell of the table."""

    workload: str
    measure: str
    system: str
    dtype: str
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
    operations: Optional[int] = None
    """Of the matrix products of a training step."""

    floor_share: Optional[float] = None
    """Time of these operations at the matrix-product rate, as a share of the time of a step."""

    criterion: Optional[str] = None
    reason: Optional[str] = None
    """Why the system does not run."""

    @property
    def variant(self) -> Variant:
        return self.system, self.dtype


def compare(plan: Plan) -> Iterator[List[Result]]:
    """Yields the results of one workload and measure after another; progress goes to stderr."""
    for workload in plan.workloads:
        for measure in plan.measures:
            say(f"{workload} {measure} ...")
            results = (_measure_memory if measure == "memory" else _time)(plan, workload, measure)
            set_ratios(results)
            say(f"{workload} {measure}: {', '.join(map(describe, results))}")
            yield results


def say(text: str) -> None:
    print(f"benchmark: {text}", file=sys.stderr, flush=True)


def describe(result: Result) -> str:
    """A result in a few words."""
    name = result.system if result.dtype == "float32" else f"{result.system} {result.dtype}"
    return f"{name} {'does not run' if result.value is None else f'{number(result.value)} {result.unit}'}"


def number(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def set_values(result: Result, values: List[float]) -> None:
    """Median and spread of the values of all rounds."""
    result.values, result.value, result.spread = values, median(values), rounds.spread(values)


def set_ratios(results: List[Result]) -> None:
    """Ratios of all results to fairseq's lstm among them; none where it is not there or does not run."""
    reference = next((r for r in results if r.variant == (REFERENCE, "float32") and r.value), None)
    for result in results:
        if reference is not None and reference.value and result.value is not None:
            result.ratio = rounds.ratio(result.values, reference.values)
            result.ratio_of_medians = result.value / reference.value


def _time(plan: Plan, workload: str, measure: str) -> List[Result]:
    """Seconds of training steps or searches, in alternating rounds."""
    operations: Dict[Variant, int] = {}

    def build(variant: Variant) -> Work:
        work = TIMED[measure](plan.setting(workload, variant))
        if measure == "train":
            operations[variant] = count_operations(work.run)
        return work

    variants = plan.variants()
    works: Dict[Union[Variant, str], Callable[[], Work]] = {variant: partial(build, variant) for variant in variants}
    if measure == "train":
        works.update({dtype: partial(product, plan.device, dtype) for _, dtype in variants})
    timings = rounds.alternate(works, plan.rounds, plan.seconds, plan.steps)
    results = []
    for variant in variants:
        timing, result = timings[variant], Result(workload, measure, *variant)
        result.reason = timing.reason
        if timing.work is not None:
            result.unit, result.raw, result.steps = timing.work.unit, timing.seconds, timing.runs
            set_values(result, [timing.work.amount / seconds for seconds in timing.seconds])
        if timing.work is not None and measure == "train":
            result.criterion = criterion_of(plan.setting(workload, variant))
            result.operations = operations[variant]
            result.floor_share = floor_share(result, timings[variant[1]])
        results.append(result)
    give_back_memory()
    return results


def floor_share(result: Result, products: rounds.Timing) -> Optional[float]:
    """(operations / matrix-product rate) / seconds of a step; None where the product does not run."""
    if products.work is None or result.operations is None:
        return None
    rate = products.work.amount / median(products.seconds)
    return result.operations / rate / median(result.raw)


def give_back_memory() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _measure_memory(plan: Plan, workload: str, measure: str) -> List[Result]:
    results = []
    for variant in plan.variants():
        setting = plan.setting(workload, variant)
        result = Result(workload, measure, *variant, unit="MB", steps=1)
        try:
            result.raw = [peak_memory(setting, plan.threads)]
            set_values(result, [number / 1e6 for number in result.raw])
        except Exception as error:  # as in a round
            result.reason = rounds.reason_of(error)
        results.append(result)
    return results
