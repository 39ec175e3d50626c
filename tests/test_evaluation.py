"""Logs of fairseq, the numbers and the pictures that are made from them."""

import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from full_disk import full_disk

from fairseq_attn_plugin.evaluation import plots, whole_files
from fairseq_attn_plugin.evaluation.generation_log import Hypothesis, Sentence, attention_axes, read_generation_log
from fairseq_attn_plugin.evaluation.training_log import read_training_log

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
    assert log.wall == {} and log.tokens_per_second is None
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


def test_pictures_of_curves_label_them():
    curves = [plots.Curve("with", [1, 2], [50, 100]), plots.Curve("without", [1, 2], [5, 10])]
    figure = plots.learning_curves({"symbols, in %": curves, "loss": curves[::-1]}, "updates")
    assert [[line.get_label() for line in axes.lines] for axes in figure.axes] == [
        ["with", "without"],
        ["without", "with"],
    ]
    assert [axes.get_ylim() == (-3, 103) for axes in figure.axes] == [True, False], "a loss is no percentage"
    assert [text.get_text() for text in figure.legends[0].texts] == ["with", "without"]
    figure = plots.accuracy_by_length(curves, (5, 20), "x", "y")
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[50, 100], [5, 10]]
    (shade,) = figure.axes[0].patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (4.5, 20.5)
    assert not plots.accuracy_by_length(curves, None, "x", "y").axes[0].patches


def test_many_curves_can_be_told_apart():
    curves = [plots.Curve(f"{number}", [1, 2], [number, 100]) for number in range(3 * len(plots.OKABE_ITO))]
    figure = plots.accuracy_by_length(curves, (5, 20), "x", "y")
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == len(curves)
    assert [text.get_text() for text in figure.legends[0].texts] == [curve.label for curve in curves]
    grouped = [plots.Curve("", [1], [1], group=name) for name in "aabbbccddd"]
    looks = plots.looks(grouped)
    assert [look[0] == plots.OKABE_ITO["abcd".index(each.group)] for look, each in zip(looks, grouped)] == [True] * 10
    assert len(set(looks)) == 10 and len(set(plots.looks(grouped + grouped[:3] * 2))) == 16, "too many of a group"


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
