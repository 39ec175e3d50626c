"""A page as a file: what is escaped, what a number is, that it needs no other file; maps of pieces and of words."""

import json
import re

import numpy as np
import pytest

from fairseq_attn_plugin.evaluation.attention_page import Panel, attention_section
from fairseq_attn_plugin.evaluation.html_page import Figure, Section, json_script, plotly_text, table, write_page

HOSTILE = "</script><img src=x onerror=alert(1)>&\"'"


def data_of(html):
    """What the first script of a section holds."""
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)[1])


@pytest.mark.parametrize(
    "cells, values",
    [
        (["1,234", "–", "5"], [1234, None, 5]),
        (["98.5 ± 0.3", "12 %", "-1e-3"], [98.5, 12, -0.001]),
        (["1", "none"], None),
        (["–", ""], None),
        (["1 2"], None),
    ],
)
def test_columns_of_numbers(cells, values):
    html = table(["name", "x"], [["a", cell] for cell in cells])
    found = re.findall(r'<td(?: class="number")?(?: data-value="([^"]*)")?>', html)
    assert [float(value) if value else None for value in found] == (values or [None] * len(cells))
    assert html.count('class="number"') == (len(cells) + 1 if values else 0)


def test_nothing_from_data_is_read_as_html(tmp_path):
    figure = Figure("f", {"data": [{"name": HOSTILE}]}, HOSTILE)
    panel = Panel(HOSTILE, [HOSTILE], [HOSTILE], [[1.0]])
    sections = [Section(HOSTILE, table([HOSTILE], [[HOSTILE]]), [figure]), attention_section(HOSTILE, [[panel]])]
    write_page(tmp_path / "x.html", HOSTILE, sections, about=HOSTILE)
    page = (tmp_path / "x.html").read_text()
    assert "<img src=x" not in page and page.count("onerror=alert(1)") >= 8
    assert data_of(json_script({"x": HOSTILE})) == {"x": HOSTILE}
    assert plotly_text("<unk> & x") == "&lt;unk&gt; &amp; x"


def test_a_page_needs_nothing_else(tmp_path):
    write_page(tmp_path / "x.html", "x", [Section("a"), Section("b")], scripts=["last()"])
    page = (tmp_path / "x.html").read_text()
    own = page[: page.index("plotly.js v")]
    assert re.findall(r'(?:src|href)="([^"]*)"', own) == ["data:,", "#section-0", "#section-1"]
    assert "default-src 'none'" in page and page.index("last()") > page.index("function attention(")
    assert page.count("plotly.js v") == 1 and len(page) < 5.5e6
    with pytest.raises(ValueError, match="figures of one id: f"):
        write_page(tmp_path / "y.html", "x", [Section("a", "", [Figure("f", {}, "")] * 2)])
    assert not (tmp_path / "y.html").exists()


SOURCE, TARGET = ["▁wal", "king", "▁dog", "</s>"], ["mar@@", "ch@@", "e", "chien", "</s>"]


def test_maps_of_pieces_and_of_words():
    weights = np.random.default_rng(0).dirichlet(np.ones(4), 5)
    panels = [[Panel("x", SOURCE, TARGET, weights.tolist())], [Panel("y", ["a", "b"], ["b"], [[0.25, 0.75]])]]
    pieces, words = data_of(attention_section("maps", panels).body)
    assert pieces["text"] == "walking dog" and words["text"] == "a b"
    as_it_is, merged = pieces["panels"][0]["views"]
    assert (as_it_is["source"], as_it_is["target"]) == (SOURCE, TARGET)
    assert np.allclose(as_it_is["weights"], weights, atol=6e-4)
    assert (merged["source"], merged["target"]) == (["walking", "dog", "</s>"], ["marche", "chien", "</s>"])
    by_hand = [[sum(row[:2]), row[2], row[3]] for row in (weights[:3].mean(axis=0), weights[3], weights[4])]
    assert np.allclose(merged["weights"], by_hand, atol=6e-4)
    assert words["panels"][0]["views"] == [{"source": ["a", "b"], "target": ["b"], "weights": [[0.25, 0.75]]}]


def test_the_switch_is_there_for_pieces_alone():
    pieces, letters = Panel("x", SOURCE[:1], ["a"], [[1.0]]), Panel("x", ["a"], ["a"], [[1.0]])
    assert 'class="merge" checked>' in attention_section("maps", [[letters], [pieces]]).body
    assert 'class="merge">' in attention_section("maps", [[pieces]], merged=False).body
    assert 'class="merge"' not in attention_section("maps", [[letters]]).body


def test_weights_that_do_not_fit():
    with pytest.raises(ValueError, match=r"^x: \(1, 2\) attention weights for 1 symbols of the output and 1 of the s"):
        attention_section("maps", [[Panel("x", ["a"], ["a"], [[0.5, 0.5]])]])
