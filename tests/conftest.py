"""fairseq's commands, run in this process: importing fairseq takes longer than what the tests do with it."""

import copy
import importlib
import sys

import pytest


def pytest_configure(config):
    """fairseq is imported before pytest catches logs, for it sets the level of logging; not where tests are only handed
    out to other processes."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        importlib.import_module("fairseq")


@pytest.fixture(scope="session")
def parsed_overrides():
    """fairseq hands hydra every option of a command as text to be parsed, 300 of them, most the same every time: what
    was parsed once in this process is copied."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parse, parsed = OverridesParser.parse_rule, {}

    def parse_rule(self, text, rule):
        if (text, rule) not in parsed:
            parsed[text, rule] = parse(self, text, rule)
        return copy.deepcopy(parsed[text, rule])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OverridesParser, "parse_rule", parse_rule)
        yield


@pytest.fixture
def command(monkeypatch, capfd, parsed_overrides):
    """command(name, options...) runs ``fairseq-<name> --user-dir ...`` and returns its stdout; ``command.stderr`` is
    what it said there."""
    from fairseq import checkpoint_utils
    from fairseq_commands import PLUGIN

    def run(name, *options):
        given = [word for option in options for word in str(option).split()]
        # a worker that is forked off this process takes five seconds to end
        common = [] if name == "preprocess" else ["--user-dir", str(PLUGIN), "--cpu", "--num-workers", "0"]
        monkeypatch.setattr(sys, "argv", [f"fairseq-{name}", *common, *given])
        vars(checkpoint_utils.save_checkpoint).pop("best", None)  # of an earlier training in this process
        capfd.readouterr()
        importlib.import_module(f"fairseq_cli.{name}").cli_main()
        output, run.stderr = capfd.readouterr()
        return output

    return run


def pytest_collection_modifyitems(items):
    """Tests that say how slow they are come first, the slowest before all, then files with slow tests: at the end they
    would keep one worker alone busy."""
    marks = {item: item.get_closest_marker("slow") for item in items}
    slow = {item.path for item, mark in marks.items() if mark}
    seconds = {item: mark.kwargs.get("seconds", 0) if mark else 0 for item, mark in marks.items()}
    items.sort(key=lambda item: (-seconds[item], item.path not in slow))


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Folder of a virtual environment whose programs start in a moment, each in a process of its own."""
    from preloaded import Programs

    with Programs(tmp_path_factory.mktemp("programs")) as started:
        yield started.root
