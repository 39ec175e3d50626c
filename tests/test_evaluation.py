"""Logs of fairseq, the numbers and the pictures that are made from them."""

import json
import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from full_disk import full_disk

from fairseq_attn_plugin.evaluation import plots, report, whole_files
from fairseq_attn_plugin.evaluation.generation_log import Hypothesis, Sentence, attention_axes, read_generation_log
from fairseq_attn_plugin.evaluation.training_log import TrainingLog, read_training_log

ROOT = Path(__file__).resolve().parents[1]
GENERATED = """\
INFO: noise
S-7\tx あ
T-7\tあ x
H-7\t-0.25\tあ x
D-7\t-0.25\tあx
P-7\t-0.2 -0.3 -0.25
A-7\t0.1,0.7,0.2 0.8,0.1,0.1 0.0,0.1,0.9
H-7\t-0.5\tx
D-7\t-0.5\tx
P-7\t-0.4 -0.6
A-7\t0.5,0.25,0.25 0.2,0.2,0.6
S-2\t
T-2\t
H-2\t-0.125\t
D-2\t-0.125\t
P-2\t-0.125
A-2\t1.000000
Generate test with beam=2: all right
"""


def log_file(folder, text: str) -> Path:
    path = folder / "log.txt"
    path.write_text(text, encoding="utf-8")
    return path


# Logs


def test_generation_log_by_hand(tmp_path):
    empty, pair = read_generation_log(log_file(tmp_path, GENERATED))
    assert (empty.id, empty.source, empty.target, empty.hypotheses[0].tokens) == (2, [], [], [])
    assert attention_axes(empty, empty.hypotheses[0]) == (["</s>"], ["</s>"])
    assert (pair.id, pair.source, pair.target) == (7, ["x", "あ"], ["あ", "x"])
    best, second = pair.hypotheses
    assert (best.score, best.tokens, best.text, best.token_scores) == (-0.25, ["あ", "x"], "あx", [-0.2, -0.3, -0.25])
    assert np.array_equal(best.weights, [[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.0, 0.1, 0.9]])
    assert second.weights.shape == (2, 3) and attention_axes(pair, second)[1] == ["x", "</s>"]


def test_interactive_log_with_hard_alignments(tmp_path):
    log = "S-0\ta b\nW-0\t0.1\tseconds\nH-0\t-1\tb a\nD-0\t-1\tb a\nP-0\t-1 -1 -1\nA-0\t1-0 0-1\n"
    (sentence,) = read_generation_log(log_file(tmp_path, log))
    assert sentence.target is None and sentence.hypotheses[0].links == [(1, 0), (0, 1)]
    with pytest.raises(ValueError, match="--print-alignment soft"):
        attention_axes(sentence, sentence.hypotheses[0])


