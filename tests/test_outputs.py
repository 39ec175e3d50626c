"""What the scripts write: never an input, a device or a folder, never outside the folder that is for it."""

import logging
import os
import runpy
import shutil
import stat
import sys
from pathlib import Path

import pytest

from fairseq_attn_plugin.evaluation.whole_files import check_name, check_output

ROOT = Path(__file__).resolve().parents[1]
GOOD = ROOT / "tests" / "fixtures" / "0.1.0" / "attn_lstm.pt"
LOG = "S-0\ta\nT-0\tb\nH-0\t-1\tb\nD-0\t-1\tb\nP-0\t-1 -1\nA-0\t1,0 0,1\n"

SCRIPTS = {
    "average_checkpoints": ("{out} c1.pt c2.pt", ("c1.pt", "c2.pt")),
    "convert_fairseq_lstm": ("c1.pt {out}", ("c1.pt",)),
    "score": ("ref hyp --json {out}", ("ref", "hyp")),
    "plot_attention": ("log {out}", ("log",)),
    "replace_unknown": ("log {out} --dictionary hyp --source ref", ("log", "hyp", "ref")),
}
"""Arguments, and which of them are inputs."""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(script, arguments) runs it in a folder with inputs; returns its last words."""
    monkeypatch.chdir(tmp_path)
    for name in ("c1.pt", "c2.pt"):
        shutil.copy(GOOD, name)
    for name, text in (("ref", "a\n"), ("hyp", "b\n"), ("log", LOG)):
        Path(name).write_text(text)
    level = logging.root.manager.disable

    def run(script, arguments):
        monkeypatch.setattr(sys, "argv", [f"{script}.sh", *arguments])
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
        except SystemExit as end:
            return str(end.code)
        return "status 0"

    yield run
    logging.disable(level)


def content():
    """{path: what it is} of the working folder, without what links point to."""
    return {
        path: os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else path.lstat().st_mode
        for path in Path().rglob("*")
    }


def hostile(inputs):
    """Makes names that must not be written; yields each with what is said about it."""
    for number, name in enumerate(inputs):
        Path(f"symbolic{number}").symlink_to(name)
        os.link(name, f"hard{number}")
        shutil.copy(name, f"x{number}.part")
        yield from ((each, "this is an input") for each in (name, f"./{name}", f"symbolic{number}", f"hard{number}"))
    Path("folder").mkdir()
    yield "folder", "a folder; name a file"
    yield "none/out", "make it first"
    try:
        os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 7))
        Path("to-device").symlink_to("device")
    except PermissionError:
        return
    yield from ((each, "a device; name a file") for each in ("device", "to-device"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_what_must_not_be_written_is_not(run, script):
    template, inputs = SCRIPTS[script]
    for out, words in hostile(inputs):
        before = content()
        said = run(script, template.format(out=out).split())
        if script == "convert_fairseq_lstm" and os.path.lexists(out):
            words = "exists; give the name of a new file"
        assert said.startswith(f"error: {out}: ") and words in said
        assert "\n" not in said and content() == before


def test_a_file_on_its_way_is_no_input_either(tmp_path):
    (tmp_path / "x.part").touch()
    with pytest.raises(ValueError, match="x: this is an input"):
        check_output(tmp_path / "x", tmp_path / "x.part")
    check_output(tmp_path / "x", tmp_path / "none", tmp_path)


def test_streams_are_written_to_where_they_will_do(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/stdout", "/dev/null", "/dev/fd/1", tmp_path / "pipe"):
        check_output(path)
        with pytest.raises(ValueError, match="a device; name a file"):
            check_output(path, streams=False)
    with pytest.raises(ValueError, match="/dev/full: a device; name a file"):
        check_output("/dev/full")


@pytest.mark.slow
def test_a_link_stays_one(run):
    Path("link").symlink_to("averaged.pt")
    assert run("average_checkpoints", ["link", "c1.pt"]) == "status 0"
    assert Path("link").is_symlink() and Path("averaged.pt").stat().st_size > 1000


@pytest.mark.parametrize("name", ["../../x", "a/b", "/x", "..", ".", "", "a\0b"])
def test_splits_stay_in_their_folder(run, tmp_path, name):
    before = content()
    said = run("export_reversal", ["out", "--splits", "a", name, "--reversal-test-size", "2"])
    assert said == f"error: --splits: got {name!r}; give a name, without /" and content() == before
    with pytest.raises(ValueError, match="--x: got"):
        check_name("--x", name)


def test_exported_files_and_measurements_are_files(run):
    for path in ("out/test.tgt", "x.json", "y.png"):
        Path(path).mkdir(parents=True)
    for script, arguments, words in (
        ("export_reversal", "out --splits test", "out/test.tgt: a folder; name a file"),
        ("benchmark", "launches --output x.json", "x.json: a folder; name a file"),
        ("benchmark", "scaling --output y.json", "y.png: a folder; name a file"),
    ):
        before = content()
        assert run(script, arguments.split()) == f"error: {words}" and content() == before
