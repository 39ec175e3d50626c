"""Histories, windows and addressings by themselves: rows of weights, padding, long sources, gradients."""

import pytest
import torch
from torch.autograd import gradcheck

from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS
from fairseq_attn_plugin.modules.attention.attention import Attention
from fairseq_attn_plugin.modules.attention.histories import HISTORIES
from fairseq_attn_plugin.modules.attention.memory import AttentionMemory
from fairseq_attn_plugin.modules.attention.normalizers import NORMALIZERS
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES, CosineScore, DotScore, ScaledDotScore
from fairseq_attn_plugin.modules.attention.windows import WINDOWS

B, T, S, Q, M = 4, 5, 6, 3, 3
LENGTHS = torch.tensor([S, 1, S - 2, 0])
"""Real tokens of each sentence: the last one is all padding."""

FORMS = {
    **{f"history {name}": dict(history=name) for name in HISTORIES.names()},
    **{f"window {name}": dict(window=name) for name in WINDOWS.names()},
    **{f"addressing {name}": dict(addressing=name) for name in ADDRESSINGS.names()},
    "all, shift": dict(history="location", window="local_p", addressing="shift", normalizer="sparsemax"),
    "all, monotonic": dict(history="fertility", window="local_m", addressing="monotonic", score="additive"),
}


def attention(score="dot", history=None, window=None, addressing=None, normalizer="softmax", **more):
    """Of Q numbers in query and keys, which are the values; in float64, without the noise of monotonic."""
    torch.manual_seed(1)
    score = score if isinstance(score, torch.nn.Module) else ATTENTION_SCORES[score](Q, M)
    made = Attention(
        score,
        NORMALIZERS[normalizer](),
        history=history and HISTORIES[history](M, M, Q),
        window=window and WINDOWS[window](Q, **more),
        addressing=addressing and ADDRESSINGS[addressing](Q),
    )
    return made.double().eval()


def inputs(left_pad=False):
    """Queries B×T×Q and values B×S×M, with noise on padding, and the mask."""
    generator = torch.Generator().manual_seed(2)
    query, values = (
        torch.randn(B, size, numbers, generator=generator, dtype=torch.float64).requires_grad_()
        for size, numbers in ((T, Q), (S, M))
    )
    columns = torch.arange(S)
    real = columns >= S - LENGTHS.unsqueeze(1) if left_pad else columns < LENGTHS.unsqueeze(1)
    return query, values, ~real


def steps(made, query, values, padding):
    """Contexts B×T×M and weights B×T×S of all steps, one after the other."""
    memory = AttentionMemory(values, values, padding)
    state, found = made.first(memory), []
    for t in range(query.size(1)):
        found.append(made(query[:, t : t + 1], memory, state, position=t))
        state = found[-1].state
    return torch.cat([each.context for each in found], dim=1), torch.cat([each.weights for each in found], dim=1)


