"""A padded batch through a stack of recurrent layers is every sentence alone, to the last gradient."""

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from fairseq_attn_plugin.modules.recurrence.cells import CELLS
from fairseq_attn_plugin.modules.recurrence.padding import Padding
from fairseq_attn_plugin.modules.recurrence.stack import RecurrentStack

LENGTHS = (3, 9, 1, 0, 8, 2, 5, 9, 7, 4, 6)
"""Every length up to S = 9 in no order, and a row of padding alone."""

STACKS = {
    "one layer": dict(),
    "bidirectional": dict(bidirectional=True),
    "deep": dict(num_layers=3, bidirectional=True, residual=True, layer_norm=True),
    "deep, one direction": dict(num_layers=2, residual=True, layer_norm=True),
}


def real_tokens(side):
    """B×S bool, False = padding, before, behind or among the tokens."""
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    if side == "middle":
        generator = torch.Generator().manual_seed(2)
        return torch.stack([row[torch.randperm(len(row), generator=generator)] for row in real])
    return real.flip(1) if side == "left" else real


def stack_of(cell, dtype=torch.float64, scale=3.0, **options):
    torch.manual_seed(1)
    stack = RecurrentStack(cell, 5, 6, **options).to(dtype)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.mul_(scale)
    return stack


def inputs_of(real, dtype=torch.float64, size=5):
    """B×S×I; on padding, numbers that no sentence has."""
    torch.manual_seed(4)
    inputs = torch.randn(*real.shape, size, dtype=dtype)
    return inputs.masked_fill(~real.unsqueeze(2), 1e4).requires_grad_()


def loss_of(outputs, final):
    """Reads every output and every final state, each in its own way."""
    states = [part for state in final for part in state]
    return outputs.double().sin().sum() + sum((i + 2) * part.double().cos().sum() for i, part in enumerate(states))


def gradients_of(loss, stack, inputs):
    return torch.autograd.grad(loss, [inputs, *stack.parameters()])


def one_by_one(stack, inputs, real):
    """Per row that has tokens: its index, outputs and final state."""
    for row in real.any(1).nonzero().flatten().tolist():
        yield row, *stack(inputs[row : row + 1, real[row]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("side", ["right", "left", "middle"])
@pytest.mark.parametrize("options", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("cell", CELLS.names())
def test_padded_batch_equals_each_sentence_alone(cell, options, side, dtype):
    stack, real = stack_of(cell, dtype, **options), real_tokens(side)
    inputs = inputs_of(real, dtype)
    outputs, final = stack(inputs, padding=Padding(~real))
    close = dict(atol=1e-12, rtol=1e-12) if dtype == torch.float64 else dict(atol=1e-5, rtol=1e-5)
    loss = 0.0
    for row, values, alone in one_by_one(stack, inputs, real):
        loss = loss + loss_of(values, alone)
        torch.testing.assert_close(outputs[row][real[row]], values[0], **close)
        for state, expected in zip(final, alone, strict=True):
            torch.testing.assert_close([part[row] for part in state], [part[0] for part in expected], **close)
    assert (outputs[~real] == 0).all()
    assert all((part[~real.any(1)] == 0).all() for state in final for part in state)
    gradients = gradients_of(loss_of(outputs[real], final), stack, inputs)
    assert (gradients[0][~real] == 0).all()
    expected = gradients_of(loss, stack, inputs)
    scale = max(1.0, *(gradient.abs().max().item() for gradient in expected))
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours / scale, theirs / scale, **close)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("cell", CELLS.names())
def test_autocast_changes_rounding_alone(cell, side):
    stack, real = stack_of(cell, torch.float32, 1.0, num_layers=2, bidirectional=True), real_tokens(side)
    inputs = inputs_of(real, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, final = stack(inputs, padding=Padding(~real))
        for row, values, alone in one_by_one(stack, inputs, real):
            close = dict(atol=5e-2, rtol=5e-2, check_dtype=False)
            torch.testing.assert_close(outputs[row][real[row]], values[0], **close)
            for state, expected in zip(final, alone, strict=True):
                torch.testing.assert_close([part[row] for part in state], [part[0] for part in expected], **close)
    gradients = gradients_of(loss_of(outputs, final), stack, inputs)
    assert (gradients[0][~real] == 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cell", CELLS.names())
def test_padding_after_the_last_token_does_not_wear_the_state_down(cell, dtype):
    stack = stack_of(cell, dtype, bidirectional=True)
    real = (torch.arange(300) < 3).unsqueeze(0)
    inputs = inputs_of(real, dtype)
    (state,), (alone,) = stack(inputs, padding=Padding(~real))[1], stack(inputs[:, :3])[1]
    close = dict(atol=2e-2, rtol=2e-2) if dtype == torch.bfloat16 else {}
    for ours, expected in zip(state, alone, strict=True):
        torch.testing.assert_close(ours, expected, **close)


@pytest.mark.parametrize("cell", CELLS.names())
def test_on_the_cpu_nothing_is_packed_in_training(cell, monkeypatch):
    monkeypatch.delattr(Padding, "pack")
    real = real_tokens("left")
    stack_of(cell, num_layers=2)(inputs_of(real), padding=Padding(~real))


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_kernels_read_parameters_that_are_parametrised(cell):
    """A whole sequence, padded or not, is the steps of the cell with the weights as they are now."""
    torch.manual_seed(1)
    layer = weight_norm(CELLS[cell](5, 6).double(), "weight_hh_l0")
    with torch.no_grad():
        layer.parametrizations.weight_hh_l0.original0.mul_(3.0)
    inputs = torch.randn(2, 4, 5, dtype=torch.float64)
    state = (inputs.new_zeros(2, 6),) * layer.state_tensors
    expected = []
    for t in range(4):
        state = layer((inputs[:, t],), state, layer.weights())
        expected.append(state[0])
    for padding in (None, Padding(torch.zeros(2, 4, dtype=torch.bool))):
        for gradients in (torch.enable_grad, torch.no_grad):
            with gradients():
                torch.testing.assert_close(layer.sequence(inputs, padding=padding)[0], torch.stack(expected, dim=1))
