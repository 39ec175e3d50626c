"""The figures of an experiment: curves over updates, seconds and lengths from the measures of its runs, for a PNG file
and for a page, and what is drawn of the attention."""

import math
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Dict, List, Optional, Sequence, Tuple

from . import measures, plots
from .generation_log import EOS, Hypothesis, Sentence, attention_axes, attention_weights
from .html_page import Figure, plotly_text
from .measures import Line
from .plots import Curve
from .report_keys import Maps
from .report_tables import finished, groups, label_of, lengths_of

WIDTH = 5
"""Lengths that share a point where the sources are text."""
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "triangle-up", "diamond")
TITLES = {
    "sentence_accuracy": "sentences all right, in %",
    "token_accuracy": "symbols right, in %",
    "alignment_accuracy": "attention on the right symbol, in %",
    "bleu": "BLEU",
    "loss": "loss in bits",
}
"""What an axis is called, by the statistic of the validation."""
PERCENT = ("sentence_accuracy", "token_accuracy", "alignment_accuracy")


# Curves


def learning_curves(lines: Sequence[Line], statistic: str, over: str = "num_updates") -> List[Curve]:
    """A statistic of the validation, one curve per row of the table, mean over seeds; rows without it are left out.

    Args:
        over: ``num_updates``, or ``seconds``, whose mean over the seeds at the same number of updates is taken.
    """
    curves = []
    for group in groups(finished(lines)):
        points: Dict[float, List[Dict[str, Any]]] = {}
        for stats in (stats for line in group for stats in line["validations"]):
            if stats.get(statistic) is not None and stats.get(over) is not None:
                points.setdefault(stats["num_updates"], []).append(stats)
        values = [[stats[statistic] for stats in points[updates]] for updates in sorted(points)]
        x = [mean(stats[over] for stats in points[updates]) for updates in sorted(points)]
        if x:
            curves.append(_curve(group, x, list(map(mean, values)), list(map(spread, values))))
    return curves


def spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds; of one, 0."""
    return stdev(values) if len(values) > 1 else 0.0


def length_curves(lines: Sequence[Line], measure: str, width: int = 1) -> List[Curve]:
    """An accuracy over the source length, all test splits and seeds together, one curve per row of the table.

    Args:
        width: lengths that share a point, the one in their middle.
    """
    curves = []
    for group in groups(finished(lines)):
        seeds = [_by_length(line, width) for line in group]
        lengths = sorted(set().union(*seeds))
        accuracies, spreads = [], []
        for length in lengths:
            parts = [seed[length] for seed in seeds if length in seed]
            accuracies.append(getattr(measures.total(parts), measure))
            spreads.append(spread([getattr(part, measure) for part in parts]))
        curves.append(_curve(group, lengths, accuracies, spreads))
    return curves


def _curve(group: Sequence[Line], x: Sequence[float], y: Sequence[float], deviation: Sequence[float]) -> Curve:
    """Of a row of the table; rows of the same first fact may share a colour."""
    facts = group[0]["facts"]
    return Curve(label_of(facts), x, y, deviation, next(iter(facts.values()), ""))


def _by_length(line: Line, width: int) -> Dict[float, Any]:
    """Counts of a run by length, or by the middle of so many lengths."""
    found: Dict[float, List[Any]] = {}
    for length, counts in lengths_of(line):
        middle = length if width == 1 else max(length - 1, 0) // width * width + (width + 1) / 2
        found.setdefault(middle, []).append(counts)
    return {length: measures.total(parts) for length, parts in found.items()}


# For the page


def interactive(
    ident: str, what: str, curves: Sequence[Curve], x: str, y: str, trained: Optional[Tuple[int, int]] = None
) -> Figure:
    """Curves as a figure of plotly.

    Args:
        what: what is drawn, the first sentence of the text alternative.
        x, y: titles of the axes; one ``in %`` goes from 0 to 100.
        trained: shortest and longest source in the training data, a range that is shaded.
    """
    percent = y.endswith("%")
    layout: Dict[str, Any] = {
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}, **({"range": [-3, 105]} if percent else {})},
        "showlegend": True,
    }
    if trained:
        far = plots.is_far(curves, trained)
        layout["shapes"], layout["annotations"] = [_shade(*trained)], [_seen(*trained, far)]
        layout["xaxis"].update({"type": "log"} if far else {})
    traces = [_trace(curve, look, x, len(curves)) for curve, look in zip(curves, plots.looks(curves))]
    return Figure(ident, {"data": traces, "layout": layout}, "\n".join([what, *map(in_words, curves)]))


def _trace(curve: Curve, look: Tuple[str, int], x: str, many: int) -> Dict[str, Any]:
    colour, style = look
    hover = f"%{{fullData.name}}<br>{x} %{{x}}: %{{y:.2f}}"
    trace: Dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plotly_text(curve.label),
        "x": [round(each, 1) for each in curve.x],
        "y": [round(each, 3) for each in curve.y],
        "line": {"color": colour, "dash": DASHES[style], "width": 2 if many <= plots.FEW_CURVES else 1.5},
        "marker": {"symbol": SYMBOLS[style], "size": 6 if many <= plots.FEW_CURVES else 5},
    }
    if any(curve.deviation):
        trace["customdata"] = [round(each, 3) for each in curve.deviation]
        hover += " ± %{customdata:.2f}"
    return {**trace, "hovertemplate": hover + "<extra></extra>"}


def _shade(shortest: int, longest: int) -> Dict[str, Any]:
    ends = {"x0": shortest - 0.5, "x1": longest + 0.5, "y0": 0, "y1": 1}
    look = {"fillcolor": plots.OKABE_ITO[4], "opacity": 0.12, "line": {"width": 0}, "layer": "below"}
    return {"type": "rect", "yref": "paper", **ends, **look}


def _seen(shortest: int, longest: int, far: bool) -> Dict[str, Any]:
    middle = math.log10(shortest * longest) / 2 if far else (shortest + longest) / 2  # plotly has it so on such an axis
    place = {"x": middle, "y": 1, "yref": "paper", "yanchor": "bottom"}
    return {"text": "seen in training", "showarrow": False, **place}


def in_words(curve: Curve) -> str:
    """Where a curve begins, where it is highest, where it ends."""
    best = max(range(len(curve.y)), key=lambda number: curve.y[number])
    first, highest, last = ((curve.x[number], curve.y[number]) for number in (0, best, -1))
    points = dict.fromkeys([first, highest, last])
    return f"{curve.label}: " + ", ".join(f"{y:.1f} at {x:,.10g}" for x, y in points) + "."


# Attention


@dataclass
class Drawn:
    """Best hypotheses of a few sentences by one model.

    Attributes:
        facts: of its row of the table.
        panels: by the number of the sentence.
    """

    facts: Dict[str, str]
    panels: Dict[int, plots.HeatMap]


def chosen(sentences: Sequence[Sentence], keys: Maps) -> List[Sentence]:
    """The sentences that are drawn, from short to long, evenly by length, among those not too long."""
    ordered = sorted(sentences, key=lambda sentence: (len(sentence.source), sentence.id))
    short = [sentence for sentence in ordered if 0 < len(sentence.source) <= keys.longest]
    count = min(keys.sentences, len(short))
    if count < 2:
        return short[:count]
    return [short[number * (len(short) - 1) // (count - 1)] for number in range(count)]


def heat_map(title: str, sentence: Sentence, hypothesis: Hypothesis) -> plots.HeatMap:
    """One hypothesis as a panel. ValueError: it has no weights, or its symbols were joined."""
    return plots.HeatMap(title, *attention_axes(sentence, hypothesis), attention_weights(hypothesis))


def side_by_side(drawn: Sequence[Drawn]) -> List[List[plots.HeatMap]]:
    """For each sentence what the models attend to, those alone that read the same source as the first."""
    numbers = sorted({number for each in drawn for number in each.panels}, key=lambda n: _length(drawn, n))
    found = []
    for number in numbers:
        panels = [each.panels[number] for each in drawn if number in each.panels]
        found.append([panel for panel in panels if panel.source == panels[0].source])
    return found


def _length(drawn: Sequence[Drawn], number: int) -> Tuple[int, int]:
    return next((len(each.panels[number].source), number) for each in drawn if number in each.panels)


def still(drawn: Sequence[Drawn], keys: Maps) -> List[plots.HeatMap]:
    """The panels of the picture: the longest sentence by every model, or three sentences by the first one."""
    with_maps = [each for each in drawn if each.panels]
    if not with_maps:
        return []
    if keys.rows == "all":
        return [plots.HeatMap(_title(panel.title), panel.source, panel.target, panel.weights)
                for panel in side_by_side(with_maps)[-1]]  # fmt: skip
    panels = [each[0] for each in side_by_side(with_maps[:1])]
    few = [panels[(2 * i + 1) * len(panels) // 6] for i in range(3)] if len(panels) > 3 else panels
    return [plots.HeatMap(f"{_symbols(p)} symbols", p.source, p.target, p.weights) for p in few]


def _symbols(panel: plots.HeatMap) -> int:
    """Of its source, ``</s>`` not counted."""
    return sum(symbol != EOS for symbol in panel.source)


def _title(label: str) -> str:
    """The label, whose first fact has a line of its own."""
    return label.replace(", ", "\n", 1)
