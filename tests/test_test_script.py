"""scripts/test.sh: what reaches pytest, with stand-ins for set-up and Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def script(tmp_path):
    """script(argument...) runs a copy; returns (status, stdout, stderr). Python prints what it is given."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "scripts/setup.sh").write_text("")
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "product=$FULL_PRODUCT" "$@"\n')
    python.chmod(0o755)

    def run(*arguments):
        environment = {**os.environ, "VENV": str(tmp_path / "venv"), "FULL_PRODUCT": ""}
        command = ["bash", str(tmp_path / "scripts/test.sh"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize(
    "arguments, product, ending",
    [
        ((), "", "worksteal|"),
        (("fast", "-x"), "", "worksteal|-m|not slow|-x|"),
        (("full",), "1", "worksteal|"),
        (("tests/test_a.py", "-k", "a b"), "", "worksteal|tests/test_a.py|-k|a b|"),
        (("-k", "fast"), "", "worksteal|-k|fast|"),
    ],
)
def test_what_pytest_is_given(script, arguments, product, ending):
    status, out, _ = script(*arguments)
    assert status == 0 and out.startswith(f"product={product}|-m|pytest|") and out.endswith(ending)


def test_usage_and_another_word(script):
    assert "usage: bash scripts/test.sh [fast|full]" in script("--help")[1]
    status, out, error = script("fats")
    assert (status, out) == (1, "") and error.startswith("test.sh: got 'fats'; choose from fast, full, or give")
