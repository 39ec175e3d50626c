"""What is installed works from anywhere: the --user-dir path, the option reference, the wheel, setup's errors."""

import dataclasses
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from fairseq_attn_plugin.__main__ import main, own_fields, plugin_configs
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "fairseq_attn_plugin"
CONFIGS = {name: config for _, name, config in plugin_configs()}


def run(command, cwd, **environment):
    """Runs a command; returns (status, stdout, stderr)."""
    keep = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "VENV", "TORCH_INDEX_URL")}
    done = subprocess.run(command, cwd=cwd, env={**keep, **environment}, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def option_lines(text):
    """Lines of the reference by their first flag."""
    return {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}


@pytest.fixture(scope="module")
def reference(programs):
    status, out, _ = run([programs / "bin" / "python", "-m", PLUGIN, "options"], ROOT)
    assert status == 0
    return out


@pytest.mark.slow
def test_stdout_is_the_path_and_nothing_else(tmp_path):
    status, out, _ = run([sys.executable, "-m", PLUGIN], tmp_path, PYTHONPATH=str(ROOT))
    assert (status, out) == (0, f"{ROOT / PLUGIN}\n")


def test_unknown_command(capsys):
    assert main(["option"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "got 'option'; usage: python -m fairseq_attn_plugin [options]\n")


def test_models_and_tasks_are_found():
    assert {"attn_rnn", "reversal"} <= set(CONFIGS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_field_is_in_the_reference(name, reference):
    lines = option_lines(reference)
    for field in dataclasses.fields(CONFIGS[name]):
        supplied = str(field.default).startswith("${") and "help" not in field.metadata
        if field.name in own_fields(CONFIGS[name]) and not field.name.startswith("_") and not supplied:
            assert len(lines[f"--{field.name.replace('_', '-')}"].split(" | ")) == 4
            assert field.metadata.get("help"), f"{name}: {field.name} has no help"


@pytest.mark.slow
def test_choices_of_a_registry_are_in_the_reference(reference):
    line = option_lines(reference)["--attention-score"]
    assert all(name in line for name in ATTENTION_SCORES.names())


@pytest.mark.slow
def test_the_page_of_options_is_what_the_command_prints(reference):
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == reference


@pytest.mark.slow
def test_presets_are_in_the_reference(reference):
    assert "`attn_lstm`" in reference


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the checkout, so that neither leaves anything in the other."""
    copy = tmp_path_factory.mktemp("copy")
    for name in (PLUGIN, "tests", "scripts", "data-prep"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    status, _, err = run(command, copy)
    assert status == 0, err
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.mark.slow
def test_wheel_holds_the_package_alone(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    kinds = ("*.py", "*.html", "*.css", "*.js")
    files = [path.relative_to(ROOT).as_posix() for kind in kinds for path in (ROOT / PLUGIN).rglob(kind)]
    assert sorted(names) == sorted(files)


@pytest.mark.slow
def test_wheel_works_from_anywhere(wheel, programs, tmp_path):
    """It trains in an empty folder, with no checkout near; the path is what the shell puts in."""
    site, folder = tmp_path / "a site", tmp_path / "empty"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    status, _, err = run(install, tmp_path)
    assert status == 0, err
    folder.mkdir()
    paths = {"PYTHONPATH": str(site), "PATH": os.pathsep.join([str(programs / "bin"), os.environ["PATH"]])}
    assert run([programs / "bin" / "python", "-m", PLUGIN], folder, **paths)[:2] == (0, f"{site / PLUGIN}\n")
    train = f"""fairseq-train --user-dir "$(python -m {PLUGIN})" --task reversal --arch attn_lstm_reversal \\
      --clip-norm 1 --optimizer adam --lr 0.005 --max-tokens 200 --max-update 2 --reversal-valid-size 8 --cpu"""
    status, out, err = run(["bash", "-euc", train], folder, **paths)
    assert status == 0, err
    assert f"'user_dir': '{site / PLUGIN}'" in out + err
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]


def setup(tmp_path, *arguments, **environment):
    """Runs setup.sh for an environment in tmp_path; returns (status, the last line of stderr)."""
    environment = {"VENV": str(tmp_path / "venv"), **environment}
    status, _, err = run(["bash", str(ROOT / "scripts/setup.sh"), *arguments], tmp_path, **environment)
    return status, err.rstrip("\n").rpartition("\n")[2]


def fake_python(tmp_path, text):
    path = tmp_path / "fake python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_setup_names_a_python_that_is_not_there(tmp_path):
    expected = "setup.sh: PYTHON: '/no/python' does not run; name a Python 3.10 to 3.13"
    assert setup(tmp_path, PYTHON="/no/python") == (1, expected)


def test_setup_names_a_python_that_is_too_old(tmp_path):
    python = fake_python(tmp_path, "echo 3.8")
    expected = f"setup.sh: PYTHON: '{python}' is Python 3.8; name a Python 3.10 to 3.13"
    assert setup(tmp_path, PYTHON=python) == (1, expected)


def test_setup_names_the_package_for_environments(tmp_path):
    python = fake_python(tmp_path, 'case "$2" in *ensurepip*) exit 1 ;; esac; echo 3.12')
    status, message = setup(tmp_path, PYTHON=python)
    assert status == 1 and message.endswith("cannot make environments; install python3.12-venv (Debian, Ubuntu)")


def test_setup_passes_over_a_python_that_does_not_run(tmp_path):
    for number in ("3.10", "3.11", "3.12", "3.13"):
        shim = tmp_path / f"python{number}"
        shim.write_text("#!/bin/sh\nexit 127\n")
        shim.chmod(0o755)
    for name in ("python3", "python"):
        (tmp_path / name).symlink_to(tmp_path / "python3.10")
    status, message = setup(tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin", PYTHON="")
    assert status == 1 and message.startswith("setup.sh: no Python 3.10 to 3.13 found; install python3.12 ")


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="nothing is compiled for Python 3.12")
def test_setup_names_the_compiler_package_before_any_download(tmp_path):
    status, message = setup(tmp_path, PYTHON=sys.executable, CXX="no-such-c++")
    assert status == 1 and "no C++ compiler 'no-such-c++'; install g++" in message
    assert not (tmp_path / "venv").exists()


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="nothing is compiled for Python 3.12")
def test_setup_names_the_headers_package_before_any_download(tmp_path):
    answers = f'case "$2" in *sysconfig*) echo /no/headers ;; *) exec "{sys.executable}" "$@" ;; esac'
    status, message = setup(tmp_path, PYTHON=fake_python(tmp_path, answers), CXX="true")
    version = sysconfig.get_python_version()
    assert status == 1 and f"no /no/headers/Python.h; install python{version}-dev" in message


def test_setup_leaves_other_directories_alone(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "thesis.txt").write_text("chapter 1")
    status, message = setup(tmp_path, PYTHON=sys.executable)
    assert status == 1 and message.endswith("is there and is no virtual environment; name another directory")
    assert (tmp_path / "venv" / "thesis.txt").exists()


def test_setup_names_an_unknown_extra(tmp_path):
    assert setup(tmp_path, "tests") == (1, "setup.sh: EXTRA: got 'tests'; choose from test, docs, dev")


def test_setup_explains_itself(tmp_path):
    status, out, _ = run(["bash", str(ROOT / "scripts/setup.sh"), "--help"], tmp_path)
    assert status == 0 and "usage:" in out and "TORCH_INDEX_URL" in out and "#" not in out


def test_setup_says_that_there_is_nothing_to_do_but_not_to_scripts(tmp_path):
    venv, script = tmp_path / "venv", tmp_path / "x.sh"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    made_from = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    version = "{}.{}".format(*sys.version_info)
    (venv / ".fairseq_attn_plugin").write_text(f"{sha256(made_from).hexdigest()} {version} {ROOT} -> {venv}\n\n\n")
    script.write_text(f"bash '{ROOT}/scripts/setup.sh'; echo done\n")
    by_hand = run(["bash", str(ROOT / "scripts/setup.sh")], tmp_path, VENV=str(venv))
    assert by_hand == (0, f"setup: nothing to do: {venv} is up to date (Python {version})\n", "")
    assert run(["bash", str(script)], tmp_path, VENV=str(venv)) == (0, "done\n", "")
