"""Parts of another package: a cell, parts that remember, options of their own, and what a wrong declaration is told."""

import pytest
import torch
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from model_factory import batch, build, mechanism, toy_task
from omegaconf import OmegaConf
from test_subclasses import assert_beams_have_the_scores_of_teacher_forcing, greedy
from torch import nn

from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel, recompose
from fairseq_attn_plugin.models.bridge import BRIDGES, Bridge
from fairseq_attn_plugin.models.config import REGISTRIES
from fairseq_attn_plugin.models.encoder_fronts import ENCODER_FRONTS, EncoderFront
from fairseq_attn_plugin.modules import options
from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS, AttentionAddressing, start_weights
from fairseq_attn_plugin.modules.attention.histories import HISTORIES, AttentionHistory
from fairseq_attn_plugin.modules.attention.normalizers import NORMALIZERS, AttentionNormalizer, Softmax
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES, AttentionScore, DotScore
from fairseq_attn_plugin.modules.attention.windows import WINDOWS, AttentionWindow
from fairseq_attn_plugin.modules.options import Option
from fairseq_attn_plugin.modules.recurrence.cells import CELLS, RecurrentLayer
from fairseq_attn_plugin.modules.recurrence.shared_products import Linear, linear, plain_products


@pytest.fixture
def register(monkeypatch):
    """register(registry, class) under the name ``outside``, for the duration of one test."""
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(options, "_declared", dict(options._declared))
    yield lambda registry, cls: registry.register("outside")(cls)
    monkeypatch.undo()
    recompose()


class MinimalGatedUnit(RecurrentLayer):
    """f = sigmoid(W x + U h + b), n = tanh(W x + U (f h) + b), h = (1 - f) h + f n (Zhou et al., 2016)."""

    gates = 2

    def forward(self, inputs, state, weights):
        (h,) = state
        of_input = weights.of_input.chunk(2)
        of_state = weights.of_state.chunk(2)
        bias = weights.bias.chunk(2)
        forget = torch.sigmoid(linear([*inputs, h], [of_input[0], of_state[0]], bias[0]))
        new = torch.tanh(linear([*inputs, forget * h], [of_input[1], of_state[1]], bias[1]))
        return (torch.lerp(h, new, forget),)


class TiredScore(DotScore):
    """e(t, j) = q(t) · k(j) - w · (sum over earlier steps of sigmoid e(j))."""

    remembers = True

    def __init__(self, query_dim, key_dim):
        super().__init__(query_dim, key_dim)
        self.factor = nn.Parameter(torch.tensor(0.5))

    def first(self, memory):
        return {"seen": memory.keys.new_zeros(memory.keys.shape[:2])}

    def forward(self, query, keys, remembered):
        scores = super().forward(query, keys) - self.factor * remembered["seen"]
        return scores, {"seen": remembered["seen"] + torch.sigmoid(scores)}


class Smoothed(Softmax):
    """The mean of this step's softmax and what the step before gave."""

    remembers = True

    def first(self, memory):
        return memory.values.new_zeros(memory.values.shape[:2])

    def forward(self, scores, padding_mask, remembered):
        weights = (super().forward(scores, padding_mask) + remembered) / 2
        return weights, weights


class Squashed(DotScore):
    """e(j) = tanh(q · k(j)): not linear in the keys, as its parent is."""

    def forward(self, query, keys):
        return torch.tanh(super().forward(query, keys))


class Surprise(AttentionHistory):
    """Two features: the weight of the step before, and the most that there has been; remembers them by name."""

    def __init__(self, key_dim, value_dim, query_dim):
        super().__init__(2, key_dim, value_dim, query_dim)

    def first(self, memory):
        nothing = memory.values.new_zeros(memory.values.shape[:2])
        return {"last": nothing, "most": nothing}

    def features(self, remembered, memory):
        return torch.stack([remembered["last"], remembered["most"]], dim=3)

    def update(self, remembered, weights, query, memory):
        return {"last": weights, "most": torch.maximum(remembered["most"], weights)}


