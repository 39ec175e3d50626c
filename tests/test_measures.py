"""The measures of a run against values worked out by hand, and the reasons of a run that has none."""

import json
import math

import numpy as np
import pytest
from experiment_folder import entry, log_of, write_run

from fairseq_attn_plugin.evaluation import measures
from fairseq_attn_plugin.evaluation.generation_log import Hypothesis, Sentence
from fairseq_attn_plugin.evaluation.training_log import TrainingLog


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
    line = measures.of_test(sentences, "reverse")
    assert line["sentences"] == 3 and line["sentence_accuracy"] == pytest.approx(100 / 3)
    assert line["token_accuracy"] == pytest.approx(100 * (1 - 2 / (3 + 4 + 3)))
    assert line["alignment_accuracy"] == pytest.approx(100 * (3 + 2 + 2) / (3 + 4 + 2))
    assert measures.of_test(sentences, "copy")["alignment_accuracy"] == pytest.approx(100 * 1 / (3 + 4 + 2))
    assert list(line["by_length"]) == ["2", "3", "4"]
    assert line["by_length"]["4"]["token_accuracy"] == 75 and line["by_length"]["4"]["sentence_accuracy"] == 0
    assert line["entropy"] == 0 and line["coverage"] == pytest.approx(100 * (3 + 3 + 2) / 9)
    assert line["monotonicity"] == pytest.approx(100 * (1 + 1 + 2) / (3 + 3 + 3))
    without = measures.of_test([decoded("ab", "ba")], "reverse")
    assert [without[name] for name in ("alignment_accuracy", "entropy", "coverage", "monotonicity")] == [None] * 4


def test_entropy_and_coverage_of_spread_weights():
    sentence = decoded("abc", "cba", (0, 0, 0, 0))
    sentence.hypotheses[0].weights = np.full((4, 4), 0.25)
    found = measures.of_attention([sentence])
    assert found == {"entropy": pytest.approx(math.log(4)), "coverage": 100, "monotonicity": 100}


def test_when_a_training_had_learnt():
    """Seconds between two lines of the log in proportion; not known beyond the last one, or after a restart."""
    log = TrainingLog(parameters=7, seconds=9.0, speeds={10.0: 100.0, 20.0: 300.0, 30.0: 800.0})
    log.wall = {10.0: 20.0, 20.0: 60.0}
    log.validations = [dict(epoch=1.0, num_updates=n, sentence_accuracy=a) for n, a in ((5.0, 98.9), (15.0, 99.0))]
    line = measures.of_training(log)
    assert [stats["seconds"] for stats in line["validations"]] == [10, 40]
    assert (line["updates_to_99"], line["seconds_to_99"], line["tokens_per_second"]) == (15, 40, 300)
    assert measures.seconds_at(log, 21) is None
    log.wall, log.validations = {}, log.validations[:1]
    line = measures.of_training(log)
    assert line["updates_to_99"] is line["seconds_to_99"] is line["validations"][0]["seconds"] is None


def test_a_translation_is_scored_as_text():
    """The H line has pieces, the D line words, as the T line does."""
    right = Sentence(0, ["x"], "a small cat sat down".split(), [Hypothesis(-1.0, ["▁a", "x"], "a small cat  sat down")])
    other = Sentence(1, ["x", "y"], ["dogs", "bark"], [Hypothesis(-1.0, ["▁no"], "dogs ran")])
    line = measures.of_test([right], None)
    assert [line[name] for name in ("bleu", "chrf", "exact_match")] == [pytest.approx(100)] * 3
    line = measures.of_test([right, other], None)
    assert line["exact_match"] == 50 and line["token_accuracy"] == pytest.approx(100 * 6 / 7) and line["bleu"] < 100
    assert "alignment_accuracy" not in line


def test_a_run_is_a_line(tmp_path):
    write_run(tmp_path, "dot-seed1")
    line, splits = measures.measure_run(entry("dot", {"score": "dot"}), tmp_path, "reversal")
    assert line == json.loads(json.dumps(line)) and line["failed"] is None and len(splits["test"]) == 5
    assert (line["run"], line["facts"], line["seed"]) == ("dot-seed1", {"score": "dot"}, "1")
    assert (line["parameters"], line["updates"], line["seconds"]) == (1234, 16, 12.5)
    assert line["trained_lengths"] == [None, 6]
    assert (line["updates_to_99"], line["seconds_to_99"], line["tokens_per_second"]) == (16, 12, 200)
    test = line["tests"]["test"]
    assert test["sentence_accuracy"] == test["alignment_accuracy"] == 100 and test["coverage"] == pytest.approx(75)
    assert test["entropy"] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) * 20 / 25)


def cut(run, log="generate-test.txt", where="P-2"):
    path = run / log
    path.write_text(path.read_text()[: path.read_text().index(where)])


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda run: (run / "failed").write_text("train: --lr: got x\n"), "train: --lr: got x"),
        (lambda run: (run / "train.done").unlink(), "train is not finished"),
        (lambda run: (run / "generate-test.done").unlink(), "generate-test is not finished"),
        (cut, "x-seed1/generate-test.txt:"),
        (lambda run: cut(run, "train.jsonl", '"train_wps"'), "x-seed1/train.jsonl:"),
        (lambda run: (run / "train.jsonl").unlink(), "x-seed1/train.jsonl: No such file"),
        (lambda run: (run / "generate-test.txt").write_bytes(b"S-0\t\xff\n"), "x-seed1/generate-test.txt: not UTF-8"),
        (lambda run: (run / "generate-test.txt").write_text(no_references()), "has no T line"),
    ],
)
def test_a_run_without_numbers_says_why(tmp_path, damage, reason):
    damage(write_run(tmp_path, "x-seed1"))
    line, splits = measures.measure_run(entry("x", {"score": "x"}), tmp_path, "reversal")
    assert reason in line["failed"] and "\n" not in line["failed"] and str(tmp_path) not in line["failed"]
    assert splits == {} and "tests" not in line


def no_references() -> str:
    return "\n".join(line for line in log_of([("ab", "ba", "ba")]).splitlines() if not line.startswith("T-")) + "\n"
