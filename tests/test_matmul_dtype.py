"""``--matmul-dtype bfloat16``: what is computed in which type, how close it comes, and that weights are cast once."""

import copy
import logging
from collections import Counter

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from model_factory import batch, build, mechanism, toy_task
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_attn_plugin.models import precision
from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS
from fairseq_attn_plugin.modules.attention.histories import HISTORIES
from fairseq_attn_plugin.modules.attention.windows import WINDOWS
from fairseq_attn_plugin.modules.carry import tree_map
from fairseq_attn_plugin.modules.recurrence import cells

FORMS = {
    "feeding": mechanism("general"),
    "all at once": mechanism("general", input_feeding="off"),
    "previous": mechanism("additive", "previous"),
    "cosine": mechanism("cosine", "previous", cell="gru", input_feeding="off"),
    "deep": mechanism("dot", encoder_layers=2, decoder_layers=2, layer_norm=True, decoder_out_embed_dim=3),
    "entmax": mechanism("normed_additive", normalizer="entmax15", cell="rnn"),
    "location": mechanism("location", cell="gru_reset_before", readout_activation="maxout", readout_dim=6),
    "without attention": mechanism("none"),
    "dense front, output map": mechanism(
        "general", cell="gru_reset_before", encoder_front="dense", encoder_output_dim=4, readout_bias="on"
    ),
    "pyramid": mechanism("dot", encoder_front="conv", encoder_layers=2, encoder_pyramid=1, bridge="shared"),
    **{f"history {name}": mechanism("general", attention_history=name) for name in HISTORIES.names()},
    "history, keys made anew": mechanism("additive", "previous", attention_history="location"),
    **{f"window {name}": mechanism("dot", input_feeding="off", attention_window=name) for name in WINDOWS.names()},
    **{
        f"addressing {name}": mechanism("general", attention_addressing=name, input_feeding="off")
        for name in ADDRESSINGS.names()
    },
    "heads and past": mechanism("scaled_dot", attention_heads=2, attention_past="on", attention_past_score="additive"),
}


class Casts(TorchDispatchMode):
    """How often each matrix of a module was cast to bfloat16, by name; ``joined`` are matrices side by side."""

    def __init__(self, module):
        super().__init__()
        self.counts = Counter()
        self._names = {p.data_ptr(): name for name, p in module.named_parameters() if p.dim() == 2}
        self._joined = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.cat.default and any(part.data_ptr() in self._names for part in args[0]):
            self._joined.add(result.data_ptr())
        if func is torch.ops.aten._to_copy.default and result.dtype == torch.bfloat16:
            name = "joined" if args[0].data_ptr() in self._joined else self._names.get(args[0].data_ptr())
            if name is not None:
                self.counts[name] += 1
                self._joined.discard(args[0].data_ptr())
        return result


def pair(options, task):
    """One model in float32 and one with its products in bfloat16, of the same moderate weights."""
    models = [build(task, matmul_dtype=dtype, **options) for dtype in ("float32", "bfloat16")]
    with torch.no_grad():
        for model in models:
            for parameter in model.parameters():
                parameter.mul_(0.25)
    return models


def loss_of(model, inputs):
    logits, extra = model(*inputs)
    target = torch.arange(logits.size(0) * logits.size(1)) % logits.size(2)
    return logits, extra, torch.nn.functional.cross_entropy(logits.flatten(0, 1), target)


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_results_are_float32_and_close(options):
    task = toy_task()
    inputs = batch(task, left_pad=True)
    exact, rounded = pair(options, task)
    expected, expected_extra, expected_loss = loss_of(exact, inputs)
    logits, extra, loss = loss_of(rounded, inputs)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, expected)  # something was rounded
    assert (logits - expected).norm() < 0.05 * expected.norm()
    if extra["attn"] is not None:
        assert extra["attn"][0].dtype == torch.float32
        torch.testing.assert_close(extra["attn"][0], expected_extra["attn"][0], atol=0.05, rtol=0)
    expected_loss.backward()
    loss.backward()
    for (name, parameter), other in zip(rounded.named_parameters(), exact.parameters(), strict=True):
        assert parameter.dtype == torch.float32
        if other.grad is not None and other.grad.norm() > 1e-3:
            assert (parameter.grad - other.grad).norm() < 0.2 * other.grad.norm(), name


