"""The same numbers on a GPU, in training and in search; left out where there is none."""

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from model_factory import batch, build, toy_task
from test_ladder import ALL

DEVICE = "cuda"
if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_gpu_gives_what_the_cpu_gives(options):
    task = toy_task()
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
