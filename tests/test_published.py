"""Presets against the publications that they are named after.

Each function below transcribes one source in the source's own notation: one sentence, one step, one source position at
a time, on 1-D tensors in float64. A matrix that the package splits, joins or permutes is put together as in the source
in the first lines of its function. ``x`` and ``y`` are the source's tokens and the words that the decoder reads; every
function returns, for every step, what enters the softmax over the vocabulary, and the attention weights.
"""

import pytest
import torch
from model_factory import batch, toy_task
from omegaconf import OmegaConf
from torch import cat, maximum, sigmoid, tanh

from fairseq_attn_plugin.models.attn_rnn import AttnRNNConfig, AttnRNNModel
from fairseq_attn_plugin.models.config import resolved
from fairseq_attn_plugin.models.presets import PRESETS
from fairseq_attn_plugin.models.sizes import Sizes


def zeros(size):
    return torch.zeros(size, dtype=torch.float64)


def softmax(scores):
    return [torch.exp(e) / sum(torch.exp(other) for other in scores) for e in scores]


def weighted_sum(weights, vectors):
    return sum(weight * vector for weight, vector in zip(weights, vectors, strict=True))


def recurrent(p, layer, suffix=""):
    """W_ih, W_hh, b_ih, b_hh of ``layer`` as torch.nn.LSTM and torch.nn.GRU call them."""
    return [p[f"{layer}.{name}{suffix}"] for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]


def luong_2015(p, x, y):
    """Luong, Pham and Manning (2015): global attention, score "general", input feeding.

    Not in print: the bias of the softmax layer.
    """
    n = p["decoder.recurrence.layers.0.weight_hh_l0"].size(1)
    W_a = p["decoder.attention.score.linear.weight"].T
    of_h, of_c = p["decoder.readout.projection.weight"].split([n, n], dim=1)
    W_c = cat([of_c, of_h], dim=1)
    W_s, b_s = p["decoder.vocabulary.weight"], p["decoder.vocabulary.bias"]

    def lstm(layer, below, h, c):
        """Zaremba et al. (2015), eq. of section 3.1; T is affine. torch's rows: i, f, g, o."""
        T_below, T_h, b_below, b_h = recurrent(p, layer)
        i, f, g, o = (T_below @ below + b_below + T_h @ h + b_h).split(n)
        i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), tanh(g)
        c = f * c + i * g
        return o * tanh(c), c

    def stack(side, below, states):
        for l in range(4):  # noqa: E741
            states[l] = lstm(f"{side}.recurrence.layers.{l}", below, *states[l])
            below = states[l][0]
        return below

    states = [(zeros(n), zeros(n))] * 4
    h_bar = [stack("encoder", p["encoder.embed_tokens.weight"][x_s], states) for x_s in x]

    logits, alignments = [], []
    h_tilde = zeros(W_c.size(0))  # the decoder's layers go on from the encoder's last states
    for y_t in y:
        h_t = stack("decoder", cat([p["decoder.embed_tokens.weight"][y_t], h_tilde]), states)  # section 3.3
        score = [h_t @ W_a @ h_bar_s for h_bar_s in h_bar]  # section 3.1, general
        a_t = softmax(score)  # eq. 7
        c_t = weighted_sum(a_t, h_bar)
        h_tilde = tanh(W_c @ cat([c_t, h_t]))  # eq. 5
        logits.append(W_s @ h_tilde + b_s)  # eq. 6
        alignments.append(a_t)
    return logits, alignments


