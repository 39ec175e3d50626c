"""fairseq's commands, run in this process: importing fairseq takes longer than what the tests do with it."""

import importlib
import sys

import pytest
from fairseq_commands import PLUGIN


@pytest.fixture
def command(monkeypatch, capfd):
    """command(name, options...) runs ``fairseq-<name> --user-dir ...`` and returns its stdout."""

    def run(name, *options):
        given = [word for option in options for word in str(option).split()]
        user_dir = [] if name == "preprocess" else ["--user-dir", str(PLUGIN), "--cpu"]
        monkeypatch.setattr(sys, "argv", [f"fairseq-{name}", *user_dir, *given])
        capfd.readouterr()
        importlib.import_module(f"fairseq_cli.{name}").cli_main()
        return capfd.readouterr().out

    return run
