"""How many kernels a GPU would be given for a target step, and where the program would wait for it, by system."""

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from .calls import CallCounter, difference
from .checkout import Checkout
from .comparison import Variant, say, variants_of
from .gpu_kernels import one_call_each
from .rounds import reason_of
from .systems import USUAL, Setting
from .work import search, training_pass
from .workloads import WORKLOADS

LENGTHS = 10, 20
"""Target lengths: what both have alike is done once a batch, what the longer one has more, at each step."""

SENTENCES = 4
"""Of a batch: their number changes no call but those of a loss that takes its logits in chunks, which here has one."""

PHASES = ("forward", "backward", "search")
BEAM = 5


@dataclass(frozen=True)
class Plan:
    """What to count; as in a comparison."""

    workloads: Sequence[str] = ("nmt15",)
    systems: Sequence[str] = USUAL
    dtypes: Sequence[str] = ("float32",)
    device: str = "cpu"
    dropout: float = 0.1
    against: Optional[str] = None
    listed: bool = False

    @property
    def label(self) -> Optional[str]:
        return None if self.against is None else Path(self.against).resolve().name

    def variants(self) -> List[Variant]:
        return variants_of(self.systems, self.dtypes, self.against is not None)


@dataclass
class Counts:
    """Calls and waits of one phase of one system."""

    workload: str
    system: str
    dtype: str
    other: bool
    phase: str
    calls: Dict[str, float] = field(default_factory=dict)
    """Name → number for each target step."""

    once: float = 0.0
    """Calls that are made once a batch, however long its targets are."""

    waits: List[Tuple[str, str, float, float]] = field(default_factory=list)
    """Name, caller, number for each target step, number once a batch."""

    reason: Optional[str] = None
    """Why the system does not run."""

    @property
    def per_step(self) -> float:
        return sum(self.calls.values())

    @property
    def variant(self) -> Variant:
        return Variant(self.system, self.dtype, self.other)


def measure(plan: Plan) -> List[Counts]:
    """Counts of all phases of all systems; progress goes to stderr. The other checkout's come from its own process."""
    results = []
    with ExitStack() as stack:
        other = None if plan.against is None else stack.enter_context(Checkout(Path(plan.against)))
        for workload in plan.workloads:
            for variant in plan.variants():
                say(f"{workload} launches, {' '.join(map(str, variant[:2]))} ...")
                sizes = replace(WORKLOADS[workload], sentences=SENTENCES)
                setting = Setting(sizes, *variant[:2], device=plan.device, dropout=plan.dropout)
                counts = other.call(count, setting) if other is not None and variant.other else count(setting)
                results += [replace(c, workload=workload, other=variant.other) for c in counts]
    return results


def count(setting: Setting) -> List[Counts]:
    """One training step without optimizer and clipping, and one search, of either length in ``LENGTHS``."""
    counted = []
    for phases, run in ((PHASES[:2], _training), (PHASES[2:], _searching)):
        empty = [Counts("", setting.system, setting.dtype, False, phase) for phase in phases]
        try:
            counters = [
                run(replace(setting, workload=replace(setting.workload, target_length=length))) for length in LENGTHS
            ]
            counted += [_fill(counts, *counters) for counts in empty]
        except Exception as error:  # whatever a system raises is a result, and the others go on
            counted += [replace(counts, reason=reason_of(error)) for counts in empty]
    return counted


def _fill(counts: Counts, shorter: CallCounter, longer: CallCounter) -> Counts:
    steps = LENGTHS[1] - LENGTHS[0]

    def of_phase(numbers: Dict[tuple, int]) -> Dict[tuple, int]:
        return {key[1:]: number for key, number in numbers.items() if key[0] == counts.phase}

    calls, fewer = of_phase(longer.calls), of_phase(shorter.calls)
    counts.calls = {key[0]: number for key, number in difference(calls, fewer, steps).items()}
    counts.once = sum(fewer.values()) - LENGTHS[0] * counts.per_step
    waits, fewer = of_phase(longer.waits), of_phase(shorter.waits)
    per_step = difference(waits, fewer, steps)
    for key in sorted({**waits, **fewer}):
        at_each = per_step.get(key, 0.0)
        counts.waits.append((*key, at_each, fewer.get(key, 0) - LENGTHS[0] * at_each))
    return counts


def _training(setting: Setting) -> CallCounter:
    model, loss_of_batch, _ = training_pass(setting)
    counter = CallCounter(setting.device)
    for counted in (False, True):  # the first one prepares what is prepared once
        model.zero_grad()
        with _counting(counter) if counted else nullcontext():
            counter.phase = "forward"
            loss, _ = loss_of_batch()
            counter.phase = "backward"
            loss.backward()
    return counter


