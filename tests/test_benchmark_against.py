"""The benchmark beside another checkout: whose models run where, and what is said of a process that fails."""

import json
import os
import sys
from pathlib import Path
from statistics import median

import pytest

from fairseq_attn_plugin.benchmark import command
from fairseq_attn_plugin.benchmark.checkout import HERE, Checkout, in_a_fork
from fairseq_attn_plugin.benchmark.workloads import WORKLOADS, Workload

pytestmark = pytest.mark.slow

TINY = Workload(11, 6, 8, sentences=3, source_length=5, target_length=4)
FAULT = """
from fairseq.models import MODEL_REGISTRY

Model = MODEL_REGISTRY["attn_rnn"]
build_model = Model.build_model


def build_unless_feeding(config, task):
    if config.input_feeding == "on":
        raise ValueError("an old fault")
    return build_model(config, task)


Model.build_model = staticmethod(build_unless_feeding)
"""


@pytest.fixture(autouse=True)
def soon(programs, monkeypatch):
    """The processes of checkouts start in a moment."""
    monkeypatch.setattr(sys, "executable", str(programs / "bin" / "python"))


@pytest.fixture
def old(tmp_path):
    """A checkout ``old`` without a benchmark, whose models with input feeding cannot be built."""
    package, here = tmp_path / "old" / "fairseq_attn_plugin", HERE / "fairseq_attn_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text((here / "__init__.py").read_text() + FAULT)
    for room in here.iterdir():
        if room.is_dir() and room.name not in ("benchmark", "__pycache__"):
            (package / room.name).symlink_to(room)
    return package.parent


@pytest.mark.slow(seconds=20)
def test_systems_of_another_checkout_stand_beside_ours(old, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(WORKLOADS, "tiny", TINY)
    output = tmp_path / "results.json"
    command.main(
        ["--against", str(old), "--workloads", "tiny", "--systems", "fairseq,feeding,no-feeding", "--measure",
         "train,beam5,memory", "--rounds", "3", "--steps", "1", "--output", str(output)]
    )  # fmt: skip
    table, written = capsys.readouterr().out, json.loads(output.read_text())
    assert written["machine"]["old"] == str(old)  # no commit
    for measure in ("train", "beam5", "memory"):
        results = {(r["system"], r["other"]): r for r in written["results"] if r["measure"] == measure}
        columns = [("fairseq", False), *((s, other) for s in ("feeding", "no-feeding") for other in (False, True))]
        assert list(results) == columns
        assert results["feeding", True]["reason"] == "an old fault"
        assert [results[column]["reason"] for column in columns if column != ("feeding", True)] == [None] * 4
        ours, theirs = results["no-feeding", False], results["no-feeding", True]
        assert len(ours["values"]) == len(theirs["values"]) == (1 if measure == "memory" else 3)
        ratios = [value / other for value, other in zip(ours["values"], theirs["values"])]
        assert ours["ratio_to_other"] == median(ratios) and theirs["ratio_to_other"] is None
        assert theirs["ratio"] and results["feeding", False]["ratio_to_other"] is None
        assert f"×, {median(ratios):.2f}× of old |" in table
    assert " | feeding | feeding (old) | no-feeding | no-feeding (old) |" in table


def test_the_process_of_a_checkout(capfd):
    with Checkout(HERE) as checkout:
        assert checkout.call(print, "on stderr, where it does no harm") is None
        assert checkout.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(RuntimeError, match="^integer division or modulo by zero$"):
            checkout.call(divmod, 7, 0)
        with pytest.raises(RuntimeError, match="^the process ended with 3$"):  # as one that the system kills
            checkout.call(in_a_fork, os._exit, 3)
        with pytest.raises(RuntimeError, match=f"^the process of {HERE} ended with 4$"):
            checkout.call(os._exit, 4)
    assert capfd.readouterr().err.startswith("on stderr")


def test_a_checkout_that_cannot_be_imported(tmp_path, capfd):
    package = Path(tmp_path, "fairseq_attn_plugin")
    package.mkdir()
    (package / "__init__.py").write_text("import nothing_of_this_name")
    with pytest.raises(SystemExit, match=f"^error: --against: the process of {tmp_path} ended with 1 \\(see above\\)$"):
        command.main(["--against", str(tmp_path), "--workloads", "reversal", "--measure", "train"])
    assert "No module named 'nothing_of_this_name'" in capfd.readouterr().err
