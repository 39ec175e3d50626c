"""Architectures for ``--arch``, named after what they are; each states only what differs from the config's defaults."""

from typing import Any, Dict, MutableMapping

from fairseq.models import ARCH_CONFIG_REGISTRY, register_model_architecture
from fairseq.tasks import TASK_REGISTRY
from fairseq.tasks.multilingual_translation import MultilingualTranslationTask

# Luong et al. (2015), section 4.1, global attention with input feeding
LUONG: Dict[str, Any] = dict(
    encoder_embed_dim=1000, encoder_layers=4, decoder_embed_dim=1000, decoder_layers=4, dropout=0.2
)

# Bahdanau et al. (2015), appendix A and B.1, with s(i) in the readout as in its eq. 4 (A.2.2 prints s(i-1))
BAHDANAU: Dict[str, Any] = dict(
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
)

# for some thousands of words in letters: attn_lstm_multi30k made small, without feedback of the readout; much dropout,
# for a training passes over its words dozens of times
WORDS: Dict[str, Any] = dict(
    encoder_embed_dim=128,
    encoder_hidden_size=128,
    encoder_direction="bi",
    decoder_embed_dim=128,
    decoder_hidden_size=256,
    decoder_out_embed_dim=128,
    attention_value_inputs="state,word",
    input_feeding="off",
    readout_inputs="state,word,context",
    dropout=0.4,
)

PRESETS: Dict[str, Dict[str, Any]] = {
    # Luong et al. (2015) in one layer: the dataclass's own defaults
    "attn_lstm": {},
    "attn_lstm_luong": LUONG,
    "attn_gru_bahdanau": BAHDANAU,
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
    # Chorowski et al. (2015), section 2, eq. 8 and 9, sizes of section 4: filters over the last weights enter the
    # score. For words in place of frames of speech: a filter spans 5 positions, not 201, and there are as many maxout
    # units as numbers in a state, not 64. Nearest only: the output is made of s(i), not s(i-1); the first state, which
    # is learned there, is zero
    "attn_gru_chorowski": dict(
        cell="gru_reset_before",
        dropout=0.0,
        encoder_embed_dim=256,
        encoder_layers=3,
        encoder_direction="bi",
        decoder_embed_dim=256,
        bridge="zero",
        attention_score="additive",
        attention_dim=512,
        attention_query="previous",
        input_feeding="off",
        attention_history="location",
        readout_activation="maxout",
    ),
    # Tu et al. (2016), section 3, the coverage that a network makes, with gates, ten numbers for each source word, in
    # Bahdanau et al. (2015), which it is built on. Nearest only: the gates are those of torch's GRU
    "attn_gru_coverage": dict(BAHDANAU, attention_history="gru_coverage"),
    # Luong et al. (2015), section 3.2, local-p with D = 10, in the sizes of section 4.1. Nearest only: the Gaussian is
    # added to the scores, as its logarithm; there it is a factor of the weights, which then do not sum to one
    "attn_lstm_local_p": dict(LUONG, attention_window="local_p"),
    # Raffel et al. (2017), section 2.2-2.4: expected alignment in training, at one token in search, energies with a
    # norm and an offset; sizes, and the readout, which is left open there, are the defaults. Nearest only: the last
    # token takes the weight of a step that stays nowhere, which has no context there
    "attn_lstm_monotonic": dict(
        attention_score="normed_additive",
        attention_query="previous",
        input_feeding="off",
        attention_addressing="monotonic",
        attention_monotonic_search="hard",
    ),
    # Graves et al. (2014), section 3.3: the addressing of one read head, by content and by location, with an LSTM as
    # controller and an encoder's outputs as memory; sizes are the defaults. Nearest only: the key strength is learned
    # once, not made at each step; the memory is mapped, too, before key and memory are compared
    "attn_lstm_ntm_addressing": dict(
        attention_score="cosine",
        attention_dim=512,
        attention_query="previous",
        input_feeding="off",
        attention_addressing="shift",
        readout_inputs="state",
        readout_activation="none",
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
    # grapheme-to-phoneme: letters to phones, which follow one another as the letters do
    "attn_lstm_g2p": dict(WORDS, attention_addressing="monotonic"),
    # inflection: letters and features of a lemma to letters
    "attn_lstm_inflection": dict(WORDS, attention_heads=4),
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
    ARCH_CONFIG_REGISTRY["attn_rnn"] = _preset({})


def _preset(values: Dict[str, Any]):
    def preset(args) -> None:
        """What the command line does not say."""
        given = args if isinstance(args, MutableMapping) else vars(args)
        if "task" in given:  # of a command line; such a task ends before it asks for a model
            check_task(TASK_REGISTRY.get(given["task"]))
        for option, value in values.items():
            given.setdefault(option, value)

    return preset


def check_task(task_class) -> None:
    """Raises a ValueError for a task of fairseq's that wants a model for each pair of languages, in one."""
    if isinstance(task_class, type) and issubclass(task_class, MultilingualTranslationTask):
        name = next((name for name, cls in TASK_REGISTRY.items() if cls is task_class), task_class.__qualname__)
        raise ValueError(
            f"--task {name}: it trains a model for each pair of languages, and attn_rnn is one model for all; use "
            "--task translation_multi_simple_epoch, or attn_translation with a data folder of --tag-target"
        )
