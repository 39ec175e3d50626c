"""The same numbers on a GPU, in training and in search; left out where there is none."""

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from model_factory import batch, build, task_for, toy_task
from test_ladder import ALL
from test_matmul_dtype import FORMS, pair

DEVICE = "cuda"
if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """cuDNN's recurrent kernels round to TF32 unless they are told not to."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_gpu_gives_what_the_cpu_gives(options):
    task = task_for(options)
    source, lengths, previous = batch(task, left_pad=True)
    results = []
    for device in ("cpu", DEVICE):
        model = build(task, **options).train().to(device)
        logits, extra = model(source.to(device), lengths.to(device), previous.to(device))
        logits.logsumexp(-1).sum().backward()
        gradients = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
        attention = extra["attn"][0].cpu() if extra["attn"] else None
        generator = SequenceGenerator([model.eval()], task.target_dictionary, beam_size=3, max_len_a=0, max_len_b=6)
        sample = {"net_input": {"src_tokens": source.to(device), "src_lengths": lengths.to(device)}}
        found = [h["tokens"].tolist() for h, *_ in generator.generate([model], sample)]
        results.append((logits.detach().cpu(), attention, gradients, found))
    (logits, attention, gradients, found), (on_gpu, gpu_attention, gpu_gradients, gpu_found) = results
    torch.testing.assert_close(on_gpu, logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(gpu_attention, attention, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(gpu_gradients, gradients, atol=1e-2, rtol=1e-2)
    assert gpu_found == found


@pytest.mark.parametrize("way", ["amp", "fp16", "--matmul-dtype"])
@pytest.mark.parametrize("name", ["feeding", "all at once", "previous", "deep", "location"])
def test_half_precision_comes_close(name, way):
    """What fairseq's ``--amp`` and ``--fp16`` do with a model, and the model's own option."""
    task = toy_task()
    inputs = [tensor.to(DEVICE) for tensor in batch(task, left_pad=True)]
    exact, rounded = (model.to(DEVICE).train() for model in pair(FORMS[name], task))
    expected = exact(*inputs)[0]
    if way != "--matmul-dtype":
        rounded = exact.half() if way == "fp16" else exact
    with torch.autocast(DEVICE, dtype=torch.float16, enabled=way == "amp"):
        logits = rounded(*inputs)[0]
    logits.float().logsumexp(-1).sum().backward()
    torch.testing.assert_close(logits.float(), expected, atol=0.1, rtol=0.1)
    assert all(p.grad.isfinite().all() and p.grad.dtype == p.dtype for p in rounded.parameters() if p.grad is not None)