class FromTheEnd(AttentionWindow):
    """p(t) = S - 1 - t."""

    def centre(self, query, steps, last):
        return torch.relu(last - steps.view(1, -1, 1))


class Follower(AttentionAddressing):
    """a(t) = softmax(e(t) + g a(t-1)), g of q(t); in place of the normaliser."""

    takes_scores = True

    def __init__(self, query_dim):
        super().__init__(query_dim)
        self.gain = Linear(query_dim, 1)

    def first(self, memory):
        return [start_weights(memory, "last")]

    def forward(self, weights, query, memory, remembered):
        addressed = torch.softmax(weights + self.gain(query) * remembered[0], dim=2)
        return addressed, [addressed]


OUTSIDE = {
    "cell": (CELLS, MinimalGatedUnit, mechanism("general", cell="outside", encoder_direction="bi", decoder_layers=2)),
    "score that remembers": (
        ATTENTION_SCORES, TiredScore, dict(mechanism("dot"), attention_score="outside", input_feeding="off")
    ),
    "normaliser that remembers": (
        NORMALIZERS, Smoothed, mechanism("additive", "previous", "outside", input_feeding="off")
    ),
    "score that remembers, with a history": (
        ATTENTION_SCORES, TiredScore, dict(mechanism("dot"), attention_score="outside", attention_history="location")
    ),
    "score that is not linear, with a history": (
        ATTENTION_SCORES, Squashed,
        dict(mechanism("dot", "previous"), attention_score="outside", attention_history="gru_coverage"),
    ),
    "history": (HISTORIES, Surprise, mechanism("general", input_feeding="off", attention_history="outside")),
    "history, heads": (
        HISTORIES, Surprise, mechanism("concat", "previous", attention_history="outside", attention_heads=2)
    ),
    "window": (WINDOWS, FromTheEnd, mechanism("general", input_feeding="off", attention_window="outside")),
    "addressing": (ADDRESSINGS, Follower, mechanism("additive", "previous", attention_addressing="outside")),
}  # fmt: skip


@pytest.mark.parametrize("what", OUTSIDE)
def test_a_part_from_outside_computes_the_same_everywhere(what, register):
    registry, cls, given = OUTSIDE[what]
    register(registry, cls)
    task = toy_task()
    source, lengths, previous = batch(task, left_pad=True)
    model = build(task, **given).double()
    sampled = build(task, **given, scheduled_sampling="constant", scheduled_sampling_k=0.0).double().train()
    sampled.decoder.scheduled_sampling.schedule.k = 1.0
    gradients, outputs = [], []
    for products in (plain_products, torch.enable_grad):
        for driven in (model, sampled):
            driven.zero_grad()
            with products():
                outputs.append(driven(source, lengths, previous)[0])
            outputs[-1].logsumexp(dim=2).sum().backward()
            gradients.append([parameter.grad for parameter in driven.parameters()])
    for logits, of_parameters in zip(outputs, gradients, strict=True):
        torch.testing.assert_close(logits, outputs[0])
        torch.testing.assert_close(of_parameters, gradients[0])
    torch.testing.assert_close(greedy(model, source, previous), outputs[0])
    with torch.no_grad():
        assert_beams_have_the_scores_of_teacher_forcing(model, task, source, lengths, 1e-5)


def test_a_score_without_a_size_of_its_own_has_none_over_the_past(register):
    register(ATTENTION_SCORES, type("Sized", (Squashed,), {"options": (), "needs_equal_sizes": False}))
    with pytest.raises(ValueError, match="--attention-past-dim 4: --attention-past-score outside does not project"):
        build(attention_past="on", attention_past_score="outside", attention_past_dim=4)
    build(attention_past="on", attention_past_score="outside")


