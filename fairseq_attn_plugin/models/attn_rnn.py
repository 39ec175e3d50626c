"""Model ``attn_rnn``: wiring and presets."""

from typing import Optional

from fairseq.dataclass.utils import merge_with_parent
from fairseq.models import FairseqEncoderDecoderModel, register_model, register_model_architecture
from fairseq.modules import FairseqDropout
from torch import nn

from ..modules.attention import Attention
from ..modules.attention_scores import ATTENTION_SCORES
from ..modules.normalizers import NORMALIZERS
from ..modules.readout import Readout
from ..modules.recurrence import RecurrentStack
from .attn_rnn_checks import check_config
from .attn_rnn_config import AttnRNNConfig, encoder_dim, fill_defaults, readout_sizes
from .attn_rnn_decoder import AttnRNNDecoder, DecoderParts
from .bridge import BRIDGES
from .embedding import INIT_BOUND, build_embeddings
from .rnn_encoder import RNNEncoder


@register_model("attn_rnn", dataclass=AttnRNNConfig)
class AttnRNNModel(FairseqEncoderDecoderModel):
    """Recurrent encoder, attention decoder; every mechanism is an option of its own."""

    alignment_loss_error: Optional[str] = None
    """Why a criterion that takes the logarithm of attention weights cannot be used; None where it can."""

    @classmethod
    def build_model(cls, cfg, task) -> "AttnRNNModel":
        """Builds the model of ``cfg`` for the dictionaries of ``task``.

        Raises:
            ValueError: an option or a combination of options that cannot be, with flag, value and remedy.
        """
        cfg = merge_with_parent(AttnRNNConfig(), cfg, remove_missing=True)
        fill_defaults(cfg)
        check_config(cfg, task.source_dictionary, task.target_dictionary)
        source_positions, target_positions = task.max_positions()
        embed_source, embed_target = build_embeddings(cfg, task.source_dictionary, task.target_dictionary)
        keys, attention = build_attention(cfg)
        recurrence = RecurrentStack(
            cfg.cell,
            cfg.encoder_embed_dim,
            cfg.encoder_hidden_size,
            cfg.encoder_layers,
            bidirectional=cfg.encoder_direction == "bi",
            dropout=FairseqDropout(cfg.encoder_dropout_out, module_name="RNNEncoder"),
        )
        encoder = RNNEncoder(
            task.source_dictionary,
            embed_source,
            recurrence,
            keys,
            dropout_in=FairseqDropout(cfg.encoder_dropout_in, module_name="RNNEncoder"),
            dropout_out=FairseqDropout(cfg.encoder_dropout_out, module_name="RNNEncoder"),
            max_positions=source_positions,
        )
        parts = build_decoder_parts(cfg, embed_target, attention, target_positions)
        model = cls(encoder, AttnRNNDecoder(task.target_dictionary, parts))
        if cfg.parameter_init == "uniform":
            initialize(model)
        model.alignment_loss_error = alignment_loss_error(cfg)
        if model.alignment_loss_error and getattr(getattr(task, "cfg", None), "load_alignments", False):
            raise ValueError(f"--load-alignments: {model.alignment_loss_error}")
        return model


def alignment_loss_error(cfg) -> Optional[str]:
    """Why no criterion can take the logarithm of the attention weights, in one line; None where it can."""
    criterion = "--criterion label_smoothed_cross_entropy_with_alignment takes the logarithm of attention weights"
    if cfg.attention_score == "none":
        return f"{criterion}, and --attention-score none has none; use another --attention-score"
    if not ATTENTION_SCORES[cfg.attention_score].reads_query:
        return f"{criterion}, and those of --attention-score {cfg.attention_score} are fixed; use general or additive"
    if NORMALIZERS[cfg.attention_normalizer].sparse:
        return (
            f"{criterion}, and those of --attention-normalizer {cfg.attention_normalizer} can be zero; "
            "use --attention-normalizer softmax"
        )
    return None


