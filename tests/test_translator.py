"""from_pretrained of a model's folder: raw text in, text, score and attention out; lines of any length."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.hub_utils import GeneratorHubInterface
from fairseq_commands import hypotheses
from translation_data import model_folder, read_lines, trained_folder, write_settings

from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel
from fairseq_attn_plugin.serving.translator import Translator

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tools.md"
POSITIONS = "--max-source-positions 60 --max-target-positions 101"  # 37 source tokens at once: 2 x 37 + 25 <= 100


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture
def trained(root, command):
    """(model's folder, data folder) of a model that has seen a few batches, made once."""
    data, model = root / "corpus.de-en", root / "moved" / "model"
    if not model.exists():
        sizes = {"train": 120, "valid": 9, "test": 30}
        model_folder(*trained_folder(command, root, POSITIONS, "--max-update 60", sizes=sizes), model)
    return model, data


@pytest.fixture
def translator(trained):
    return AttnRNNModel.from_pretrained(trained[0])


def lines_of(data, split="test", language="de"):
    return read_lines(data.parent / "text" / f"{split}.{language}")


def test_what_generate_prints(trained, translator, command):
    """Text, score and attention, in the order of the lines, in batches of any size."""
    model, data = trained
    lines = lines_of(data)
    text = command(
        "generate", f"{data} --task attn_translation --path {model}/checkpoint.pt --beam 3 --print-alignment soft",
        "--batch-size 1 --max-len-a 2 --max-len-b 25", POSITIONS,
    )  # fmt: skip
    scores, alignments = dict(hypotheses(text, "D")), dict(hypotheses(text, "A"))
    mixed = sorted(lines, key=len, reverse=True)
    together = dict(zip(mixed, translator.translate_lines(mixed, beam=3, max_tokens=150), strict=True))
    assert mixed != lines and len(scores) == len(together) == 30
    for number, line in enumerate(lines):
        (alone,) = translator.translate_lines([line], beam=3)
        score, text = scores[str(number)].split("\t")
        rows = [[float(x) for x in row.split(",")] for row in alignments[str(number)].split()]
        assert alone.text == text and alone.score == pytest.approx(float(score), abs=1e-4)
        np.testing.assert_allclose(alone.attention, rows, atol=1e-4)
        assert alone.attention.shape == (len(alone.target), len(alone.source))
        assert alone.source == [*translator.bpe.pieces(line), "</s>"] and alone.target[-1] == "</s>"
        if not alone.cut:  # a batch allows the length that its longest source has
            assert together[line].text == text and together[line].score == pytest.approx(float(score), abs=1e-4)
            np.testing.assert_allclose(together[line].attention, alone.attention, atol=1e-4)
    assert sum(not done.cut for done in together.values()) > 15
    assert translator.translate(mixed, beam=3, max_tokens=150) == [done.text for done in together.values()]
    assert translator.translate("Der hund.", beam=3) == translator.translate(["Der hund."], beam=3)[0]


def test_padding_on_the_left_moves_no_column(trained, translator):
    lines = lines_of(trained[1])
    other = AttnRNNModel.from_pretrained(trained[0], left_pad_source=True)
    for ours, theirs in zip(translator.translate_lines(lines, beam=2), other.translate_lines(lines, beam=2)):
        assert ours.text == theirs.text and ours.source == theirs.source
        np.testing.assert_allclose(ours.attention, theirs.attention, atol=1e-4)


def test_blank_lines_unknown_characters_and_no_attention(translator):
    empty, done, blank = translator.translate_lines(["", "Der 日本語 hund 😀.", " \t\u2028"], attention=False)
    for each in (empty, blank):
        assert (each.text, each.score, each.source, each.target) == ("", 0, [], [])
    assert empty.source is not blank.source
    assert (empty.parts, done.parts, done.unknown, done.attention) == (0, 1, 2, None)
    assert translator.translate_lines(["Der hund."])[0].attention is not None
    assert translator.translate_lines([]) == []


def test_a_translation_that_did_not_end_is_counted(translator):
    (done,) = translator.translate_lines(["Der hund."], max_len_a=0, max_len_b=1)
    assert (done.cut, len(done.target)) == (1, 2)
    with pytest.raises(ValueError, match="^beam: got 0; give a whole number, at least 1$"):
        translator.translate_lines(["Der hund."], beam=0)


def test_a_long_line_is_its_parts(trained, translator):
    sentences = lines_of(trained[1])[:6]
    assert translator.window == 37
    (done,) = translator.translate_lines([" ".join(sentences)], beam=2)
    assert done.source == [p for each in translator.translate_lines(sentences) for p in each.source] or done.parts < 6
    ends = [i + 1 for i, piece in enumerate(done.source) if piece == "</s>"]
    parts = [done.source[a:b] for a, b in zip([0, *ends], ends)]
    assert len(parts) == done.parts > 1 and max(map(len, parts)) <= translator.window
    assert [p for part in parts for p in part[:-1]] == translator.bpe.pieces(" ".join(sentences))
    assert all("".join(part[:-1]).endswith(".") for part in parts)
    alone = [translator.translate_lines([translator.bpe.decode(" ".join(part[:-1]))], beam=2)[0] for part in parts]
    assert done.text == " ".join(part.text for part in alone) and done.attention is None
    assert done.target == [p for part in alone for p in part.target]
    mean = sum(part.score * len(part.target) for part in alone) / len(done.target)
    assert done.score == pytest.approx(mean, abs=1e-4)


class Pieces:
    """A segmenter whose pieces are characters, ``_`` for a blank before one; or words."""

    def __init__(self, words=False):
        self.words = words

    def starts_word(self, piece):
        return self.words or piece.startswith("_")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab.|_c!”|_defghi|_jk", ["ab._c!”", " _defghi_jk"]),
        ("a.b.c.d|_efgh|_ij|_klmnop", ["a.b.c.d_efgh", " _ij_klmnop"]),
        ("abcdefghijklmnop", ["abcdefghijkl", "mnop"]),
        ("你好。|你们好吗？|今天天气很好", ["你好。你们好吗？", " 今天天气很好"]),
        ("ab._c", ["ab._c"]),
        ("", []),
    ],
)
def test_where_a_line_is_split(translator, monkeypatch, text, expected):
    monkeypatch.setattr(translator, "window", 13)  # twelve pieces and </s>
    monkeypatch.setattr(translator, "bpe", Pieces())
    pieces, rest = [], iter(text.replace("|", ""))
    for character in rest:
        pieces.append(character + next(rest) if character == "_" else character)
    parts = translator._split(pieces, [])
    joined = ["".join(part.pieces) for part in parts]
    assert "".join(joined) == text.replace("|", "")
    joints = [part.joint for part in parts]
    assert [(joint if number else "") + part for number, (joint, part) in enumerate(zip(joints, joined))] == expected