def test_rows_that_move_take_along_what_was_remembered(register):
    register(ATTENTION_SCORES, TiredScore)
    task = toy_task()
    model = build(task, **OUTSIDE["score that remembers"][2])
    source, _, previous = batch(task, target_lengths=(4, 4, 4, 4))
    order, cache = torch.tensor([1, 0, 3, 3]), {}
    with torch.no_grad():
        encoder_out = model.encoder(source)
        for t in range(1, 3):
            model.decoder(previous[:, :t], encoder_out=encoder_out, incremental_state=cache)
        model.decoder.reorder_incremental_state_scripting(cache, order)
        encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
        logits = model.decoder(previous[order, :3], encoder_out=encoder_out, incremental_state=cache)[0]
        expected = model(source[order], None, previous[order, :3])[0]
    torch.testing.assert_close(logits[:, -1], expected[:, -1], atol=1e-5, rtol=1e-5)


class Sharpened(DotScore):
    options = (
        *DotScore.options,
        Option("score_sharpness", float, 2.0, "factor of the scores", argument="sharpness", absent="is not sharpened"),
    )

    def __init__(self, query_dim, key_dim, sharpness):
        super().__init__(query_dim, key_dim)
        self.sharpness = sharpness

    def forward(self, query, keys):
        return self.sharpness * super().forward(query, keys)


def test_an_option_of_a_part_is_typed_like_any_other(register):
    register(ATTENTION_SCORES, Sharpened)
    given = "data --task translation --arch attn_rnn --attention-score outside --attention-dim 4 --score-sharpness 3"
    parsed = fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), given.split())
    assert parsed.score_sharpness == 3.0
    small = dict(encoder_hidden_size=6, decoder_hidden_size=8, bridge="linear")
    model = AttnRNNModel.build_model(_config(parsed, **small), toy_task())
    assert model.decoder.attention.score.sharpness == 3.0
    with pytest.raises(ValueError, match="--score-sharpness 3.0: --attention-score dot is not sharpened"):
        AttnRNNModel.build_model(_config(parsed, **small, attention_score="dot"), toy_task())


def _config(parsed, **changed):
    return OmegaConf.merge(convert_namespace_to_omegaconf(parsed).model, changed)


def option(name="outside_size", type=int, help="a size", default=None, **more):
    return Option(name, type, default, help, **more)


def with_options(base, *declared):
    return type("Outside", (base,), {"options": declared})


def outside(**declared):
    return BRIDGES, with_options(Bridge, option(**declared)), declared.get("name", "outside_size")


