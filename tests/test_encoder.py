"""Encoder fronts and the pyramid: values by hand, padding anywhere, attention in the columns of the source."""

import pytest
import torch
from model_factory import batch, build, toy_task
from test_padded_recurrence import inputs_of, loss_of, real_tokens

from fairseq_attn_plugin.models.encoder import memory_of
from fairseq_attn_plugin.models.encoder_fronts import ENCODER_FRONTS
from fairseq_attn_plugin.modules.attention.memory import AttentionMemory
from fairseq_attn_plugin.modules.recurrence.padding import Padding
from fairseq_attn_plugin.modules.recurrence.pyramid import join_levels, source_columns
from fairseq_attn_plugin.modules.recurrence.stack import RecurrentStack

# levels, weights of the shortened positions, weights of the source's tokens
BY_HAND = {
    "pairs": (1, [0.5, 0.3, 0.2], [0.25, 0.25, 0.15, 0.15, 0.1, 0.1]),
    "an odd last token": (1, [0.5, 0.3, 0.2], [0.25, 0.25, 0.15, 0.15, 0.2]),
    "one token": (1, [1.0], [1.0]),
    "one token, three levels": (3, [1.0], [1.0]),
    "an odd last pair": (2, [0.4, 0.6], [0.1, 0.1, 0.1, 0.1, 0.3, 0.3]),
    "an odd last token of an odd number of pairs": (2, [0.4, 0.6], [0.1, 0.1, 0.1, 0.1, 0.6]),
    "a pair beside half a pair": (2, [1.0], [0.25, 0.25, 0.5]),
}


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("side", ["right", "left", "middle"])
@pytest.mark.parametrize("what", BY_HAND)
def test_weights_in_the_columns_of_the_source(what, side, padding):
    levels, shortened, expected = BY_HAND[what]
    start = {"left": 0, "middle": 1, "right": len(expected)}[side]
    mask = torch.zeros(1, len(expected) + padding, dtype=torch.bool)
    mask[:, start : start + padding] = True
    weights = torch.zeros(1, 1, mask.size(1))
    weights[..., : len(shortened)] = torch.tensor(shortened)
    memory = AttentionMemory(weights, weights, source_columns=source_columns(mask, levels))
    found = memory.in_source_columns(weights)[0, 0]
    torch.testing.assert_close(found[~mask[0]], torch.tensor(expected))
    assert (found[mask[0]] == 0).all()


def test_pairs_are_those_of_real_tokens():
    inputs = torch.tensor([[9.0, 1, 2, 3, 4], [9, 9, 9, 9, 5], [1, 2, 9, 3, 9]]).unsqueeze(2)
    padding = Padding.of(inputs.squeeze(2) == 9)
    once, half = join_levels(inputs, padding, 1)
    assert once.tolist() == [[[1, 2], [3, 4], [0, 0]], [[5, 0], [0, 0], [0, 0]], [[1, 2], [3, 0], [0, 0]]]
    assert half.mask.tolist() == [[False, False, True], [False, True, True], [False, False, True]]
    assert half.lengths.tolist() == [2, 1, 2]
    twice, quarter = join_levels(inputs, padding, 2)
    assert twice[:, 0].tolist() == [[1, 2, 3, 4], [5, 0, 0, 0], [1, 2, 3, 0]] and (twice[:, 1] == 0).all()
    assert quarter.lengths.tolist() == [1, 1, 1]


def assert_equals_each_alone(part, run, real, inputs):
    """``run(inputs, padding)`` gives outputs, their padding and more; gradients of inputs and parameters, too."""
    outputs, padding, final = run(inputs, Padding(~real))
    loss, total = 0.0, loss_of(outputs[~padding.mask], final)
    for row in real.any(1).nonzero().flatten().tolist():
        alone, _, state = run(inputs[row : row + 1, real[row]], None)
        torch.testing.assert_close(outputs[row][~padding.mask[row]], alone[0], atol=1e-12, rtol=1e-12)
        loss = loss + loss_of(alone, state)
    empty = ~real.any(1)
    total = total - sum((k + 2) * part[empty].cos().sum() for k, part in enumerate(p for s in final for p in s))
    ours, expected = (torch.autograd.grad(what, [inputs, *part.parameters()]) for what in (total, loss))
    assert (ours[0][~real] == 0).all()
    for found, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, right, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("side", ["right", "left", "middle"])
@pytest.mark.parametrize("name", ENCODER_FRONTS.names())
def test_a_front_gives_a_sentence_the_same_in_any_batch(name, side):
    torch.manual_seed(1)
    front, real = ENCODER_FRONTS[name](5, num_layers=2).double(), real_tokens(side)

    def run(inputs, padding):
        return front(inputs, padding), padding, []

    assert_equals_each_alone(front, run, real, inputs_of(real))


def test_convolutions_leave_zeros_on_padding():
    front, real = ENCODER_FRONTS["conv"](5, num_layers=2, width=5).double(), real_tokens("left")
    assert (front(inputs_of(real), Padding(~real))[~real] == 0).all()


@pytest.mark.parametrize("side", ["right", "left", "middle"])
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
@pytest.mark.parametrize("levels", [1, 2])
def test_a_pyramid_gives_a_sentence_the_same_in_any_batch(levels, cell, side):
    torch.manual_seed(1)
    stack = RecurrentStack(cell, 5, 6, 3, bidirectional=True, residual=True, layer_norm=True, pyramid=levels).double()
    real = real_tokens(side)

    def run(inputs, padding):
        outputs, final = stack(inputs, padding=padding)
        return outputs, join_levels(inputs, padding, levels)[1], final

    assert_equals_each_alone(stack, run, real, inputs_of(real))


@pytest.mark.parametrize("options", [dict(encoder_pyramid=2, encoder_layers=3), dict(encoder_front="conv")])
def test_a_source_of_padding_alone_has_no_weights(options):
    task = toy_task()
    source, _, previous = batch(task)
    source[1] = task.source_dictionary.pad()
    model = build(task, **options)
    logits, extra = model(source, None, previous)
    weights = extra["attn"][0]
    assert logits.isfinite().all() and (weights[1] == 0).all()
    torch.testing.assert_close(weights[[0, 2, 3]].sum(dim=2), torch.ones(3, previous.size(1)))
    logits.logsumexp(dim=2).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_pyramid_shortens_what_is_attended_to():
    task = toy_task()
    model = build(task, encoder_pyramid=2, encoder_layers=3, attention_score="location", attention_location_positions=3)
    assert model.encoder.max_positions() == 12  # tokens of three positions
    source, _, _ = batch(task, lengths=(12, 9, 4, 1), left_pad=True)
    memory = memory_of(model.encoder(source))
    assert memory.values.shape[:2] == (4, 3)
    assert memory.padding_mask.tolist() == [[False] * 3, [False] * 3, [False, True, True], [False, True, True]]
    one_more, _, _ = batch(task, lengths=(13,))
    with pytest.raises(ValueError, match="--attention-location-positions 3: a source has 4 positions"):
        model.encoder(one_more)
