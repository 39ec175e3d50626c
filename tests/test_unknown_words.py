"""Unknown words are replaced by what they attend to: by hand, with bad input, and after real decodings."""

import logging
import os
import random
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils

import fairseq_attn_plugin
from fairseq_attn_plugin.evaluation import unknown_words
from fairseq_attn_plugin.evaluation.generation_log import Hypothesis, Sentence
from fairseq_attn_plugin.evaluation.unknown_words import Counts

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = Path(fairseq_attn_plugin.__file__).parent
DICTIONARY = {"der": "the", "Hund": "dog", "<unk>": "never", "</s>": "never"}


def hypothesis(tokens: str, weights=None, links=None) -> Hypothesis:
    words = tokens.split()
    return Hypothesis(-1.0, words, tokens, [-1.0] * (len(words) + 1), weights, links)


@pytest.mark.parametrize(
    "source, found, weights, expected, counts",
    [
        ("der Hund", "<unk> <unk>", [[0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0, 0, 1]], "the dog", Counts(dictionary=2)),
        ("Max der", "<unk> x <unk>", [[0.6, 0.4, 0], [1, 0, 0], [0.1, 0.9, 0], [0, 0, 1]], "Max x the", Counts(1, 1)),
        # most of the weight is on </s>, then all of it, then on a source word that is unknown itself
        ("Max Hund", "<unk>", [[0.1, 0.2, 0.7], [0, 0, 1]], "dog", Counts(dictionary=1)),
        ("Max Hund", "<unk>", [[0, 0, 1], [0, 0, 1]], "<unk>", Counts(unattended=1)),
        ("Max <unk>", "<unk>", [[0.1, 0.2, 0.7], [0, 0, 1]], "<unk>", Counts(lost=1)),
        ("", "<unk>", [[1], [1]], "<unk>", Counts(unattended=1)),
        ("Max", "x <<unk>>", [[1, 0], [1, 0], [0, 1]], "x <<unk>>", Counts()),
        ("Max", "", [[0, 1]], "", Counts()),
        # decoding that stopped without </s>; no unknown word, then joined symbols do no harm
        ("der Max", "<unk> <unk>", [[1, 0, 0], [0, 1, 0]], "the Max", Counts(1, 1)),
        ("Max", "joined", [[1, 0, 0]] * 4, "joined", Counts()),
    ],
)
def test_soft_alignments_by_hand(source, found, weights, expected, counts):
    sentence, counted = Sentence(0, source.split()), Counts()
    given = hypothesis(found, np.array(weights, dtype=float))
    result = unknown_words.replace_unknown_words(sentence, given, counted, DICTIONARY)
    assert (" ".join(result), counted) == (expected, counts)
    assert given.tokens == found.split(), "the hypothesis is not changed"


@pytest.mark.parametrize(
    "source, found, links, expected, counts",
    [
        ("der Max", "<unk> <unk> <unk>", [(1, 0), (0, 1), (1, 2)], "Max the Max", Counts(1, 2)),
        ("der <unk>", "<unk> y", [(1, 0), (0, 1)], "<unk> y", Counts(lost=1)),
        ("", "<unk>", [], "<unk>", Counts(unattended=1)),
        ("der", "", [], "", Counts()),
    ],
)
def test_hard_alignments_by_hand(source, found, links, expected, counts):
    counted = Counts()
    result = unknown_words.replace_unknown_words(
        Sentence(0, source.split(), ["x"]), hypothesis(found, links=links), counted, DICTIONARY
    )
    assert (" ".join(result), counted) == (expected, counts)


def test_another_symbol_and_the_summary():
    counts = Counts()
    given = hypothesis("UNK <unk> UNK UNK", links=[(0, 0), (0, 1), (1, 2), (2, 3)])
    sentence = Sentence(0, ["<unk>", "der", "UNK"])
    result = unknown_words.replace_unknown_words(sentence, given, counts, {"der": "the"}, "UNK")
    assert result == ["<unk>", "<unk>", "the", "UNK"]
    assert str(counts) == "3 unknown words: 1 from the dictionary, 1 copied, 1 left (1 for an unknown source word)"