WRONG = {
    "no help": (ATTENTION_SCORES, with_options(AttentionScore, option(help="")), "outside_size"),
    "no name": (CELLS, with_options(RecurrentLayer, option(name="outside size")), "outside size"),
    "no type": (BRIDGES, with_options(Bridge, option(type=list)), "outside_size"),
    "no argument": (NORMALIZERS, with_options(AttentionNormalizer, option(argument="size")), "outside_size"),
    "means something else": (
        BRIDGES, with_options(Bridge, option(name="attention_dim", type=str)), "attention_dim"
    ),
    "one of the model": (CELLS, with_options(RecurrentLayer, option(name="encoder_layers")), "encoder_layers"),
    "one of fairseq": (ATTENTION_SCORES, with_options(AttentionScore, option(name="max_tokens")), "max_tokens"),
    "one of a task": outside(name="reversal_symbols"),
    "one of a criterion": outside(name="label_smoothing"),
    "one that chooses": outside(name="arch"),
    "no word of Python": outside(name="class"),
    "hidden": outside(name="_outside_size"),
    "a default of another type": outside(type=float, default="1"),
    "a default that is no choice": outside(type=str, choices=("a", "b"), default="c"),
    "a flag that is on": outside(type=bool, default=True),
    "no tuple": (BRIDGES, type("Outside", (Bridge,), {"options": option()}), "outside_size"),
    "twice": (BRIDGES, with_options(Bridge, option(), option()), "outside_size"),
    "no cell of its own steps": (
        CELLS, type("Outside", (RecurrentLayer,), {"sequence": lambda self, *inputs: None}), "sequence"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_declaration_is_reported_when_it_is_registered(what, register):
    registry, cls, option_name = WRONG[what]
    with pytest.raises(ValueError) as caught:
        register(registry, cls)
    assert registry.flag in str(caught.value) and option_name in str(caught.value), str(caught.value)
    if what != "one of the model":
        assert "Outside" in str(caught.value)
    assert "outside" not in registry.names()


# Shapes


def wrong(base, **methods):
    return type("Outside", (base,), methods)


def named(registry, cls, method, **given):
    return registry, cls, method, {registry.flag.removeprefix("--").replace("-", "_"): "outside", **given}


MISFITS = {
    "cell of one tensor": named(CELLS, wrong(RecurrentLayer, forward=lambda s, x, h, w: h[0]), ".forward"),
    "cell that widens": named(
        CELLS, wrong(RecurrentLayer, forward=lambda s, x, h, w: (torch.cat([h[0], h[0]], dim=1),)), ".forward"
    ),
    "cell of other arguments": named(CELLS, wrong(RecurrentLayer, __init__=lambda self, size: None), "takes"),
    "front that shortens": named(
        ENCODER_FRONTS, wrong(EncoderFront, forward=lambda self, words, padding=None: words[:, 1:]), ".forward"
    ),
    "bridge of one layer": named(
        BRIDGES, wrong(Bridge, forward=lambda self, state, memory: [(state[0][0],)]), ".forward", decoder_layers=2
    ),
    "bridge of the encoder's size": named(BRIDGES, wrong(Bridge, bridge=lambda self, layer, state: state), ".forward"),
    "normaliser over the queries": named(
        NORMALIZERS, wrong(AttentionNormalizer, forward=lambda self, scores, mask: scores.mT), ".forward"
    ),
    "normaliser of nothing": named(
        NORMALIZERS, wrong(AttentionNormalizer, normalize=lambda self, scores: scores / 0 * 0), ".forward"
    ),
    "normaliser that remembers nothing": named(NORMALIZERS, wrong(Smoothed, forward=Softmax.forward), ".forward"),
    "history of other features": named(
        HISTORIES, wrong(Surprise, features=lambda self, seen, memory: seen["last"].unsqueeze(3)), ".features"
    ),
    "history that forgets": named(HISTORIES, wrong(Surprise, update=lambda self, *given: {}), ".features"),
    "history of its own sizes": named(HISTORIES, wrong(Surprise, __init__=lambda self, key_dim: None), "takes"),
    "window for one query": named(
        WINDOWS, wrong(AttentionWindow, forward=lambda self, query, steps, memory: query.sum()), ".forward"
    ),
    "addressing without memory": named(
        ADDRESSINGS, wrong(Follower, forward=lambda self, weights, *others: weights), ".forward"
    ),
    "addressing without a start": named(ADDRESSINGS, wrong(Follower, first=AttentionAddressing.first), ".first"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISFITS)
def test_a_part_that_does_not_fit_is_reported_by_name_when_the_model_is_built(what, register):
    registry, cls, method, given = MISFITS[what]
    register(registry, cls)
    with pytest.raises(ValueError) as caught:
        build(**given)
    error = str(caught.value)
    assert error.startswith(f"{registry.flag} outside: Outside{' ' * (method == 'takes')}{method} "), error
    assert "\n" not in error


def test_a_trial_draws_no_number_that_a_parameter_would_get(register):
    def forward(self, scores, *given):
        return Smoothed.forward(self, torch.rand_like(scores), *given)

    register(NORMALIZERS, wrong(Smoothed, forward=forward))
    ours, theirs = (build(attention_normalizer=name).state_dict() for name in ("outside", "softmax"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
