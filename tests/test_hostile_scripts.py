"""Scripts with hostile arguments: they end with status 0, or with one line; inputs stay as they are, and where there is
an error, nothing is left behind."""

import hashlib
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hostile import NUMBERS, TEXTS, examples
from hypothesis import given
from hypothesis import strategies as st
from lstm_checkpoint import lstm_checkpoint
from parallel_corpus import DATA_PREP, write_parallel_corpus
from test_checkpoint_averaging import checkpoint
from test_evaluation import GENERATED

from fairseq_attn_plugin.benchmark import command

sys.path.append(str(DATA_PREP))

import prepare_corpus  # noqa: E402
import prepare_multi30k  # noqa: E402

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
PATHS = ("ref", "hyp", "log", "a.pt", "b.pt", "lstm.pt", "empty", "bytes", "latin", "folder", "missing", "no/such", "",
         ".", "link", "x" * 300, "\udcff", "new", "new.png", "new.json", "raw", "raw/train", "model",
         "two\nlines")  # fmt: skip
OUTPUTS = (*PATHS, "full")  # a device that is full; read, it never ends
KINDS = {"path": PATHS, "output": OUTPUTS, "number": NUMBERS, "text": TEXTS}

GRAMMARS = {
    # script: words that it takes, and its options with what each takes
    "score.py": ("ref hyp", {"--json": "output", "--names": "text", "--tokenize": "text", "--lowercase": "",
                             "--symbols": "", "--characters": ""}),
    "plot_attention.py": ("log new.html", {"--ids": "number", "--nbest": "", "--data": "path", "--pieces": "",
                                           "--names": "text"}),
    "replace_unknown.py": ("log new", {"--dictionary": "path", "--source": "path", "--unk": "text"}),
    "average_checkpoints.py": ("new a.pt b.pt", {}),
    "convert_fairseq_lstm.py": ("lstm.pt new", {}),
    "export_reversal.py": ("new --reversal-train-size 3 --reversal-valid-size 3 --reversal-test-size 3 "
                           "--reversal-long-size 3",
                           {"--splits": "path", "--reversal-symbols": "number", "--reversal-seed": "number",
                            "--reversal-min-length": "number", "--reversal-max-length": "number",
                            "--reversal-train-size": "number", "--reversal-order": "text"}),
    "translate.py": ("model", {"--beam": "number", "--to": "text", "--buffer-size": "number", "--user-dir": "path",
                               "--json": ""}),
    "prepare_corpus": ("--source de --target en --from raw --out new",
                       {"--source": "text", "--target": "text", "--from": "path", "--train": "path", "--valid": "path",
                        "--test": "path", "--tsv": "path", "--columns": "number", "--set": "text", "--out": "path",
                        "--segmentation": "text", "--vocabulary": "text", "--vocab-size": "number",
                        "--min-count": "number", "--max-length": "number", "--max-ratio": "number",
                        "--valid-size": "number", "--test-size": "number", "--seed": "number", "--disjoint": "text",
                        "--workers": "number"}),
    "prepare_multi30k": ("--source de --target en --from raw --out new", {"--set": "text", "--from": "path"}),
    "benchmark": ("", {"--workloads": "text", "--systems": "text", "--measure": "text", "--dtype": "text",
                       "--device": "text", "--rounds": "number", "--seconds": "number", "--steps": "number",
                       "--dropout": "number", "--threads": "number", "--against": "path", "--output": "output"}),
}  # fmt: skip
PROGRAMS = {"prepare_corpus": prepare_corpus.main, "prepare_multi30k": prepare_multi30k.main, "benchmark": command.main}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with an input of every kind that some script reads."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in {
        "ref": b"a b\nc\n", "hyp": b"a\nc\n", "log": GENERATED.encode(), "empty": b"", "bytes": bytes(range(256)),
        "latin": b"a\xe4\nb\n", "two\nlines": b"a b\nc\n",
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    for name in ("folder", "model"):
        (folder / name).mkdir()
    (folder / "link").symlink_to("ref")
    (folder / "full").symlink_to("/dev/full")
    for seed, name in enumerate(("a.pt", "b.pt")):
        checkpoint(folder / name, seed)
    lstm_checkpoint(folder / "lstm.pt")
    write_parallel_corpus(folder / "raw", {"train": 30, "valid": 5, "test": 5})
    return folder


