"""The report of an experiment: its keys, its tables by hand, and the whole of it from folders."""

import copy
import json
import re

import pytest
from experiment_folder import entry, reversed_sentences, write_plan, write_run

from fairseq_attn_plugin.evaluation import report_figures, report_tables
from fairseq_attn_plugin.evaluation.experiment_report import write_experiment_report
from fairseq_attn_plugin.evaluation.generation_log import Sentence
from fairseq_attn_plugin.evaluation.report_keys import Maps, Pivot, read_report_keys

# Keys


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"colums": []}, "report: unknown key 'colums' (did you mean 'columns'?)"),
        ({"columns": ["bleau"]}, "report: columns: got 'bleau' (did you mean 'bleu'?)"),
        ({"columns": "bleu"}, "report: columns: got 'bleu'; give a list"),
        ({"lengths": ["20-15"]}, "report: lengths: got '20-15'"),
        ({"lengths": [-5]}, "report: lengths: got -5"),
        ({"test": "tset"}, "report: test: got 'tset' (did you mean 'test'?); choose from test, test_long"),
        ({"deviation": "yes"}, "report: deviation: got 'yes'; choose from true, false"),
        ({"pivot": {"line": "score"}}, "report: pivot: got line; give line"),
        ({"pivot": {"line": "scor", "columns": []}}, "pivot: line: got 'scor' (did you mean 'score'?)"),
        ({"pivot": {"line": "score", "columns": ["bleu"]}}, "pivot: columns: got 'bleu'"),
        ({"maps": "test"}, "report: maps: got 'test'; give keys with values (split, rows"),
        ({"maps": {"rows": "both"}}, "report: maps: rows: got 'both'; choose from one, all"),
        ({"maps": {"sentences": True}}, "report: maps: sentences: got True; give a number"),
        ({"by_length": "bleu"}, "report: by_length: got 'bleu'; choose from sentence_accuracy, token_accuracy"),
        (["columns"], "report: got ['columns']; give keys with values"),
    ],
)
def test_a_mistake_in_the_keys_names_them(keys, said):
    with pytest.raises(ValueError) as error:
        read_report_keys(keys, "reversal", ["test", "test_long"], ["score", "cell"])
    assert said in str(error.value) and "\n" not in str(error.value)


def test_keys_by_default_and_all_of_them():
    assert "alignment_accuracy" in read_report_keys({}, "reversal").columns
    assert {"bleu", "chrf", "exact_match"} <= set(read_report_keys({}, "attn_translation").columns)
    given = dict(columns=["bleu"], lengths=["5-10", 200], test="valid", deviation=False, by_length=False, learning=[])
    keys = read_report_keys({**given, "maps": False, "pivot": {"line": "x", "columns": ["bleu"]}}, "translation")
    assert keys.lengths == ((5, 10), (200, 200)) and keys.pivot == Pivot("x", ("bleu",))
    assert keys.maps is keys.by_length is None and keys.learning == ()


# Tables


def measured(facts, failed=None, **numbers) -> dict:
    """A line of measures whose test has one length."""
    one = dict(sentences=4, correct=numbers.pop("correct", 4), distance=0, length=4 * 16)
    test = dict(sentence_accuracy=25.0 * one["correct"], by_length={str(numbers.pop("length", 16)): one})
    line = dict(run="x", facts=facts, failed=failed)
    return line if failed else {**line, "parameters": 77, "updates": 10, **numbers, "tests": {"test": test}}


def test_a_table_joins_seeds():
    given = dict(columns=["updates", "seconds", "sentence_accuracy"], lengths=["15-20", 200])
    keys = read_report_keys(given, "reversal")
    lines = [measured({"s": "x"}, seconds=seconds, correct=right) for seconds, right in ((1.0, 4), (2.0, 0), (9.0, 4))]
    lines[1:1] = [measured({"s": "y"}, seconds=None, length=200), measured({"s": "y"}, failed="no disk")]
    lines.append(measured({"s": "z"}, failed="no\tluck"))
    x, y, z = report_tables.rows_of(report_tables.columns_of(keys), lines)
    assert (x["label"], x["facts"], x["seeds"], x["failed"]) == ("x", {"s": "x"}, 3, 0)
    assert x["training seconds"] == 2.0, "median"
    assert x["sentence accuracy"] == x["sentences, lengths 15–20"] == pytest.approx(200 / 3)
    assert x["deviation"]["sentence accuracy"] == pytest.approx(57.735, abs=1e-3), "of a sample"
    assert (y["seeds"], y["failed"], y["sentences, length 200"], y["sentences, lengths 15–20"]) == (1, 1, 100, None)
    assert (z["seeds"], z["failed"], z["updates"]) == (0, 1, None)
    text = report_tables.report_text(keys, lines)
    assert text.splitlines()[2] == "| x | 10 | 2.0 ± 4.4 | 66.67 ± 57.74 | 66.67 ± 57.74 | – |"
    assert text.splitlines()[3] == "| y | 10 | – | 100.00 | – | 100.00 |" and "| z | – | – | – | – | – |" in text
    assert "No numbers of x: no disk\n" in text and "seconds: median; ± standard deviation.\n" in text
    plain = report_tables.report_text(read_report_keys({"deviation": False}, "reversal"), lines)
    assert "±" not in plain and "mean of 3 seeds, seconds: median.\n" in plain