@pytest.mark.parametrize("left_pad", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("form", FORMS)
def test_rows_sum_to_one_and_padding_gets_nothing(form, left_pad):
    """A sentence that is all padding has weights and gradients of zero; others do not notice their padding."""
    made = attention(**FORMS[form])
    query, values, padding = inputs(left_pad)
    contexts, weights = steps(made, query, values, padding)
    sums = (LENGTHS > 0).double().unsqueeze(1).expand(-1, T)
    torch.testing.assert_close(weights.sum(dim=2), sums)
    assert (weights >= 0).all() and (weights[padding.unsqueeze(1).expand_as(weights)] == 0).all()
    (contexts.square().sum() + weights.square().sum()).backward()
    assert (contexts[-1] == 0).all() and (query.grad[-1] == 0).all() and (values.grad[padding] == 0).all()
    for parameter in (query, values, *made.parameters()):
        assert parameter.grad.isfinite().all()
    with torch.no_grad():
        for row, length in enumerate(LENGTHS[:-1]):
            alone = steps(made, query[row : row + 1], values[row : row + 1, ~padding[row]], None)
            assert alone[1].size(2) == length
            torch.testing.assert_close(contexts[row : row + 1], alone[0])
            torch.testing.assert_close(weights[row : row + 1, :, ~padding[row]], alone[1])


@pytest.mark.parametrize("window", WINDOWS.names())
def test_nothing_beyond_the_window(window):
    made = attention(window=window, width=1)
    _, weights = steps(made, *inputs())
    assert ((weights[0] > 0).sum(dim=1) <= 3).all() and (weights[0] > 0).any(dim=1).all()
    if window == "local_m":
        assert weights[0].argmax(dim=1).sub(torch.arange(T)).abs().max() <= 1


@pytest.mark.parametrize("form", [form for form in FORMS if attention(**FORMS[form]).remembers])
def test_gradients_through_five_steps(form):
    made = attention(**FORMS[form])
    query, values, padding = inputs()
    parameters = list(made.parameters())

    def run(query, values, *_):
        return steps(made, query, values, padding)

    assert gradcheck(run, (query, values, *parameters), fast_mode=True)


@pytest.mark.parametrize("form", [form for form in FORMS if attention(**FORMS[form]).takes_all_steps])
def test_all_steps_at_once_are_step_by_step(form):
    """What is remembered afterwards, too."""
    made = attention(**FORMS[form])
    query, values, padding = inputs()
    memory = AttentionMemory(values, values, padding)
    begun = made(query[:, :2], memory, made.first(memory))
    ended = made(query[:, 2:], memory, begun.state, position=2)
    contexts, weights = steps(made, query, values, padding)
    torch.testing.assert_close(torch.cat([begun.context, ended.context], dim=1), contexts)
    torch.testing.assert_close(torch.cat([begun.weights, ended.weights], dim=1), weights)
    for remembered in ended.state.values():
        torch.testing.assert_close(remembered, weights[:, -1])


def monotonic_loop(scores, bias):
    """Raffel et al. (2017), eq. 9-11, in float64: how much of a(t-1) comes to each token, token by token."""
    weights = torch.zeros_like(scores[0])
    weights[0] = 1
    every = []
    for energy in scores:
        stay = torch.cat([torch.sigmoid(energy + bias)[:-1], energy.new_ones(1)]).unbind()
        arrived, row = energy.new_zeros(()), []
        for p, before in zip(stay, weights.unbind(), strict=True):
            arrived = arrived + before
            row.append(p * arrived)
            arrived = (1 - p) * arrived
        weights = torch.stack(row)
        every.append(weights)
    return torch.stack(every)


@pytest.mark.parametrize("size", [1.0, 30.0], ids=["soft", "saturated"])
def test_monotonic_is_stable_over_a_thousand_tokens(size):
    """In float32, where products over that many probabilities are zero, and p is zero or one."""
    generator = torch.Generator().manual_seed(3)
    scores = size * torch.randn(3, 1000, generator=generator)
    made = ADDRESSINGS["monotonic"](Q, bias=-4.0).eval()
    exact = scores.double().requires_grad_()
    expected = monotonic_loop(exact, -4.0)
    scores.requires_grad_()
    memory = AttentionMemory(torch.zeros(1, 1000, M), torch.zeros(1, 1000, M))
    state, weights = made.first(memory).unsqueeze(1), []
    for row in scores:
        addressed, state = made(row.view(1, 1, -1), torch.zeros(1, 1, Q), memory, state)
        weights.append(addressed.flatten())
    weights = torch.stack(weights)
    torch.testing.assert_close(weights.double(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3), atol=1e-5, rtol=0)
    for found in (weights, expected):
        (found * torch.arange(1000)).sum().backward()
    largest = exact.grad.abs().max().item()
    assert largest > 0.01
    torch.testing.assert_close(scores.grad.double(), exact.grad, atol=1e-4 * largest, rtol=1e-3)


class Squashed(DotScore):
    """e(j) = tanh(q · k(j)), which is not linear in the keys, by a method of a class that is."""

    def forward(self, query, keys):
        return torch.tanh(super().forward(query, keys))


class Farther(Squashed):
    """Nothing of its own."""


class Between(ScaledDotScore, Squashed):
    """The method that it inherits is linear, and calls one that is not."""


class Cubed(CosineScore):
    """Calls what is linear, and is not."""

    def forward(self, query, keys):
        return super().forward(query, keys) ** 3


class SaysSo(DotScore):
    """e(j) = 2 q · k(j), and says that it is linear."""

    linear_in_keys = True

    def forward(self, query, keys):
        return 2 * super().forward(query, keys)


def squashed_object():
    """A score whose method was replaced on the object."""
    score = DotScore(Q, M)
    score.forward = lambda query, keys: torch.tanh(query @ keys.transpose(1, 2))
    return score


SCORES_OF_HISTORY = {
    **{name: lambda name=name: ATTENTION_SCORES[name](Q, M) for name in ("dot", "scaled_dot", "cosine", "general")},
    **{cls.__name__: lambda cls=cls: cls(Q, M) for cls in (Squashed, Farther, Between, Cubed, SaysSo)},
    "a method of the object": squashed_object,
}


def test_a_word_without_fertility_stays_a_number():
    """Where 1/Φ is beyond all numbers, a weight of zero times it is none."""
    made = HISTORIES["fertility"](M, M, Q)
    with torch.no_grad():
        made.fertility.weight.fill_(-1000.0)
    values = torch.ones(1, 2, M)
    found = made.update(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]]), None, AttentionMemory(values, values))
    assert found[0, 0, 0] > 1e5 and found.isfinite().all() and found[0, 0, 1] == 0


@pytest.mark.parametrize("history", ["coverage", "location"])
@pytest.mark.parametrize("score", SCORES_OF_HISTORY)
def test_a_history_is_part_of_the_keys_of_any_score(score, history):
    """Also of a subclass that is not linear in them as its parent is; each step's keys made anew are the reference."""
    made = attention(SCORES_OF_HISTORY[score](), history=history)
    assert made.score.adds_up() == (score in ("dot", "scaled_dot", "cosine", "general", "SaysSo"))
    query, values, _ = inputs()
    _, found = steps(made, query, values, None)
    memory = AttentionMemory(values, values)
    remembered, expected = made.history.first(memory).unsqueeze(1), []
    for asked in query.split(1, dim=1):
        keys = values + made.history.features(remembered, memory).squeeze(1) @ made.history.key_map.weight.T
        weights = torch.softmax(made.score(asked, keys), dim=2)
        remembered = made.history.update(remembered, weights, asked, memory)
        expected.append(weights)
    torch.testing.assert_close(found, torch.cat(expected, dim=1))
    with torch.no_grad():
        made.history.key_map.weight.zero_()
        assert (steps(made, query, values, None)[1] - found).abs().max() > 1e-3
