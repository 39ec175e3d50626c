"""scripts/plot_attention.py: pages and pictures of one log or of several, and what does not go together."""

import json
import logging
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def log(*sentences, end="Generate test with beam=5\n"):
    """A log of fairseq-generate: of each sentence its source, its output, its weights as they are printed."""
    lines = ""
    for number, (source, output, weights) in enumerate(sentences):
        scores = " ".join(["-1"] * len(weights.split()))
        lines += f"S-{number}\t{source}\nT-{number}\tx\nH-{number}\t-0.5\t{output}\nD-{number}\t-0.5\t{output}\n"
        lines += f"P-{number}\t{scores}\n" + (f"A-{number}\t{weights}\n" if "," in weights else "")
    return lines + end


TWO = (("a b", "b a", "0.1,0.8,0.1 0.9,0.1,0 0,0,1"), ("c", "c", "1,0 0,1"))
LOGS = {
    "one": log(*TWO),
    "two": log(("a b", "b", "0.2,0.7,0.1 0,0,1"), TWO[1]),
    "pieces": log(("a@@ b", "b@@ a", "0.3,0.7 0.5,0.5"), ("c", "c", "1,0 0,1")),
    "joined": log(("ab", "ba", "0.6,0.4"), ("c", "c", "1,0 0,1")),
    "unknown": log(("a <unk>", "b", "0.2,0.7,0.1 0,0,1"), TWO[1]),
    "other": log(("a c", "b", "0.2,0.7,0.1 0,0,1")),
    "none": log(("a b", "b", "1 1")),
    "cut": log(*TWO)[:60],
    "cut after a line": log(*TWO, end=""),
}


@pytest.fixture
def plot(tmp_path, monkeypatch):
    """plot(arguments...) returns what the script said, or nothing."""
    monkeypatch.chdir(tmp_path)
    for name, text in LOGS.items():
        Path(name).write_text(text)
    level = logging.root.manager.disable

    def plot(*arguments):
        monkeypatch.setattr(sys, "argv", ["plot_attention.sh", *arguments])
        try:
            runpy.run_path(str(ROOT / "scripts" / "plot_attention.py"), run_name="__main__")
        except SystemExit as end:
            return end.code

    yield plot
    logging.disable(level)


def sentences(path):
    """What a page draws."""
    return json.loads(re.findall(r'<script type="application/json">(.*?)</script>', Path(path).read_text())[0])


def test_several_logs_side_by_side(plot):
    assert plot("one", "two", "out.html", "--names", "first", "second") is None
    first, second = sentences("out.html")[0]["panels"]
    assert (first["title"], second["title"]) == tuple(f"{n}\nsentence 0, score -0.50" for n in ("first", "second"))
    assert first["views"] == [
        {"source": ["a", "b", "</s>"], "target": ["b", "a", "</s>"],
         "weights": [[0.1, 0.8, 0.1], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]}
    ]  # fmt: skip
    assert second["views"][0]["weights"] == [[0.2, 0.7, 0.1], [0.0, 0.0, 1.0]]
    assert plot("one", "--ids", "1", "--names", "x", "--", "out.HTML") is None, "options in between"
    assert [each["text"] for each in sentences("out.HTML")] == ["c"]
    assert plot("one", "two", "--nbest", "out.html").startswith("error: --nbest: got 2 logs; give one")


def test_a_picture_of_several_logs(plot):
    assert plot("one", "two", "out.png") is None and Path("out.png").read_bytes().startswith(b"\x89PNG")


def test_sources_are_the_same_however_they_are_cut(plot):
    assert plot("pieces", "joined", "out.html") is None
    panels = sentences("out.html")[0]["panels"]
    assert panels[0]["views"][1] == {"source": ["ab"], "target": ["ba"], "weights": [[1.0]]}
    assert panels[1]["views"][0]["source"] == ["ab", "</s>"]
    assert plot("one", "unknown", "out.html") is None


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("one none out.html --ids 0",
         "none: no attention weights in the log: run fairseq-generate with --print-alignment soft"),
        ("cut out.html", "cut:6: the log stops here, before fairseq-generate was done; run it again"),
        ("one cut out.png", "cut:6: the log stops here, before fairseq-generate was done; run it again"),
        ("one other out.html --ids 0",
         "other: sentence 0 is 'a c', but in one 'a b'; give logs of the same test set"),
        ("one other out.html --ids 1", "other: no sentence 1, which one has; give logs of the same test set"),
        ("one out.html --ids 0 7", "--ids: one has no sentence 7; ids go from 0 to 1"),
        ("one two out.html --names a", "--names: got 'a' for 2 logs; give each its own name"),
        ("one two out.html --names a a", "--names: got 'a a' for 2 logs; give each its own name"),
        ("one out.html --data . --data .", "--data: given 2 times for 1 logs; give it once, or once for each log"),
        ("one two two", "two: this is an input; name another file for the output"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(plot, arguments, words):
    assert plot(*arguments.split()) == f"error: {words}" and not Path("out.html").exists()


def test_a_log_that_stops_after_a_line(plot):
    assert "line:12: the log stops here, before fairseq-generate was done" in plot("cut after a line", "out.html")
