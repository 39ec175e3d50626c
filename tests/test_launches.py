"""The count of calls: against steps whose calls are known, and torch's own cells against what stands in for them."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import Function
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from fairseq_attn_plugin.benchmark import command, gpu_kernels, launches, systems
from fairseq_attn_plugin.benchmark.calls import CallCounter, difference
from fairseq_attn_plugin.benchmark.gpu_kernels import one_call_each
from fairseq_attn_plugin.benchmark.systems import Setting, System
from fairseq_attn_plugin.benchmark.workloads import WORKLOADS, Workload

pytestmark = pytest.mark.slow

TINY = Workload(11, 6, 8, sentences=3, source_length=5, target_length=4)


def count(run, device="cpu"):
    """What ``run`` calls, without phases: name → number."""
    counter = CallCounter(device)
    with counter:
        run()
    return {name: number for (_, name), number in counter.calls.items()}


def test_calls_without_views_and_allocations():
    x, w = torch.randn(6), torch.randn(3, 2, requires_grad=True)
    counter = CallCounter("cpu")
    with counter:
        counter.phase = "forward"
        room = torch.empty(2, 2)
        torch.mm(x.view(2, 3), w.detach(), out=room)
        parts = (x.view(2, 3)[:, :3] @ w).tanh().unsqueeze(0).unbind(1)
        loss = torch.stack(parts).sum() + torch.zeros(())
        counter.phase = "backward"
        loss.backward()
    forward = {name: n for (phase, name), n in counter.calls.items() if phase == "forward"}
    backward = {name: n for (phase, name), n in counter.calls.items() if phase == "backward"}
    assert forward == {"mm.out": 1, "mm": 1, "tanh": 1, "stack": 1, "sum": 1, "zeros": 1, "add.Tensor": 1}
    assert backward.pop("ones_like") == 1 and backward.pop("stack") == 1  # the gradient of unbind
    assert backward == {"tanh_backward": 1, "mm": 1}
    assert not counter.waits


def test_on_a_gpu_only_its_own_calls_count():
    assert count(lambda: torch.ones(2) + 1, device="meta") == {}
    assert count(lambda: torch.ones(2, device="meta") + 1, device="meta") == {"ones": 1, "add.Tensor": 1}


@pytest.mark.parametrize(
    "run, name",
    [
        (lambda x: bool((x > 0).any()), "_local_scalar_dense"),
        (lambda x: x.max().item(), "_local_scalar_dense"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.cpu(), "cpu"),
    ],
)
def test_what_waits_and_where(run, name):
    x = torch.randn(5)
    counter = CallCounter("cpu")
    with counter:
        run(x)
    ((_, seen, where), number), *others = counter.waits.items()
    assert (seen, number, others) == (name, 1, [])
    assert where == f"tests/test_launches.py:{run.__code__.co_firstlineno}"


def test_what_does_not_wait():
    x = torch.randn(5)
    counter = CallCounter("cpu")
    with counter:
        x[x > 0] = 0.0
        x.masked_fill_(x > 0, 0.0)
        x[torch.tensor([1, 2])]
        x.to(torch.float64)
    assert not counter.waits


def results(module, *inputs):
    """What a recurrent module gives for h, and the gradients of its parameters."""
    h, _ = module(*inputs)
    h = h.data if isinstance(h, PackedSequence) else h
    h.pow(2).sum().backward()
    found = [h.detach(), *(parameter.grad for parameter in module.parameters())]
    module.zero_grad()
    return found


def counted_results(module, *inputs):
    """``results`` while calls are counted as a GPU would see them: the same, and the calls by name."""
    expected, counter = results(module, *inputs), CallCounter("cpu")
    with one_call_each(counter), counter:
        found = results(module, *inputs)
    torch.testing.assert_close(found, expected)
    return {name: number for (_, name), number in counter.calls.items()}


def test_a_step_of_a_cell_is_two_products_and_one_call():
    cell, x, state = nn.LSTMCell(3, 4), torch.randn(2, 3), (torch.randn(2, 4), torch.randn(2, 4))
    calls = counted_results(cell, x, state)
    assert (calls["_thnn_fused_lstm_cell"], calls["_thnn_fused_lstm_cell_backward_impl"]) == (1, 1)
    assert calls["mm"] == 4  # and two for the weights' gradients: x and h need none
    assert not [name for name in calls if "sigmoid" in name or "tanh" in name]


@pytest.mark.parametrize("packed", [False, True])
def test_a_whole_lstm_is_one_call(packed):
    lstm, x = nn.LSTM(3, 4, bidirectional=True), torch.randn(5, 2, 3)
    given = pack_padded_sequence(x, torch.tensor([5, 3])) if packed else x
    calls = counted_results(lstm, given)
    assert (calls["lstm"], calls["lstm_backward"]) == (1, 1)
    assert not [name for name in calls if "mm" in name or "rnn" in name or "sigmoid" in name]


class Twice(Function):
    @staticmethod
    def forward(ctx, x):
        return x.add(1).mul(2)

    @staticmethod
    def backward(ctx, grad):
        return grad.mul(2).add(0)


def test_arithmetic_of_cells_and_dropout_are_one_call_each(monkeypatch):
    monkeypatch.setattr(gpu_kernels, "CELL_FUNCTIONS", ("planted_cells", "CELLS"))
    for planted, expected in (
        ({}, {"add.Tensor": 2, "mul.Tensor": 2}),  # a checkout that lists none
        ({"planted_cells": SimpleNamespace(CELLS=(Twice,))}, {"Twice": 1, "Twice_backward": 1}),
    ):
        for name, module in planted.items():
            monkeypatch.setitem(sys.modules, name, module)
        x, counter = torch.randn(3, requires_grad=True), CallCounter("cpu")
        with one_call_each(counter), counter:
            dropout(Twice.apply(x), 0.5).sum().backward()
        calls = {name: n for (_, name), n in counter.calls.items()}
        frame = {"native_dropout": 1, "native_dropout_backward": 1, "sum": 1, "ones_like": 1}
        assert calls == {**frame, **expected}
    assert count(lambda: Twice.apply(x)) == {"add.Tensor": 1, "mul.Tensor": 1}  # as before


def test_what_is_done_once_falls_out():
    assert difference({"a": 30, "b": 2, "c": 5}, {"a": 10, "b": 2, "d": 5}, 10) == {"a": 2.0, "c": 0.5, "d": -0.5}


@pytest.fixture(scope="module")
def counted():
    """(phase → counts) of fairseq's lstm, and of a system that cannot be built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(systems.SYSTEMS, "broken", System("attn_rnn", dict(attention_score="lunog")))
        return [{c.phase: c for c in launches.count(Setting(TINY, name))} for name in ("fairseq", "broken")]