def bahdanau_2015(p, x, y):
    """Bahdanau, Cho and Bengio (2015), appendix A; s_i instead of s_{i-1} in the deep output, as in eq. 4.

    Not in print ("we omit bias terms"): all of b. The appendix' z is 1 minus torch's, sigmoid(-a) = 1 - sigmoid(a):
    the weights of torch's gate are negated. torch's rows: r, z, n.
    """

    def gated_unit(layer, suffix=""):
        W_ih, U_hh, b_ih, b_hh = recurrent(p, layer, suffix)
        W_r, W_z, W = W_ih.chunk(3)
        U_r, U_z, U = U_hh.chunk(3)
        b_r, b_z, b = (b_ih + b_hh).chunk(3)
        return W, -W_z, W_r, U, -U_z, U_r, b, -b_z, b_r

    def encode(words, suffix=""):  # A.2.1
        W, W_z, W_r, U, U_z, U_r, b, b_z, b_r = gated_unit("encoder.recurrence.layers.0", suffix)
        h, states = zeros(U.size(1)), []
        for Ex in words:
            z = sigmoid(W_z @ Ex + U_z @ h + b_z)
            r = sigmoid(W_r @ Ex + U_r @ h + b_r)
            h_new = tanh(W @ Ex + U @ (r * h) + b)
            h = (1 - z) * h + z * h_new
            states.append(h)
        return states

    Ex = [p["encoder.embed_tokens.weight"][x_i] for x_i in x]
    forward, backward = encode(Ex), encode(Ex[::-1], "_reverse")[::-1]
    h = [cat(pair) for pair in zip(forward, backward, strict=True)]

    W_s, b_s = p["decoder.bridge.projections.0.0.weight"], p["decoder.bridge.projections.0.0.bias"]
    W_a, U_a = p["decoder.attention.query_projection.weight"], p["encoder.attention_keys.projection.weight"]
    v_a, b_a = p["decoder.attention.score.vector"], p["decoder.attention.score.bias"]
    m, n = p["decoder.embed_tokens.weight"].size(1), len(b_s)
    WC, WC_z, WC_r, U, U_z, U_r, b, b_z, b_r = gated_unit("decoder.recurrence.layers.0")
    (W, C), (W_z, C_z), (W_r, C_r) = (matrix.split([m, 2 * len(backward[0])], dim=1) for matrix in (WC, WC_z, WC_r))
    U_o, V_o, C_o = p["decoder.readout.projection.weight"].split([n, m, 2 * len(backward[0])], dim=1)
    W_o, b_o = p["decoder.vocabulary.weight"], p["decoder.vocabulary.bias"]
    l = W_o.size(1)  # noqa: E741

    logits, alignments = [], []
    s = tanh(W_s @ backward[0] + b_s)  # A.2.2
    for y_i in y:
        Ey = p["decoder.embed_tokens.weight"][y_i]
        e = [v_a @ tanh(W_a @ s + U_a @ h_j + b_a) for h_j in h]  # A.1.2
        alpha = softmax(e)  # eq. 6
        c = weighted_sum(alpha, h)  # eq. 5
        r = sigmoid(W_r @ Ey + U_r @ s + C_r @ c + b_r)  # A.2.2
        z = sigmoid(W_z @ Ey + U_z @ s + C_z @ c + b_z)
        s_new = tanh(W @ Ey + U @ (r * s) + C @ c + b)
        s = (1 - z) * s + z * s_new
        t_tilde = U_o @ s + V_o @ Ey + C_o @ c
        t = torch.stack([maximum(t_tilde[2 * j - 2], t_tilde[2 * j - 1]) for j in range(1, l + 1)])  # counted from 1
        logits.append(W_o @ t + b_o)
        alignments.append(alpha)
    return logits, alignments


def gru(W_ih, W_hh, b_ih, b_hh, x, h):
    """The equations in the documentation of torch.nn.GRU, which the three sources below call; rows: r, z, n."""
    W_ir, W_iz, W_in = W_ih.chunk(3)
    W_hr, W_hz, W_hn = W_hh.chunk(3)
    b_ir, b_iz, b_in = b_ih.chunk(3)
    b_hr, b_hz, b_hn = b_hh.chunk(3)
    r = sigmoid(W_ir @ x + b_ir + W_hr @ h + b_hr)
    z = sigmoid(W_iz @ x + b_iz + W_hz @ h + b_hz)
    n = tanh(W_in @ x + b_in + r * (W_hn @ h + b_hn))
    return (1 - z) * n + z * h


