"""Tables of words: from columns to the folder, its pieces and back; what cannot be right is one line."""

import gzip
import json
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from covering import in_full
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[1] / "data-prep"))

import prepare_corpus  # noqa: E402
from settings import make_parser  # noqa: E402

from fairseq_attn_plugin.data import data_folder  # noqa: E402
from fairseq_attn_plugin.data.segmenter import RawText, Segmenter, SourcePieces  # noqa: E402
from fairseq_attn_plugin.evaluation import translation_report  # noqa: E402

ROWS = [
    ("dog", "dogs", "N;PL"), ("go", "went", "V;PST"), ("a▁b", "a b", "N;[x]"), ("ice cream", "ice creams", "N;PL"),
    ("town", "towns", "N;PL"), ("owe", "owed", "V;PST"),
]  # fmt: skip
CUT = ["--source-segmentation", "char", "--target-segmentation", "none"]
INFLECTION = ["--columns", "1+3,2", "--source-segmentation", "char,features", "--target-segmentation", "char"]


def prepared(folder, *options):
    words = ["--source", "lemma", "--target", "form", "--out", folder, *options]
    return prepare_corpus.prepare(make_parser("prepare_corpus.sh", "").parse_args([str(word) for word in words]))


def write(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tables(folder, train=ROWS * 5, valid=ROWS[:1], test=ROWS[1:2]):
    """Options that name three tables, the last one packed."""
    packed = write(folder / "test.tsv", test)
    packed.with_name("test.tsv.gz").write_bytes(gzip.compress(packed.read_bytes()))
    return [
        "--train", write(folder / "train.tsv", train), "--valid", write(folder / "valid.tsv", valid),
        "--test", folder / "test.tsv.gz", "--set", "x",
    ]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_characters_are_put_together_exactly(text):
    """Whatever the text has, symbols are neither blank nor reserved, and no character is taken for a feature."""
    text = data_folder.normalize(text)
    symbols = data_folder.cut(text, "char")
    assert data_folder.put_together(symbols, "char") == text
    assert len(symbols) == len(text) and not any(symbol.split() != [symbol] for symbol in symbols)
    features = data_folder.cut("N;IN+ESS;x", "features")
    assert not {*symbols} & {*features, *data_folder.reserved_symbols(["en"], columns=2)}


@pytest.mark.slow
def test_columns_reach_the_dictionary_and_come_back(programs, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(sys, "executable", str(programs / "bin" / "python"))
    test = [("go", "go", "N;SG"), ("go", "went", "V;PST")]
    folder = prepared(tmp_path, *tables(tmp_path, valid=ROWS[1:2], test=test), *INFLECTION)
    said = capfd.readouterr().err
    assert "test, lemma: features that the training text lacks, which are unknown: [SG]" in said
    assert "1 sources of valid are in test as well, 0 of them with another target" in said
    data = json.loads((folder / "data.json").read_text())
    assert data["format"] == 2 and data["segmentation"] == "char,features:char" and data["sentencepiece"] == {}
    assert data["measure"] == "exact_match" and data["settings"]["vocabulary"] == "separate"
    assert data["statistics"]["kept"] == 25 and data["statistics"]["dropped"]["in valid or test"] == 5
    assert (folder / "text/test.lemma").read_text() == "go\tN;SG\ngo\tV;PST\n"
    known = {line.rpartition(" ")[0] for line in (folder / "dict.lemma.txt").read_text().splitlines()}
    assert {"<tab>", "[PL]", "[PST]", "▁", "▁▁", "[[x]]", "g"} <= known and "x" not in known

    source, target, both = Segmenter(folder, "source"), Segmenter(folder, "target"), RawText(folder)
    for lemma, form, features in ROWS:
        line = f"{lemma}\t{features}"
        assert source.decode(source.encode(line)) == line and target.decode(target.encode(form)) == form
        assert both.decode(target.encode(form)) == form and both.encode(line) == source.encode(line)
        assert both.decode(SourcePieces(source.encode(line))) == source.encode(line), "logs show pieces"
    assert source.encode("go\tV;PST") == "g o <tab> [V] [PST]" and source.encode(" ") == ""
    with pytest.raises(ValueError, match="^'go': 1 columns by tabs, and the source has 2 .char, features."):
        source.encode("go")
    other = ["--columns", "3+1,2", "--source-segmentation", "features,char"]
    again = prepared(tmp_path, *tables(tmp_path, valid=ROWS[1:2], test=test), *INFLECTION, *other)
    assert (again / "text/test.lemma").read_text() == "N;SG\tgo\nV;PST\tgo\n", "other columns make it anew"


@pytest.mark.slow
@pytest.mark.parametrize("form, symbols", [("nfd", "ᄀ ᅡ ᆨ"), ("nfc", "각"), pytest.param("none", "ᄀ ᅡ ᆨ", marks=in_full)])
def test_what_is_taken_apart_is_composed_again(form, symbols, programs, monkeypatch, tmp_path):
    """``none`` leaves the text as it is given, here taken apart already."""
    monkeypatch.setattr(sys, "executable", str(programs / "bin" / "python"))
    word = "각" if form == "nfd" else unicodedata.normalize("NFD", "각")
    rows = [(word, f"k {number} é") for number in range(4)]
    given = tables(tmp_path, train=rows, valid=rows[:1], test=rows[:1])
    folder = prepared(tmp_path, *given, *CUT, "--disjoint", "none", "--normalization", form)
    assert json.loads((folder / "data.json").read_text())["normalization"] == {"none": "none"}.get(form, form.upper())
    source, target = Segmenter(folder, "source"), Segmenter(folder, "target")
    assert source.encode(word) == symbols and source.decode(symbols) == (word if form == "none" else "각")
    assert target.decode(target.encode("k é")) == "k é"


MISTAKES = {
    "columns": ([("a", "b"), ("c",)], [], "train.tsv:2: 1 columns by tabs; --columns asks for column 2"),
    "width": ([("a", "b"), ("c", "d", "e")], [], "train.tsv:2: 3 columns by tabs, and 2 in the first row; give each"),
    "blank": ([("a", "b"), ("", ""), ("c", " ")], [], "train.tsv:3: column 2 is blank; fill it in or take the row out"),
    "empty": ([("",)], [], "train.tsv: blank; give a table with a row for each pair"),
    "reserved": (None, ["--valid", "bad.tsv"], "bad.tsv:3: the symbol <s> is reserved"),
    "number": (None, ["--columns", "1+1,2"], "--columns: got '1+1,2'; give 2 different column numbers"),
    "target": (None, ["--columns", "1,2+3"], "--columns: got '1,2+3'; only the source, which comes first, has several"),
    "kinds": (None, ["--columns", "1+3,2"], "--source-segmentation: got 'char'; --columns has 1+3 for the source: "),
    "kind": (None, ["--target-segmentation", "features"], "--target-segmentation: got 'features'; choose from none"),
    "pieces": (None, ["--columns", "1+3,2", "--source-segmentation", "bpe,features"], "got 'bpe' for one of several"),
    "form": (None, ["--normalization", "nfkc"], "--normalization: got 'nfkc'; choose from NFC, NFD, none"),
    "files": (None, ["--columns", "1+3,2", "--test", "x"], "--test: a source of several columns comes from tables"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, options, message = MISTAKES[case]
    write(tmp_path / "bad.tsv", [("a", "b"), ("",), ("a", "b <s>")])
    if rows:
        rows = [row if any(row) else ("",) for row in rows]
    with pytest.raises(ValueError) as raised:
        prepared(tmp_path, *tables(tmp_path, train=rows or ROWS * 3), *CUT, *options)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not [*tmp_path.glob("x.lemma-form")]


@pytest.mark.slow
def test_words_are_trained_decoded_and_reported(programs, command, monkeypatch, tmp_path):
    """The log of fairseq-generate has source pieces, as they are cut in another way, and text; the report has rates."""
    monkeypatch.setattr(sys, "executable", str(programs / "bin" / "python"))
    data = prepared(tmp_path, *tables(tmp_path), *INFLECTION, "--disjoint", "none")
    options = (
        "--task attn_translation --arch attn_lstm --encoder-embed-dim 8 --encoder-hidden-size 8 --decoder-embed-dim 8 "
        "--decoder-hidden-size 8 --bridge linear --optimizer adam --lr 0.05 --batch-size 8 --no-epoch-checkpoints"
    )
    chosen = "--best-checkpoint-metric exact_match --maximize-best-checkpoint-metric"
    run = tmp_path / "run"
    log = command("train", data, options, chosen, "--max-epoch 2 --log-format json --save-dir", run) + command.stderr
    assert '"valid_exact_match"' in log and '"valid_error_rate"' in log
    printed = command("generate", data, "--task attn_translation --path", run / "checkpoint_best.pt",
                      "--print-alignment soft --scoring sacrebleu")  # fmt: skip
    assert "S-0\tg o <tab> [V] [PST]\n" in printed and "T-0\twent\n" in printed
    (text,) = re.findall("^D-0\t[^\t]*\t(.*)$", printed, re.M)
    (pieces,) = re.findall("^H-0\t[^\t]*\t(.*)$", printed, re.M)
    assert text == Segmenter(data, "target").decode(pieces)

    (run / "generate-test.txt").write_text(printed)
    (run / "train.jsonl").write_text(
        "num. shared model params: 9 (num. trained: 9)\n"
        '{"epoch": 2, "valid_exact_match": "31.5", "valid_num_updates": "8"}\n'
    )
    (run / "train.log").write_text("$ fairseq-train\n")
    (run / "seconds").write_text("train 5\n")
    (run / "settings").write_text(f"data x | average 0 | train {chosen}\n")
    said = translation_report.report_run(run, data, ["test"], Segmenter(data, "source").logged_pieces)
    assert said.startswith("|  | parameters | updates | training, minutes | test set | beam | WER | CER | BLEU |")
    assert "Best exact_match in validation (greedy): 31.50, which chose the checkpoint." in said
    assert "\nWER: lines that differ from the reference" in said and "\nWER: nrefs:1|bs:1000|seed:" in said
    scores = json.loads((run / "report.json").read_text())["tests"]["test"]["systems"][0]
    assert scores["WER"]["score"] == 100.0 * (text != "went")
    assert (run / "attention-test.png").exists(), "pieces fit the weights"
