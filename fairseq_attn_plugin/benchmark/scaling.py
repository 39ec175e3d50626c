"""How the time of a sentence grows with its length and with the beam: a picture, its numbers as a table."""

from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Callable, Dict, List, Optional, Sequence

import matplotlib
from matplotlib.figure import Figure

from ..evaluation.plots import OKABE_ITO, STYLE
from . import rounds
from .comparison import say
from .systems import Setting
from .work import Work, give_back_memory, search, training_step
from .workloads import WORKLOADS

SYSTEMS = ("fairseq", "feeding", "additive")
SENTENCES = 16
"""Of every batch, so that only the length changes; those of the longest sources fit in a few gigabytes."""

LENGTHS, BEAMS = (10, 25, 50, 100, 200, 400), (1, 2, 5, 10, 20)
WORKLOAD = replace(WORKLOADS["nmt15"], sentences=SENTENCES)
GREY_FIRST = (OKABE_ITO[-1], *OKABE_ITO[:-1])
"""What the others are compared with stands back."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long; as in a comparison."""

    systems: Sequence[str] = SYSTEMS
    device: str = "cpu"
    rounds: int = 5
    seconds: float = 0.5
    steps: Optional[int] = None
    dropout: float = 0.1
    criterion: Optional[str] = None
    lengths: Sequence[int] = LENGTHS
    beams: Sequence[int] = BEAMS


@dataclass
class Panel:
    """One diagram: seconds of a sentence over x, one curve for each system."""

    title: str
    label: str
    x: List[int] = field(default_factory=list)
    seconds: Dict[str, List[Optional[float]]] = field(default_factory=dict)
    """System → median over the rounds at every x; None where it does not run."""

    raw: Dict[str, List[List[float]]] = field(default_factory=dict)
    """System → at every x, seconds of a sentence in every round."""

    reasons: List[str] = field(default_factory=list)
    """Why some do not run."""


def measure(plan: Plan) -> List[Panel]:
    """Training step and search over the source length, search over the beam; progress goes to stderr."""
    long = [replace(WORKLOAD, source_length=length) for length in plan.lengths]
    panels = [
        Panel("training step", "source length"),
        Panel("search, beam 5", "source length"),
        Panel(f"search, source length {WORKLOAD.source_length}", "beam"),
    ]
    for workload in long:
        _add_point(panels[0], workload.source_length, plan, workload, training_step)
        _add_point(panels[1], workload.source_length, plan, workload, partial(search, beam=5))
    for beam in plan.beams:
        _add_point(panels[2], beam, plan, WORKLOAD, partial(search, beam=beam))
    return panels


def _add_point(panel: Panel, x: int, plan: Plan, workload, build: Callable[[Setting], Work]) -> None:
    """Measures all systems at one x."""
    say(f"{panel.title}, {panel.label} {x} ...")
    works = {
        system: partial(
            build, Setting(workload, system, device=plan.device, dropout=plan.dropout, criterion=plan.criterion)
        )
        for system in plan.systems
    }
    timings = rounds.alternate(works, plan.rounds, plan.seconds, plan.steps)
    panel.x.append(x)
    for system, timing in timings.items():
        raw = [seconds / workload.sentences for seconds in timing.seconds]
        panel.raw.setdefault(system, []).append(raw)
        panel.seconds.setdefault(system, []).append(median(raw) if raw else None)
        if timing.reason is not None:
            panel.reasons.append(f"{system}, {panel.label} {x}: {timing.reason}")
    say(f"{panel.title}, {panel.label} {x}: {', '.join(_cells(panel, -1))} ms")
    del timings
    give_back_memory()


def _cells(panel: Panel, position: int) -> List[str]:
    """Milliseconds of a sentence at one x, system by system."""
    values = [seconds[position] for seconds in panel.seconds.values()]
    return ["-" if value is None else f"{1000 * value:.3g}" for value in values]


def markdown(panels: List[Panel], facts: Dict[str, str]) -> str:
    """One row for every point: milliseconds of a sentence."""
    systems = list(panels[0].seconds)
    lines = [
        "; ".join(f"{name} {value}" for name, value in facts.items()) + ".", "",
        "| ms for one sentence | | " + " | ".join(systems) + " |", "|---|---:|" + "---:|" * len(systems),
    ]  # fmt: skip
    for panel in panels:
        for position, x in enumerate(panel.x):
            lines.append(f"| {panel.title}, {panel.label} | {x} | {' | '.join(_cells(panel, position))} |")
    lines += ["", *(f"- {reason}" for panel in panels for reason in panel.reasons)]
    lines.append(f"{WORKLOAD.vocabulary:,} words, hidden {WORKLOAD.hidden_dim}, {SENTENCES} sentences a batch at every "
                 f"length, {WORKLOAD.target_length} target tokens.")  # fmt: skip
    return "\n".join(lines) + "\n"


def draw(panels: List[Panel]) -> Figure:
    """One diagram beside the other; all times start at zero."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 4.0), dpi=150, layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
            for (system, seconds), colour in zip(panel.seconds.items(), GREY_FIRST * len(panel.seconds)):
                y = [float("nan") if value is None else 1000 * value for value in seconds]
                axes.plot(panel.x, y, label=system, color=colour, marker="o", linewidth=2, clip_on=False)
            axes.set(title=panel.title, xlabel=panel.label, ylim=(0, None), xlim=(0, None))
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.axes[0].set_ylabel(f"ms for one sentence, batches of {SENTENCES}")
        figure.legend(handles=figure.axes[0].lines, loc="outside upper center", ncols=len(panels[0].seconds))
    return figure