def d2l(p, x, y):
    """Zhang et al., Dive into Deep Learning, sections 10.7 and 11.3 (Seq2SeqEncoder, AdditiveAttention) and 11.4
    (Seq2SeqAttentionDecoder)."""
    W_q, W_k = p["decoder.attention.query_projection.weight"], p["encoder.attention_keys.projection.weight"]
    w_v = p["decoder.attention.score.vector"]
    embed_size, num_hiddens = p["decoder.embed_tokens.weight"].size(1), p["decoder.vocabulary.weight"].size(1)
    of_embedding, of_context = p["decoder.recurrence.layers.0.weight_ih_l0"].split([embed_size, num_hiddens], dim=1)
    encoder_rnn = [recurrent(p, f"encoder.recurrence.layers.{layer}") for layer in range(2)]
    decoder_rnn = [recurrent(p, f"decoder.recurrence.layers.{layer}") for layer in range(2)]
    decoder_rnn[0][0] = cat([of_context, of_embedding], dim=1)

    def rnn(layers, X, hidden_state):
        for layer in range(2):
            X = hidden_state[layer] = gru(*layers[layer], X, hidden_state[layer])
        return X

    hidden_state = [zeros(num_hiddens), zeros(num_hiddens)]
    enc_outputs = [rnn(encoder_rnn, p["encoder.embed_tokens.weight"][token], hidden_state) for token in x]

    outputs, attention_weights = [], []
    for token in y:
        query = hidden_state[-1]
        weights = softmax([w_v @ tanh(W_q @ query + W_k @ key) for key in enc_outputs])  # 11.3, additive attention
        context = weighted_sum(weights, enc_outputs)  # eq. 11.4.1
        out = rnn(decoder_rnn, cat([context, p["decoder.embed_tokens.weight"][token]]), hidden_state)
        outputs.append(p["decoder.vocabulary.weight"] @ out + p["decoder.vocabulary.bias"])  # self.dense
        attention_weights.append(weights)
    return outputs, attention_weights


def pytorch_tutorial(p, x, y):
    """Robertson, NLP from scratch: translation with a sequence to sequence network and attention (EncoderRNN,
    AttnDecoderRNN). There the softmax runs over MAX_LENGTH positions; here over those of the sentence."""
    hidden_size = p["decoder.vocabulary.weight"].size(1)
    embedding_size = p["decoder.embed_tokens.weight"].size(1)
    of_hidden, of_embedded = p["decoder.attention.score.linear.weight"].split([hidden_size, embedding_size], dim=1)
    attn, attn_bias = cat([of_embedded, of_hidden], dim=1), p["decoder.attention.score.linear.bias"]
    attn_combine, combine_bias = p["decoder.cell_input.projection.weight"], p["decoder.cell_input.projection.bias"]

    hidden, encoder_outputs = zeros(hidden_size), []
    for token in x:
        embedded = p["encoder.embed_tokens.weight"][token]
        hidden = gru(*recurrent(p, "encoder.recurrence.layers.0"), embedded, hidden)
        encoder_outputs.append(hidden)

    outputs, attentions = [], []
    for token in y:
        embedded = p["decoder.embed_tokens.weight"][token]
        scores = attn @ cat([embedded, hidden]) + attn_bias
        attn_weights = softmax([scores[i] for i in range(len(x))])
        attn_applied = weighted_sum(attn_weights, encoder_outputs)
        output = attn_combine @ cat([embedded, attn_applied]) + combine_bias
        output = torch.where(output > 0, output, 0.0)  # relu
        hidden = gru(*recurrent(p, "decoder.recurrence.layers.0"), output, hidden)
        outputs.append(p["decoder.vocabulary.weight"] @ hidden + p["decoder.vocabulary.bias"])  # self.out
        attentions.append(attn_weights)
    return outputs, attentions


