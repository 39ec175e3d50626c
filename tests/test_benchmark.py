"""The benchmark: its arithmetic against worked values, its work against fairseq's rules; never how long it takes."""

import json
import sys
from dataclasses import replace
from math import log
from statistics import median

import pytest
import torch
from torch import nn

from fairseq_attn_plugin.benchmark import command, comparison, memory, report, scaling, systems
from fairseq_attn_plugin.benchmark.floor import RECURRENT_KERNELS, count_operations
from fairseq_attn_plugin.benchmark.rounds import Timing, alternate, ratio, spread
from fairseq_attn_plugin.benchmark.systems import Setting, System, build_model
from fairseq_attn_plugin.benchmark.work import Work, search, training_step
from fairseq_attn_plugin.benchmark.workloads import WORKLOADS, SyntheticTask, Workload, random_batch

pytestmark = pytest.mark.slow

TINY = Workload(11, 6, 8, sentences=3, source_length=5, target_length=4)


@pytest.fixture
def tiny(monkeypatch):
    """Workload ``tiny`` and system ``broken``, which cannot be built."""
    monkeypatch.setitem(WORKLOADS, "tiny", TINY)
    monkeypatch.setitem(systems.SYSTEMS, "broken", System("attn_rnn", dict(attention_score="lunog")))
    monkeypatch.setattr(scaling, "WORKLOAD", replace(TINY, sentences=2))


