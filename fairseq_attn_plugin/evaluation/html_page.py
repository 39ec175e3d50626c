"""One HTML file that needs nothing else: sections, tables that sort, plotly figures. Light and dark; for a screen, a
phone and print. Its style and its scripts stand in ``page.css``, ``page.js`` and ``attention.js`` beside this file."""

import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Dict, List, Sequence

from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from . import whole_files
from .plots import OKABE_ITO

MISSING = ("", "–", "-")
"""Cells of a column of numbers that have none."""
_UNNAMED = '<span class="unseen">row</span>'
_NUMBER = re.compile(r"([+-]?(?:\d[\d,]*)?\.?\d+(?:e[+-]?\d+)?)(?: ?± ?[\d.,]+)?(?: ?%)?")


@dataclass(frozen=True)
class Figure:
    """A diagram.

    Attributes:
        id: names it in the page; letters, digits, ``_`` and ``-``.
        data: a figure of plotly as a dict with ``data`` and ``layout``. Colours of text, grid and background and, where
            they are not given, of the traces are those of the page. Text from outside goes through :func:`plotly_text`.
        text: what it shows, in words: its text alternative. Paragraphs are lines.
    """

    id: str
    data: Dict[str, Any]
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, HTML of one's own, figures below it."""

    title: str
    body: str = ""
    figures: Sequence[Figure] = ()


def plotly_text(text: str) -> str:
    """Text for a label of plotly, which reads ``<b>`` and its like as mark-up."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def json_script(value: Any, **attributes: str) -> str:
    """A ``<script>`` element that holds data, for scripts of the page to read."""
    text = json.dumps(value, cls=PlotlyJSONEncoder, ensure_ascii=False, separators=(",", ":"))
    named = "".join(f' {name}="{escape(each)}"' for name, each in attributes.items())
    return f'<script type="application/json"{named}>{text.replace("<", chr(92) + "u003c")}</script>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """HTML of a table that sorts by click or key. Columns of numbers (``1,234``, ``98.5 ± 0.3``, ``12 %``;
    :data:`MISSING` for none) are aligned to the right and sort as numbers."""
    numeric = [_is_numeric([row[column] for row in rows]) for column in range(len(header))]
    heads = "".join(
        f'<th scope="col" aria-sort="none"{_kind(number)}>'
        f'<button type="button">{escape(title) or _UNNAMED}</button></th>'
        for title, number in zip(header, numeric)
    )
    body = "\n".join(f"<tr>{_cells(row, numeric)}</tr>" for row in rows)
    return (
        '<div class="table-box" tabindex="0" role="region" aria-label="table"><table class="sortable">\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
    )


def _is_numeric(cells: List[str]) -> bool:
    return all(cell in MISSING or _NUMBER.fullmatch(cell) for cell in cells) and any(c not in MISSING for c in cells)


def _kind(number: bool) -> str:
    return ' class="number"' if number else ""


def _cells(row: Sequence[str], numeric: Sequence[bool]) -> str:
    """The first cell of a row names it."""
    cells = []
    for column, (cell, number) in enumerate(zip(row, numeric)):
        found = _NUMBER.fullmatch(cell) if number else None
        value = f' data-value="{float(found[1].replace(",", ""))}"' if found else ""
        tag = '<th scope="row"' if column == 0 else "<td"
        cells.append(f"{tag}{_kind(number)}{value}>{escape(cell)}</{tag[1:3]}>")
    return "".join(cells)


def write_page(path, title: str, sections: Sequence[Section], about: str = "", scripts: Sequence[str] = ()) -> None:
    """Writes the page.

    Args:
        about: what the page is of, in words; paragraphs are lines.
        scripts: JavaScript that runs last; ``page`` of ``page.js`` and ``Plotly`` are there.

    Raises:
        OSError: it cannot be written.
        ValueError: two figures of one id.
    """
    figures = [figure for section in sections for figure in section.figures]
    ids = [figure.id for figure in figures]
    if len(set(ids)) < len(ids):
        raise ValueError(f"figures of one id: {', '.join(sorted({each for each in ids if ids.count(each) > 1}))}")
    links = "".join(f'<a href="#section-{n}">{escape(each.title)}</a>' for n, each in enumerate(sections))
    page = Template(_asset("page.html")).substitute(
        title=escape(title),
        style=_asset("page.css"),
        about=_paragraphs(about),
        links=f'<nav aria-label="sections">{links}</nav>' if len(sections) > 1 else "",
        sections="\n".join(_section(n, each) for n, each in enumerate(sections)),
        data=json_script({"figures": {each.id: each.data for each in figures}, "colours": OKABE_ITO}, id="page-data"),
        plotly=get_plotlyjs(),
        scripts="\n".join(f"<script>{each}</script>" for each in (_asset("page.js"), _asset("attention.js"), *scripts)),
    )
    whole_files.write_text(path, page)


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in text.splitlines() if line.strip())


def _section(number: int, section: Section) -> str:
    figures = "\n".join(map(_figure, section.figures))
    return f'<section id="section-{number}"><h2>{escape(section.title)}</h2>\n{section.body}\n{figures}</section>'


def _figure(figure: Figure) -> str:
    ident = escape(figure.id)
    return (
        f'<figure class="diagram"><div class="plot" id="{ident}" role="img" aria-labelledby="{ident}-words"></div>\n'
        f'<details><summary>In words and numbers</summary><div id="{ident}-words">{_paragraphs(figure.text)}</div>'
        "</details></figure>"
    )