def build_attention(cfg):
    """The two halves of the score, in their homes: key half for the encoder, ``Attention`` for the decoder."""
    if cfg.attention_score == "none":
        return None, None
    score_class = ATTENTION_SCORES[cfg.attention_score]
    query_dim, value_dim, size = cfg.decoder_hidden_size, encoder_dim(cfg), cfg.attention_dim
    if size is None and score_class.always_projects:
        size = query_dim
    keys = score_class.keys_class(value_dim, size)
    attention = Attention(
        score_class(query_dim if size is None else size, value_dim if size is None else size),
        NORMALIZERS[cfg.attention_normalizer](),
        query_projection=None if size is None else nn.Linear(query_dim, size, bias=False),
        dropout=FairseqDropout(cfg.attention_dropout, module_name="Attention"),
    )
    return keys, attention


def build_decoder_parts(cfg, embed_tokens: nn.Embedding, attention: Optional[Attention], max_positions: int):
    """Sizes of the decoder's modules, worked out from the options."""
    readout = Readout(readout_sizes(cfg), cfg.readout_activation, cfg.readout_dim)
    query_is_previous = attention is not None and cfg.attention_query == "previous"
    input_dim = cfg.decoder_embed_dim
    if query_is_previous:
        input_dim += encoder_dim(cfg)
    if cfg.input_feeding == "on":
        input_dim += readout.output_dim
    features = readout.output_dim
    projection = None
    if cfg.decoder_out_embed_dim is not None:
        projection = nn.Linear(features, cfg.decoder_out_embed_dim)
        features = cfg.decoder_out_embed_dim
    tied = cfg.share_decoder_input_output_embed or cfg.share_all_embeddings
    vocabulary = nn.Linear(features, embed_tokens.num_embeddings, bias=not tied)
    if tied:
        vocabulary.weight = embed_tokens.weight

    def dropout(probability: float) -> FairseqDropout:
        return FairseqDropout(probability, module_name="AttnRNNDecoder")

    recurrence = RecurrentStack(
        cfg.cell, input_dim, cfg.decoder_hidden_size, cfg.decoder_layers, dropout=dropout(cfg.decoder_dropout_out)
    )
    bridge_class = BRIDGES[cfg.bridge]
    return DecoderParts(
        embed_tokens=embed_tokens,
        recurrence=recurrence,
        bridge=bridge_class(encoder_dim(cfg), cfg.decoder_hidden_size, cfg.decoder_layers, recurrence.state_tensors),
        attention=attention,
        readout=readout,
        projection=projection,
        vocabulary=vocabulary,
        query_is_previous=query_is_previous,
        input_feeding=cfg.input_feeding == "on",
        dropout_in=dropout(cfg.decoder_dropout_in),
        dropout_out=dropout(cfg.decoder_dropout_out),
        max_positions=max_positions,
    )


def initialize(model: nn.Module) -> None:
    """Every parameter but the embeddings, which have had their start, uniform in ±``INIT_BOUND``."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for parameter in model.parameters():
        if id(parameter) not in embeddings:
            nn.init.uniform_(parameter, -INIT_BOUND, INIT_BOUND)


PRESETS = {
    # Luong et al. (2015): the dataclass's own defaults
    "attn_lstm": {},
    # Bahdanau et al. (2015) in its axes: additive score, the context enters the cell
    "attn_gru_additive": dict(
        cell="gru",
        encoder_direction="bi",
        bridge="linear",
        attention_score="additive",
        attention_query="previous",
        input_feeding="off",
    ),
    # Sutskever et al. (2014): a plain encoder-decoder, the source is known through the first state alone
    "seq2seq_lstm": dict(attention_score="none", input_feeding="off", readout_activation="none"),
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
}
"""Architectures for ``--arch``: only what differs from the dataclass."""


def _register_preset(name: str, values: dict) -> None:
    @register_model_architecture("attn_rnn", name)
    def preset(args):
        for option, value in values.items():
            setattr(args, option, getattr(args, option, value))


for _name, _values in PRESETS.items():
    _register_preset(_name, _values)