def test_ready_symbols_are_split_between_symbols(translator, monkeypatch):
    monkeypatch.setattr(translator, "window", 5)
    monkeypatch.setattr(translator, "bpe", Pieces(words=True))
    parts = translator._split("a b . c d e f g h".split(), ["<2en>"])
    assert [(part.pieces, part.joint) for part in parts] == [
        (["a", "b", "."], " "), (["c", "d", "e"], " "), (["f", "g", "h"], " "),
    ]  # fmt: skip


def without(name):
    return lambda folder: (folder / name).unlink()


def swapped(folder):
    shutil.copy(folder / "dict.de.txt", folder / "dict.en.txt")
    (folder / "dict.en.txt").write_text((folder / "dict.en.txt").read_text() + "ß 1\n")


def of_another_pair(folder):
    settings = json.loads((folder / "data.json").read_text())
    renamed = {**settings, "target": "nl", "targets": ["nl"]}
    renamed["sentencepiece"]["nl"] = "sentencepiece.model"
    renamed["sha256"]["dict.nl.txt"] = renamed["sha256"]["dict.en.txt"]
    shutil.copy(folder / "dict.en.txt", folder / "dict.nl.txt")
    (folder / "data.json").write_text(json.dumps(renamed))


def another_archive(folder):
    with zipfile.ZipFile(folder / "checkpoint.pt", "w") as archive:
        archive.writestr("thesis.txt", "precious")


def of_weights_alone(folder):
    torch.save(torch.load(folder / "checkpoint.pt")["model"], folder / "checkpoint.pt")


def without_history(folder):
    state = torch.load(folder / "checkpoint.pt")
    torch.save({name: value for name, value in state.items() if name != "optimizer_history"}, folder / "checkpoint.pt")


BROKEN = {
    ": no such folder; give the folder of a model": shutil.rmtree,
    ": no checkpoint.pt .checkpoints there: none.": without("checkpoint.pt"),
    "/checkpoint.pt: not a checkpoint of fairseq, torch": lambda f: (f / "checkpoint.pt").write_bytes(b"PK12"),
    "/checkpoint.pt: not a checkpoint of fairseq, torch cannot": another_archive,
    "/checkpoint.pt: not a checkpoint of fairseq, it lacks a model": of_weights_alone,
    "/checkpoint.pt: not a checkpoint of fairseq, it lacks the optimizer_history": without_history,
    ": no data.json; a data folder is made by": without("data.json"),
    ": no sentencepiece.model, which": without("sentencepiece.model"),
    "/dict.en.txt: not the file that data.json": swapped,
    ": sha256 is .* but the checkpoint has": lambda folder: [swapped(folder), write_settings(folder)],
    ": target is 'nl', but the checkpoint has 'en'; give": of_another_pair,
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_folder_is_one_line(trained, message, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "model")
    BROKEN[message](folder)
    with pytest.raises((OSError, ValueError), match=f"{folder}{message}") as raised:
        AttnRNNModel.from_pretrained(folder)
    assert "\n" not in str(raised.value)


def test_models_of_other_tasks_keep_fairseqs_interface(command, tmp_path):
    command(
        "train", f"--task reversal --arch attn_lstm_reversal --max-update 2 --optimizer adam --save-dir {tmp_path}",
        "--max-tokens 200 --disable-validation --no-epoch-checkpoints",
    )  # fmt: skip
    hub = AttnRNNModel.from_pretrained(tmp_path, "checkpoint_last.pt", print_alignment="hard")
    assert isinstance(hub, GeneratorHubInterface) and not isinstance(hub, Translator)
    assert set(hub.translate("a b c", max_len_b=5).split()) <= {"a", "b", "c", "d", "<unk>"}


def test_the_example_of_the_page(trained, capfd):
    """It runs as it stands, but for the folder."""
    (example,) = re.findall(r"<!-- serving -->\n```python\n(.*?)```\n<!-- /serving -->", PAGE.read_text(), re.S)
    code, replaced = re.subn(r"runs/nmt/\S+/model", str(trained[0]), example)
    exec(compile(code, "docs/tools.md", "exec"), {})
    shapes = re.findall(r"^\((\d+), (\d+)\)$", capfd.readouterr().out, re.M)
    assert replaced == 1 and len(shapes) == 2