def trevett(p, x, y):
    """Trevett, pytorch-seq2seq, parts 3 and 4 (Encoder, Attention, Decoder; padding masked as in part 4)."""
    attn = cat([p["decoder.attention.query_projection.weight"], p["encoder.attention_keys.projection.weight"]], dim=1)
    attn_bias, v = p["decoder.attention.score.bias"], p["decoder.attention.score.vector"]
    fc, fc_bias = p["decoder.bridge.projections.0.0.weight"], p["decoder.bridge.projections.0.0.bias"]
    sizes = len(fc_bias), p["decoder.embed_tokens.weight"].size(1), fc.size(1)
    of_output, of_embedded, of_weighted = p["decoder.vocabulary.weight"].split(sizes, dim=1)
    fc_out = cat([of_output, of_weighted, of_embedded], dim=1)

    def encode(words, suffix):
        hidden, outputs = zeros(fc.size(1) // 2), []
        for embedded in words:
            hidden = gru(*recurrent(p, "encoder.recurrence.layers.0", suffix), embedded, hidden)
            outputs.append(hidden)
        return outputs, hidden

    words = [p["encoder.embed_tokens.weight"][token] for token in x]
    forward, last_forward = encode(words, "")
    backward, last_backward = encode(words[::-1], "_reverse")
    encoder_outputs = [cat(pair) for pair in zip(forward, backward[::-1], strict=True)]
    hidden = tanh(fc @ cat([last_forward, last_backward]) + fc_bias)

    predictions, attentions = [], []
    for token in y:
        embedded = p["decoder.embed_tokens.weight"][token]
        energy = [tanh(attn @ cat([hidden, encoder_output]) + attn_bias) for encoder_output in encoder_outputs]
        a = softmax([v @ energy_j for energy_j in energy])
        weighted = weighted_sum(a, encoder_outputs)
        hidden = output = gru(*recurrent(p, "decoder.recurrence.layers.0"), cat([embedded, weighted]), hidden)
        predictions.append(fc_out @ cat([output, weighted, embedded]) + p["decoder.vocabulary.bias"])
        attentions.append(a)
    return predictions, attentions


# the transcription, and small sizes, all different where the source allows it: a copied state makes both hidden sizes
# one; the vocabularies have 13 and 17 symbols
PUBLISHED = {
    "attn_lstm_luong": (luong_2015, dict(encoder_hidden_size=8, readout_dim=9)),
    "attn_gru_bahdanau": (bahdanau_2015, dict(encoder_hidden_size=6, attention_dim=11, readout_dim=10)),
    "attn_gru_d2l": (d2l, dict(encoder_hidden_size=8, attention_dim=11)),
    "attn_gru_location": (
        pytorch_tutorial, dict(encoder_hidden_size=8, cell_input_dim=9, attention_location_positions=10)
    ),
    "attn_gru_linear_readout": (trevett, dict(encoder_hidden_size=6, attention_dim=11)),
}


def options_of(preset, **sizes):
    return OmegaConf.merge(OmegaConf.structured(AttnRNNConfig), PRESETS[preset], sizes)


@pytest.mark.parametrize("left_pad", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("preset", PUBLISHED)
def test_preset_equals_the_published_equations(preset, left_pad):
    transcription, sizes = PUBLISHED[preset]
    sizes = dict(encoder_embed_dim=5, decoder_embed_dim=7, decoder_hidden_size=8, **sizes)
    task = toy_task()
    model = AttnRNNModel.build_model(options_of(preset, dropout=0.0, attention_dropout=0.0, **sizes), task)
    assert_equals(model, task, batch(task, left_pad=left_pad), transcription)


def assert_equals(model, task, inputs, transcription):
    """Logits and weights of ``model`` for a batch are those of its equations, with parameters drawn anew."""
    model = model.double().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough for attention far from uniform; biases and padding too
            parameter.uniform_(-1.5, 1.5, generator=generator)
        source, lengths, previous = inputs
        logits, extra = model(source, lengths, previous)
    (weights,) = extra["attn"]
    close = dict(atol=1e-10, rtol=1e-10)
    for row in range(len(source)):
        real = source[row] != task.source_dictionary.pad()
        x = source[row][real].tolist()
        y = [token for token in previous[row].tolist() if token != task.target_dictionary.pad()]
        expected, attention = transcription(model.state_dict(), x, y)
        assert (weights[row][:, ~real] == 0).all()
        for t in range(len(y)):
            torch.testing.assert_close(logits[row, t], expected[t], **close)
            torch.testing.assert_close(weights[row, t, real], torch.stack(attention[t]), **close)


# what the sources print: cell, direction, layers of encoder and decoder; embedding and hidden size of the encoder, of
# the decoder; size of the attention's hidden layer; of the readout; of the map before the cell
SIZES = {
    # section 4.1: 4 layers of 1000 cells, 1000-dimensional embeddings
    "attn_lstm_luong": ("lstm", "uni", 4, 4, 1000, 1000, 1000, 1000, None, 1000, None),
    # B.1: m = 620, n = 1000, n' = 1000, l = 500
    "attn_gru_bahdanau": ("gru_reset_before", "bi", 1, 1, 620, 1000, 620, 1000, 1000, 500, None),
    # 11.4: embed_size, num_hiddens, num_layers = 256, 256, 2
    "attn_gru_d2l": ("gru", "uni", 2, 2, 256, 256, 256, 256, 256, None, None),
    # hidden_size = 256
    "attn_gru_location": ("gru", "uni", 1, 1, 256, 256, 256, 256, None, None, 256),
    # ENC_EMB_DIM = DEC_EMB_DIM = 256, ENC_HID_DIM = DEC_HID_DIM = 512
    "attn_gru_linear_readout": ("gru", "bi", 1, 1, 256, 512, 256, 512, 512, None, None),
    # Chorowski et al. (2015): 3 layers of 256 a direction, a state of 256, 512 hidden units in the score
    "attn_gru_chorowski": ("gru_reset_before", "bi", 3, 1, 256, 256, 256, 256, 512, 256, None),
    # as their baselines
    "attn_gru_coverage": ("gru_reset_before", "bi", 1, 1, 620, 1000, 620, 1000, 1000, 500, None),
    "attn_lstm_local_p": ("lstm", "uni", 4, 4, 1000, 1000, 1000, 1000, None, 1000, None),
    # Chan et al. (2016), section 4.2: 3 pyramid layers of 256 a direction above one layer, 2 layers of 512
    "attn_lstm_pyramid": ("lstm", "bi", 4, 2, 256, 256, 256, 512, None, 512, None),
}


@pytest.mark.parametrize("preset", SIZES)
def test_preset_has_the_published_sizes(preset):
    cfg = resolved(options_of(preset))
    hidden_layer = None if cfg.attention_score == "location" else Sizes.of(cfg).key
    assert SIZES[preset] == (
        cfg.cell, cfg.encoder_direction, cfg.encoder_layers, cfg.decoder_layers,
        cfg.encoder_embed_dim, cfg.encoder_hidden_size, cfg.decoder_embed_dim, cfg.decoder_hidden_size,
        hidden_layer, cfg.readout_dim, cfg.cell_input_dim,
    )  # fmt: skip


# rates on: source embeddings, encoder layers and outputs, target embeddings, decoder layers and readout, weights
DROPOUT = {
    "attn_lstm_luong": (0.2, 0.2, 0.2, 0.2, 0.0),  # section 4.1, as Zaremba et al. (2015): between all layers
    "attn_gru_bahdanau": (0.0, 0.0, 0.0, 0.0, 0.0),
    "attn_gru_d2l": (0.0, 0.2, 0.0, 0.2, 0.2),
    "attn_gru_location": (0.0, 0.0, 0.1, 0.0, 0.0),  # dropout_p = 0.1, on the decoder's embedding
    "attn_gru_linear_readout": (0.5, 0.0, 0.5, 0.0, 0.0),  # ENC_DROPOUT = DEC_DROPOUT = 0.5, on embeddings
}


@pytest.mark.parametrize("preset", DROPOUT)
def test_preset_drops_where_the_source_does(preset):
    cfg = resolved(options_of(preset))
    places = ("encoder_dropout_in", "encoder_dropout_out", "decoder_dropout_in", "decoder_dropout_out")
    assert DROPOUT[preset] == tuple(cfg[place] for place in (*places, "attention_dropout"))
