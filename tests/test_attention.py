"""Scores against values worked out on paper; normalisers as mathematics; attention on padding; gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from fairseq_attn_plugin.modules.attention.attention import Attention
from fairseq_attn_plugin.modules.attention.memory import AttentionMemory
from fairseq_attn_plugin.modules.attention.normalizers import NORMALIZERS
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES, POSITIONS, build_score
from fairseq_attn_plugin.modules.options import arguments
from fairseq_attn_plugin.modules.registry import Registry

B, T, S, Q, M = 3, 2, 5, 4, 3
PADDING = torch.arange(S) >= torch.tensor([S, 1, S - 1]).unsqueeze(1)
INFINITY = float("inf")
UNSET = {option.name: None for option in ATTENTION_SCORES.options()}

# query (1, 2), keys (3, -1), (0, 4)
BY_HAND = {
    "dot": ({}, [1.0, 8.0]),
    "scaled_dot": ({}, [1 / math.sqrt(2), 8 / math.sqrt(2)]),
    # W q = (1 + 2·2, 0·1 - 1·2) = (5, -2)
    "general": ({"linear.weight": [[1.0, 2.0], [0.0, -1.0]]}, [17.0, -8.0]),
    # q + k + b = (4.5, 1), (1.5, 6); u = (1, -1)
    "additive": (
        {"vector": [1.0, -1.0], "bias": [0.5, 0.0]},
        [math.tanh(4.5) - math.tanh(1.0), math.tanh(1.5) - math.tanh(6.0)],
    ),
    "concat": ({"vector": [1.0, -1.0]}, [math.tanh(4.0) - math.tanh(1.0), math.tanh(1.0) - math.tanh(6.0)]),
    # ‖u‖ = 5
    "normed_additive": (
        {"vector": [3.0, -4.0], "bias": [0.5, 0.0], "scale": 2.0},
        [1.2 * math.tanh(4.5) - 1.6 * math.tanh(1.0), 1.2 * math.tanh(1.5) - 1.6 * math.tanh(6.0)],
    ),
    "cosine": ({"log_scale": math.log(3.0)}, [3 / math.sqrt(5 * 10), 3 * 8 / math.sqrt(5 * 16)]),
    # W q = (5, -2), read at positions 0 and 1
    "location": ({"linear.weight": [[1.0, 2.0], [0.0, -1.0]]}, [5.0, -2.0]),
    "last": ({}, [-INFINITY, 0.0]),
}


def pieces(name, normalizer="softmax", dtype=torch.float64):
    """Key half and attention with a projection, as the model builds them; all sizes differ."""
    torch.manual_seed(1)
    values = {**UNSET, "attention_dim": 6, "attention_location_positions": 6}
    keys, score = build_score(name, Q, M, values)
    projection = torch.nn.Linear(Q, 6, bias=False) if score.projects_query(6) else None
    return keys.to(dtype), Attention(score, NORMALIZERS[normalizer](), projection).to(dtype)


def tensors(dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(B, S, M, generator=generator, dtype=torch.float64)
    return torch.randn(B, T, Q, generator=generator, dtype=torch.float64).to(dtype), values.to(dtype)


@pytest.mark.parametrize("name", ATTENTION_SCORES.names())
def test_score_by_hand(name):
    parameters, expected = BY_HAND[name]
    score_class = ATTENTION_SCORES[name]
    score = score_class(2, 2, **arguments(score_class.options, UNSET))
    score.load_state_dict({key: torch.tensor(value) for key, value in parameters.items()})
    values = torch.tensor([[[3.0, -1.0], [0.0, 4.0]]])
    size = 2 if score_class.size_option() == POSITIONS else None
    keys = score_class.keys_class(2, size)(values, None)
    torch.testing.assert_close(score(torch.tensor([[[1.0, 2.0]]]), keys), torch.tensor([[expected]]))


@pytest.mark.slow
@pytest.mark.parametrize("normalizer", NORMALIZERS.names())
@pytest.mark.parametrize("name", ATTENTION_SCORES.names())
def test_attention_has_right_gradients(name, normalizer):
    keys, attention = pieces(name, normalizer)
    query, values = (tensor.requires_grad_() for tensor in tensors())
    parameters = [*keys.parameters(), *attention.parameters()]

    def run(query, values, *_):
        return attention(query, AttentionMemory(values, keys(values, PADDING), PADDING))[:2]

    assert gradcheck(run, (query, values, *parameters))


@pytest.mark.parametrize("normalizer", NORMALIZERS.names())
@pytest.mark.parametrize("name", ATTENTION_SCORES.names())
def test_sentence_of_padding_gets_nothing_and_breaks_nothing(name, normalizer):
    keys, attention = pieces(name, normalizer)
    query, values = (tensor.requires_grad_() for tensor in tensors())
    mask = PADDING.clone()
    mask[1] = True
    context, weights, _ = attention(query, AttentionMemory(values, keys(values, mask), mask))
    (context.sum() + weights.square().sum()).backward()
    assert (weights[1] == 0).all() and (context[1] == 0).all()
    torch.testing.assert_close(weights[[0, 2]].sum(-1), torch.ones(2, T, dtype=torch.float64))
    assert (values.grad[1] == 0).all()
    assert query.grad is None or (query.grad[1] == 0).all()
    gradients = [p.grad for p in [values, *keys.parameters(), *attention.parameters()]]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ATTENTION_SCORES.names())
def test_half_precision_weights_are_normalised_in_float32(name, dtype):
    keys, attention = pieces(name, dtype=dtype)
    query, values = tensors(dtype)
    context, weights, _ = attention(query, AttentionMemory(values, keys(values, PADDING), PADDING))
    assert context.dtype == dtype and weights.dtype == torch.float32
    assert (weights[PADDING.unsqueeze(1).expand_as(weights)] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T))


def test_dropped_weights_are_not_those_returned():
    keys, attention = pieces("dot")
    attention.dropout = torch.nn.Dropout(0.5)
    query, values = tensors()
    memory = AttentionMemory(values, keys(values, PADDING), PADDING)
    torch.manual_seed(1)
    context, weights, _ = attention(query, memory)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T, dtype=torch.float64))
    assert not torch.allclose(context, weights @ values)


score_rows = st.lists(st.floats(-30, 30), min_size=1, max_size=7)


@pytest.mark.parametrize("normalizer", NORMALIZERS.names())
@given(row=score_rows, padding=st.integers(0, 3), shift=st.floats(-5, 5))
@settings(max_examples=60, deadline=None)
def test_normaliser_laws(normalizer, row, padding, shift):
    normalize = NORMALIZERS[normalizer]()
    scores = torch.tensor([[row]], dtype=torch.float64)
    weights = normalize(scores)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, dtype=torch.float64))
    # the order of the scores is that of the weights, and only differences of scores count
    by_score = weights[0, 0, scores[0, 0].argsort()]
    assert (by_score.diff() >= -1e-9).all()
    torch.testing.assert_close(normalize(scores + shift), weights, atol=1e-6, rtol=1e-6)
    # padding on either side changes nothing, whatever its scores
    noise = torch.full((1, 1, padding), 1e4, dtype=torch.float64)
    for parts in ((noise, scores), (scores, noise)):
        mask = torch.cat([torch.full_like(part, part is noise) for part in parts], -1).bool()[:, 0]
        padded = normalize(torch.cat(parts, -1), mask)
        assert (padded[:, 0][mask] == 0).all()
        torch.testing.assert_close(padded[:, 0][~mask], weights[0, 0])


@pytest.mark.parametrize("normalizer", NORMALIZERS.names())
def test_sparse_says_whether_weights_vanish(normalizer):
    normalize = NORMALIZERS[normalizer]()
    weights = normalize(torch.tensor([[[0.0, 10.0, 20.0]]]))
    assert bool((weights == 0).any()) == normalize.sparse


def test_registry_refuses_a_second_class_and_names_the_choices():
    registry = Registry("--colour", object)
    registry.register("red")(int)
    with pytest.raises(ValueError, match="--colour: 'red' is registered already"):
        registry.register("red")(str)
    with pytest.raises(ValueError, match="--colour: got 'blue'; choose from red"):
        registry["blue"]
    with pytest.raises(ValueError, match="--colour: 'none' cannot be the name"):
        registry.register("none")(str)
