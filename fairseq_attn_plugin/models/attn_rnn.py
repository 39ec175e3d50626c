"""Model ``attn_rnn``: wiring and presets."""

from typing import Callable, ClassVar, Optional, Tuple

from fairseq import hub_utils
from fairseq.dataclass.utils import merge_with_parent
from fairseq.models import FairseqEncoderDecoderModel, register_model, register_model_architecture
from torch import nn

from ..modules.attention import Attention
from ..modules.attention_scores import ATTENTION_SCORES, build_score
from ..modules.combination import Combination
from ..modules.normalizers import NORMALIZERS
from ..modules.recurrence import RecurrentStack
from ..modules.recurrent_cells import RecurrentLayer
from ..modules.scheduled_sampling import SCHEDULES, ScheduledSampling
from .attn_rnn_checks import check_config
from .attn_rnn_config import (
    POSITIONS,
    AttnRNNConfig,
    attention_size,
    encoder_dim,
    fill_defaults,
    query_sizes,
    readout_sizes,
    value_dim,
    value_sizes,
)
from .attn_rnn_decoder import AttnRNNDecoder, DecoderParts
from .bridge import BRIDGES
from .dropout import Dropout
from .embedding import INIT_BOUND, build_embeddings
from .precision import MATMUL_DTYPES
from .rnn_encoder import RNNEncoder


@register_model("attn_rnn", dataclass=AttnRNNConfig)
class AttnRNNModel(FairseqEncoderDecoderModel):
    """Recurrent encoder, attention decoder; every mechanism is an option of its own."""

    alignment_loss_error: Optional[str] = None
    """Why a criterion that takes the logarithm of attention weights cannot be used; None where it can."""

    load_pretrained: ClassVar[Callable[..., hub_utils.GeneratorHubInterface]]
    """What ``from_pretrained`` calls; ``serving`` sets it, because models import nothing of what serves them."""

    @classmethod
    def build_model(cls, cfg, task) -> "AttnRNNModel":
        """Builds the model of ``cfg`` for the dictionaries of ``task``.

        Raises:
            ValueError: an option or a combination of options that cannot be, with flag, value and remedy.
        """
        cfg = merge_with_parent(AttnRNNConfig(), cfg, remove_missing=True)
        fill_defaults(cfg)
        check_config(cfg, task.source_dictionary, task.target_dictionary)
        source_positions, target_positions = max_positions(cfg, task)
        embed_source, embed_target = build_embeddings(cfg, task.source_dictionary, task.target_dictionary)
        keys, attention = build_attention(cfg)
        recurrence = RecurrentStack(
            cfg.cell,
            cfg.encoder_embed_dim,
            cfg.encoder_hidden_size,
            cfg.encoder_layers,
            bidirectional=cfg.encoder_direction == "bi",
            dropout=Dropout(cfg.encoder_dropout_out, module_name="RNNEncoder"),
            residual=cfg.residual_connections,
            layer_norm=cfg.layer_norm,
        )
        if cfg.layer_norm and keys is None and not BRIDGES[cfg.bridge].reads_values:
            recurrence.norms[-1] = nn.Identity()  # nothing reads the outputs of the top layer
        encoder = RNNEncoder(
            task.source_dictionary,
            embed_source,
            recurrence,
            Combination(value_sizes(cfg)),
            keys,
            dropout_in=Dropout(cfg.encoder_dropout_in, module_name="RNNEncoder"),
            dropout_out=Dropout(cfg.encoder_dropout_out, module_name="RNNEncoder"),
            max_positions=source_positions,
            matmul_dtype=MATMUL_DTYPES[cfg.matmul_dtype],
        )
        parts = build_decoder_parts(cfg, embed_target, attention, target_positions)
        model = cls(encoder, AttnRNNDecoder(task.target_dictionary, parts))
        initialize(model, cfg)
        model.alignment_loss_error = alignment_loss_error(cfg)
        if model.alignment_loss_error and getattr(getattr(task, "cfg", None), "load_alignments", False):
            raise ValueError(f"--load-alignments: {model.alignment_loss_error}")
        return model

    @classmethod
    def from_pretrained(
        cls, model_name_or_path, checkpoint_file: str = "checkpoint.pt", data_name_or_path: str = ".", **kwargs
    ) -> hub_utils.GeneratorHubInterface:
        """Loads a trained model, or an ensemble, for decoding.

        Args:
            model_name_or_path: folder of the model: checkpoint, dictionaries, sentencepiece models, ``data.json``.
            checkpoint_file: name of the checkpoint in it; several with colons between them.
            data_name_or_path: where the other files are, if not in the same folder.
            kwargs: values that replace those of the checkpoint's options.

        Returns:
            A ``serving.translator.Translator`` where the task knows how raw text is segmented (``attn_translation``),
            else fairseq's own interface.

        Raises:
            OSError: the folder or the checkpoint is not there.
            ValueError: the folder's files are damaged, or not those that the model was trained with.
        """
        return cls.load_pretrained(str(model_name_or_path), checkpoint_file, str(data_name_or_path), **kwargs)


