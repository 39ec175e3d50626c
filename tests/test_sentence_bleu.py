"""BLEU of single sentences, by hand."""

import math
import runpy
import sys

import pytest
from documentation import ROOT

from fairseq_attn_plugin.evaluation.sentence_bleu import sentence_bleu

E = math.e


@pytest.mark.parametrize(
    "reference, hypothesis, longest, expected",
    [
        ("va !", "va !", 2, 1.0),
        ("a b c d e f", "a b", 2, E**-2),  # the example of the book: short, and all of it right
        ("a b c d", "a b b c d", 2, (4 / 5) ** 0.5 * (3 / 4) ** 0.25),  # the second b counts once
        ("a b c", "c b a", 2, 0.0),  # no pair
        ("a b c", "c b a", 1, 1.0),
        ("a b", "a", 2, E**-1),  # no pair to be wrong
        ("a", "", 2, 0.0),
        ("", "a", 2, 0.0),
    ],
)
def test_values_by_hand(reference, hypothesis, longest, expected):
    assert sentence_bleu(reference.split(), hypothesis.split(), longest) == pytest.approx(expected)


@pytest.fixture
def score(tmp_path, monkeypatch, capsys):
    """score(WORD...) runs score.py on small files; what it printed, and what it ended with."""
    (tmp_path / "right").write_text("va !\nj'ai perdu .\n")
    (tmp_path / "one").write_text("va !\nj'ai perdu\n")

    def score(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["score.py", "right", "one", *words])
        try:
            runpy.run_path(str(ROOT / "scripts" / "score.py"), run_name="__main__")
        except SystemExit as end:
            return capsys.readouterr().out, end.code
        return capsys.readouterr().out, None

    yield score
    import logging

    logging.disable(logging.NOTSET)


def test_the_table(score):
    short = math.exp(1 - 3 / 2)
    assert score("--sentences", "2") == (
        "| reference | one | BLEU, k = 2 |\n| --- | ---: | ---: |\n| va ! | va ! | 1.000 |\n"
        f"| j'ai perdu . | j'ai perdu | {short:.3f} |\n| mean |  | {(1 + short) / 2:.3f} |\n",
        None,
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (["--sentences", "0"], "error: --sentences: got 0; give the words of the longest n-gram, 1 or more"),
        (["--sentences", "2", "--json", "x"], "error: --json: --sentences prints a table only; leave one of both out"),
    ],
)
def test_mistakes(score, words, message):
    assert score(*words) == ("", message)