def test_calls_of_fairseq_lstm(counted):
    forward, backward, search = (counted[0][phase] for phase in launches.PHASES)
    # input and state of the cell, query and readout of the attention; each product has two gradients
    assert (forward.calls["mm"], backward.calls["mm"], search.calls["mm"]) == (4, 8, 4)
    assert forward.calls["_thnn_fused_lstm_cell"] == backward.calls["_thnn_fused_lstm_cell_backward_impl"] == 1
    assert forward.calls["_softmax"] == backward.calls["_softmax_backward_data"] == 1
    assert "embedding" not in forward.calls and "lstm" not in forward.calls  # once a batch
    assert forward.once > 0 and forward.per_step == sum(forward.calls.values())
    (wait,) = (wait for wait in search.waits if wait[0] == "masked_select" and wait[2])
    assert wait[1].startswith("fairseq/sequence_generator.py:") and wait[2:] == (1, 0)  # hypotheses that end here
    assert not [wait for wait in forward.waits + backward.waits if wait[2]]


def test_a_system_that_does_not_run_is_a_note(counted):
    assert all("lunog" in counts.reason for counts in counted[1].values())


def test_tables_of_launches(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(WORKLOADS, "tiny", TINY)
    output = tmp_path / "launches.json"
    command.main(
        ["launches", "--workloads", "tiny", "--systems", "fairseq,feeding-sampled", "--list", "--output", str(output)]
    )
    results = json.loads(output.read_text())["results"]
    phases = {(r["system"], r["phase"]): r for r in results}
    assert set(phases) == {(s, p) for s in ("fairseq", "feeding-sampled") for p in launches.PHASES}
    assert phases["feeding-sampled", "search"]["reason"] == "feeding-sampled searches exactly as feeding does"
    forward, backward = (sum(phases["fairseq", p]["calls"].values()) for p in launches.PHASES[:2])
    printed = capsys.readouterr().out
    assert f"| tiny | fairseq | {forward:.0f} | {backward:.0f} | {forward + backward:.0f} | " in printed
    assert "\n| _thnn_fused_lstm_cell | 1 | 0 | 1 |\n" in printed
    (row,) = (line for line in printed.splitlines() if "masked_select | 1 a step |" in line)
    assert row.startswith("| search | fairseq/sequence_generator.py:") and row.endswith("|  |")