def max_positions(cfg, task) -> Tuple[int, int]:
    """Longest source and target, ``</s>`` included: those of the task, and no more than the score knows."""
    source, target = task.max_positions()
    if cfg.attention_score != "none" and ATTENTION_SCORES[cfg.attention_score].size_option == POSITIONS:
        source = min(source, attention_size(cfg))
    return source, target


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
    size, query_dim = attention_size(cfg), sum(query_sizes(cfg).values())
    bias = None if cfg.attention_bias is None else cfg.attention_bias == "on"
    keys, score = build_score(cfg.attention_score, query_dim, value_dim(cfg), size, bias)
    attention = Attention(
        score,
        NORMALIZERS[cfg.attention_normalizer](),
        query_projection=nn.Linear(query_dim, size, bias=False) if score.projects_query(size) else None,
        dropout=Dropout(cfg.attention_dropout, module_name="Attention"),
    )
    return keys, attention


def build_decoder_parts(cfg, embed_tokens: nn.Embedding, attention: Optional[Attention], max_positions: int):
    """Sizes of the decoder's modules, worked out from the options."""
    readout = Combination(readout_sizes(cfg), cfg.readout_activation, cfg.readout_dim)
    query_is_previous = attention is not None and cfg.attention_query == "previous"
    cell_input, input_dim = build_cell_input(cfg, query_is_previous, readout.output_dim)
    projection, vocabulary = build_vocabulary(cfg, embed_tokens, readout.output_dim)

    def dropout(probability: float) -> Dropout:
        return Dropout(probability, module_name="AttnRNNDecoder")

    recurrence = RecurrentStack(
        cfg.cell,
        input_dim,
        cfg.decoder_hidden_size,
        cfg.decoder_layers,
        dropout=dropout(cfg.decoder_dropout_out),
        residual=cfg.residual_connections,
        layer_norm=cfg.layer_norm,
    )
    bridge_class = BRIDGES[cfg.bridge]
    bridge_input = value_dim(cfg) if bridge_class.reads_values else encoder_dim(cfg)
    return DecoderParts(
        embed_tokens=embed_tokens,
        cell_input=cell_input,
        recurrence=recurrence,
        bridge=bridge_class(bridge_input, cfg.decoder_hidden_size, cfg.decoder_layers, recurrence.state_tensors),
        query=Combination(query_sizes(cfg)),
        attention=attention,
        readout=readout,
        projection=projection,
        vocabulary=vocabulary,
        query_is_previous=query_is_previous,
        input_feeding=cfg.input_feeding == "on",
        scheduled_sampling=build_scheduled_sampling(cfg),
        dropout_in=dropout(cfg.decoder_dropout_in),
        dropout_out=dropout(cfg.decoder_dropout_out),
        max_target_positions=max_positions,
        matmul_dtype=MATMUL_DTYPES[cfg.matmul_dtype],
    )


def build_cell_input(cfg, query_is_previous: bool, feed_dim: int) -> Tuple[Combination, int]:
    """What enters the first layer beside the hoisted words, or with them where they are mapped; size of all of it."""
    fed = {"context": value_dim(cfg)} if query_is_previous else {}
    if cfg.input_feeding == "on":
        fed["feed"] = feed_dim
    if cfg.cell_input_dim is None:
        return Combination(fed), cfg.decoder_embed_dim + sum(fed.values())
    mapped = {"word": cfg.decoder_embed_dim, **fed}
    return Combination(mapped, cfg.cell_input_activation, cfg.cell_input_dim, bias=True), cfg.cell_input_dim


def build_vocabulary(cfg, embed_tokens: nn.Embedding, features: int) -> Tuple[Optional[nn.Linear], nn.Linear]:
    """The map before the vocabulary projection, where there is one, and that projection, tied where it is asked for."""
    projection = None
    if cfg.decoder_out_embed_dim is not None:
        projection = nn.Linear(features, cfg.decoder_out_embed_dim)
        features = cfg.decoder_out_embed_dim
    tied = cfg.share_decoder_input_output_embed or cfg.share_all_embeddings
    vocabulary = nn.Linear(features, embed_tokens.num_embeddings, bias=not tied)
    if tied:
        vocabulary.weight = embed_tokens.weight
    return projection, vocabulary


def build_scheduled_sampling(cfg) -> Optional[ScheduledSampling]:
    """None where the decoder always reads the true words."""
    if cfg.scheduled_sampling == "none":
        return None
    schedule = SCHEDULES[cfg.scheduled_sampling](cfg.scheduled_sampling_k, cfg.scheduled_sampling_slope)
    return ScheduledSampling(schedule, cfg.scheduled_sampling_floor, cfg.scheduled_sampling_word == "sample")


def initialize(model: nn.Module, cfg) -> None:
    """Where ``--parameter-init`` says so, linear maps and recurrent layers uniform in ±``INIT_BOUND``: embeddings have
    had their start, a score's own vectors and layer norms keep theirs. Then ``--forget-gate-bias``."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if cfg.parameter_init == "uniform" and isinstance(module, (nn.Linear, nn.RNNBase)):
            for parameter in module.parameters():
                if id(parameter) not in embeddings:
                    nn.init.uniform_(parameter, -INIT_BOUND, INIT_BOUND)
        if cfg.forget_gate_bias is not None and isinstance(module, RecurrentLayer):
            module.set_forget_gate_bias(cfg.forget_gate_bias)


PRESETS = {
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
}
"""Architectures for ``--arch``: only what differs from the dataclass."""


def _register_preset(name: str, values: dict) -> None:
    @register_model_architecture("attn_rnn", name)
    def preset(args):
        for option, value in values.items():
            setattr(args, option, getattr(args, option, value))


for _name, _values in PRESETS.items():
    _register_preset(_name, _values)