@pytest.mark.parametrize(
    "given, message",
    [
        (hypothesis("<unk>"), "run fairseq-generate with --print-alignment soft"),
        (hypothesis("known"), "run fairseq-generate with --print-alignment soft"),
        (hypothesis("<unk>", np.ones((4, 3))), "sentence 3: 4 attention weights for 1 symbols.*--post-process"),
        (hypothesis("<unk>", np.ones((2, 5))), "sentence 3: 5 attention weights for 2 symbols.*--post-process"),
        (hypothesis("a<unk>b", np.ones((4, 3))), "sentence 3: 4 attention weights for 1 symbols"),
        (hypothesis("joined", links=[(0, 0), (0, 1)]), "sentence 3: 2 links for 2 source and 1 target.*--post-process"),
        (hypothesis("a b", links=[(0, 0)]), "sentence 3: 1 links"),
        (hypothesis("a", links=[(2, 0)]), "sentence 3: 1 links for 2 source"),
        (hypothesis("a", links=[]), "sentence 3: 0 links"),
        (Hypothesis(-1.0, ["a@@", "b"], "ab", links=[(0, 0), (1, 1)]), "sentence 3: 2 links.*--bpe"),
    ],
)
def test_alignments_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        unknown_words.replace_unknown_words(Sentence(3, ["a", "b"], ["x"]), given, Counts(), {})


# Files


def test_dictionary_and_source_files(tmp_path):
    path = tmp_path / "words"
    path.write_bytes("\ufeffHund\tdog\r\n\r\nder  the \nHund dog\nGröße\u00a0size\n".encode())
    assert unknown_words.read_dictionary(path) == {"Hund": "dog", "der": "the", "Größe": "size"}
    path.write_bytes("ein  Hund\r\n\n x\u2028y\ty\x0bz \r<unk>".encode())
    lines = unknown_words.read_source_text(path)
    assert lines == [["ein", "Hund"], [], ["x", "y", "y", "z"], ["<unk>"]]


LOG = """\
S-2\t<unk> der
T-2\tthe <<unk>>
H-2\t-0.5\t<unk> y
D-2\t-0.5\t<unk> y
P-2\t-0.1 -0.1 -0.1
A-2\t0.5,0.1,0.4 0.2,0.7,0.1 0,0,1
S-0\tder
T-0\tthe
H-0\t-0.5\t<unk>
D-0\t-0.5\t<unk>
P-0\t-0.1 -0.1
A-0\t0.4,0.6 0,1
H-0\t-0.7\tsecond
D-0\t-0.7\tsecond
P-0\t-0.1 -0.1
A-0\t0.4,0.6 0,1
Generate test with beam=2: all right
"""


@pytest.fixture
def script(tmp_path, monkeypatch, capfd):
    """script(arguments...) runs the script in this process, in ``tmp_path``; returns its stdout and stderr."""
    for name, text in {"log": LOG, "source": "der\nx\nÄpfel der\nz\n", "words": "der\tthe\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "disable", lambda level: None)  # the script would silence the other tests

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["replace_unknown.py", *map(str, arguments)])
        capfd.readouterr()
        runpy.run_path(str(ROOT / "scripts" / "replace_unknown.py"), run_name="__main__")
        return tuple(capfd.readouterr())

    return run


def test_line_number_is_sentence_id(script, tmp_path):
    out, notes = script("log", "-", "--dictionary", "words")
    assert out == "the\n\n<unk> y\n"
    assert notes.splitlines() == [
        "2 unknown words: 1 from the dictionary, 0 copied, 1 left (1 for an unknown source word)",
        "the log does not say which words <unk> stands for in the source: give them with --source",
        "1 empty lines: the log lacks these sentences, the first with id 1",
    ]
    out, notes = script("log", "out", "--source", "source")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "der\n\nÄpfel y\n\n" and out == ""
    assert notes.startswith("2 unknown words: 0 from the dictionary, 2 copied, 0 left\n2 empty lines")
    (tmp_path / "log").write_text(LOG.replace("<unk>", "UNK"))
    assert script("log", "-", "--unk", "UNK", "--source", "source")[0] == "der\n\nÄpfel y\n\n"