class Machine:
    """A clock that pieces of work put forward, and a record of what ran."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def work(self, name, *durations):
        """Each run takes the next duration, the last one for ever; None fails."""
        left = list(durations)

        def run():
            duration = left.pop(0) if len(left) > 1 else left[0]
            if duration is None:
                raise RuntimeError(f"{name} broke\nin several lines")
            self.now += duration
            self.log.append(name)

        return lambda: Work(run, 1.0, "things/s")


def test_rounds_take_turns_and_leave_out_what_fails():
    machine = Machine()

    def unbuildable():
        raise ValueError("no such thing")

    works = {
        "a": machine.work("a", 9.0, 9.0, 1.0, 2.0, 3.0),
        "b": machine.work("b", 7.0, 7.0, 4.0, None),
        "c": unbuildable,
        "d": machine.work("d", 5.0),
    }
    timings = alternate(works, rounds=3, seconds=0.0, clock=lambda: machine.now)
    assert timings["a"].seconds == [1.0, 2.0, 3.0]
    assert timings["d"].seconds == [5.0, 5.0, 5.0]
    assert timings["b"].reason == "b broke" and timings["b"].seconds == []
    assert timings["c"].reason == "no such thing"
    assert "".join(machine.log) == "aabbdd" + "abd" + "da" + "ad"


def test_a_round_is_filled_with_runs():
    machine = Machine()
    works = {"short": machine.work("s", 0.25), "long": machine.work("l", 3.0)}
    timings = alternate(works, rounds=1, seconds=1.0, clock=lambda: machine.now)
    assert (timings["short"].runs, timings["long"].runs) == (4, 1)
    assert timings["short"].seconds == [0.25]
    assert alternate(works, rounds=1, seconds=1.0, runs=2, clock=lambda: machine.now)["long"].runs == 2


def test_ratios_are_of_the_same_round():
    assert ratio([2.0, 4.0, 9.0], [1.0, 4.0, 3.0]) == 2.0  # of 2, 1, 3; the medians give 4 / 3
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert spread([7.0]) == 0.0


def test_floor_share():
    # 600 operations at 1200 a second take half a second of a step's two
    products = Timing(seconds=[1.0, 0.5, 0.25], work=Work(print, 600.0, "operations/s"))
    result = comparison.Result("tiny", "train", "fairseq", "float32", raw=[1.0, 2.0, 9.0], operations=600)
    assert comparison.floor_share(result, products) == pytest.approx(0.25)
    assert comparison.floor_share(result, Timing(reason="no bfloat16")) is None


def product(rows, inner, columns):
    return 2 * rows * inner * columns


def test_operations_of_a_recurrent_kernel():
    batch, length, size, hidden = 3, 5, 7, 4
    lstm = nn.LSTM(size, hidden, bidirectional=True)
    inputs = torch.randn(length, batch, size, requires_grad=True)
    state = tuple(torch.zeros(2, batch, hidden, requires_grad=True) for _ in range(2))
    forward = 2 * product(batch * length, size + hidden, 4 * hidden)
    assert count_operations(lambda: lstm(inputs, state)[0].sum().backward()) == 3 * forward
    # a GPU's kernel, by the shapes that it is given; a packed sequence has one axis of tokens
    weights = [tuple(weight.shape) for weight in lstm.parameters()]
    forwards, backwards = (RECURRENT_KERNELS[getattr(torch.ops.aten, f"_cudnn_rnn{end}")] for end in ("", "_backward"))
    for shape in ((length, batch, size), (length * batch, size)):
        assert (forwards(shape, weights, 4), backwards(shape, weights, 4)) == (forward, 2 * forward)


def test_operations_of_products_that_torch_does_not_count():
    n, k, m, b = 2, 3, 5, 7
    left, right, vector, room = torch.ones(n, k), torch.ones(k, m), torch.ones(k), torch.ones(n, m)
    lefts, rights = torch.ones(b, n, k), torch.ones(b, k, m)
    once, mv = product(n, k, m), product(n, k, 1)
    for run, expected in (
        (lambda: room.addmm_(left, right), once),
        (lambda: torch.addmm(room, left, right), once),  # torch's own: nothing is counted twice
        (lambda: left.mv(vector), mv),
        (lambda: torch.addmv(torch.ones(n), left, vector), mv),
        (lambda: torch.ones(n).addmv_(left, vector), mv),
        (lambda: torch.addbmm(room, lefts, rights), b * once),
        (lambda: room.addbmm_(lefts, rights), b * once),
        (lambda: torch.ones(b, n, m).baddbmm_(lefts, rights), b * once),
        (lambda: vector.dot(vector), product(1, k, 1)),
    ):
        assert count_operations(run) == expected


def test_operations_of_a_known_step():
    """The gates of a step written where they are needed, and an additive score, forwards and backwards."""
    rows, size, hidden, keys = 3, 5, 4, 6
    weight, u = torch.randn(4 * hidden, size + hidden), torch.randn(hidden, requires_grad=True)
    inputs, h, gates = torch.randn(rows, size), torch.randn(rows, hidden), torch.zeros(rows, 4 * hidden)

    def step():
        gates.addmm_(inputs, weight[:, :size].t()).addmm_(h, weight[:, size:].t())
        torch.randn(rows * keys, hidden).mv(u).sum().backward()

    # the gradient of u is a product of the same size
    assert count_operations(step) == product(rows, size + hidden, 4 * hidden) + 2 * product(rows * keys, hidden, 1)


def test_operations_of_fairseq_lstm():
    rows, columns, hidden, half = TINY.sentences, TINY.vocabulary, TINY.hidden_dim, TINY.hidden_dim // 2
    source, target = rows * TINY.source_length, rows * TINY.target_length
    encoder = 2 * product(source, TINY.embed_dim + half, 4 * half)
    cell = product(target, TINY.embed_dim + hidden + hidden, 4 * hidden)  # word, feed and state
    attention = product(target, hidden, hidden) + product(target, 2 * hidden, hidden)
    expected = 3 * (encoder + cell + attention + product(target, hidden, columns))
    counted = count_operations(training_step(Setting(TINY, "fairseq")).run)
    # where torch has no kernel, nothing works out the gradient of the encoder's first state
    assert counted in (expected, expected - 2 * product(rows, half, 4 * half))


def test_systems_have_the_same_sizes():
    task = SyntheticTask(TINY.vocabulary)
    assert len(task.target_dictionary) == TINY.vocabulary
    count = {name: sum(p.numel() for p in build_model(Setting(TINY, name), task).parameters()) for name in
             ("fairseq", "feeding", "no-feeding", "additive")}  # fmt: skip
    gates, hidden = 4 * TINY.hidden_dim, TINY.hidden_dim
    assert count["feeding"] == count["fairseq"]
    assert count["no-feeding"] == count["fairseq"] - gates * hidden  # no feed into the cell
    # the context in the place of the feed; two projections, a vector and a bias in the place of one projection
    assert count["additive"] == count["fairseq"] + hidden * hidden + 2 * hidden


@pytest.mark.parametrize("mixed", [False, True])
def test_batches_are_what_fairseq_makes(mixed):
    task, workload = SyntheticTask(64), replace(TINY, vocabulary=64, sentences=40, source_length=9, target_length=12)
    batch = random_batch(workload, task, "cpu", mixed)
    source, target, pad = batch["net_input"]["src_tokens"], batch["target"], task.target_dictionary.pad()
    lengths, target_lengths = source.ne(pad).sum(1), target.ne(pad).sum(1)
    assert torch.equal(batch["net_input"]["src_lengths"], lengths)
    assert lengths.tolist() == sorted(lengths.tolist(), reverse=True)
    assert (lengths.unique().tolist(), target_lengths.unique().tolist()) == (
        ([4, 5, 6, 7, 8, 9], [6, 7, 8, 9, 10, 11, 12]) if mixed else ([9], [12])
    )
    assert source[:, -1].eq(task.target_dictionary.eos()).all()  # padded on the left
    assert target[:, 0].ne(pad).all() and batch["ntokens"] == target_lengths.sum()


@pytest.mark.parametrize("system", ["fairseq", "no-feeding"])
@pytest.mark.parametrize("preference", [-9.0, 9.0], ids=["goes on", "ends soon"])
def test_every_hypothesis_has_the_length_of_the_target(system, preference, monkeypatch):
    def build_decided(setting, task):
        """A model that by itself never, or always, writes ``</s>``."""
        model = build_model(setting, task)
        (bias,) = (p for p in model.decoder.parameters() if p.shape == (TINY.vocabulary,))
        with torch.no_grad():
            bias[task.target_dictionary.eos()] += preference
        return model

    monkeypatch.setattr("fairseq_attn_plugin.benchmark.work.build_model", build_decided)
    for beam in (1, 3):
        found = search(Setting(TINY, system, mixed=True), beam).run()
        assert [len(hypotheses) for hypotheses in found] == [beam] * TINY.sentences
        assert {len(hypothesis["tokens"]) for hypotheses in found for hypothesis in hypotheses} == {4}


@pytest.mark.parametrize("system", ["fairseq", "no-feeding"])
def test_a_training_step_trains(system):
    work = training_step(replace(Setting(TINY, system), dropout=0.0))
    losses = [work.run().item() for _ in range(60)]
    assert work.amount == TINY.sentences * TINY.target_length
    # words by chance at first; Adam's step of 0.001 brings 60 steps this far, and nothing without the gradient's sign
    assert losses[0] / work.amount == pytest.approx(log(TINY.vocabulary), rel=0.1)
    assert losses[-1] < 0.95 * losses[0]


def test_all_that_runs_is_measured_and_written(tiny, tmp_path, capsys):
    output = tmp_path / "new" / "results.json"
    command.main(
        ["--workloads", "tiny", "--systems", "broken,fairseq,no-feeding", "--dtype", "bfloat16", "--measure",
         "train,beam5", "--rounds", "3", "--steps", "2", "--output", str(output)]
    )  # fmt: skip
    table = capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written["plan"]["dropout"] == 0.1 and written["machine"]["torch"] == torch.__version__
    results = {(r["measure"], r["system"], r["dtype"]): r for r in written["results"]}
    # fairseq's float32, which the others are compared with, is measured unasked
    variants = {("fairseq", "float32"), *((system, "bfloat16") for system in ("broken", "fairseq", "no-feeding"))}
    assert set(results) == {(measure, *variant) for measure in ("train", "beam5") for variant in variants}
    for (measure, system, dtype), result in results.items():
        if system == "broken":
            assert "lunog" in result["reason"] or "matmul_dtype" in result["reason"]
        elif (system, dtype) == ("fairseq", "bfloat16"):
            assert result["reason"] == "fairseq has no bfloat16 on the CPU"
        elif system == "fairseq":
            amount = 12 if measure == "train" else 3
            assert len(result["raw"]) == 3 and result["steps"] == 2 and result["reason"] is None
            assert result["value"] == pytest.approx(amount / median(result["raw"]))
            assert result["ratio"] == result["ratio_of_medians"] == 1.0
            assert (result["floor_share"] is not None) == (measure == "train")
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| tiny")]
    assert [row[1].split(",")[0] for row in rows] == ["train", report.FLOOR, "beam5"]
    assert "fairseq's lstm bfloat16" in table and "] fairseq has no bfloat16 on the CPU" in table


def test_scheduled_sampling_is_measured_in_training_only_and_when_asked_for():
    assert systems.USUAL == ("fairseq", "feeding", "no-feeding", "additive")
    setting = Setting(TINY, "feeding-sampled")
    assert build_model(setting, SyntheticTask(TINY.vocabulary)).decoder.scheduled_sampling.probability == 0.5
    assert training_step(setting).run().isfinite()
    with pytest.raises(ValueError, match="^feeding-sampled searches exactly as feeding does$"):
        search(setting, beam=1)


def test_ratio_to_fairseq_and_its_cell():
    def result(system, values):
        made = comparison.Result("tiny", "train", system, "float32", unit="target tokens/s")
        comparison.set_values(made, values)
        return made

    ours, theirs = result("no-feeding", [2000.0, 4000.0, 9000.0]), result("fairseq", [1000.0, 4000.0, 3000.0])
    failed = comparison.Result("tiny", "train", "feeding", "float32", reason="broke")
    comparison.set_ratios([ours, failed, theirs])
    assert (ours.ratio, ours.ratio_of_medians, failed.ratio) == (2.0, 4 / 3, None)
    plan = comparison.Plan(("nmt15",), ("fairseq", "no-feeding", "feeding"), ("train",))
    row = next(line for line in report.markdown(plan, [replace(r, workload="nmt15") for r in (ours, failed, theirs)],
                                                {"CPU": "of paper"}).splitlines() if "tokens/s" in line)  # fmt: skip
    assert row == "| nmt15 | train, target tokens/s | 3,000 (50%) 1.00× | 4,000 (88%) 2.00× | [1] |"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_holds_parameters_gradients_and_averages(programs, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(programs / "bin" / "python"))  # it starts in a moment
    workload = replace(TINY, vocabulary=8000, embed_dim=128)
    numbers = 8000 * 128 * 2 + 8000 * 8
    with memory.MemoryMeter() as meter:
        peak = meter.peak(Setting(workload, "fairseq"), threads=1)
        assert 4 * 4 * numbers < peak < 16 * 4 * numbers
        with pytest.raises(RuntimeError, match="^fairseq has no bfloat16 on the CPU$"):
            meter.peak(Setting(workload, "fairseq", dtype="bfloat16"), threads=1)


def test_scaling_measures_every_point_and_draws(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(command.QUICK["scaling"], "lengths", (3, 5))
    monkeypatch.setitem(command.QUICK["scaling"], "beams", (1, 2, 3))
    output = tmp_path / "scaling.json"
    command.main(["scaling", "--quick", "--steps", "1", "--systems", "fairseq,broken", "--output", str(output)])
    written = json.loads(output.read_text())
    assert [panel["x"] for panel in written["panels"]] == [[3, 5], [3, 5], [1, 2, 3]]
    for panel in written["panels"]:
        assert all(len(raw) == 2 for raw in panel["raw"]["fairseq"])
        assert panel["seconds"]["fairseq"] == [median(raw) for raw in panel["raw"]["fairseq"]]
        assert panel["seconds"]["broken"] == [None] * len(panel["x"]) and len(panel["reasons"]) == len(panel["x"])
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert len([line for line in capsys.readouterr().out.splitlines() if line.endswith("| - |")]) == 7


@pytest.mark.parametrize(
    "options, message",
    [
        ("speed", "MODE: got 'speed'; choose from table, scaling, launches"),
        ("--workloads nmt,wmt", "--workloads: got 'wmt'; choose from reversal, g2p, nmt15, nmt30, nmt-deep, nmt"),
        ("--systems transformer", "--systems: got 'transformer'; choose from fairseq, feeding,"),
        ("--measure train,beam7", "--measure: got 'beam7'; choose from train, greedy, beam5, memory"),
        ("--dtype float16", "--dtype: got 'float16'; choose from float32, bfloat16"),
        ("--device tpu", "--device: got 'tpu'; choose from cpu, cuda"),
        ("--criterion ctc", "--criterion: got 'ctc'; choose from label_smoothed_cross_entropy"),
        ("--rounds 0", "--rounds: got 0; give more than 0"),
        ("--seconds -1", "--seconds: got -1.0; give more than 0"),
        ("--dropout 1", "--dropout: got 1.0; give at least 0 and less than 1"),
        ("--against scripts", "--against: got 'scripts', which holds no fairseq_attn_plugin/; give the folder of"),
        ("scaling --against .", "--against: scaling has workloads, measures and a type of its own; leave it out"),
        ("launches --measure train", "--measure: launches counts one training step and one search; leave it out"),
        ("--list", "--list: only launches lists calls; leave it out"),
        ("--output results.txt", "--output: got 'results.txt'; give a name that ends in .json"),
        (
            "scaling --workloads nmt15",
            "--workloads: scaling has workloads, measures and a type of its own; leave it out",
        ),
    ],
)
def test_what_cannot_be_asked_for(options, message):
    with pytest.raises(SystemExit) as ended:
        command.main(options.split())
    assert str(ended.value).startswith(f"error: {message}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu():
    with pytest.raises(SystemExit, match="^error: --device: got 'cuda', and torch sees no GPU; choose cpu$"):
        command.main(["--device", "cuda"])
