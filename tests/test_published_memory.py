"""Presets of models whose attention remembers, or looks at a stretch of the source, and of the pyramid, against their
publications, transcribed as in ``test_published``: one sentence, one step, one source position at a time."""

import pytest
import torch
from model_factory import batch, dictionary, toy_task
from test_published import assert_equals, options_of, recurrent, softmax, weighted_sum, zeros
from torch import cat, exp, maximum, sigmoid, tanh
from torch.nn.functional import softplus

from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel


def lstm(p, layer, x, h, c, suffix=""):
    """Graves (2013), eq. 7-11 without peepholes, as torch has it; rows: i, f, g, o."""
    W, U, b_ih, b_hh = recurrent(p, layer, suffix)
    i, f, g, o = (W @ x + b_ih + U @ h + b_hh).chunk(4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gated_unit(p, layer, x, h, suffix=""):
    """Cho et al. (2014), eq. 5-8, with biases; rows: r, z, h."""
    W_ih, U_hh, b_ih, b_hh = recurrent(p, layer, suffix)
    (W_r, W_z, W), (U_r, U_z, U), (b_r, b_z, b) = W_ih.chunk(3), U_hh.chunk(3), (b_ih + b_hh).chunk(3)
    r, z = sigmoid(W_r @ x + U_r @ h + b_r), sigmoid(W_z @ x + U_z @ h + b_z)
    return (z * h + (1 - z) * tanh(W @ x + U @ (r * h) + b),)


def read(unit, p, layer, inputs, suffix=""):
    """Outputs, and the last state, from a first state of zeros."""
    n = p[f"{layer}.weight_hh_l0"].size(1)
    state, outputs = (zeros(n),) * {lstm: 2, gated_unit: 1}[unit], []
    for x in inputs:
        state = unit(p, layer, x, *state, suffix)
        outputs.append(state[0])
    return outputs, state


def read_both_ways(unit, p, layer, inputs):
    forward, last = read(unit, p, layer, inputs)
    backward, first = read(unit, p, layer, inputs[::-1], "_reverse")
    h = [cat(pair) for pair in zip(forward, backward[::-1], strict=True)]
    return h, [cat(pair) for pair in zip(last, first, strict=True)]


def source_words(p, x):
    return [p["encoder.embed_tokens.weight"][x_j] for x_j in x]


def maxout(t_tilde):
    return torch.stack([maximum(t_tilde[2 * j], t_tilde[2 * j + 1]) for j in range(len(t_tilde) // 2)])


def chorowski_2015(p, x, y):
    """Chorowski et al. (2015), section 2: location-aware, k filters of width r. Not in print: biases of the units."""
    F, U = p["decoder.attention.history.filters.weight"][:, 0], p["decoder.attention.history.key_map.weight"]
    W, V = p["decoder.attention.query_projection.weight"], p["encoder.attention_keys.projection.weight"]
    w, b = p["decoder.attention.score.vector"], p["decoder.attention.score.bias"]
    k, r = F.shape

    h = source_words(p, x)
    for l in range(3):  # noqa: E741
        h, _ = read_both_ways(gated_unit, p, f"encoder.recurrence.layers.{l}", h)
    L = len(h)

    outputs, alignments = [], []
    s, alpha = zeros(W.size(1)), [zeros(())] * L
    for y_before in y:
        f = [zeros(k) for _ in range(L)]
        for j in range(L):  # f_i = F * alpha_{i-1}, eq. 8
            for m in range(r):
                if 0 <= j + m - r // 2 < L:
                    f[j] = f[j] + F[:, m] * alpha[j + m - r // 2]
        alpha = softmax([w @ tanh(W @ s + V @ h[j] + U @ f[j] + b) for j in range(L)])  # eq. 9
        g = weighted_sum(alpha, h)
        s = gated_unit(p, "decoder.recurrence.layers.0", cat([p["decoder.embed_tokens.weight"][y_before], g]), s)[0]
        t = maxout(p["decoder.readout.projection.weight"] @ cat([s, g]))
        outputs.append(p["decoder.vocabulary.weight"] @ t + p["decoder.vocabulary.bias"])
        alignments.append(alpha)
    return outputs, alignments


def tu_2016(p, x, y):
    """Tu et al. (2016), section 3: coverage C made by a gated network, in the model of Bahdanau et al. (2015)."""
    part = {name.removeprefix("decoder.attention.history."): value for name, value in p.items()}
    W_C = cat([part["of_weight.weight"], part["of_value.weight"], part["of_query.weight"]], dim=1)
    V_a, d = part["key_map.weight"], part["key_map.weight"].size(1)
    W_a, U_a = p["decoder.attention.query_projection.weight"], p["encoder.attention_keys.projection.weight"]
    v_a, b_a = p["decoder.attention.score.vector"], p["decoder.attention.score.bias"]

    def f(C, alpha, h_j, t_before):
        """The equations in the documentation of torch.nn.GRU; rows: r, z, n."""
        of_input = W_C @ cat([alpha.view(1), h_j, t_before]) + part["of_value.bias"]
        of_state = part["of_state.weight"] @ C + part["of_state.bias"]
        (i_r, i_z, i_n), (h_r, h_z, h_n) = of_input.split(d), of_state.split(d)
        r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
        return (1 - z) * tanh(i_n + r * h_n) + z * C

    h, (final,) = read_both_ways(gated_unit, p, "encoder.recurrence.layers.0", source_words(p, x))
    backward = final[len(final) // 2 :]
    bridge = "decoder.bridge.projections.0.0"
    t, C = tanh(p[f"{bridge}.weight"] @ backward + p[f"{bridge}.bias"]), [zeros(d) for _ in h]
    outputs, alignments = [], []
    for y_before in y:
        e = [v_a @ tanh(W_a @ t + U_a @ h[j] + V_a @ C[j] + b_a) for j in range(len(h))]
        alpha = softmax(e)
        s = weighted_sum(alpha, h)
        C = [f(C[j], alpha[j], h[j], t) for j in range(len(h))]
        Ey = p["decoder.embed_tokens.weight"][y_before]
        t = gated_unit(p, "decoder.recurrence.layers.0", cat([Ey, s]), t)[0]
        out = maxout(p["decoder.readout.projection.weight"] @ cat([t, Ey, s]))
        outputs.append(p["decoder.vocabulary.weight"] @ out + p["decoder.vocabulary.bias"])
        alignments.append(alpha)
    return outputs, alignments


def input_feeding(p, h_bar, states, y, attend):
    """The decoder of Luong et al. (2015), section 3.3 and eq. 5 and 6: ``attend`` gives weights for h_t at step t."""
    W, outputs, alignments = p["decoder.readout.projection.weight"], [], []
    h_tilde, states = zeros(W.size(0)), list(states)
    for y_t in y:
        below = cat([p["decoder.embed_tokens.weight"][y_t], h_tilde])
        for l in range(len(states)):  # noqa: E741
            states[l] = lstm(p, f"decoder.recurrence.layers.{l}", below, *states[l])
            below = states[l][0]
        a = attend(below)
        h_tilde = tanh(W @ cat([below, weighted_sum(a, h_bar)]))
        outputs.append(p["decoder.vocabulary.weight"] @ h_tilde + p["decoder.vocabulary.bias"])
        alignments.append(a)
    return outputs, alignments


def luong_2015_local_p(D):
    def transcription(p, x, y):
        """Luong et al. (2015), section 3.2; its weights are divided by their sum. Positions count from 0."""
        W_a = p["decoder.attention.score.linear.weight"].T
        W_p, v_p = p["decoder.attention.window.hidden.weight"], p["decoder.attention.window.vector.weight"][0]
        h_bar, states = source_words(p, x), []
        for l in range(4):  # noqa: E741
            h_bar, state = read(lstm, p, f"encoder.recurrence.layers.{l}", h_bar)
            states.append(state)
        S, sigma = len(h_bar), D / 2

        def attend(h_t):
            p_t = S * sigmoid(v_p @ tanh(W_p @ h_t))  # eq. 9
            window = [s for s in range(S) if p_t - D <= s <= p_t + D]
            align = dict(zip(window, softmax([h_t @ W_a @ h_bar[s] for s in window]), strict=True))
            a = [align[s] * exp(-((s - p_t) ** 2) / (2 * sigma**2)) if s in align else zeros(()) for s in range(S)]
            return [a_s / sum(a) for a_s in a]  # eq. 10

        return input_feeding(p, h_bar, states, y, attend)

    return transcription


def raffel_2017(attend):
    """Raffel et al. (2017), section 2: s(i) = f(s(i-1), y(i-1), c(i)), y(i) = g(s(i), c(i)), modified energies; the
    last token is never passed."""

    def transcription(p, x, y):
        W, V = p["decoder.attention.query_projection.weight"], p["encoder.attention_keys.projection.weight"]
        v, b = p["decoder.attention.score.vector"], p["decoder.attention.score.bias"]
        g, r = p["decoder.attention.score.scale"], p["decoder.attention.addressing.bias"]
        h, (s, cell) = read(lstm, p, "encoder.recurrence.layers.0", source_words(p, x))
        alpha = [torch.ones_like(r)] + [torch.zeros_like(r)] * (len(h) - 1)
        outputs, alignments = [], []
        for y_before in y:
            e = [g * (v / torch.sqrt(sum(v * v))) @ tanh(W @ s + V @ h_j + b) + r for h_j in h]
            alpha = attend([sigmoid(e_j) for e_j in e[:-1]] + [torch.ones_like(r)], alpha)
            c = weighted_sum(alpha, h)
            word = p["decoder.embed_tokens.weight"][y_before]
            s, cell = lstm(p, "decoder.recurrence.layers.0", cat([word, c]), s, cell)
            out = tanh(p["decoder.readout.projection.weight"] @ cat([s, c]))
            outputs.append(p["decoder.vocabulary.weight"] @ out + p["decoder.vocabulary.bias"])
            alignments.append(alpha)
        return outputs, alignments

    return transcription


def in_expectation(p, before):
    """Section 2.3, as printed."""
    alpha = [p[0] * before[0]]
    for j in range(1, len(p)):
        alpha.append(p[j] * ((1 - p[j - 1]) * alpha[j - 1] / p[j - 1] + before[j]))
    return alpha


def one_token(p, before):
    """Algorithm 1: from the token of the step before on, the first one with z = 1."""
    t = before.index(1)
    while p[t] <= 0.5:
        t += 1
    return [torch.tensor(float(j == t), dtype=torch.float64) for j in range(len(p))]


def graves_2014(p, h_t, w_c, w_before):
    """Graves et al. (2014), eq. 7-9; 1e-9 before the power."""
    N = len(w_c)
    maps = p["decoder.attention.addressing.maps.weight"] @ h_t + p["decoder.attention.addressing.maps.bias"]
    g, gamma, s = sigmoid(maps[0]), 1 + softplus(maps[1]), dict(zip((-1, 0, 1), softmax(list(maps[2:])), strict=True))
    w_g = [g * w_c[i] + (1 - g) * w_before[i] for i in range(N)]
    w_tilde = [sum(s[shift] * w_g[(i - shift) % N] for shift in s) for i in range(N)]
    powers = [(w + 1e-9) ** gamma for w in w_tilde]
    return [power / sum(powers) for power in powers]


def graves_2014_controller(p, x, y):
    """Graves et al. (2014), section 3.1 and 3.3, an LSTM as controller: r_{t-1} enters it with x_t."""
    beta = exp(p["decoder.attention.score.log_scale"])
    of_key, of_memory = p["decoder.attention.query_projection.weight"], p["encoder.attention_keys.projection.weight"]
    outputs, (h, c) = read(lstm, p, "encoder.recurrence.layers.0", source_words(p, x))
    M, N = [of_memory @ output for output in outputs], len(outputs)

    def K(u, v):
        return u @ v / (torch.sqrt(sum(u * u)) * torch.sqrt(sum(v * v)))  # eq. 6

    w, results, alignments = [1 / torch.full((), N, dtype=torch.float64)] * N, [], []
    for y_t in y:
        k = of_key @ h
        w = graves_2014(p, h, softmax([beta * K(k, M_i) for M_i in M]), w)  # eq. 5
        r = weighted_sum(w, outputs)  # eq. 2
        h, c = lstm(p, "decoder.recurrence.layers.0", cat([p["decoder.embed_tokens.weight"][y_t], r]), h, c)
        results.append(p["decoder.vocabulary.weight"] @ h + p["decoder.vocabulary.bias"])
        alignments.append(w)
    return results, alignments


def shift(p, x, y):
    """Luong's decoder with the score of projected products, from tanh of the encoder's last states, and the addressing
    of Graves et al. (2014); the words stand beside what the encoder makes of them."""
    words, W_q = source_words(p, x), p["decoder.attention.query_projection.weight"]
    h, final = read_both_ways(lstm, p, "encoder.recurrence.layers.0", words)
    values = [cat(pair) for pair in zip(h, words, strict=True)]
    keys = [p["encoder.attention_keys.projection.weight"] @ value for value in values]
    bridges = [f"decoder.bridge.projections.0.{i}" for i in range(2)]
    state = [tanh(p[f"{name}.weight"] @ part + p[f"{name}.bias"]) for name, part in zip(bridges, final, strict=True)]
    weights = [1 / torch.full((), len(x), dtype=torch.float64)] * len(x)

    def attend(h_t):
        nonlocal weights
        weights = graves_2014(p, h_t, softmax([(W_q @ h_t) @ key for key in keys]), weights)
        return weights

    return input_feeding(p, values, [state], y, attend)


def chan_2016(p, x, y):
    """Chan et al. (2016), eq. 5: pairs of outputs are the inputs of the next layer, zeros beside an odd last one. The
    weight of a position is that of its tokens, half and half at each layer."""
    h, lengths = source_words(p, x), []
    for l in range(4):  # noqa: E741
        if l:
            lengths.append(len(h))
            h = [cat([h[i], h[i + 1] if i + 1 < len(h) else zeros(len(h[i]))]) for i in range(0, len(h), 2)]
        h, _ = read_both_ways(lstm, p, f"encoder.recurrence.layers.{l}", h)
    W_a = p["decoder.attention.score.linear.weight"].T
    first = (zeros(p["decoder.recurrence.layers.0.weight_hh_l0"].size(1)),) * 2
    logits, alignments = input_feeding(p, h, [first] * 2, y, lambda s: softmax([s @ W_a @ h_u for h_u in h]))
    for length in reversed(lengths):
        alone = length - 1 if length % 2 else None
        alignments = [[a[j // 2] / (1 if j == alone else 2) for j in range(length)] for a in alignments]
    return logits, alignments


# preset, transcription, and small sizes, all different where the bridge allows it
PUBLISHED = {
    "chorowski": (
        "attn_gru_chorowski", chorowski_2015, dict(encoder_hidden_size=6, attention_dim=11, readout_dim=10)
    ),
    "tu": (
        "attn_gru_coverage", tu_2016,
        dict(encoder_hidden_size=6, attention_dim=11, readout_dim=10, attention_history_size=4),
    ),
    "luong, local-p": (
        "attn_lstm_local_p", luong_2015_local_p(2), dict(encoder_hidden_size=8, readout_dim=9, attention_window_width=2)
    ),
    "luong, local-p, as wide as there": (
        "attn_lstm_local_p", luong_2015_local_p(10), dict(encoder_hidden_size=8, readout_dim=9)
    ),
    "raffel": ("attn_lstm_monotonic", raffel_2017(one_token), dict(encoder_hidden_size=8, attention_dim=11)),
    "raffel, in training": (
        "attn_lstm_monotonic", raffel_2017(in_expectation),
        dict(encoder_hidden_size=8, attention_dim=11, attention_monotonic_search="soft"),
    ),
    "graves": ("attn_lstm_ntm_addressing", graves_2014_controller, dict(encoder_hidden_size=8, attention_dim=11)),
    "shift": ("attn_lstm_shift", shift, dict(encoder_hidden_size=6, attention_dim=11, readout_dim=10)),
    "chan": ("attn_lstm_pyramid", chan_2016, dict(encoder_hidden_size=6, readout_dim=10)),
}  # fmt: skip


@pytest.mark.parametrize("left_pad", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_preset_equals_the_published_equations(name, left_pad):
    preset, transcription, sizes = PUBLISHED[name]
    sizes = dict(encoder_embed_dim=5, decoder_embed_dim=7, decoder_hidden_size=8, **sizes)
    task = toy_task()
    model = AttnRNNModel.build_model(options_of(preset, dropout=0.0, **sizes), task)
    inputs = batch(task, lengths=(13, 1, 10, 3), left_pad=left_pad)
    assert_equals(model, task, inputs, transcription)


# Tu et al. (2016), table 1: what coverage adds to 84.3 M parameters, in thousands
ADDED = {
    "linguistic coverage, without fertility": (1, dict(attention_history="coverage")),
    "linguistic coverage, with fertility": (3, dict(attention_history="fertility")),
    "network with gating, d = 1": (10, dict(attention_history_size=1)),
    "network with gating, d = 10": (100, {}),
}


@pytest.mark.parametrize("what", ADDED)
def test_coverage_has_the_published_number_of_parameters(what):
    thousands, options = ADDED[what]

    def parameters(preset, **options):
        task = toy_task(dictionary(2), dictionary(2))
        model = AttnRNNModel.build_model(options_of(preset, **options), task)
        return sum(parameter.numel() for parameter in model.parameters())

    added = parameters("attn_gru_coverage", **options) - parameters("attn_gru_bahdanau")
    assert round(added / 1000) == thousands
