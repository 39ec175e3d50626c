"""Scores: the same as sacrebleu's own command gives, the error rate against a loop, files as they come."""

import json
import logging
import os
import random
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import full_disk
from sacrebleu.metrics.base import Metric, Score, Signature
from sacrebleu.significance import PairedTest

from fairseq_attn_plugin.evaluation import scoring

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "score.py"
WORDS = "Der Hund sieht die alte Katze , sagt man .".split()


def corpus(seed, wrong):
    """60 sentences, each word with probability ``wrong`` another one."""
    generator = random.Random(seed)
    right = [random.Random(number).choices(WORDS, k=4 + number % 9) for number in range(60)]
    return [" ".join(generator.choice(WORDS) if generator.random() < wrong else w for w in line) for line in right]


@pytest.fixture
def files(tmp_path):
    texts = {"reference": corpus(1, 0), "base": corpus(2, 0.4), "better": corpus(3, 0.1)}
    for name, lines in texts.items():
        (tmp_path / name).write_text("\n".join(lines))  # the last line has no end
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys, files):
    """run(ARGUMENT...) calls the script in this process; returns stdout, and what it ended with (None: done)."""

    def call(*args):
        monkeypatch.chdir(files)
        monkeypatch.setattr(sys, "argv", ["score.py", *args])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as end:
            return capsys.readouterr().out, end.code
        return capsys.readouterr().out, None

    yield call
    logging.disable(logging.NOTSET)


NUMBER = r"(\d+\.\d+)"
CELL = re.compile(rf"{NUMBER} \({NUMBER} ± {NUMBER}\)(?: \(p = {NUMBER}\))?")


def sacrebleu(folder, *args):
    """What sacrebleu's command prints: per system and metric (score, mean, ± interval, p or ""), and signatures."""
    command = [sys.executable, "-m", "sacrebleu", *args, "-m", "bleu", "chrf", "ter", "-f", "latex", "-w", "4"]
    environment = {name: value for name, value in os.environ.items() if name != "SACREBLEU_SEED"}
    result = subprocess.run(command, cwd=folder, capture_output=True, check=True, env=environment, encoding="utf-8")
    rows = [cells for line in result.stdout.splitlines() if (cells := CELL.findall(line))]
    return rows, re.findall(r"nrefs:\S+", result.stdout + result.stderr)


def test_numbers_and_signatures_are_those_of_sacrebleus_command(files, run):
    stdout, end = run("reference", "base", "better", "--json", "out.json")
    assert end is None
    ours = json.loads((files / "out.json").read_text())
    rows, signatures = sacrebleu(files, "reference", "-i", "base", "better", "--paired-bs")
    assert len(rows) == len(ours["systems"]) == 2 and len(signatures) == 3 and ours["sentences"] == 60
    for system, cells in zip(ours["systems"], rows):
        for metric, cell, signature in zip(("BLEU", "chrF2", "TER"), cells, signatures):
            found = system[metric]
            assert found["signature"] == signature and signature in stdout
            numbers = (found.get(name) for name in ("score", "mean", "ci", "p_value"))
            assert cell == tuple("" if number is None else f"{number:.4f}" for number in numbers)
    assert "p_value" in ours["systems"][1]["TER"] and "p_value" not in ours["systems"][0]["TER"]
    one = scoring.score(corpus(1, 0), {"base": corpus(2, 0.4)})
    assert one.values["BLEU"][0] == {key: ours["systems"][0]["BLEU"][key] for key in ("score", "mean", "ci")}


def test_options_reach_sacrebleu(files):
    lines = corpus(2, 0.4)
    plain = scoring.score(corpus(1, 0), {"x": lines})
    shouted = {"x": [line.upper() for line in lines]}
    lower = scoring.score(corpus(1, 0), shouted, lowercase=True, tokenize="none")
    assert "case:lc" in lower.signatures["BLEU"] and "case:lc" in lower.signatures["chrF2"]
    assert "tok:none" in lower.signatures["BLEU"] and "tok:13a" in plain.signatures["BLEU"]
    assert scoring.score(corpus(1, 0), shouted).values["BLEU"][0]["score"] < plain.values["BLEU"][0]["score"]


def distance(one, two):
    """Levenshtein, transcribed from its recurrence."""
    rows = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(two) + 1)}
    for i in range(1, len(one) + 1):
        for j in range(1, len(two) + 1):
            same = rows[i - 1, j - 1] + (one[i - 1] != two[j - 1])
            rows[i, j] = min(same, rows[i - 1, j] + 1, rows[i, j - 1] + 1)
    return rows[len(one), len(two)]


