"""scripts/translate.sh: a line of stdout for each line of stdin, whatever the lines are."""

import io
import json
import logging
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from translation_data import model_folder, read_lines, trained_folder

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
POSITIONS = "--max-source-positions 60 --max-target-positions 100"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("translate")


@pytest.fixture
def model(root, command):
    """model(segmentation, targets): folder of a model that has seen a few batches, made once."""

    def make(segmentation="bpe", targets=("en",)):
        name = f"{segmentation}-{'-'.join(targets)}"
        if not (root / name / "model").exists():
            (root / name).mkdir()
            made = dict(segmentation=segmentation, targets=targets, sizes={"train": 120, "valid": 5, "test": 5})
            made_of = trained_folder(command, root / name, POSITIONS, "--max-update 30", **made)
            model_folder(*made_of, root / name / "model")
        return root / name / "model"

    return make


@pytest.fixture
def translate(monkeypatch):
    """translate(model, text, option...) runs the script in this process; returns (stdout, stderr) as bytes and str."""
    level = logging.root.manager.disable
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGPIPE)}

    def run(model, text, *options, status=0):
        monkeypatch.setattr(sys, "argv", ["translate.sh", *map(str, (model, *options))])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        ended = 0
        try:
            runpy.run_path(str(SCRIPTS / "translate.py"), run_name="__main__")
        except SystemExit as end:
            ended = end.code
        said = sys.stderr.getvalue() + (f"{ended}\n" if isinstance(ended, str) else "")
        assert (1 if isinstance(ended, str) else ended) == status, said
        return sys.stdout.buffer.getvalue(), said

    yield run
    logging.disable(level)  # the script would silence the tests that come after
    for number, handler in kept.items():
        signal.signal(number, handler)


def hard_lines(sentences, size=1000):
    """Lines of every kind that a text can have, in mixed order; the first with a byte order mark before it."""
    strange = [
        "😀 der hund 👩‍👩‍👧", "日本語のテキスト", "\x00", "der\x00hund", "a\ufeffb", "\u0301\u0302", "e\u0301 \u0323",
        "▁ ▁der▁", "</s>", "<s> <pad> der </s> hund", "<unk>", "<2fr>", "<2en> der hund", "\ud7ff\ue000\U0010ffff", ".",
        "ﷺ", "\u202eder", "der\tden\r", "der\u2028den\u0085hund\u2029\x1c\x0b\x0c", "\\n", "x" * 700, "ß" * 90 + ".",
        "der " * 300, "1" * 37, "1" * 36, "der hund. " * 40, " der  hund\u00a0", "\u200b", "\ufffe", "'\"`$(id);",
    ]  # fmt: skip
    blank = ["", "▁", " ", "\t", "\r", "\u2028", "\u0085\u00a0"]
    generator = random.Random(1)
    lines = [*strange, *blank, *(generator.choice([*sentences[:60], *strange, *blank]) for _ in range(size))]
    lines = lines[:size]
    generator.shuffle(lines)
    return ["der hund.", "der hund.", *lines[2:]]


@pytest.mark.slow(seconds=10)
def test_a_thousand_hard_lines(model, translate):
    folder = model()
    lines = hard_lines(read_lines(folder.parent / "text" / "train.de"))
    assert len(lines) == 1000
    text = b"\xef\xbb\xbf" + "\n".join(lines).encode()  # the last line without \n
    out, said = translate(folder, text, "--beam", 2, "--buffer-size", 170)
    found = out.decode().split("\n")
    assert len(found) == 1001 and found[-1] == ""
    empty = [not line.replace("▁", " ").split() for line in lines]
    assert not any(line for line, blank in zip(found, empty) if blank) and sum(empty) > 10
    assert not any(re.search("[\r\t\u2028\u0085]|▁|^ | $", line) for line in found)
    assert found[0] == found[1]  # the byte order mark is none of the text
    counted = re.match(r"translated 1000 lines, (\d+) empty, (\d+) split, (\d+) with unknown symbols", said)
    split = sum(len(line.split()) > 100 or len(line) > 300 for line in lines)
    assert int(counted[1]) == sum(empty) and int(counted[2]) >= split > 10
    assert int(counted[3]) >= sum("日" in line or "😀" in line for line in lines) > 10
    assert len(said.splitlines()) == 1


