"""Pictures: accuracy per epoch, accuracy by length, heat maps of attention weights. PNG files, no display needed."""

import io
import math
import sys
import warnings
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

from . import whole_files

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
"""Colours that colour-blind readers tell apart, of Okabe and Ito; grey in place of black and yellow, of which each
cannot be seen on one of two backgrounds, white and black."""
LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
"""Style and marker: the first in every colour, then the second, ..."""
FEW_CURVES = 4  # a legend in one row
LEGEND_ROWS = 24  # in a column of the legend
STYLE: Any = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


@dataclass
class Curve:
    """One line of a diagram: y(x), both of one length.

    Attributes:
        deviation: where it is a mean, the standard deviation of y.
        group: of curves that may share a colour.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    deviation: Sequence[float] = ()
    group: str = ""


@dataclass
class HeatMap:
    """Attention weights T×S, their row symbols (target, T) and column symbols (source, S)."""

    title: str
    source: List[str]
    target: List[str]
    weights: np.ndarray


def save(figure: Figure, path) -> None:
    """Writes a PNG file, see :func:`whole_files.write`; `font_families` has warned about missing glyphs, so matplotlib
    need not do it again."""
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(picture, format="png", bbox_inches="tight")
    whole_files.write(path, picture.getvalue())


def looks(curves: Sequence[Curve]) -> List[Tuple[str, int]]:
    """A colour and the number of a line for each curve, all different as long as there are enough. Of more curves than
    colours, those of a group share one, where this tells them apart."""
    names = list(dict.fromkeys(curve.group for curve in curves))
    members = [[curve.group for curve in curves[:number]].count(curve.group) for number, curve in enumerate(curves)]
    if len(names) <= len(OKABE_ITO) < len(curves) and max(members) < len(LINES):
        return [(OKABE_ITO[names.index(curve.group)], member) for curve, member in zip(curves, members)]
    return ([(colour, line) for line in range(len(LINES)) for colour in OKABE_ITO] * len(curves))[: len(curves)]


def learning_curves(panels: Dict[str, List[Curve]], x: str) -> Figure:
    """One panel per statistic of the validation.

    Args:
        panels: title of the y axis → curves; one ``in %`` goes from 0 to 100.
        x: title of the x axis.
    """
    with matplotlib.rc_context(STYLE):
        many = max(map(len, panels.values()))
        figure = Figure(figsize=(5.2 * len(panels) + _legend_width(many), _height(many)), dpi=150, layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, curves) in zip(all_axes, panels.items()):
            _draw_curves(axes, curves, markersize=4, linewidth=1.5 if many > FEW_CURVES else 2)
            axes.set(title=title, xlabel=x)
            if title.endswith("%"):
                axes.set_ylim(-3, 103)
        _draw_legend(figure, max((axes.lines for axes in all_axes), key=len))
    return figure


FAR = 5
"""Lengths beyond so many times those of training have a logarithmic axis."""


def is_far(curves: Sequence[Curve], trained: Tuple[int, int]) -> bool:
    """Whether the lengths need a logarithmic axis."""
    return max(max(curve.x) for curve in curves) > FAR * trained[1]


def accuracy_by_length(curves: List[Curve], trained: Optional[Tuple[int, int]], x: str, y: str) -> Figure:
    """Accuracy in percent over the source length; the trained range of lengths is shaded.

    Args:
        trained: shortest and longest source in the training data, ``</s>`` not counted; None: not known.
        x, y: titles of the axes.
    """
    with matplotlib.rc_context(STYLE):
        many = len(curves) > FEW_CURVES
        size = (8.0 + _legend_width(len(curves)), _height(len(curves)))
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axes = figure.subplots()
        _draw_curves(axes, curves, markersize=4, linewidth=1.5 if many else 2)
        axes.set(xlabel=x, ylabel=y, ylim=(-3, 112))
        axes.set_yticks(range(0, 101, 20))
        if trained:
            _mark_trained(axes, curves, trained)
        _draw_legend(figure, axes.lines)
    return figure


def _mark_trained(axes, curves: List[Curve], trained: Tuple[int, int]) -> None:
    """Shades the trained lengths; where others are far from them, the axis becomes logarithmic."""
    axes.axvspan(trained[0] - 0.5, trained[1] + 0.5, color="#f3ecd8", zorder=0)
    far = is_far(curves, trained)
    middle = math.prod(trained) ** 0.5 if far else sum(trained) / 2
    axes.text(middle, 106, "seen in training", ha="center", va="center", color="#7a6a3a")
    if not far:
        return
    if len(curves) > FEW_CURVES:  # some are all right or all wrong: what is drawn first shows around what is over it
        for above, line in enumerate(reversed(axes.lines)):
            line.set(linewidth=1.5 + above, markersize=4 + 1.3 * above)
    longest = max(max(curve.x) for curve in curves)
    axes.set_xscale("log")
    ticks = [length for length in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if length <= longest]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()


def _height(curves: int) -> float:
    """Of a diagram with a legend of so many curves, inches."""
    return 4.2 if curves <= FEW_CURVES else max(5.5, 0.26 * min(curves, LEGEND_ROWS))


def _legend_width(curves: int) -> float:
    """Inches beside the diagrams."""
    return 0.0 if curves <= FEW_CURVES else 3.0 * -(-curves // LEGEND_ROWS)


def _draw_curves(axes, curves: List[Curve], **style) -> None:
    for curve, (colour, line) in zip(curves, looks(curves)):
        look = dict(color=colour, linestyle=LINES[line][0], marker=LINES[line][1], clip_on=False, **style)
        axes.plot(curve.x, curve.y, label=curve.label, **look)


def _draw_legend(figure: Figure, lines: Sequence) -> None:
    """Outside the diagrams: a row above them, or beside them where there are many curves."""
    if len(lines) <= FEW_CURVES:
        figure.legend(handles=lines, loc="outside upper center", ncols=len(lines))
    else:
        columns = -(-len(lines) // LEGEND_ROWS)
        figure.legend(handles=lines, loc="outside right center", handlelength=3, ncols=columns)


def attention_heat_maps(maps: List[HeatMap], columns: int = 3) -> Figure:
    """Small multiples with one scale from 0 to 1; source symbols above, target symbols on the left.

    A symbol that no installed font can draw is named on stderr.
    """
    rows, columns = -(-len(maps) // columns), min(columns, len(maps))
    wide, high = max(len(heat.source) for heat in maps), max(len(heat.target) for heat in maps)
    cell = min(0.24, 6.0 / wide)  # inches
    letter = 0.36 * cell  # of the labels, inches
    width = 0.6 + cell * wide + letter * max(len(label) for heat in maps for label in heat.target)
    height = 0.8 + cell * high + letter * max(len(label) for heat in maps for label in heat.source)
    height += 0.2 * max(heat.title.count("\n") for heat in maps)
    symbols = "".join(heat.title + "".join(heat.source + heat.target) for heat in maps)
    with matplotlib.rc_context({"font.size": 10 * cell / 0.24, "font.family": font_families(symbols)}):
        size = (max(3.2, columns * width + 0.9), rows * height + 0.3)
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        all_axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for number, (axes, heat) in enumerate(zip(all_axes, maps)):
            image = _draw_heat_map(axes, heat)
            axes.set_ylabel("output" if number % columns == 0 else "")
        for axes in all_axes[len(maps) :]:
            axes.remove()
        shrink = min(0.7, 4.5 / size[1])
        bar = figure.colorbar(image, ax=figure.axes, shrink=shrink, aspect=25, pad=0.02, ticks=[0, 0.5, 1])
        bar.set_label("attention weight")
        bar.outline.set_visible(False)
    return figure


def _draw_heat_map(axes, heat: HeatMap):
    image = axes.imshow(heat.weights, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    axes.set_xticks(range(len(heat.source)), heat.source, parse_math=False)
    axes.set_yticks(range(len(heat.target)), heat.target, parse_math=False)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    if max(map(len, heat.source)) > 1:
        for label in axes.get_xticklabels():
            label.set(rotation=90 if len(label.get_text()) > 1 else 0)
    axes.set_xticks(np.arange(len(heat.source) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(heat.target) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("source")
    axes.set_title(heat.title, fontsize=11, fontweight="bold", parse_math=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def font_families(text: str, base: str = "DejaVu Sans") -> List[str]:
    """Installed font families that can draw the text together, the base first; warns on stderr about the rest."""
    families, missing = [base], set(text) - _drawn_by(font_manager.findfont(base)) - set("\n\t ")
    fonts = [font for font in font_manager.fontManager.ttflist if not font.name.startswith("Last Resort")]
    for entry in sorted(fonts, key=lambda font: (font.name, font.style != "normal")):
        if not missing:
            break
        drawn = missing & _drawn_by(entry.fname) if entry.name not in families else set()
        if drawn:
            families.append(entry.name)
            missing -= drawn
    if missing:
        print(f"warning: no installed font draws {' '.join(sorted(missing))}; the picture shows boxes there "
              "(fonts-noto and fonts-noto-cjk have most scripts)", file=sys.stderr)  # fmt: skip
    return families


def _drawn_by(path: str) -> set:
    """Characters of a font file; none if it cannot be read."""
    try:
        return {chr(code) for code in font_manager.get_font(path).get_charmap()}
    except (OSError, RuntimeError):
        return set()
