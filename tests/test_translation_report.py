"""The report of a training, and the table of several."""

import json

import pytest
from translation_data import write_settings

from fairseq_attn_plugin.evaluation import translation_report


def write_run(folder, split, reference, hypotheses, ids=None):
    """What nmt.sh leaves of a training, and a data folder beside it, segmentation char."""
    data, out = folder / "data", folder / "out"
    (data / "text").mkdir(parents=True)
    out.mkdir()
    for name in ("dict.de.txt", "dict.en.txt", "sentencepiece.model"):  # read by nobody here
        (data / name).touch()
    write_settings(data, "char")
    (data / "text" / f"{split}.de").write_text("x\n" * len(reference))
    (data / "text" / f"{split}.en").write_text("".join(line + "\n" for line in reference))
    log = []
    for ident, text in reversed(list(enumerate(hypotheses))):
        source = "" if text is None else "x"
        text = "kept back" if text is None else text
        log.append(f"S-{ident}\t{source}\nT-{ident}\t{text}\nH-{ident}\t-1\t{text}\nD-{ident}\t-1\t{text}\n"
                   f"P-{ident}\t{' '.join(['-1'] * (len(text.split()) + 1))}\n")  # fmt: skip
    (out / f"generate-{split}.txt").write_text("".join(log) + f"Generate {split} with beam=5: ok\n")
    (out / "train.jsonl").write_text(
        "num. shared model params: 1,234 (num. trained: 1,234)\n"
        '{"epoch": 2, "valid_bleu": "31.5", "valid_num_updates": "8"}\n'
        "num. shared model params: 1,234 (num. trained: 1,234)\ndone training in 7.5 seconds\n"
    )
    (out / "train.log").write_text("$ fairseq-train\n" * 2)
    (out / "seconds").write_text("train 50\ntrain 70\n")
    (out / "settings").write_text("train --lr 1\n")
    return out, data


def test_report_of_a_run(tmp_path):
    reference = ["the dog sees the old cat", "a b c d e", ""]
    out, data = write_run(tmp_path, "test", reference, ["the dog sees the old cat", "a b c d f", None])
    text = translation_report.report_run(out, data, ["test"], lambda text: text.split())
    assert (out / "test.hyp").read_text().split("\n") == ["the dog sees the old cat", "a b c d f", "", ""]
    assert (out / "test.ref").read_text() == (data / "text" / "test.en").read_text()
    report = json.loads((out / "report.json").read_text())
    assert report["training seconds"] == 120 and report["updates"] == 8 and report["best validation BLEU"] == 31.5
    scores = report["tests"]["test"]["systems"][0]
    assert scores["WER"]["score"] == pytest.approx(100 / 3)
    assert scores["CER"]["score"] == pytest.approx(100 / (24 + 9))
    assert text == (out / "report.md").read_text() and "| de→en | 1,234 | 8 | 2.0 | test | 5 | " in text
    assert scores["BLEU"]["signature"] in text

    (out / "train.log").write_text("$ fairseq-train\n" * 3)
    translation_report.report_run(out, data, ["test"], lambda text: text.split())
    assert json.loads((out / "report.json").read_text())["training seconds"] is None, "one start left no time"

    for path in [*out.glob("generate-*"), *(data / "text").iterdir()]:
        path.rename(path.with_name(path.name.replace("test", "valid")))
    text = translation_report.report_run(out, data, ["valid"], lambda text: text.split())
    assert " | test | " in text and " | valid | " in text, "scores of other test sets stay"
    assert json.loads((out / "report.json").read_text())["tests"]["test"]["systems"][0] == scores


def test_a_log_that_lacks_a_sentence_is_no_result(tmp_path):
    out, data = write_run(tmp_path, "test", ["a", "b", "c"], ["a", "b"])
    with pytest.raises(ValueError, match="2 sentences for 3 lines of text; 2 is the first"):
        translation_report.report_run(out, data, ["test"], lambda text: text.split())
    assert not (out / "report.json").exists() and not (out / "test.hyp").exists()


def test_runs_are_compared_where_their_references_are_the_same(tmp_path):
    generator = ["the dog sees the old cat number {}", "a bird hears no bear at all {}"]
    reference = [generator[n % 2].format(n) for n in range(20)]
    runs = []
    for number, (split, lines) in enumerate([
        ("test", reference), ("test_en", [line.replace("the", "this") for line in reference]), ("test", reference),
    ]):  # fmt: skip
        right = reference if number < 2 else reference[:5]
        out, data = write_run(tmp_path / str(number), split, right, lines[: len(right)])
        translation_report.report_run(out, data, [split], lambda text: text.split())
        runs.append(translation_report.read_run(f"run {number}", out))
    rows = translation_report.comparison(runs)
    assert [(row["label"], row["test set"], "p_value" in row["BLEU"]) for row in rows] == [
        ("run 0", "test", False), ("run 1", "test_en", True), ("run 2", "test", False),
    ]  # fmt: skip
    assert rows[1]["BLEU"]["p_value"] < 0.05 and rows[0]["BLEU"]["score"] == pytest.approx(100)
    with pytest.raises(ValueError, match="two runs are called 'run 2'"):
        translation_report.table([*runs, runs[2]])
