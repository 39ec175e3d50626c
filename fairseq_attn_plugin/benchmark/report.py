"""The table of a comparison in Markdown, and the facts that a reader of its numbers needs."""

import os
import platform
import re
from pathlib import Path
from typing import Callable, Dict, List

import fairseq
import torch

from .comparison import Plan, Result, Variant, number
from .systems import REFERENCE
from .workloads import WORKLOADS

FLOOR = "train: share of the floor"
LEGEND = (
    "Median over rounds in which the systems take turns, in brackets the interquartile range as a share of it; × is "
    "the median of the rounds' ratios to fairseq's lstm (float32). For memory less is better, otherwise more."
)
FLOOR_LEGEND = (
    " The floor of a training step is the time that its matrix products alone take at the rate of one large product "
    "measured in the same rounds."
)


def machine(device: str) -> Dict[str, str]:
    """What the numbers were measured on and with."""
    facts = {"CPU": f"{cpu_name()}, {available_cores()} cores, {torch.get_num_threads()} threads"}
    if device == "cuda":
        facts["GPU"] = torch.cuda.get_device_name()
    return {
        **facts, "torch": torch.__version__, "fairseq": fairseq.__version__, "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip


def cpu_name() -> str:
    try:
        return re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def markdown(plan: Plan, results: List[Result], facts: Dict[str, str]) -> str:
    """One row per workload and measure, one column per system; why something does not run is a note below."""
    variants = plan.variants()
    notes: List[str] = []
    lines = [
        "; ".join(f"{name} {value}" for name, value in facts.items()) + ".", "",
        "| workload | measure | " + " | ".join(column_title(plan, variant) for variant in variants) + " |",
        "|---|---|" + "---:|" * len(variants),
    ]  # fmt: skip
    for workload in plan.workloads:
        for measure in plan.measures:
            row = {r.variant: r for r in results if (r.workload, r.measure) == (workload, measure)}
            if not row:
                continue
            unit = next((r.unit for r in row.values() if r.value is not None), "")
            lines.append(_row(workload, f"{measure}, {unit}", variants, row, lambda r: _cell(r, notes)))
            if measure == "train":
                lines.append(_row(workload, FLOOR, variants, row, _share))
    lines += ["", *(f"[{place}] {note}  " for place, note in enumerate(notes, start=1)), *([""] if notes else [])]
    return "\n".join([*lines, *explanation(plan, results)]) + "\n"


def explanation(plan: Plan, results: List[Result]) -> List[str]:
    """What the numbers mean, and what was measured."""
    criteria = {f"{r.system} {r.criterion}" for r in results if r.criterion}
    padding = "lengths between half and all of it" if plan.mixed else "all lengths equal"
    return [
        LEGEND + (FLOOR_LEGEND if "train" in plan.measures else ""), "",
        *(f"- {name}: {WORKLOADS[name]}" for name in plan.workloads),
        f"- dropout {plan.dropout}; {padding}; {plan.rounds} rounds on {plan.device}",
        *([f"- criteria: {', '.join(sorted(criteria))}"] if criteria else []),
    ]  # fmt: skip


def column_title(plan: Plan, variant: Variant) -> str:
    """The system, and the type of its numbers where there are several."""
    system, dtype = variant
    title = "fairseq's lstm" if system == REFERENCE else system
    return title if len({other for _, other in plan.variants()}) == 1 else f"{title} {dtype}"


def _row(
    workload: str, name: str, variants: List[Variant], row: Dict[Variant, Result], cell: Callable[[Result], str]
) -> str:
    return f"| {workload} | {name} | " + " | ".join(cell(row[variant]) for variant in variants) + " |"


def _cell(result: Result, notes: List[str]) -> str:
    """Value, spread and ratio; or the number of the note that says why there are none."""
    if result.value is None:
        reason = str(result.reason)
        if reason not in notes:
            notes.append(reason)
        return f"[{notes.index(reason) + 1}]"
    scatter = f" ({result.spread:.0%})" if len(result.values) > 1 else ""
    return f"{number(result.value)}{scatter}" + (f" {result.ratio:.2f}×" if result.ratio else "")


def _share(result: Result) -> str:
    return "" if result.floor_share is None else f"{result.floor_share:.0%}"
