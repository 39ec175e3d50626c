"""Architectures for ``--arch``, named after what they are; each states only what differs from the config's defaults."""

from typing import Any, Dict, MutableMapping

from fairseq.models import register_model_architecture

PRESETS: Dict[str, Dict[str, Any]] = {
    # Luong et al. (2015) in one layer: the dataclass's own defaults
    "attn_lstm": {},
    # Luong et al. (2015), section 4.1, global attention with input feeding
    "attn_lstm_luong": dict(
        encoder_embed_dim=1000, encoder_layers=4, decoder_embed_dim=1000, decoder_layers=4, dropout=0.2
    ),
    # Bahdanau et al. (2015), appendix A and B.1, with s(i) in the readout as in its eq. 4 (A.2.2 prints s(i-1))
    "attn_gru_bahdanau": dict(
        cell="gru_reset_before",
        dropout=0.0,
        encoder_embed_dim=620,
        encoder_hidden_size=1000,
        encoder_direction="bi",
        decoder_embed_dim=620,
        decoder_hidden_size=1000,
        bridge="backward",
        attention_score="additive",
        attention_query="previous",
        input_feeding="off",
        readout_inputs="state,word,context",
        readout_activation="maxout",
        readout_dim=500,
    ),
    # Zhang et al., Dive into Deep Learning (2023), section 11.4, with dropout on the top outputs as well; the decoder
    # of TensorFlow's tutorial has this structure, in one layer and with biases
    "attn_gru_d2l": dict(
        cell="gru",
        dropout=0.2,
        encoder_embed_dim=256,
        encoder_layers=2,
        encoder_dropout_in=0.0,
        decoder_embed_dim=256,
        decoder_layers=2,
        decoder_dropout_in=0.0,
        attention_score="concat",
        attention_query="previous",
        attention_dropout=0.2,
        input_feeding="off",
        readout_inputs="state",
        readout_activation="none",
    ),
    # PyTorch's tutorial of 2017 (AttnDecoderRNN), with padding masked
    "attn_gru_location": dict(
        cell="gru",
        dropout=0.0,
        encoder_embed_dim=256,
        decoder_embed_dim=256,
        decoder_dropout_in=0.1,
        attention_score="location",
        attention_bias="on",
        attention_query="previous",
        attention_query_inputs="state,word",
        input_feeding="off",
        cell_input_activation="relu",
        readout_inputs="state",
        readout_activation="none",
    ),
    # Trevett's tutorials (2018), part 3 and 4
    "attn_gru_linear_readout": dict(
        cell="gru",
        dropout=0.5,
        encoder_embed_dim=256,
        encoder_hidden_size=512,
        encoder_direction="bi",
        encoder_dropout_out=0.0,
        decoder_embed_dim=256,
        decoder_hidden_size=512,
        decoder_dropout_out=0.0,
        bridge="tanh",
        attention_score="additive",
        attention_query="previous",
        input_feeding="off",
        readout_inputs="state,word,context",
        readout_activation="none",
    ),
    # a small relative of Bahdanau et al. (2015): additive score, the context enters the cell
    "attn_gru_additive": dict(
        cell="gru",
        encoder_direction="bi",
        bridge="linear",
        attention_score="additive",
        attention_query="previous",
        input_feeding="off",
    ),
    # the listener of Chan et al. (2016), sections 3.1 and 4.2, for long sources, as of characters: one bidirectional
    # layer and three that halve the length, so eight tokens share a position; the decoder, two layers of 512 that start
    # from zeros as there, is otherwise Luong's (2015): its readout, not the context alone, enters the next step
    "attn_lstm_pyramid": dict(
        encoder_embed_dim=256,
        encoder_hidden_size=256,
        encoder_layers=4,
        encoder_direction="bi",
        encoder_pyramid=3,
        decoder_embed_dim=256,
        decoder_hidden_size=512,
        decoder_layers=2,
        bridge="zero",
    ),
    # Sutskever et al. (2014): a plain encoder-decoder, the source is known through the first state alone
    "seq2seq_lstm": dict(attention_score="none", input_feeding="off", readout_activation="none"),
    # for some ten thousands of sentence pairs: Luong et al. (2015) in one layer with a bidirectional encoder; with the
    # source word in the value and the target word in the readout it learns in fewer updates
    "attn_lstm_multi30k": dict(
        encoder_embed_dim=256,
        encoder_hidden_size=256,
        encoder_direction="bi",
        decoder_embed_dim=256,
        decoder_hidden_size=512,
        decoder_out_embed_dim=256,
        attention_value_inputs="state,word",
        readout_inputs="state,word,context",
        dropout=0.2,
    ),
    # small and fast: no feedback, so that a target is one call of the recurrent kernel; large embeddings at the start
    # make a source position's own symbol stand out, so that it is found at its own position and not at a neighbour's
    "attn_lstm_reversal": dict(
        encoder_embed_dim=64,
        encoder_hidden_size=64,
        encoder_direction="bi",
        decoder_embed_dim=64,
        decoder_hidden_size=128,
        dropout=0.0,
        input_feeding="off",
        parameter_init="torch",
    ),
    # the same with attention that goes on from where it was, from uniform weights, by Graves et al.'s shift (2014),
    # eq. 7-9: whatever the length, the next position is one further; with the source word in the value, what stands
    # there is found whatever the encoder's state has become on the way
    "attn_lstm_shift": dict(
        encoder_embed_dim=64,
        encoder_hidden_size=64,
        encoder_direction="bi",
        decoder_embed_dim=64,
        decoder_hidden_size=128,
        dropout=0.0,
        bridge="tanh",
        attention_score="dot",
        attention_dim=64,
        attention_value_inputs="state,word",
        attention_addressing="shift",
        parameter_init="torch",
    ),
}


def register_presets() -> None:
    """Registers all with fairseq, as forms of ``attn_rnn``."""
    for name, values in PRESETS.items():
        register_model_architecture("attn_rnn", name)(_preset(values))


def _preset(values: Dict[str, Any]):
    def preset(args) -> None:
        """What the command line does not say."""
        given = args if isinstance(args, MutableMapping) else vars(args)
        for option, value in values.items():
            given.setdefault(option, value)

    return preset
