"""torch.ao.quantization: linear maps in eight bits, for decoding on a CPU."""

import pytest
import torch
from model_factory import batch, build, mechanism, task_for
from torch import nn
from torch.ao.quantization import quantize_dynamic

from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS
from fairseq_attn_plugin.modules.attention.histories import HISTORIES
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(torch.backends.quantized.engine == "none", reason="torch has no kernels for it here"),
]

MODELS = {
    **{score: mechanism(score) for score in ATTENTION_SCORES.names()},
    **{name: mechanism("additive", "previous", attention_history=name) for name in HISTORIES.names()},
    **{name: mechanism("general", attention_addressing=name) for name in ADDRESSINGS.names()},
    **{name: dict(bridge=name, encoder_direction="bi") for name in ("backward", "mean", "shared", "tanh")},
    "many maps": dict(
        encoder_output_dim=6, attention_heads=2, attention_value_dim=4, decoder_out_embed_dim=9, encoder_front="dense",
        attention_past="on", attention_hidden_layers=2, attention_score="concat", attention_dim=4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_whatever_linear_maps_are_quantised_the_model_decodes(options):
    """In float32, of a small model: each map is off by less than one part in a hundred."""
    task = task_for(options)
    model = build(task, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(8.0 if parameter.dim() else 1.0)  # the start: no activation and no softmax is saturated
        source, lengths, previous = batch(task)
        expected, _ = model(source, lengths, previous)
        quantised = quantize_dynamic(model, {nn.Linear})
        kinds = [[type(module) for module in each.modules()] for each in (model, quantised)]
        assert 0 < kinds[0].count(nn.Linear) == kinds[1].count(torch.ao.nn.quantized.dynamic.Linear)
        logits, _ = quantised(source, lengths, previous)
        torch.testing.assert_close(logits, expected, atol=0.05, rtol=0.05)