@pytest.mark.parametrize("form", ["feeding", "previous", "deep"])
def test_weights_are_cast_once_a_batch(form):
    task = toy_task()
    model = build(task, matmul_dtype="bfloat16", **FORMS[form]).train()
    with Casts(model) as casts:
        loss_of(model, batch(task))[2].backward()
    joined = len(model.decoder.recurrence.layers)
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        joined += len(model.encoder.recurrence.layers)  # padded: a column more; elsewhere the kernel is float32
    assert casts.counts.pop("joined") == joined
    assert casts.counts["decoder.vocabulary.weight"] == casts.counts["decoder.readout.projection.weight"] == 1
    assert set(casts.counts.values()) == {1}


@pytest.mark.parametrize("form", ["feeding", "all at once", "previous", "deep"])
def test_weights_are_cast_once_a_search_and_then_never_again(form):
    task = toy_task()
    model = build(task, matmul_dtype="bfloat16", **FORMS[form])
    source, lengths, _ = batch(task)
    sample = {"net_input": {"src_tokens": source, "src_lengths": lengths}}
    search = SequenceGenerator([model], task.target_dictionary, beam_size=3, max_len_a=0, max_len_b=7, min_len=7)
    layers = len(model.decoder.recurrence.layers)

    def casts_of_search():
        with Casts(model.decoder) as casts:
            search.generate([model], sample)
        joined = casts.counts.pop("joined", 0)
        bridge = [name for name in casts.counts if name.startswith("bridge")]  # the first state, once a batch
        assert all(casts.counts.pop(name) == 1 for name in bridge)
        return joined, casts.counts

    joined, counts = casts_of_search()
    assert joined == layers and counts["vocabulary.weight"] == 1 and set(counts.values()) == {1}
    model.prepare_for_inference_(OmegaConf.create({"generation": {"beam": 3, "print_alignment": None}}))
    assert casts_of_search() == (joined, counts)
    joined, counts = casts_of_search()
    assert joined == 0 and set(counts) <= {"attention.score.linear.weight"}  # with every batch's keys


@pytest.mark.parametrize("form", ["feeding", "previous", "location"])
def test_nothing_is_read_from_memory_that_was_never_written(form):
    """Freed memory full of NaN: a kernel that reads beyond a row and multiplies by zero would show it."""
    task = toy_task()
    inputs = batch(task)
    model = build(task, matmul_dtype="bfloat16", **FORMS[form]).train()
    for _ in range(20):
        sizes = [2**power for power in range(3, 14)] * 20
        garbage = [torch.full((size,), torch.nan, dtype=torch.bfloat16) for size in sizes]
        garbage += [torch.full((size,), torch.nan) for size in sizes]
        del garbage
        model.zero_grad()
        loss_of(model, inputs)[2].backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_state_of_a_search_is_float32():
    task = toy_task()
    model = build(task, matmul_dtype="bfloat16", **FORMS["feeding"])
    source, _, previous = batch(task)
    cache = {}
    with torch.no_grad():
        encoder_out = model.encoder(source)
        for t in (1, 2):
            model.decoder(previous[:, :t], encoder_out=encoder_out, incremental_state=cache)
    carry = model.decoder.get_incremental_state(cache, "carry")["carry"]
    dtypes = []
    tree_map(lambda tensor: dtypes.append(tensor.dtype), carry.parts)
    assert carry.position == 2 and dtypes == [torch.float32] * 3  # h, c, feed
    assert encoder_out["values"][0].dtype == torch.bfloat16