def _searching(setting: Setting) -> CallCounter:
    work, counter = search(setting, BEAM), CallCounter(setting.device)
    work.run()
    counter.phase = "search"
    with _counting(counter):
        work.run()
    return counter


def _counting(counter: CallCounter) -> ExitStack:
    """On a GPU what happens is counted, elsewhere what would happen there."""
    stack = ExitStack()
    if counter.device == "cpu":
        stack.enter_context(one_call_each(counter))
    stack.enter_context(counter)
    return stack


def markdown(plan: Plan, results: Iterable[Counts], facts: Dict[str, str]) -> str:
    """Calls of a target step, then all waits; on request, every call by name."""
    by_workload: Dict[str, Dict[Variant, Dict[str, Counts]]] = {}
    for counts in results:
        by_workload.setdefault(counts.workload, {}).setdefault(counts.variant, {})[counts.phase] = counts
    lines = [
        "; ".join(f"{name} {value}" for name, value in facts.items()) + ".", "",
        f"| workload | system | forward | backward | a target step | once a batch | a step of search, beam {BEAM} |",
        "|---|---|" + "---:|" * 5,
    ]  # fmt: skip
    for workload, systems in by_workload.items():
        lines += [f"| {workload} | {title(plan, v)} | {' | '.join(_row(phases))} |" for v, phases in systems.items()]
    for workload, systems in by_workload.items():
        lines += ["", *_waits(plan, workload, systems)]
        for variant, phases in systems.items() if plan.listed else ():
            lines += ["", *_list(f"{workload}, {title(plan, variant)}", phases)]
    reasons = dict.fromkeys(f"- {title(plan, c.variant)}, {c.phase}: {c.reason}" for c in results if c.reason)
    return "\n".join([*lines, "", *reasons, *([""] if reasons else []), *legend(plan)]) + "\n"


def legend(plan: Plan) -> List[str]:
    """What the numbers mean."""
    as_on_gpu = (
        "counted on the CPU, where dropout, torch's LSTM and the arithmetic of a cell's step are one call forward and "
        "one backward, as on a GPU; a branch that the code takes on a GPU only is not seen"
    )
    return [
        "Calls of a training step without optimizer and clipping, and of a search; views and allocations do not count.",
        "",
        f"- a target step: what targets of {LENGTHS[1]} tokens take more than targets of {LENGTHS[0]}, for each token",
        f"- {SENTENCES} sentences, dropout {plan.dropout}, {plan.device}",
        *([f"- {as_on_gpu}"] if plan.device == "cpu" else []),
    ]


def title(plan: Plan, variant: Variant) -> str:
    name = variant.system if variant.dtype == "float32" else f"{variant.system} {variant.dtype}"
    return f"{name} ({plan.label})" if variant.other else name


def _row(phases: Dict[str, Counts]) -> List[str]:
    forward, backward, searching = (phases[phase] for phase in PHASES)
    training = ["-"] * 4
    if forward.reason is None:
        both = forward.per_step + backward.per_step, forward.once + backward.once
        training = [_number(n) for n in (forward.per_step, backward.per_step, *both)]
    return [*training, "-" if searching.reason else _number(searching.per_step)]


def _waits(plan: Plan, workload: str, systems: Dict[Variant, Dict[str, Counts]]) -> List[str]:
    """A row for each place that waits for the device."""
    cells = {
        (counts.phase, where, name, variant): " + ".join(
            [f"{_number(each)} a step"] * bool(each) + [_number(once)] * bool(once)
        ).replace("+ -", "- ")
        for variant, phases in systems.items()
        for counts in phases.values()
        for name, where, each, once in counts.waits
    }
    rows = sorted({key[:3] for key in cells}, key=lambda row: (PHASES.index(row[0]), row))
    return [
        f"| waits in {workload} | at | for | {' | '.join(title(plan, variant) for variant in systems)} |",
        "|---|---|---|" + "---:|" * len(systems),
        *(f"| {' | '.join(row)} | {' | '.join(cells.get((*row, v), '') for v in systems)} |" for row in rows),
    ]  # fmt: skip


def _list(name: str, phases: Dict[str, Counts]) -> List[str]:
    """Every call by name: its number at each target step."""
    calls = sorted({call for counts in phases.values() for call in counts.calls})
    return [
        f"| {name} | {' | '.join(phases)} |", "|---|" + "---:|" * len(phases),
        *(f"| {call} | {' | '.join(_number(c.calls.get(call, 0)) for c in phases.values())} |" for call in calls),
    ]  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
