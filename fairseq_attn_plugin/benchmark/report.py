"""The table of a comparison in Markdown, and the facts that a reader of its numbers needs."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Callable, Dict, List, Optional

import fairseq
import torch

from .checkout import HERE
from .comparison import Plan, Result, Variant, number
from .systems import REFERENCE
from .workloads import WORKLOADS

FLOOR = "train: share of the floor"
LEGEND = (
    "Median over rounds in which the systems take turns, in brackets the interquartile range as a share of it; × is "
    "the median of the rounds' ratios to fairseq's lstm (float32). For memory less is better, otherwise more."
)
OTHER_LEGEND = (
    " × of {0} is the median of ours / that of {0} in the same round; each of the two checkouts has a process of its "
    "own, and one of them works at a time."
)
FLOOR_LEGEND = (
    " The floor of a training step is the time that its matrix products alone take at the rate of one large product "
    "measured in the same rounds."
)


def machine(device: str, against: Optional[str] = None) -> Dict[str, str]:
    """What the numbers were measured on and with; of two checkouts, which commits."""
    facts = {"CPU": f"{cpu_name()}, {available_cores()} cores, {torch.get_num_threads()} threads"}
    if device == "cuda":
        facts["GPU"] = torch.cuda.get_device_name()
    return {
        **facts, "torch": torch.__version__, "fairseq": fairseq.__version__, "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **({} if against is None else {"here": commit(HERE), Path(against).resolve().name: commit(Path(against))}),
    }  # fmt: skip


def commit(checkout: Path) -> str:
    """The commit that a checkout stands at, with "-dirty" where files were changed since; else its folder."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return str(checkout.resolve())


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
            lines.append(_row(workload, f"{measure}, {unit}", variants, row, lambda r: _cell(r, notes, plan.label)))
            if measure == "train":
                lines.append(_row(workload, FLOOR, variants, row, _share))
    lines += ["", *(f"[{place}] {note}  " for place, note in enumerate(notes, start=1)), *([""] if notes else [])]
    return "\n".join([*lines, *explanation(plan, results)]) + "\n"


def explanation(plan: Plan, results: List[Result]) -> List[str]:
    """What the numbers mean, and what was measured."""
    criteria = {f"{r.system} {r.criterion}" for r in results if r.criterion}
    padding = "lengths between half and all of it" if plan.mixed else "all lengths equal"
    return [
        LEGEND + ("" if plan.against is None else OTHER_LEGEND.format(plan.label))
        + (FLOOR_LEGEND if "train" in plan.measures else ""), "",
        *(f"- {name}: {WORKLOADS[name]}" for name in plan.workloads),
        f"- dropout {plan.dropout}; {padding}; {plan.rounds} rounds on {plan.device}",
        *([f"- criteria: {', '.join(sorted(criteria))}"] if criteria else []),
    ]  # fmt: skip


def column_title(plan: Plan, variant: Variant) -> str:
    """The system, and the type of its numbers where there are several."""
    title = "fairseq's lstm" if variant.system == REFERENCE else variant.system
    title = title if len({other.dtype for other in plan.variants()}) == 1 else f"{title} {variant.dtype}"
    return f"{title} ({plan.label})" if variant.other else title


def _row(
    workload: str, name: str, variants: List[Variant], row: Dict[Variant, Result], cell: Callable[[Result], str]
) -> str:
    return f"| {workload} | {name} | " + " | ".join(cell(row[variant]) for variant in variants) + " |"


def _cell(result: Result, notes: List[str], label: Optional[str]) -> str:
    """Value, spread and ratio; or the number of the note that says why there are none."""
    if result.value is None:
        reason = str(result.reason)
        if reason not in notes:
            notes.append(reason)
        return f"[{notes.index(reason) + 1}]"
    scatter = f" ({result.spread:.0%})" if len(result.values) > 1 else ""
    ratio = f" {result.ratio:.2f}×" if result.ratio else ""
    of_other = f", {result.ratio_to_other:.2f}× of {label}" if result.ratio_to_other else ""
    return f"{number(result.value)}{scatter}{ratio}{of_other}"


def _share(result: Result) -> str:
    return "" if result.floor_share is None else f"{result.floor_share:.0%}"