HARD = LOG.replace("0.5,0.1,0.4 0.2,0.7,0.1 0,0,1", "0-0 1-1").replace("0.4,0.6 0,1", "0-0")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("words", "a b\nc\n", "^error: words:2: 1 words in 'c'; a line is a source word"),
        ("words", "a b c\n", "^error: words:1: 3 words in 'a b c'"),
        ("words", "a b\n\na c\n", "^error: words:3: 'a' is 'c' here and 'b' in line 1$"),
        ("words", "\n", "^error: words: no entries"),
        ("words", b"a b\nc \xe4\n", "^error: words:2: not UTF-8"),
        ("words", None, "No such file.*'words'"),
        ("source", "der\nx\n", "^error: source: 2 lines, but the log has sentence 2 "),
        ("source", "der\nx\nein der Hund\n", "^error: source:3: 3 tokens, but 2 in line S-2 .*--post-process"),
        ("source", "der\nx\nein die\n", "^error: source:3: 'die', but 'der' in line S-2"),
        ("source", b"der\n\xff\n", "^error: source:2: not UTF-8"),
        ("source", None, "No such file.*'source'"),
        ("log", LOG.encode() + b"\xff\n", "^error: log: not UTF-8"),
        ("log", re.sub("A-.*\n", "", LOG), "^error: no attention weights.*--print-alignment soft$"),
        ("log", LOG.replace("-0.5\t<unk> y", "-0.5\t<unk>"), "sentence 2: 3 attention weights for 1 symbols.*-bpe"),
        ("log", HARD.replace("H-2\t-0.5\t<unk> y", "H-2\t-0.5\t<unk>"), "sentence 2: 2 links.*-bpe"),
        ("log", HARD.replace("H-2\t-0.5\t<unk> y", "H-2\t-0.5\tz@@ y"), "sentence 2: 2 links.*-bpe"),
        ("log", LOG[:-3], "^error: log:17: the log stops here"),
        ("log", None, "No such file.*'log'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_the_output_alone(script, tmp_path, name, content, message):
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "out").write_text("old\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=message) as error:
        script("log", "out", "--dictionary", "words", "--source", "source")
    assert "\n" not in str(error.value)
    assert (tmp_path / "out").read_text() == "old\n" and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("out, message", [("missing/out", "no folder"), ("folder", "folder"), ("log", "is an input")])
def test_output_that_cannot_be_written(script, tmp_path, out, message):
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        script("log", out)
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "log").read_text() == LOG


def test_shell_script_passes_arguments_on(tmp_path):
    """With stand-ins for set-up and Python, under a path with a blank."""
    scripts, python = tmp_path / "a b" / "scripts", tmp_path / "a b" / "venv" / "bin" / "python"
    scripts.mkdir(parents=True)
    (scripts / "replace_unknown.sh").write_bytes((ROOT / "scripts" / "replace_unknown.sh").read_bytes())
    (scripts / "setup.sh").write_text("echo setup\n")
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", str(scripts / "replace_unknown.sh"), "lo g", "-", "--unk", "*"],
        env={**os.environ, "VENV": str(python.parents[1])}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"-W|ignore|{scripts / 'replace_unknown.py'}|lo g|-|--unk|*|" and done.stderr == "setup\n"


