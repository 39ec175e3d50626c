"""``chunked_cross_entropy`` against fairseq's criterions, which compute all the logits."""

import json
import socket
import subprocess

import pytest
import torch
from fairseq import utils
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.distributed.module_proxy_wrapper import ModuleProxyWrapper
from fairseq_commands import PLUGIN, SMALL, load
from model_factory import batch, build, toy_task
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairseq_attn_plugin.criterions.chunked_cross_entropy import ChunkedCrossEntropyCriterion
from fairseq_attn_plugin.modules import vocabulary_loss as module
from fairseq_attn_plugin.modules.vocabulary_loss import vocabulary_loss

N, D, V = 11, 5, 7
TASK = "--task reversal --reversal-max-length 6 --reversal-train-size 64 --reversal-valid-size 24"


def chunk_rows(monkeypatch, rows):
    """Makes a chunk ``rows`` rows long, whatever the vocabulary, and a part of the weights two."""
    monkeypatch.setattr(module, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(module, "CHUNK_ROWS", rows)
    monkeypatch.setattr(module, "WEIGHT_ROWS", 2)


def inputs(dtype=torch.float64, bias=True, scale=1.0):
    """N×D features, V×D weight, bias and N targets, the same for every type."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(N, D), (V, D), (V,)]
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) * scale for shape in shapes]
    target = torch.randint(V, (N,), generator=generator)
    return [tensor.to(dtype).requires_grad_() for tensor in tensors[: 2 + bias]] + [None] * (not bias), target


def sample_of(task, target_lengths=(4, 5, 2, 3)):
    """A batch as a criterion gets it; a target length of 0 is a row of padding."""
    source, lengths, previous = batch(task, target_lengths=[max(1, length) for length in target_lengths])
    target = previous.roll(-1, dims=1)
    positions = torch.arange(target.size(1))
    target[positions >= torch.tensor(target_lengths).unsqueeze(1)] = task.target_dictionary.pad()
    net_input = {"src_tokens": source, "src_lengths": lengths, "prev_output_tokens": previous}
    return {"net_input": net_input, "target": target, "ntokens": sum(target_lengths)}


def result(criterion, model, sample, factor=1.0):
    """Loss, sample size, logging outputs and the gradient of ``factor`` times the loss for every parameter."""
    model.zero_grad()
    loss, sample_size, log = criterion(model, sample)
    (loss * factor).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return loss.detach(), sample_size, {name: float(value) for name, value in log.items()}, gradients


# The function


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, 4, 11, 50])
def test_gradients_are_those_of_finite_differences(monkeypatch, rows, smoothing, bias):
    """In chunks that divide the number of rows and that do not; also where the loss has a gradient other than one."""
    chunk_rows(monkeypatch, rows)
    tensors, target = inputs(bias=bias)
    torch.autograd.gradcheck(lambda *given: vocabulary_loss(*given, target, smoothing).loss, tensors)
    torch.autograd.gradcheck(lambda *given: -3 * vocabulary_loss(*given, target, smoothing).loss, tensors)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_needs_no_gradient_gets_none(frozen):
    tensors, target = inputs()
    tensors[frozen].requires_grad_(False)
    vocabulary_loss(*tensors, target).loss.backward()
    assert [tensor.grad is None for tensor in tensors] == [place == frozen for place in range(3)]


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
@pytest.mark.parametrize("how", ["argument", "autocast", "inputs"])
def test_half_precision_is_close(monkeypatch, how, dtype, tolerance):
    """Products in half precision, from float32 or from features and weights that are in it; gradients have the type of
    their inputs, and small ones are there: those of the smoothing are 1e-5 times the features."""
    chunk_rows(monkeypatch, 4)
    (features, weight, bias), target = inputs(torch.float32)
    exact, _ = inputs()
    expected = vocabulary_loss(*exact, target, 1e-4)
    expected.loss.backward()
    given = [t.detach().to(dtype if how == "inputs" else t.dtype).requires_grad_() for t in (features, weight, bias)]
    with torch.autocast("cpu", dtype, enabled=how == "autocast"):
        found = vocabulary_loss(*given, target, 1e-4, matmul_dtype=dtype if how == "argument" else None)
    (found.loss * 512).backward()
    assert found.loss.dtype == found.nll_loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=tolerance)
    for one, other in zip(given, exact, strict=True):
        assert one.grad.dtype == one.dtype
        error = (one.grad.double() / 512 - other.grad).norm() / other.grad.norm()
        assert error < tolerance


def test_float16_keeps_the_gradients_of_unlikely_words():
    """A probability of 1.5e-8 is zero in float16, but not its product with a loss scale."""
    features, weight = torch.full((3, 2), 0.5).half(), torch.tensor([[18.0, 18.0], [0.0, 0.0]]).half().requires_grad_()
    vocabulary_loss(features, weight, None, torch.zeros(3, dtype=torch.int64)).loss.mul(2.0**15).backward()
    expected = 2.0**15 * 3 * 0.5 * torch.sigmoid(torch.tensor(-18.0)).expand(2)
    torch.testing.assert_close(weight.grad[1].float(), expected, rtol=0.01, atol=0)


class Operations(TorchDispatchMode):
    """Notes how large the largest result of any operation is, and how many products of matrices there are."""

    def __init__(self):
        super().__init__()
        self.largest, self.products = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self.products += "mm" in func.__name__
        self.largest = max([self.largest, *(t.numel() for t in tree_leaves(found) if isinstance(t, torch.Tensor))])
        return found


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_logits_are_computed_once_and_never_kept(monkeypatch, dtype):
    """Per chunk: one product for the logits and one for either gradient. Kept for backward: gradients alone."""
    rows, words, vocabulary, size = 8, 60, 50, 3
    chunk_rows(monkeypatch, rows)
    monkeypatch.setattr(module, "WEIGHT_ROWS", vocabulary)
    features, weight = (torch.randn(n, size, requires_grad=True) for n in (words, vocabulary))
    target, kept = torch.randint(vocabulary, (words,)), []
    with Operations() as seen, saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        loss = vocabulary_loss(features, weight, None, target, 0.1, dtype).loss
        loss.backward()
    assert seen.largest == rows * vocabulary and seen.products == 3 * 8
    assert sorted(kept) == [size * vocabulary, size * words]
    with Operations() as seen, torch.no_grad():
        assert vocabulary_loss(features, weight, None, target, 0.1, dtype).loss == loss
    assert seen.largest == rows * vocabulary and seen.products == 8


# The criterion

MODELS = {
    "bias": {},
    "tied": {"share_decoder_input_output_embed": True, "decoder_out_embed_dim": 7},
    "step by step": {"attention_query": "previous"},
}


SAMPLES = {"some padding": (False, 0, (4, 5, 2, 3)), "none": (True, 2, (5, 5, 5, 5)), "all": (False, 0, (0, 0, 0, 0))}
"""What ``sentence_avg`` and ``ignore_prefix_size`` are, and lengths of targets."""


@pytest.mark.parametrize("sentence_avg, prefix, lengths", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_equals_the_criterions_of_fairseq(monkeypatch, options, smoothing, sentence_avg, prefix, lengths):
    """Loss, sample size, everything logged and all gradients."""
    chunk_rows(monkeypatch, 3)
    monkeypatch.setattr(utils, "log_softmax", lambda x, dim, onnx_trace: x.log_softmax(dim))  # fairseq's is in float32
    task = toy_task()
    model, sample = build(task, **options).double().train(), sample_of(task, lengths)
    given = (task, sentence_avg, smoothing, prefix, True)
    found = result(ChunkedCrossEntropyCriterion(*given), model, sample, factor=4.0)
    torch.testing.assert_close(found, result(LabelSmoothedCrossEntropyCriterion(*given), model, sample, factor=4.0))
    if smoothing == 0 and prefix == 0:
        loss, sample_size, _, gradients = result(CrossEntropyCriterion(task, sentence_avg), model, sample, factor=4.0)
        torch.testing.assert_close((*found[:2], found[3]), (loss, sample_size, gradients))


def test_unreduced_loss_is_that_of_fairseq():
    task = toy_task()
    model, sample = build(task), sample_of(task)
    losses = [
        criterion(task, False, 0.1)(model, sample, reduce=False)[0]
        for criterion in (ChunkedCrossEntropyCriterion, LabelSmoothedCrossEntropyCriterion)
    ]
    assert losses[0].numel() == 20
    torch.testing.assert_close(*losses)


def test_the_loss_leaves_the_model_as_it_was():
    """After an error in the model, too, its decoder returns logits again."""
    task = toy_task()
    model, sample = build(task), sample_of(task)
    net_input = sample["net_input"]
    before, _ = model(**net_input)
    criterion = ChunkedCrossEntropyCriterion(task, False, 0.1)
    criterion(model, sample)
    with pytest.raises(IndexError):
        criterion(model, {**sample, "net_input": {**net_input, "prev_output_tokens": torch.tensor([[99]])}})
    torch.testing.assert_close(model(**net_input)[0], before)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_is_a_share(smoothing):
    with pytest.raises(ValueError, match=rf"^--label-smoothing: got {smoothing}; "):
        ChunkedCrossEntropyCriterion(toy_task(), False, smoothing)


def test_another_kind_of_model_is_named(command, tmp_path):
    options = f"{TASK} --arch lstm --criterion chunked_cross_entropy {SMALL} --max-update 1 --save-dir {tmp_path}"
    options = options.replace("--bridge linear", "")
    message = "^--criterion chunked_cross_entropy: needs a model of this plugin .* got one with a LSTMDecoder; "
    with pytest.raises(ValueError, match=message):
        command("train", options)


# fairseq-train

TRAIN = f"{TASK} --arch attn_lstm_reversal {SMALL} --optimizer sgd --lr 1 --clip-norm 0.1 --max-update 3"
TRAIN += " --label-smoothing 0.1 --report-accuracy --log-format json"


def distributed(programs, save, *options):
    """Two processes with gloo; each has every second batch."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"tcp://localhost:{free.getsockname()[1]}"
    given = f"--user-dir {PLUGIN} --cpu --num-workers 0 {TRAIN} --criterion chunked_cross_entropy --save-dir {save}"
    given += f" --distributed-world-size 2 --distributed-init-method {address} --distributed-backend gloo"
    given += f" --distributed-no-spawn --ddp-backend legacy_ddp {' '.join(options)}"
    processes = [
        subprocess.Popen(
            [programs / "bin" / "fairseq-train", *given.split(), "--distributed-rank", rank, "--device-id", rank],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in "01"
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return load(save / "checkpoint_last.pt")


def logged(text):
    """The numbers of the validations in a log with ``--log-format json``."""
    return [json.loads(line[line.index("{") :]) for line in text.splitlines() if '"valid_loss"' in line]


@pytest.mark.slow
def test_training_is_that_of_fairseqs_criterion(command, programs, tmp_path):
    """In one process that sums two batches and in two that have one each; validation, from the checkpoint, too."""
    checkpoints, logs = {}, {}
    for criterion in ("label_smoothed_cross_entropy", "chunked_cross_entropy"):
        save, log = tmp_path / criterion, tmp_path / f"{criterion}.log"
        command("train", TRAIN, f"--criterion {criterion} --update-freq 2 --save-dir {save} --log-file {log}")
        checkpoints[criterion], logs[criterion] = load(save / "checkpoint_last.pt"), logged(log.read_text())
    expected, found = checkpoints.values()
    torch.testing.assert_close(found["model"], expected["model"])
    expected, found = logs.values()
    assert len(found) == len(expected) > 0
    for name in ("valid_loss", "valid_nll_loss", "valid_ppl", "valid_accuracy", "valid_sentence_accuracy"):
        assert float(found[-1][name]) == pytest.approx(float(expected[-1][name]), abs=0.002), name
    path = tmp_path / "chunked_cross_entropy" / "checkpoint_last.pt"
    validated = logged(command("validate", f"{TASK} --path {path} --batch-size 8 --log-format json"))
    assert float(validated[-1]["valid_loss"]) == pytest.approx(float(found[-1]["valid_loss"]), abs=0.002)
    both = distributed(programs, tmp_path / "two")
    torch.testing.assert_close(both["model"], checkpoints["chunked_cross_entropy"]["model"])


@pytest.mark.parametrize("coverage", [0.0, 2.0])
@pytest.mark.parametrize("find_unused", [False, True])
def test_distributed_training_sees_the_vocabulary_used(tmp_path, find_unused, coverage):
    """With torch's own wrapper, which looks for parameters that nothing in the model's output depends on."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        task = toy_task()
        model, sample = build(task).train(), sample_of(task)
        criterion = ChunkedCrossEntropyCriterion(task, False, 0.1, coverage_loss=coverage)
        expected = result(criterion, model, sample)
        wrapped = ModuleProxyWrapper(nn.parallel.DistributedDataParallel(model, find_unused_parameters=find_unused))
        for _ in range(2):
            loss, sample_size, log, gradients = result(criterion, wrapped, sample)
        gradients = {name.removeprefix("module.module."): gradient for name, gradient in gradients.items()}
        torch.testing.assert_close((loss, sample_size, log, gradients), expected)
    finally:
        torch.distributed.destroy_process_group()