def test_weights_that_change_are_read_anew():
    """Even after fairseq has said that the model only decodes, a weight may be loaded into it."""
    task = toy_task()
    model = build(task)
    model.prepare_for_inference_(OmegaConf.create({"generation": {"beam": 3, "print_alignment": None}}))
    source, _, previous = batch(task)

    def step():
        with torch.no_grad():
            return model.decoder(previous[:, :1], encoder_out=model.encoder(source), incremental_state={})[0]

    before = step()
    other = build(task, seed=7)
    model.load_state_dict(other.state_dict())
    assert not torch.allclose(step(), before)
    torch.testing.assert_close(step(), other.decoder(previous[:, :1], model.encoder(source))[0])
    entries = len(model.decoder._ready._ready)
    for parameter, source_of in zip(model.parameters(), build(task).parameters(), strict=True):
        parameter.data = source_of.data.clone()
    torch.testing.assert_close(step(), before)
    assert len(model.decoder._ready._ready) == entries > 0


def test_a_model_that_only_decodes_keeps_no_batch():
    task = toy_task()
    model = build(task)
    model.prepare_for_inference_(OmegaConf.create({"generation": {"beam": 3, "print_alignment": None}}))
    source, lengths, previous = batch(task)
    model(source, lengths, previous)  # with gradients
    with torch.no_grad():
        model.decoder(previous[:, :1], encoder_out=model.encoder(source), incremental_state={})
    kept = {matrix.numel() for _, _, matrix in model.decoder._ready._ready.values()}
    weights = {parameter.numel() for parameter in model.decoder.parameters()}
    first = model.decoder.recurrence.layers[0]
    assert kept <= weights | {first.weight_ih_l0.numel() + first.weight_hh_l0.numel()}
    copy.deepcopy(model)


@pytest.mark.parametrize("fast", [True, False])
def test_a_machine_without_it_is_warned_once(fast, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast, raising=False)
    precision._warn_where_slow.cache_clear()
    task = toy_task()
    with caplog.at_level(logging.WARNING):
        model = build(task, matmul_dtype="bfloat16")
        model(*batch(task))
        model(*batch(task))
    warnings = [record.message for record in caplog.records if "--matmul-dtype bfloat16" in record.message]
    assert len(warnings) == (0 if fast else 1)
    precision._warn_where_slow.cache_clear()


@pytest.mark.slow
def test_train_and_generate(command, tmp_path):
    """The option is kept with the model: decoding needs no flag, and float32 can be had again."""
    common = "--task reversal --arch attn_lstm_reversal --input-feeding on --matmul-dtype bfloat16 --optimizer adam"
    command(
        "train",
        f"{common} --lr 0.002 --max-tokens 400 --max-update 8 --no-epoch-checkpoints --save-dir {tmp_path}",
        "--criterion chunked_cross_entropy --reversal-train-size 400 --reversal-valid-size 20",
    )
    path = tmp_path / "checkpoint_last.pt"
    state = torch.load(path, weights_only=True)
    assert state["cfg"]["model"]["matmul_dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in state["model"].values()} == {torch.float32}
    scores = []
    for overrides in ("", "--model-overrides {'matmul_dtype':'float32'}"):
        out = command("generate", f"--task reversal --path {path} --reversal-test-size 20 --beam 2 {overrides}")
        scores.append([line.split("\t")[1] for line in out.splitlines() if line.startswith("H-")])
    assert len(scores[0]) == 20 and scores[0] != scores[1]


@pytest.mark.parametrize("form", ["feeding", "all at once", "deep"])
def test_where_the_lstm_has_no_bfloat16(form, monkeypatch):
    """Its kernel then runs in float32; with or without padding, in training and in search."""
    task = toy_task()
    exact, rounded = pair(FORMS[form], task)
    source, lengths, previous = batch(task)
    monkeypatch.setattr(cells, "bfloat16_fails", lambda device: torch.is_autocast_enabled(device.type))
    for inputs in ((source, lengths, previous), (source[:1, -1:], lengths[:1] * 0 + 1, previous[:1])):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                (expected, _), (logits, _) = exact.eval()(*inputs), rounded.eval()(*inputs)
            torch.testing.assert_close(logits, expected, atol=0.02, rtol=0.02)
            assert not torch.equal(logits, expected)