def contents(folder):
    """What is where, by path: links by where they lead, files by their content."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(root, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            else:
                found[path] = hashlib.md5(Path(path).read_bytes()).hexdigest() if name in files else "folder"
    return found


def restore(folder, pristine):
    for path in folder.iterdir():
        (shutil.rmtree if path.is_dir() and not path.is_symlink() else os.unlink)(path)
    shutil.copytree(pristine, folder, symlinks=True, dirs_exist_ok=True)


def written_over(words, folder):
    """Paths that are named once: where one was there before, it is an output, or an input that is read."""
    named = [os.path.realpath(folder / word.rpartition("=")[2]) for word in words]
    return {path for path in named if named.count(path) == 1}


@st.composite
def command_lines(draw, name):
    """The words that a script takes, some of them others, and some of its options."""
    words, options = GRAMMARS[name]
    words, names = words.split(), sorted(options)
    for place in draw(st.sets(st.sampled_from(range(len(words))), max_size=2)) if words else ():
        if not words[place].startswith("--"):
            words[place] = draw(st.sampled_from(OUTPUTS if words[place].startswith("new") else PATHS))
    for option in draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names else ():
        values = KINDS.get(options[option])
        words += [option] if values is None else [f"{option}={draw(st.sampled_from(values))}"]
    return words


def run(name, words, patch, capfd):
    """(what it ended with, stderr) of a script in this process; 0 = well."""
    patch.setattr(sys, "argv", [name, *words])
    capfd.readouterr()
    try:
        if name in PROGRAMS:
            prepare_corpus.run(PROGRAMS[name])
        else:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            return 1, end.code
        return end.code or 0, capfd.readouterr().err
    finally:
        logging.disable(logging.NOTSET)
    return 0, capfd.readouterr().err


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_script_ends_well_or_with_one_line(name, world, tmp_path, capfd):
    kept = contents(world)
    pristine = tmp_path / "pristine"
    shutil.copytree(world, pristine, symlinks=True)

    @examples(20, 400)
    @given(command_lines(name))
    def check(words):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(world)
            patch.setattr(prepare_corpus.Preparation, "run", lambda self: None)  # it takes seconds
            patch.setattr(torch, "set_num_threads", lambda number: None)
            for measured in ("table", "scaling_table", "launches_table"):
                patch.setattr(command, measured, lambda args: "")
            try:
                status, said = run(name, words, patch, capfd)
                found = contents(world)
            finally:
                if contents(world) != kept:
                    restore(world, pristine)
        changed = {path for path, what in kept.items() if found.get(path) != what}
        assert changed <= (set() if status else written_over(words, world)), f"{words} changed {changed}"
        if status == 2 and said.startswith("usage: "):  # argparse's
            said = said[said.rindex("\n", 0, -1) + 1 :]
        if status:
            new = set(found) - set(kept)
            assert len(said.splitlines()) == 1 or "\n" in "".join(words), f"{words}: {said!r}"
            assert re.match(r"(error|[\w.]+: error): ", said), f"{words}: {said!r}"
            assert not new or all(path.endswith((".work", ".lock")) or "new" in path for path in new), f"{words}: {new}"

    check()


@examples(8, 400)
@given(st.lists(st.one_of(st.sampled_from(NUMBERS), st.text(max_size=12)), min_size=1, max_size=30))
def test_numbers_of_the_shell_scripts(values):
    values = [value for value in values if "\0" not in value and "\n" not in value]
    values = [value for value in values if value.isprintable() or value.isascii()]
    commands = f'script=x; . "{SCRIPTS}/pipeline.sh"; for N in "$@"; do (number N 1; echo "$N") || echo; done'
    done = subprocess.run(["bash", "-c", commands, "x", *values], capture_output=True, text=True, check=True)
    expected = [str(int(v)) if re.fullmatch("[0-9]{1,9}", v) and int(v) else "" for v in values]
    assert done.stdout.split("\n")[:-1] == expected