# Real decodings


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sources of 1 to 7 letters and rare words, which no other sentence has; the target has all in capitals."""
    folder, generator, rare = tmp_path_factory.mktemp("unknown"), random.Random(1), 0
    for split, count in {"train": 1500, "valid": 2, "test": 24}.items():
        lines = []
        for _ in range(count):
            words = generator.sample("abcdefghij", generator.randint(1, 7))
            for position in generator.sample(range(len(words)), min(len(words), generator.randint(1, 2))):
                words[position] = f"rare{rare}"
                rare += 1
            lines.append(" ".join(words) + "\n")
        (folder / f"{split}.src").write_text("".join(lines))
        (folder / f"{split}.tgt").write_text("".join(lines).upper())
    half = "".join(f"rare{number}\tRARE{number}\n" for number in range(0, rare, 2))
    (folder / "words").write_text(half)
    return folder


@pytest.fixture
def trained(command, corpus):
    """The corpus and a model that has learnt it; rare words are unknown on both sides."""
    if not (corpus / "checkpoint_last.pt").exists():
        splits = " ".join(f"--{name}pref {corpus / name}" for name in ("train", "valid", "test"))
        command("preprocess", f"-s src -t tgt {splits} --destdir {corpus} --thresholdsrc 2 --thresholdtgt 2")
        command("train", f"{corpus} --save-dir {corpus} --task translation --arch attn_lstm --cell gru --dropout 0 "
                "--encoder-direction bi --encoder-embed-dim 32 --decoder-embed-dim 32 --encoder-hidden-size 16 "
                "--bridge linear --input-feeding off --parameter-init torch --optimizer adam --lr 0.01 --clip-norm 1 "
                "--batch-size 64 --max-update 200 --disable-validation --seed 1")  # fmt: skip
    return corpus


def attended_alone(model, task, source: str, found: str) -> list:
    """Per target word the source position with the largest weight: the model itself, one sentence, no padding."""
    words = task.source_dictionary.encode_line(source, add_if_not_exist=False).long()
    target = task.target_dictionary.encode_line(found, add_if_not_exist=False, append_eos=False).long()
    previous = torch.cat([torch.tensor([task.target_dictionary.eos()]), target])
    with torch.no_grad():
        _, extra = model.eval()(words[None], torch.tensor([len(words)]), previous[None])
    return extra["attn"][0][0, : len(target), : len(words) - 1].argmax(dim=1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_after_a_real_decoding(command, trained, script, kind, padding):
    # fairseq pads sources on the left; its flag --left-pad-source turns that off
    side = "--left-pad-source" if padding == "right" else ""
    text = command("generate", f"{trained} --path {trained}/checkpoint_last.pt --beam 2 --batch-size 24 --max-len-a 1 "
                   f"--max-len-b 5 --required-batch-size-multiple 1 --print-alignment {kind} {side}")  # fmt: skip
    Path("log").write_text(text)
    found = {int(number): line for number, line in re.findall(r"^H-(\d+)\t\S+\t(.*)$", text, re.M)}
    sources, targets = ((trained / f"test.{side}").read_text().splitlines() for side in ("src", "tgt"))
    assert len(found) == len(sources) == 24
    assert "rare" not in text and re.search(r"^S-.*<unk>", text, re.M) and re.search(r"^T-.*<<unk>>", text, re.M)

    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(trained / "checkpoint_last.pt")])
    _, notes = script("log", "out", "--source", trained / "test.src", "--dictionary", trained / "words")
    lines, unknown, copied, right = Path("out").read_text().splitlines(), 0, 0, 0
    for number, line in enumerate(lines):
        source, tokens = sources[number].split(), found[number].split()
        for position, attended in enumerate(attended_alone(model, task, sources[number], found[number])):
            if tokens[position] == "<unk>":
                word = source[attended]
                known = word.startswith("rare") and int(word[4:]) % 2 == 0
                tokens[position] = word.upper() if known else word
                unknown, copied = unknown + 1, copied + (not known)
                right += targets[number].split()[position : position + 1] == [word.upper()]
        assert line.split() == tokens
    assert len(lines) == 24 and right >= 0.9 * unknown > 20 and 0 < copied < unknown
    assert notes == f"{unknown} unknown words: {unknown - copied} from the dictionary, {copied} copied, 0 left\n"

    _, notes = script("log", "out")
    left = int(re.search(r"(\d+) for an unknown source word", notes).group(1))
    assert left >= 0.9 * unknown and "give them with --source" in notes and "rare" not in Path("out").read_text()
