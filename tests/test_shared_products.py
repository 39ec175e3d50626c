"""Shared products give what plain ones give, outputs and gradients, in the same loop; dropout masks have their rate."""

import gc
import weakref
from contextlib import nullcontext
from itertools import zip_longest

import pytest
import torch
from covering import combinations
from model_factory import batch, build, mechanism, task_for, toy_task
from test_ladder import ALL

from fairseq_attn_plugin.models.dropout import Dropout
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES
from fairseq_attn_plugin.modules.recurrence.cells import CELLS
from fairseq_attn_plugin.modules.recurrence.deferred_gradients import LinearProduct
from fairseq_attn_plugin.modules.recurrence.shared_products import SharedProducts, linear, multiply, plain_products

ATTENDING = {name: options for name, options in ALL.items() if options.get("attention_score") != "none"}
"""All that has weights."""

RATES = dict(attention_dropout=0.3, decoder_dropout_out=0.2, decoder_dropout_in=0.1)


@pytest.fixture
def fixed_masks(monkeypatch):
    """Masks that are the same at every step, whether they are drawn for one step or for all."""

    def mask(self, shape, like):
        generator = torch.Generator().manual_seed(shape[-1])
        return (torch.rand(*shape[-2:], generator=generator) > 0.4).to(like).expand(shape).clone()

    monkeypatch.setattr(Dropout, "mask", mask)


def results(model, products, inputs, reads):
    """Logits, weights, and the gradient of every parameter, of a sum that weighs every number in ``reads``."""
    model.zero_grad()
    with products():
        logits, extra = model(*inputs)
    outputs = {"logits": logits, "weights": extra["attn"] and extra["attn"][0]}
    outputs = {name: tensor for name, tensor in outputs.items() if tensor is not None}
    generator = torch.Generator().manual_seed(5)
    loss = sum((outputs[name] * torch.rand(outputs[name].shape, generator=generator)).sum() for name in reads)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: tensor.detach() for name, tensor in outputs.items()}, gradients


def assert_same(model, inputs, reads=("logits", "weights"), tolerance=1e-9):
    outputs, gradients = results(model, nullcontext, inputs, reads)
    expected, expected_gradients = results(model, plain_products, inputs, reads)
    assert outputs.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(outputs[name], tensor, atol=tolerance, rtol=tolerance)
    for name, gradient in expected_gradients.items():
        found = gradients[name]
        found = torch.zeros_like(gradient) if found is None and gradient is not None else found
        size = 1.0 if gradient is None else max(1.0, gradient.abs().max().item())
        close = dict(atol=tolerance * size, rtol=tolerance)
        torch.testing.assert_close(found, gradient, **close, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 2e-4)], ids=["float64", "float32"])
@pytest.mark.parametrize("options", ATTENDING.values(), ids=ATTENDING)
def test_outputs_and_gradients_equal_the_reference(options, dtype, tolerance, fixed_masks):
    task = task_for(options)
    model = build(task, **{**options, **RATES}).train().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.25)  # less steep, so that float32 can be compared
    assert_same(model, batch(task, left_pad=True), tolerance=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    "score, cell, query", combinations([ATTENTION_SCORES.names(), CELLS.names(), ("current", "previous")])
)
def test_gradients_equal_finite_differences(score, cell, query):
    task = toy_task()
    model = build(task, **mechanism(score, query, cell=cell)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.125)
    inputs = batch(task)
    names = [name for name, _ in model.named_parameters()]

    def outputs(*parameters):
        logits, extra = torch.func.functional_call(model, dict(zip(names, parameters)), inputs)
        return logits, extra["attn"][0]

    assert torch.autograd.gradcheck(outputs, tuple(model.parameters()), fast_mode=True)


