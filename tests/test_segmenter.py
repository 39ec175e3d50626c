"""Raw text to pieces and back, and what a data folder must hold."""

import json
import shutil
import unicodedata

import pytest
from parallel_corpus import write_parallel_corpus
from translation_data import read_lines, train_sentencepiece, write_settings

from fairseq_attn_plugin.data.data_folder import read_data_settings
from fairseq_attn_plugin.data.segmenter import Segmenter

SEGMENTATIONS = ["none", "char", "bpe", "unigram"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One folder a segmentation, with dictionaries that nothing reads here."""
    folders = {}
    for segmentation in SEGMENTATIONS:
        folder = folders[segmentation] = tmp_path_factory.mktemp(segmentation)
        text = write_parallel_corpus(folder / "text", {"train": 300}, ("de", "en"))
        if segmentation != "none":
            train_sentencepiece(folder, text, ["de", "en"], segmentation, 120)
        for language in ("de", "en", "en+fr"):
            (folder / f"dict.{language}.txt").write_text("▁der 3\n")
        write_settings(folder, segmentation)
    return folders


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_text_comes_back(made, segmentation):
    segmenter = Segmenter(made[segmentation], "source")
    lines = read_lines(made[segmentation] / "text" / "train.de")
    assert any("ö" in line for line in lines)
    for line in lines[:50]:
        given = unicodedata.normalize("NFD", line).replace(" ", "\t\u2028 \u00a0", 1) + "\x85\r"
        pieces = segmenter.encode(given)
        assert segmenter.decode(pieces) == line
        if segmentation == "none":
            assert pieces == line
        elif segmentation == "char":
            assert pieces == " ".join("▁" + line.replace(" ", "▁"))
        else:
            assert len(line.split()) < len(pieces.split()) < len(line)


@pytest.mark.parametrize("blank", ["", " ", "\t\r", "\u2028\u0085\u00a0"])
@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_a_blank_line_has_no_pieces(made, segmentation, blank, tmp_path):
    assert Segmenter(made[segmentation], "source").encode(blank) == ""
    tagged = shutil.copytree(made[segmentation], tmp_path / "tagged")
    assert Segmenter(write_settings(tagged, segmentation, tagged=True), "source").encode(blank) == ""


def test_no_text_is_a_symbol_of_fairseq(made, tmp_path):
    given = "<s> a </s> <pad> <unk> <2en> b"
    assert Segmenter(made["none"], "source").encode(given) == "<unk> a <unk> <unk> <unk> <2en> b"
    folder = write_settings(shutil.copytree(made["none"], tmp_path / "tagged"), "none", tagged=True)
    assert Segmenter(folder, "source").encode(given) == "<2en> <unk> a <unk> <unk> <unk> <unk> b"
    assert Segmenter(folder, "target").encode("<2en> b") == "<2en> b"
    for segmentation in ("char", "bpe", "unigram"):
        pieces = Segmenter(made[segmentation], "source").encode(given).split(" ")
        assert not {"<s>", "</s>", "<pad>"} & set(pieces) and "".join(pieces).count("<unk>") == 1


@pytest.mark.parametrize("segmentation", ["char", "bpe", "unigram"])
@pytest.mark.parametrize("strange", ["日本語", "😀😀", "\x00", "\u0301", "\ufeff"])
def test_what_was_never_seen_is_one_piece(made, segmentation, strange):
    pieces = Segmenter(made[segmentation], "source").encode(f"der {strange} hund").split(" ")
    assert strange in pieces and "".join(pieces) == f"▁der▁{strange}▁hund"


def test_tags_name_the_target(made, tmp_path):
    folder = write_settings(shutil.copytree(made["bpe"], tmp_path / "tagged"), targets=("en", "fr"))
    plain = Segmenter(made["bpe"], "source").encode("der hund")
    segmenter = Segmenter(folder, "source", "fr")
    assert segmenter.encode("der hund") == "<2fr> " + plain
    segmenter.target = "en"
    assert segmenter.encode("der hund") == "<2en> " + plain
    assert Segmenter(folder, "target").encode("der hund") == plain
    with pytest.raises(ValueError, match="^--translate-to: not given; choose from en, fr$"):
        Segmenter(folder, "source").encode("der hund")
    with pytest.raises(ValueError, match="^--translate-to: got 'es'; choose from en, fr$"):
        Segmenter(folder, "source", "es")


def changed(**settings):
    def change(folder):
        path = folder / "data.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return change


def appended(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b"x 1\n")


BROKEN = {
    "no data.json; a data folder is made by data-prep": lambda folder: (folder / "data.json").unlink(),
    "data.json: damaged .JSONDecodeError": lambda folder: (folder / "data.json").write_text('{"format": 1,'),
    "data.json: damaged .TypeError": lambda folder: (folder / "data.json").write_text("[]"),
    "data.json: damaged .KeyError: 'source'": lambda folder: (folder / "data.json").write_text('{"format": 1}'),
    "data.json: damaged .targets is 'en'": changed(targets="en"),
    "data.json: damaged .segmentation is 'words'": changed(segmentation="words"),
    "data.json: damaged .no sha256 of dict.de.txt": changed(sha256={}),
    "data.json: damaged .no sha256 of a sentencepiece model": changed(sentencepiece={}),
    "data.json: format 3, and this version reads 2": changed(format=3),
    "no dict.en.txt, which its data.json names": lambda folder: (folder / "dict.en.txt").unlink(),
    "no sentencepiece.model, which": lambda folder: (folder / "sentencepiece.model").unlink(),
    "dict.de.txt: not the file that data.json describes": appended("dict.de.txt"),
    "sentencepiece.model: not the file that data.json describes": appended("sentencepiece.model"),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_folder_is_one_line(made, message, tmp_path):
    folder = shutil.copytree(made["bpe"], tmp_path / "broken")
    assert read_data_settings(folder)["segmentation"] == "bpe"
    BROKEN[message](folder)
    with pytest.raises(ValueError, match=f"^{folder}[:/ ]+{message}") as raised:
        Segmenter(folder, "target")
    assert "\n" not in str(raised.value)