def test_each_line_is_translated_as_if_alone(model, translate):
    folder = model()
    sentences = read_lines(folder.parent / "text" / "test.de")
    alone = [json.loads(translate(folder, line.encode(), "--json")[0]) for line in [*sentences[:2], "\n"]]
    out, _ = translate(folder, "".join(line + "\n" for line in sentences).encode(), "--json", "--buffer-size", 2)
    objects = [json.loads(line) for line in out.decode().split("\n")[:-1]]
    assert len(objects) == 5 and [each["source"] for each in objects[:2]] == [each["source"] for each in alone[:2]]
    assert objects[0]["text"][:12] == alone[0]["text"][:12]
    for each in objects:
        assert set(each) == {"text", "score", "source", "target", "attention"} and each["score"] < 0
        assert len(each["attention"]) == len(each["target"])
        assert all(len(row) == len(each["source"]) and abs(sum(row) - 1) < 1e-3 for row in each["attention"])
    assert alone[2] == {"text": "", "score": 0, "source": [], "target": [], "attention": None}


def test_a_line_that_is_not_utf8_ends_it_after_the_lines_before(model, translate):
    out, said = translate(model(), b"der hund.\n\nden hund.\nder \xff hund\nder\n", "--buffer-size", 2, status=1)
    assert out.count(b"\n") == 3 and out.split(b"\n")[1] == b""
    counted, error = said.splitlines()
    assert counted == "translated 3 lines, 1 empty" or counted.startswith("translated 3 lines, 1 empty, ")
    assert error == "error: line 4 of the input: not UTF-8 (byte 5: invalid start byte)"


def test_nothing_gives_nothing(model, translate):
    assert translate(model(), b"") == (b"", "translated 0 lines\n")


def test_mistakes_are_one_line(model, translate, tmp_path):
    assert translate(tmp_path / "no", b"", status=1) == (
        b"", f"error: {tmp_path}/no: no such folder; give the folder of a model, with checkpoint.pt in it\n"
    )  # fmt: skip
    out, said = translate(model(), b"der\n", "--beam", "0", status=2)
    assert out == b"" and "argument --beam: got '0'; give 1 or more" in said
    folder = model()
    shutil.copytree(folder, tmp_path / "run" / "model")
    told = translate(tmp_path / "run", b"", status=1)[1]
    assert told == f"error: {tmp_path}/run: no checkpoint.pt; give {tmp_path}/run/model\n"


def test_a_model_of_another_task_is_one_line(command, translate, tmp_path):
    command(
        "train", f"--task reversal --arch attn_lstm_reversal --max-update 2 --optimizer adam --save-dir {tmp_path}",
        "--max-tokens 200 --disable-validation --no-epoch-checkpoints",
    )  # fmt: skip
    (tmp_path / "checkpoint_last.pt").rename(tmp_path / "checkpoint.pt")
    out, said = translate(tmp_path, b"a b\n", status=1)
    assert (out, said) == (
        b"", f"error: {tmp_path}: a model of another task; translate.sh takes those of attn_translation\n"
    )  # fmt: skip


def test_one_of_several_target_languages(model, translate):
    folder = model("char", ("en", "fr"))
    out, _ = translate(folder, b"der <2en> hund.\n\n", "--to", "fr", "--json")
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["source"][0] == "<2fr>" and "<2en>" not in first["source"] and second["source"] == []
    for options, error in ((), "not given; choose from en, fr"), (("--to", "es"), "got 'es'; choose from en, fr"):
        assert translate(folder, b"der hund.\n", *options, status=1) == (b"", f"error: --to: {error}\n")


def test_the_shell_script_in_a_pipe_whose_reader_leaves(model, tmp_path, programs):
    """In a process of its own: setup.sh does not eat the input, and the folder may lie anywhere."""
    folder = shutil.copytree(model(), tmp_path / "a b" / "m")
    (tmp_path / "scripts").mkdir()
    for name in ("translate.sh", "translate.py"):
        shutil.copy(SCRIPTS / name, tmp_path / "scripts")
    (tmp_path / "scripts" / "setup.sh").write_text("cat; echo setup\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{programs}/bin/python" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    command = ["bash", tmp_path / "scripts" / "translate.sh", folder, "--buffer-size", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VENV": str(tmp_path)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, **pipes) as running:
        running.stdin.write(b"\nder hund.\n" * 1500)
        running.stdin.close()
        assert running.stdout.readline() == b"\n" != running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b"setup\n"
    assert running.returncode == -signal.SIGPIPE