def test_characters_are_counted_in_one_normal_form():
    right = ["Bär", "ab  cd", "xyz", ""]
    guess = ["Ba\u0308r", "ab\tcd", "xz!", "a"]
    values = scoring.score(right, {"x": guess}, wanted=["WER", "CER", "SER"]).values
    assert list(values) == ["WER", "CER", "SER"] and values["WER"][0]["score"] == 50.0
    assert values["SER"][0]["score"] == pytest.approx(100 * 2 / 4)
    errors = distance("xyz", "xz!") + 1
    assert values["CER"][0]["score"] == pytest.approx(100 * errors / (3 + 5 + 3))


class Sums(Metric):
    """To sacrebleu: 100 · Σ errors / Σ lengths, from what ``line`` counts of a reference and a hypothesis."""

    _SIGNATURE_TYPE = Signature

    def __init__(self, name, line):
        self.name, self.line, self.num_refs = name, line, 1

    def _extract_corpus_statistics(self, hypotheses, references):
        return [list(self.line(*pair)) for pair in zip(references[0], hypotheses)]

    def _compute_score_from_stats(self, stats):
        return Score(self.name, 100 * float(stats[0]) / float(stats[1]))

    def _aggregate_and_compute(self, stats):
        return self._compute_score_from_stats([sum(column) for column in zip(*stats)])

    def _compute_segment_score_from_stats(self, stats): ...
    def _preprocess_segment(self, sent): ...
    def _extract_reference_info(self, refs): ...
    def _compute_segment_statistics(self, hypothesis, ref_kwargs): ...


@pytest.mark.parametrize("seed", [None, "7"])
def test_intervals_and_tests_of_error_rates_are_sacrebleus(monkeypatch, seed):
    """Its own bootstrap over the same sums gives the same numbers, whatever the seed is."""
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    if seed:
        monkeypatch.setenv("SACREBLEU_SEED", seed)
    right, systems = corpus(1, 0), {"base": corpus(2, 0.3), "better": corpus(3, 0.1), "again": corpus(2, 0.3)}
    theirs = {
        "WER": lambda one, two: (one != two, 1), "CER": lambda one, two: (distance(one, two), len(one)),
        "SER": lambda one, two: (distance(one.split(), two.split()), len(one.split())),
    }  # fmt: skip
    wanted = {name: Sums(name, line) for name, line in theirs.items()}
    _, expected = PairedTest(list(systems.items()), wanted, [right], "bs", 1000)()
    scored = scoring.score(right, systems, wanted=[*theirs])
    for name in theirs:
        assert f"|seed:{seed or 12345}|" in scored.signatures[name] and "|bs:1000|" in scored.signatures[name]
        for ours, result in zip(scored.values[name], expected[name], strict=True):
            numbers = {key: value for key, value in vars(result).items() if value is not None}
            assert ours == pytest.approx(numbers, abs=1e-9)


def test_metrics_are_chosen(run):
    stdout, end = run("reference", "base", "better", "--metric", "ser,wer,bleu")
    assert end is None and stdout.startswith("|  | SER | WER | BLEU |") and "\nSER: nrefs:1|bs:1000|seed:" in stdout
    assert run("reference", "base", "--metric", "wer", "--symbols")[0].startswith("|  | WER | SER |")
    message = "error: --metric: got 'per'; choose from bleu, chrf, ter, wer, cer, ser"
    assert run("reference", "base", "--metric", "wer,per")[1] == message


def test_lines_end_at_line_feeds_only(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffa\u2028b\x85\r\n\n\rc\x0b\x1cd".encode())
    assert scoring.read_lines(path) == ["a\u2028b\x85\r", "", "\rc\x0b\x1cd"], "no byte order mark"
    path.write_bytes(b"")
    assert scoring.read_lines(path) == []


@pytest.mark.parametrize(
    "content, words",
    [
        (b"a\nb\n", "x: 2 lines, and reference has 60"),
        (b"a\n\xff\n", "x:2: not UTF-8"),
        (None, "x: No such file"),
    ],
)
def test_bad_files(files, run, content, words):
    if content is not None:
        (files / "x").write_bytes(content)
    stdout, error = run("reference", "base", "x", "--json", "out.json")
    assert stdout == "" and words in error and "\n" not in error
    assert not (files / "out.json").exists()


def test_names_are_one_a_system(run):
    assert run("reference", "base", "better", "--names", "one")[1].startswith("error: --names: got 'one' for 2 systems")
    stdout, end = run("reference", "base", "better", "--names", "one", "two", "--json", "none/out.json")
    assert not stdout and end.startswith("error: none/out.json: no folder "), "before any work"
    assert "| two | " in run("reference", "base", "better", "--names", "one", "two")[0]
    with full_disk():
        assert run("reference", "base", "--json", "out.json")[1].startswith("error: out.json: ")


def test_nothing_to_score(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty: empty"):
        scoring.read_system(tmp_path / "empty", [], "empty")