@pytest.mark.parametrize("score, cell", [*zip_longest(ATTENTION_SCORES.names(), CELLS.names(), fillvalue="lstm")])
def test_plain_products_can_be_differentiated_twice_and_by_transforms(score, cell):
    task = toy_task()
    model = build(task, **mechanism(score, "previous", cell=cell, encoder_direction="uni")).double()
    source, lengths, previous = batch(task)
    previous[previous == task.target_dictionary.pad()] = task.target_dictionary.nspecial  # padding has no gradient
    with torch.no_grad():
        encoded = model.encoder(source, lengths)
        for parameter in model.decoder.parameters():
            parameter.mul_(0.125)
    names, values = zip(*model.decoder.named_parameters())

    def loss(*parameters):
        logits = torch.func.functional_call(model.decoder, dict(zip(names, parameters)), (previous, encoded))[0]
        return logits.logsumexp(dim=2).pow(2).sum()

    def gradients(*parameters):
        return torch.func.grad(loss, argnums=tuple(range(len(values))))(*(value.detach() for value in parameters))

    given = torch.autograd.grad(loss(*values), values, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(gradients(*values), given)
    direction = [torch.rand_like(value) - 0.5 for value in values]
    with plain_products():
        _, curvature = torch.autograd.functional.hvp(loss, values, tuple(direction))
    step = 1e-5
    ahead, behind = (
        gradients(*(value + sign * step * part for value, part in zip(values, direction))) for sign in (1, -1)
    )
    for one, other, expected in zip(ahead, behind, curvature):
        torch.testing.assert_close((one - other) / (2 * step), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reads", [["logits"], ["weights"]])
@pytest.mark.parametrize(
    "options",
    [
        mechanism("additive", "previous", input_feeding="off"),
        mechanism("general", cell="gru", input_feeding="on"),
        ALL["context alone"],
    ],
)
def test_a_loss_may_read_some_of_the_outputs(options, reads):
    task = toy_task()
    assert_same(build(task, **options).train().double(), batch(task), reads)


@pytest.mark.parametrize(
    "options",
    [
        mechanism("additive", "previous", "entmax15", "gru", input_feeding="on"),
        mechanism("general", input_feeding="on"),
    ],
)
def test_a_graph_that_is_retained_gives_its_gradients_again(options):
    task = toy_task()
    model = build(task, **options)
    loss = model(*batch(task))[0].logsumexp(dim=2).sum()
    first, second = (torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_a_weight_that_changes_before_the_backward_pass_is_an_error():
    task = toy_task()
    model = build(task)
    loss = model(*batch(task))[0].sum()
    with torch.no_grad():
        model.decoder.recurrence.layers[0].weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


@pytest.mark.parametrize("options", [mechanism("general"), mechanism("additive", "previous", cell="gru")])
def test_a_graph_is_freed_with_its_loss(options):
    """A cycle through the nodes of autograd is one that Python's collector does not see."""
    task = toy_task()
    model = build(task, **options).train()
    products = []
    for _ in range(3):
        loss = model(*batch(task))[0].sum()
        products.append(weakref.ref(next(o for o in gc.get_objects() if isinstance(o, LinearProduct))))
        loss.backward()
        del loss
        assert products[-1]() is None


def test_frozen_parts_get_no_gradient():
    task = toy_task()
    model = build(task, decoder_freeze_embed=True).double()
    model.decoder.attention.requires_grad_(False)
    _, gradients = results(model, nullcontext, batch(task), ["logits"])
    assert gradients["decoder.embed_tokens.weight"] is None
    assert gradients["decoder.attention.score.linear.weight"] is None
    assert gradients["decoder.readout.projection.weight"].abs().sum() > 0


def test_two_general_scores_over_the_same_keys_keep_apart():
    torch.manual_seed(1)
    scores = [ATTENTION_SCORES["general"](3, 4) for _ in range(2)]
    query, keys = torch.randn(2, 1, 3), torch.randn(2, 5, 4)
    with SharedProducts().active():
        found = [score(query, keys) for score in scores]
    for score, result in zip(scores, found, strict=True):
        torch.testing.assert_close(result, torch.bmm(score.linear(query), keys.mT))


def test_a_memory_that_is_made_anew_at_every_step_is_read_anew():
    """Without a gradient nothing but the products keeps it, and the next one may stand in the same place."""
    query = torch.ones(2, 1, 3, requires_grad=True)
    with SharedProducts().active():
        for step in range(50):
            scores = multiply(query, torch.full((2, 5, 3), float(step)), transposed=True)
            assert (scores == 3 * step).all()


def test_parts_of_a_weight_that_are_cut_out_anew_share_one_product():
    products = SharedProducts(steps=4)
    layer, x = torch.nn.Linear(3, 8), torch.ones(2, 3)
    with products.active():
        for _ in range(4):
            for weight, bias in zip(layer.weight.chunk(2), layer.bias.chunk(2), strict=True):
                torch.testing.assert_close(linear([x], [weight], bias), x @ weight.T + bias)
    assert len(products._linear) == 2


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_dropout_has_its_rate_and_keeps_the_mean(p):
    torch.manual_seed(1)
    dropout = Dropout(p).train()
    x = torch.full((403, 501), 3.0, requires_grad=True)
    y = dropout(x)
    share = (y == 0).float().mean().item()
    assert share == pytest.approx(p, abs=0.005)
    if p < 1:
        assert y.mean().item() == pytest.approx(3.0, abs=0.05)
        assert set(y.unique().tolist()) <= {0.0, y.max().item()}
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, y.detach() / 3)
    assert dropout.eval()(x) is x


def test_neighbours_are_dropped_independently():
    """Masks are cut from longer random words: neither neighbours nor numbers four apart may hang together."""
    torch.manual_seed(2)
    mask = (Dropout(0.5).mask((1 << 18,), torch.zeros(())) == 0).double() - 0.5
    for distance in (1, 2, 3, 4, 5):
        assert abs((mask[:-distance] * mask[distance:]).mean().item()) < 0.004


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [mechanism("general"), mechanism("additive", "previous", cell="gru")])
def test_models_in_half_precision(options, half):
    """As --fp16 has them: every parameter is in half precision."""
    task = toy_task()
    model = build(task, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.25)
    expected, _ = results(model, nullcontext, batch(task), ["logits"])
    outputs, gradients = results(model.to(half), nullcontext, batch(task), ["logits"])
    assert outputs["logits"].dtype == half and {gradient.dtype for gradient in gradients.values()} == {half}
    torch.testing.assert_close(outputs["logits"].float(), expected["logits"], atol=0.05, rtol=0.05)