def without(line: str) -> str:
    return GENERATED.replace(line + "\n", "", 1)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no S lines"),
        (GENERATED[: GENERATED.index("Generate")], ":17: the log stops here"),
        (GENERATED[:-5], ":18: the log stops here"),
        (GENERATED[: GENERATED.index("-0.3")], ":6: the log stops here"),
        (without("S-7\tx あ"), ":2: damaged line"),
        (without("H-2\t-0.125\t"), ":14: damaged line"),
        (without("P-2\t-0.125"), "sentence 2.*without P"),
        (without("A-2\t1.000000"), "sentence 2.*without A"),
        (GENERATED.replace("P-7\t-0.4 -0.6", "P-7\t-0.4 -0.6 -0.1"), "2 rows of attention weights for 3 tokens"),
        (GENERATED.replace("0.7,0.2", "0.7,zero"), ":7: damaged line"),
        (GENERATED.replace("0.7,0.2", "0.7"), ":7: damaged line"),
        (GENERATED + GENERATED, ":20: damaged line.*comes twice"),
    ],
)
def test_damaged_generation_log_names_file_and_place(tmp_path, text, message):
    path = log_file(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_generation_log(path)
    assert str(path) in str(error.value)


def test_a_report_of_a_log_without_references_says_so(tmp_path):
    """Such as that of fairseq-interactive. One line, which names the file."""
    (tmp_path / "train.jsonl").write_text(TRAINED + "done training in 7.5 seconds\n")
    path = tmp_path / "generate-test.txt"
    path.write_text("\n".join(line for line in GENERATED.splitlines() if not line.startswith("T-")) + "\n")
    with pytest.raises(ValueError) as error:
        report.read_run({"score": "dot"}, tmp_path)
    assert str(error.value) == f"{path}: sentence 2 has no T line; is it the output of fairseq-generate?"
    with pytest.raises(ValueError, match="^sentence 7: no T line"):
        report.sentence_accuracy([Sentence(7, ["a"], hypotheses=[Hypothesis(-1.0, ["a"])])])


def test_joined_symbols_have_no_axes():
    joined = Hypothesis(-1.0, ["ab"], weights=np.ones((4, 3)) / 3)
    with pytest.raises(ValueError, match="--remove-bpe"):
        attention_axes(Sentence(3, ["a", "b"], hypotheses=[joined]), joined)


TRAINED = """\
{'common': {'seed': 1}, 'task': {'_name': 'reversal', 'reversal_max_length': 10, 'reversal_symbols': 'abcd'}}
num. shared model params: 12,345 (num. trained: 12,345)
{"epoch": 1, "update": 0.5, "loss": "1.5", "num_updates": "4"}
{"epoch": 1, "valid_loss": "3.5", "valid_token_accuracy": "40", "valid_num_updates": "8"}
{"epoch": 1, "test_long_loss": "9", "test_long_num_updates": "8"}
{"epoch": 1, "train_loss": "3", "train_num_updates": "8"}
{"epoch": 2, "valid_loss": "2.5", "valid_token_accuracy": "60", "valid_num_updates": "16"}
"""


def test_training_log_by_hand(tmp_path):
    log = read_training_log(log_file(tmp_path, TRAINED + "done training in 7.5 seconds\n"))
    assert (log.parameters, log.updates, log.seconds) == (12345, 16, 7.5)
    assert log.validations[0] == {"epoch": 1, "loss": 3.5, "token_accuracy": 40, "num_updates": 8}
    assert log.options["reversal_max_length"] == "10" and log.options["reversal_symbols"] == "abcd"


def test_resumed_training_has_no_time_and_counts_a_repeated_validation_once(tmp_path):
    again = TRAINED.replace('"60"', '"61"')[TRAINED.index("num.") :]
    log = read_training_log(log_file(tmp_path, TRAINED + again + "done training in 2 seconds\n"))
    assert [stats["token_accuracy"] for stats in log.validations] == [40, 61] and log.seconds is None


def test_damaged_training_log_names_file_and_line(tmp_path):
    with pytest.raises(ValueError, match=r"log\.txt:7: damaged"):
        read_training_log(log_file(tmp_path, TRAINED[:-12]))
    with pytest.raises(ValueError, match="no training in this file"):
        read_training_log(log_file(tmp_path, GENERATED))


@pytest.fixture(scope="module")
def real_logs(tmp_path_factory, programs):
    """A model of four updates, and its test split decoded with soft and with hard alignments."""
    folder = tmp_path_factory.mktemp("run")

    def fairseq(tool: str, *options: str):
        command = [programs / "bin" / f"fairseq-{tool}", "--user-dir", str(ROOT / "fairseq_attn_plugin")]
        command += ["--task", "reversal", "--cpu", *options]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    fairseq(
        "train", *"--arch attn_lstm_reversal --optimizer adam --criterion cross_entropy --batch-size 48".split(),
        *"--reversal-train-size 96 --reversal-valid-size 10 --reversal-test-size 7 --max-epoch 2".split(),
        *"--num-workers 0 --no-epoch-checkpoints --save-dir ck --log-format json --log-file train.jsonl".split(),
    )  # fmt: skip
    for kind in ("soft", "hard"):
        fairseq(
            "generate", *"--path ck/checkpoint_last.pt --beam 3 --nbest 2 --max-len-b 10 --batch-size 4".split(),
            *f"--print-alignment {kind} --results-path {kind}".split(),
        )  # fmt: skip
    return folder


@pytest.mark.slow
def test_logs_that_fairseq_writes(real_logs):
    training = read_training_log(real_logs / "train.jsonl")
    assert [stats["epoch"] for stats in training.validations] == [1, 2] and training.updates == 4
    assert training.parameters > 1000 and training.seconds > 0
    assert {"loss", "token_accuracy", "sentence_accuracy", "alignment_accuracy"} <= training.validations[0].keys()
    soft, hard = (read_generation_log(real_logs / kind / "generate-test.txt") for kind in ("soft", "hard"))
    assert [sentence.id for sentence in soft] == list(range(7))
    for sentence, other in zip(soft, hard):
        assert sentence.target == sentence.source[::-1] and len(sentence.hypotheses) == 2
        for hypothesis, same in zip(sentence.hypotheses, other.hypotheses):
            assert hypothesis.weights.shape == (len(hypothesis.token_scores), len(sentence.source) + 1)
            assert np.allclose(hypothesis.weights.sum(axis=1), 1, atol=1e-5)
            assert hypothesis.tokens == same.tokens
            assert [target for _, target in same.links] == list(range(len(same.token_scores) - 1))


# Numbers


def decoded(source: str, hypothesis: str, attended=None) -> Sentence:
    """A sentence whose target is the source back to front; ``attended``: the source position of each step."""
    weights = None if attended is None else np.eye(len(source) + 1)[list(attended)]
    return Sentence(0, list(source), list(source[::-1]), [Hypothesis(-0.5, list(hypothesis), weights=weights)])


def test_accuracies_by_hand():
    sentences = [
        decoded("abc", "cba", (2, 1, 0, 3)),  # all right
        decoded("abcd", "dcb", (3, 2, 0, 4)),  # one symbol short; positions 0 and 1 right, 2 wrong, 3 not there
        decoded("ab", "baa", (1, 0, 0, 2)),  # one symbol too many: it counts for nothing in the alignment
    ]
    assert report.sentence_accuracy(sentences) == pytest.approx(100 / 3)
    assert report.token_accuracy(sentences) == pytest.approx(100 * (1 - 2 / (3 + 4 + 3)))
    assert report.alignment_accuracy(sentences) == pytest.approx(100 * (3 + 2 + 2) / (3 + 4 + 2))
    assert report.alignment_accuracy(sentences, "copy") == pytest.approx(100 * 1 / (3 + 4 + 2))
    assert report.sentence_accuracy(report.of_lengths(sentences, 3, 4)) == 50
    assert report.alignment_accuracy([decoded("ab", "ba")]) is None and report.sentence_accuracy([]) is None


def run(score: str, seconds, hypothesis: str, epochs=(10.0, 30.0)) -> report.Run:
    validations = [
        {"epoch": epoch, "num_updates": 5.0 * epoch, "token_accuracy": accuracy, "sentence_accuracy": accuracy / 2}
        for epoch, accuracy in enumerate(epochs, 1)
    ]
    log, source = TrainingLog({}, 77, seconds, validations), "abc" * 5 + "d"
    return report.Run({"score": score}, log, {"test": [decoded(source, hypothesis)]})


def test_table_joins_seeds():
    right = ("abc" * 5 + "d")[::-1]
    runs = [run("x", 1.0, right), run("y", None, right), run("x", 2.0, "b"), run("x", 9.0, right)]
    rows = report.rows_of(report.TABLES["compare"], runs)
    assert [(row["label"], row["facts"], row["seeds"]) for row in rows] == [
        ("x", {"score": "x"}, 3),
        ("y", {"score": "y"}, 1),
    ]
    assert rows[0]["training seconds"] == 2.0, "median"
    assert rows[0]["sentence accuracy"] == rows[0]["sentences, lengths 15–20"] == pytest.approx(200 / 3)
    assert (rows[0]["parameters"], rows[0]["updates"], rows[0]["sentences, lengths 21–40"]) == (77, 10, None)
    table = report.markdown(report.TABLES["compare"], rows).splitlines()
    assert table[2].split("|")[1:6] == [" x ", " 77 ", " 10 ", " 2.0 ", " 66.67 "] and table[3].split("|")[4] == " – "


def test_pivots_by_hand():
    """A value may hold what stands between two of them in a title, and one word may be the value of two facts."""
    facts = [dict(score="none", cell=cell) for cell in ("gru, big", "current")]
    facts += [dict(score="dot", query="previous", cell="gru, big"), dict(score="dot", query="previous", cell="current")]
    facts.append(dict(score="dot", query="current", cell="gru, big"))
    rows = [dict(facts=each, seeds=2, x=1000.0 + n, y=None, updates=8) for n, each in enumerate(facts)]
    for row, seconds in zip(rows, (1.0, None, 2.5, 2.0, 1.5)):
        row["training seconds"] = seconds
    x, y = report.Column("x", None, 1), report.Column("y", None)
    assert report.pivot(x, rows) == [
        ["x", "previous, gru, big", "previous, current", "current, gru, big"],
        ["none", "1,000.0", "1,001.0", "1,000.0"],
        ["dot", "1,002.0", "1,003.0", "1,004.0"],
    ]
    text = report.pivots([x, y], rows)
    assert text.splitlines()[5:9] == [
        "| y | previous, gru, big | previous, current | current, gru, big |",
        "| --- | ---: | ---: | ---: |",
        "| none | – | – | – |",
        "| dot | – | – | – |",
    ]
    assert text.endswith("mean of 2 seeds, seconds: median.\n\nUpdates: 8. Slowest training: 2.5 seconds.\n")


def test_sentences_are_counted_by_length_over_all_splits():
    right, wrong = decoded("ab" * 15, "ba" * 15), decoded("ab" * 13, "a")
    splits = {"test": [decoded("abcdef", "fedcba")], "test_long": [right, wrong]}
    other = report.Run({"model": "x"}, TrainingLog(), splits)
    (row,) = report.rows_of(report.TABLES["lengths"], [other])
    lengths = {title.split()[-1]: number for title, number in row.items() if title.startswith("sentences")}
    assert {title: number for title, number in lengths.items() if number is not None} == {"5–10": 100, "26–30": 50}
    assert len(lengths) == 7


PICTURES = {
    "compare": {"attention", "accuracy_by_length", "accuracy_per_epoch"},
    "extrapolation": {"accuracy_by_length"},
    **dict.fromkeys(("fifty", "lengths", "sampling"), {"attention", "accuracy_by_length"}),
    **dict.fromkeys(("mechanisms", "normalizers", "parts", "ten_symbols", "guided"), {"attention"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", report.TABLES)
def test_every_mode_leaves_its_table_and_pictures(tmp_path, mode):
    runs = [run(score, 1.0, "b") for score in ("none", "dot", "dot")]
    for each, query in zip(runs, (None, "previous", "current")):
        each.facts.update(dict(query=query, cell="x") if query else {})
        weights = None if each.label == "none" else (2, 1, 0, 3)
        each.splits = {"test": [decoded("abc", "cba", weights)], "test_long": [decoded("abb", "bba", weights)]}
    if mode not in report.ONE_SENTENCE:
        runs.reverse()  # the first has the heat maps
    table = report.write_report(mode, runs, tmp_path, (5, 20))
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == table and "| none |" in table
    rows = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [row["label"] for row in rows] == [each.label for each in runs]
    assert all(column.title in row for row in rows for column in report.TABLES[mode])
    assert {path.stem for path in tmp_path.glob("*.png")} == PICTURES[mode]


def test_curves_are_means_over_seeds():
    runs = [run("x", 1.0, "b", (10, 30)), run("x", 1.0, "b", (20, 50)), run("y", 1.0, "b", (0, 1))]
    x, y = report.curves_per_epoch(runs, "token_accuracy")
    assert (x.label, list(x.x), list(x.y)) == ("x", [1, 2], [15, 40]) and list(y.y) == [0, 1]
    with pytest.raises(ValueError, match="'x' has no valid_bleu"):
        report.curves_per_epoch(runs, "bleu")


# Pictures


def test_heat_maps_show_every_symbol_on_one_scale(tmp_path, capsys):
    maps = [plots.HeatMap(f"{n}", list("a$x$"[:n]) + ["</s>"], ["b", "</s>"], np.eye(2, n + 1)) for n in (1, 2, 3, 4)]
    figure = plots.attention_heat_maps(maps, columns=3)
    panels = [axes for axes in figure.axes if axes.images and axes.get_title()]
    assert len(panels) == 4
    for axes, heat in zip(panels, maps):
        assert [label.get_text() for label in axes.get_xticklabels()] == heat.source
        assert [label.get_text() for label in axes.get_yticklabels()] == heat.target
        assert axes.images[0].get_clim() == (0, 1) and np.array_equal(axes.images[0].get_array(), heat.weights)
    assert [axes.get_ylabel() for axes in figure.axes].count("attention weight") == 1
    plots.save(figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert capsys.readouterr().err == ""
    whole = (tmp_path / "x.png").read_bytes()
    with full_disk(100), pytest.raises(OSError, match=r"'\S+/x\.png'$"):
        plots.save(figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == whole and len(list(tmp_path.iterdir())) == 1


def test_symbols_without_a_glyph_are_named(capsys):
    plots.attention_heat_maps([plots.HeatMap("x", ["\U0010fffd", "a"], ["é"], np.ones((1, 2)) / 2)])
    assert "no installed font draws \U0010fffd;" in capsys.readouterr().err


def test_font_fallback_is_an_installed_font_that_has_the_symbol():
    assert plots.font_families("a\u2581") == ["DejaVu Sans"]
    base, other = plots.font_families("a\ue09c")  # a private sign, in a font that comes with matplotlib
    assert base == "DejaVu Sans" and other.startswith("STIX")


def test_accuracy_pictures_label_both_curves():
    curves = [plots.Curve("with", [1, 2], [50, 100]), plots.Curve("without", [1, 2], [5, 10])]
    figure = plots.accuracy_per_epoch({"tokens": curves, "sentences": curves[::-1]})
    assert [[line.get_label() for line in axes.lines] for axes in figure.axes] == [
        ["with", "without"],
        ["without", "with"],
    ]
    assert [text.get_text() for text in figure.legends[0].texts] == ["with", "without"]
    figure = plots.accuracy_by_length(curves, trained=(5, 20))
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[50, 100], [5, 10]]
    (shade,) = figure.axes[0].patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (4.5, 20.5)


def test_many_curves_can_be_told_apart():
    curves = [plots.Curve(f"{number}", [1, 2], [number, 100]) for number in range(3 * len(plots.COLOURS))]
    figure = plots.accuracy_by_length(curves, trained=(5, 20))
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == len(curves)
    assert [text.get_text() for text in figure.legends[0].texts] == [curve.label for curve in curves]


def test_a_file_is_replaced_behind_a_link_and_a_pipe_stays_one(tmp_path):
    link, pipe, found = tmp_path / "link", tmp_path / "pipe", []
    (tmp_path / "file").write_text("old")
    link.symlink_to("file")
    whole_files.write_text(link, "new")
    assert link.is_symlink() and (tmp_path / "file").read_text() == "new"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()), daemon=True)
    reader.start()
    whole_files.write_text(pipe, "through")
    reader.join(timeout=20)
    assert found == ["through"] and pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "pipe"]