def test_a_row_came_to_99_percent_if_every_seed_did():
    keys = read_report_keys({"columns": ["updates_to_99", "tokens_per_second"]}, "reversal")
    lines = [measured({"s": s}, updates_to_99=n, tokens_per_second=n) for s, n in zip("xxyy", (100, None, 100, 200))]
    x, y = report_tables.report_text(keys, lines).splitlines()[2:4]
    assert (x, y) == ("| x | – | 100 |", "| y | 150 ± 71 | 150 ± 71 |")


def test_pivots_by_hand():
    """A value may hold what stands between two of them in a title, and one word may be the value of two facts."""
    facts = [dict(score="none", cell=cell) for cell in ("gru, big", "current")]
    facts += [dict(score="dot", query="previous", cell="gru, big"), dict(score="dot", query="previous", cell="current")]
    facts.append(dict(score="dot", query="current", cell="gru, big"))
    lines = []
    for number, (each, seconds) in enumerate(zip(facts, (1.0, None, 2.5, 2.0, 1.5))):
        lines += [measured(each, updates_to_99=1000.0 + number, seconds=seconds) for _ in range(2)]
    pivot = {"line": "score", "columns": ["updates_to_99", "coverage"]}
    columns = ["updates", "seconds", "updates_to_99", "coverage"]
    text = report_tables.report_text(read_report_keys({"columns": columns, "pivot": pivot}, "reversal"), lines)
    assert text.splitlines()[:9] == [
        "| updates to 99 % | previous, gru, big | previous, current | current, gru, big |",
        "| --- | ---: | ---: | ---: |",
        "| none | 1,000 | 1,001 | 1,000 |",
        "| dot | 1,002 | 1,003 | 1,004 |",
        "",
        "| attention coverage | previous, gru, big | previous, current | current, gru, big |",
        "| --- | ---: | ---: | ---: |",
        "| none | – | – | – |",
        "| dot | – | – | – |",
    ]
    assert text.endswith("± standard deviation.\n\nUpdates: 10. Slowest training: 2.5 seconds.\n")
    other = read_report_keys({"columns": columns, "pivot": {**pivot, "line": "query"}}, "reversal")
    assert report_tables.report_text(other, lines).startswith("|  | updates |"), "some rows have no query"


# Figures


def test_curves_are_means_over_seeds():
    seeds = []
    for seconds, accuracies in ((1.0, (10, 30)), (3.0, (20, 50))):
        points = zip((4.0, 8.0), accuracies)
        stats = [dict(num_updates=n, token_accuracy=a, seconds=seconds * n) for n, a in points]
        seeds.append(measured({"s": "x"}, validations=stats))
    lines = [*seeds, measured({"s": "y"}, validations=[]), measured({"s": "z"}, failed="why")]
    (x,) = report_figures.learning_curves(lines, "token_accuracy")
    assert (x.label, list(x.x), list(x.y)) == ("x", [4, 8], [15, 40])
    assert x.deviation == pytest.approx([7.071, 14.142], abs=1e-3)
    (x,) = report_figures.learning_curves(lines, "token_accuracy", "seconds")
    assert list(x.x) == [8, 16] and report_figures.learning_curves(lines, "bleu") == []


def test_lengths_are_counted_together_over_tests_and_seeds():
    one, other = (measured({"s": "x"}, correct=right, validations=[]) for right in (4, 1))
    other["tests"]["test_long"] = copy.deepcopy(one["tests"]["test"])
    other["tests"]["test_long"]["by_length"]["17"] = dict(sentences=1, correct=0, distance=17, length=17)
    (curve,) = report_figures.length_curves([one, other], "sentence_accuracy")
    assert (list(curve.x), list(curve.y)) == ([16, 17], [75, 0])
    (curve,) = report_figures.length_curves([one, other], "sentence_accuracy", width=5)
    assert (list(curve.x), list(curve.y)) == ([18], [pytest.approx(100 * 9 / 13)])
    assert report_figures.in_words(curve) == "x: 69.2 at 18."


