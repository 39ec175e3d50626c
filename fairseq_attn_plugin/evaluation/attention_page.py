"""Attention maps to look into: a sentence at a time, systems side by side, word by word, of pieces or of words."""

from dataclasses import dataclass
from typing import Any, Dict, List, Sequence

import numpy as np

from . import word_pieces
from .html_page import Section, json_script


@dataclass(frozen=True)
class Panel:
    """What one system attended to in one sentence.

    Attributes:
        title: names the system.
        source, target: S source symbols and T symbols of the output.
        weights: T×S attention weights, from 0 to 1.
    """

    title: str
    source: List[str]
    target: List[str]
    weights: List[List[float]]


def attention_section(title: str, panels: Sequence[Sequence[Panel]], merged: bool = True) -> Section:
    """A section of a page with heat maps.

    Args:
        panels: of each sentence the systems, which stand side by side.
        merged: whether words are shown at first, where symbols are pieces of words.

    Raises:
        ValueError: weights that do not fit their symbols.
    """
    sentences: List[Dict[str, Any]] = [
        {"text": _text(systems[0].source), "panels": list(map(_panel, systems))} for systems in panels
    ]
    switch = _MERGE.format(checked=" checked" if merged else "")
    merges = any(len(panel["views"]) > 1 for sentence in sentences for panel in sentence["panels"])
    return Section(title, _CONTROLS.format(merge=switch if merges else "", data=json_script(sentences)))


def _text(source: Sequence[str]) -> str:
    """What the list of sentences says of one."""
    words = [word_pieces.word_as_marked(source[slice(*span)]) for span in word_pieces.spans_as_marked(source)]
    return " ".join(word for word in words if word != word_pieces.EOS)


def _panel(panel: Panel) -> Dict[str, Any]:
    """The panel for ``attention.js``: its view of symbols, and one of words where these are made of several symbols."""
    weights = np.asarray(panel.weights, dtype=float)
    if weights.shape != (len(panel.target), len(panel.source)):
        raise ValueError(f"{panel.title}: {weights.shape} attention weights for {len(panel.target)} symbols of the "
                         f"output and {len(panel.source)} of the source")  # fmt: skip
    views = [(panel.source, panel.target, weights)]
    merged = word_pieces.merge_as_marked(*views[0])
    if merged[:2] != (panel.source, panel.target):
        views.append(merged)
    return {
        "title": panel.title,
        "views": [{"source": s, "target": t, "weights": w.round(3).tolist()} for s, t, w in views],
    }


_MERGE = '<label><input type="checkbox" class="merge"{checked}> pieces merged into words</label>'
_CONTROLS = """<div class="attention">
<div class="controls">
<label class="of-sentence">Sentence <select></select></label>
<span class="steps" role="group" aria-label="step through the output">
<button type="button" class="back" aria-label="previous word">◀</button>
<input type="range" min="0" value="0" aria-label="word of the output">
<button type="button" class="on" aria-label="next word">▶</button>
<button type="button" class="play" aria-pressed="false">play</button>
</span>
{merge}
<span class="scale">weight 0 <span class="gradient"></span> 1</span>
</div>
<p class="where"></p>
<p class="said unseen" role="status"></p>
<div class="panels" tabindex="0" role="group" aria-label="attention maps; the arrow keys step through the output"></div>
{data}
</div>"""
