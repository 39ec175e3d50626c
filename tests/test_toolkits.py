"""Models of other toolkits, and the listener of Chan et al. (2016), are options here: their equations, transcribed as
in ``test_published.py``."""

import pytest
import torch
from model_factory import batch, config, toy_task
from test_published import assert_equals, options_of, recurrent, softmax, weighted_sum, zeros
from torch import cat, sigmoid, tanh

from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel


def lstm(p, layer, x, state, suffix=""):
    """The equations in the documentation of torch.nn.LSTM; rows: i, f, g, o."""
    W_ih, W_hh, b_ih, b_hh = recurrent(p, layer, suffix)
    h, c = state
    i, f, g, o = (W_ih @ x + b_ih + W_hh @ h + b_hh).chunk(4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def bidirectional(p, layer, inputs):
    """Outputs of both directions side by side, and their final states."""
    n, read = p[f"{layer}.weight_hh_l0"].size(1), {}
    for suffix, words in (("", inputs), ("_reverse", inputs[::-1])):
        state, outputs = (zeros(n), zeros(n)), []
        for x in words:
            state = lstm(p, layer, x, state, suffix)
            outputs.append(state[0])
        read[suffix] = outputs, state
    (forward, of_forward), (backward, of_backward) = read[""], read["_reverse"]
    outputs = [cat(pair) for pair in zip(forward, backward[::-1], strict=True)]
    return outputs, tuple(cat(pair) for pair in zip(of_forward, of_backward, strict=True))


def embedded(p, side, tokens):
    return [p[f"{side}.embed_tokens.weight"][token] for token in tokens]


def listen_attend_spell(p, x, y):
    """Chan et al. (2016), sections 3.1 and 3.2, over words in the place of filter banks.

    Not in print: what becomes of an odd last output (zeros beside it), and attention over the inputs. Otherwise than in
    print: phi is linear and psi the identity, and what enters the RNN is the hidden layer of CharacterDistribution,
    which has seen s(i-1) and c(i-1), in the place of c(i-1).
    """
    h, U = embedded(p, "encoder", x), [len(x)]
    for j in range(4):
        if j:  # eq. 5
            h = h + [torch.zeros_like(h[0])] * (len(h) % 2)
            h = [cat([h[2 * i], h[2 * i + 1]]) for i in range(len(h) // 2)]
            U.append(len(h))
        h, _ = bidirectional(p, f"encoder.recurrence.layers.{j}", h)  # eq. 4 and 5
    phi = p["decoder.attention.score.linear.weight"]
    hidden, output = p["decoder.readout.projection.weight"], p["decoder.vocabulary.weight"]
    n = p["decoder.recurrence.layers.0.weight_hh_l0"].size(1)
    states, seen, logits, alignments = [(zeros(n), zeros(n))] * 2, zeros(hidden.size(0)), [], []
    for y_i in embedded(p, "decoder", y):
        below = cat([y_i, seen])
        for layer in range(2):
            states[layer] = lstm(p, f"decoder.recurrence.layers.{layer}", below, states[layer])
            below = states[layer][0]
        s_i = below  # eq. 7
        alpha = softmax([(phi @ s_i) @ h_u for h_u in h])  # eq. 9, 10
        c_i = weighted_sum(alpha, h)  # eq. 11
        seen = tanh(hidden @ cat([s_i, c_i]))
        logits.append(output @ seen + p["decoder.vocabulary.bias"])  # eq. 8
        for length in U[-2::-1]:  # down the pyramid
            alpha = [alpha[u // 2] / (1 if u + 1 == length and length % 2 else 2) for u in range(length)]
        alignments.append(alpha)
    return logits, alignments


def joeynmt(p, x, y):
    """JoeyNMT 2.3: RecurrentEncoder, RecurrentDecoder with init_hidden: bridge, input_feeding and BahdanauAttention."""
    encoder_output = embedded(p, "encoder", x)
    for layer in range(2):
        encoder_output, final = bidirectional(p, f"encoder.recurrence.layers.{layer}", encoder_output)
    hidden_concat, _ = final  # of the last layer
    bridge, bridge_bias = p["decoder.bridge.projection.weight"], p["decoder.bridge.projection.bias"]
    key_layer = p["encoder.attention_keys.projection.weight"]
    query_layer, energy_layer = p["decoder.attention.query_projection.weight"], p["decoder.attention.score.vector"]
    att_vector_layer, att_vector_bias = p["decoder.readout.projection.weight"], p["decoder.readout.projection.bias"]
    init = tanh(bridge @ hidden_concat + bridge_bias)
    hidden, att_vector = [(init, init)] * 3, zeros(att_vector_layer.size(0))
    outputs, att_probs = [], []
    for prev_embed in embedded(p, "decoder", y):
        below = cat([prev_embed, att_vector])
        for layer in range(3):
            hidden[layer] = lstm(p, f"decoder.recurrence.layers.{layer}", below, hidden[layer])
            below = hidden[layer][0]
        query = below
        alphas = softmax([energy_layer @ tanh(query_layer @ query + key_layer @ value) for value in encoder_output])
        context = weighted_sum(alphas, encoder_output)
        att_vector = tanh(att_vector_layer @ cat([query, context]) + att_vector_bias)
        outputs.append(p["decoder.vocabulary.weight"] @ att_vector + p["decoder.vocabulary.bias"])  # there without bias
        att_probs.append(alphas)
    return outputs, att_probs


def opennmt_mlp(p, x, y):
    """OpenNMT-py 3.5: RNNEncoder (brnn), InputFeedRNNDecoder, GlobalAttention "mlp", whose output has no tanh."""
    memory_bank, state = embedded(p, "encoder", x), []
    for layer in range(2):
        memory_bank, final = bidirectional(p, f"encoder.recurrence.layers.{layer}", memory_bank)
        state.append(final)
    linear_context = p["encoder.attention_keys.projection.weight"]
    linear_query, query_bias = p["decoder.attention.query_projection.weight"], p["decoder.attention.score.bias"]
    v = p["decoder.attention.score.vector"]
    n = len(v)
    of_source, of_c = p["decoder.readout.projection.weight"].split([n, n], dim=1)
    linear_out, out_bias = cat([of_c, of_source], dim=1), p["decoder.readout.projection.bias"]
    input_feed, outputs, attns = zeros(n), [], []
    for emb_t in embedded(p, "decoder", y):
        below = cat([emb_t, input_feed])
        for layer in range(2):
            state[layer] = lstm(p, f"decoder.recurrence.layers.{layer}", below, state[layer])
            below = state[layer][0]
        wq = linear_query @ below + query_bias
        align_vectors = softmax([v @ tanh(wq + linear_context @ h) for h in memory_bank])
        c = weighted_sum(align_vectors, memory_bank)
        input_feed = linear_out @ cat([c, below]) + out_bias
        outputs.append(p["decoder.vocabulary.weight"] @ input_feed + p["decoder.vocabulary.bias"])  # generator
        attns.append(align_vectors)
    return outputs, attns


MODELS = {
    "pyramid": (listen_attend_spell, options_of("attn_lstm_pyramid", encoder_hidden_size=3, readout_dim=9)),
    "joeynmt": (
        joeynmt,
        config(
            encoder_layers=2, encoder_direction="bi", decoder_layers=3, bridge="shared", attention_score="additive",
            attention_bias="off", readout_bias="on",
        ),
    ),
    "opennmt": (
        opennmt_mlp,
        config(
            encoder_layers=2, encoder_direction="bi", decoder_layers=2, bridge="copy", attention_score="additive",
            encoder_hidden_size=4, readout_activation="none", readout_dim=8, readout_bias="on",
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("left_pad", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_equals_its_equations(name, left_pad):
    transcription, options = MODELS[name]
    small = dict(encoder_embed_dim=5, decoder_embed_dim=7, decoder_hidden_size=8, dropout=0.0)
    options.update(small)
    task = toy_task()
    inputs = batch(task, lengths=(23, 1, 10, 17), left_pad=left_pad)  # three times halved: 3, 1, 2 and 3 positions
    assert_equals(AttnRNNModel.build_model(options, task), task, inputs, transcription)