def test_sentences_are_chosen_from_short_to_long():
    sentences = [Sentence(n, ["x"] * length) for n, length in enumerate((9, 3, 0, 5, 70, 3, 8))]
    assert [each.id for each in report_figures.chosen(sentences, Maps(sentences=3))] == [1, 3, 0]
    assert len(report_figures.chosen(sentences, Maps(sentences=9))) == 5


# The whole


@pytest.fixture
def experiment(tmp_path):
    """Two models with two seeds each, of which one run failed, and one model that failed."""
    runs = [entry(name, {"score": name, "cell": "lstm"}, seed) for name in ("dot", "none", "<b>") for seed in "12"]
    for number, run in enumerate(runs[:3]):
        write_run(tmp_path, run["folder"], reversed_sentences(5 - number), weighted=number < 2)
    for run in runs[3:]:
        (tmp_path / run["folder"]).mkdir()
        (tmp_path / run["folder"] / "failed").write_text("train: out of <memory>\n")
    (tmp_path / "dot-seed1" / "commands").write_text("fairseq-train --as 'it is'\n")
    write_plan(tmp_path, runs, {"lengths": ["1-3", 6], "maps": {"rows": "all", "sentences": 2}})
    return tmp_path


FILES = {"measures.jsonl", "report.md", "report.json", "report.html", "attention.png", "accuracy_by_length.png",
         "learning_updates.png", "learning_seconds.png"}  # fmt: skip


@pytest.mark.slow
def test_the_whole_report_twice(experiment):
    table = write_experiment_report(experiment)
    assert {path.name for path in experiment.iterdir() if path.is_file()} == FILES | {"plan.json"}
    first = {name: (experiment / name).read_bytes() for name in FILES}
    assert write_experiment_report(experiment) == table == first["report.md"].decode()
    assert {name: (experiment / name).read_bytes() for name in FILES} == first
    dot, none, bold = json.loads(first["report.json"])
    assert (dot["label"], dot["seeds"], dot["sentence accuracy"]) == ("dot, lstm", 2, 90)
    assert (none["seeds"], none["failed"], bold["seeds"], bold["failed"]) == (1, 1, 0, 2)
    lines = [json.loads(line) for line in first["measures.jsonl"].splitlines()]
    assert [line["failed"] for line in lines] == [None] * 3 + ["train: out of <memory>"] * 3
    page = first["report.html"].decode()
    words = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    for text in ("A &lt;title&gt;", "No numbers of none-seed2: train: out of &lt;memory&gt;", "90.00 ± 14.14",
                 "none, lstm: no attention weights in the log of test.", "fairseq-train --as &#x27;it is&#x27;",
                 "dot, lstm: 50.0 at 8, 99.5 at 16.", "fairseq-generate --gen-subset test", "seen in training",
                 "What it is about."):  # fmt: skip
        assert text in (page if text == "seen in training" else words), text
    assert "<b>" not in words and str(experiment) not in page


@pytest.mark.slow
def test_a_report_in_which_nothing_has_finished_and_one_of_a_translation(tmp_path):
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.mkdir()
    write_plan(empty, [entry("dot", {"score": "dot"})])
    assert "No numbers of dot-seed1: train is not finished" in write_experiment_report(empty)
    assert not list(empty.glob("*.png")) and "train is not finished" in (empty / "report.html").read_text()
    write_run(text, "dot-seed1")
    write_plan(text, [entry("dot", {"score": "dot"}, task="attn_translation")], task="attn_translation")
    assert "| BLEU | chrF2 | exact match |" in write_experiment_report(text).replace("| tokens/s ", "")
    page = (text / "report.html").read_text()
    assert "words right, in %, by source length" in page and "dot: no attention weights" not in page


@pytest.mark.parametrize(
    "plan, said",
    [
        (None, "no plan.json; is this the folder of an experiment?"),
        ("{", "plan.json: damaged"),
        ('{"title": "x"}', "plan.json: no 'experiment'"),
    ],
)
def test_a_folder_without_a_plan(tmp_path, plan, said):
    if plan is not None:
        (tmp_path / "plan.json").write_text(plan)
    with pytest.raises(ValueError, match=said):
        write_experiment_report(tmp_path)
