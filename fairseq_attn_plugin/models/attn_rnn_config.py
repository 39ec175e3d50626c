"""Options of model ``attn_rnn``, and what follows from them."""

from dataclasses import dataclass, field
from typing import Dict, List, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from ..modules.attention_scores import ATTENTION_SCORES
from ..modules.normalizers import NORMALIZERS
from ..modules.recurrent_cells import CELLS
from ..modules.scheduled_sampling import SCHEDULES
from .bridge import BRIDGES
from .precision import MATMUL_DTYPES

POSITIONS = "attention_location_positions"
LOCATION_POSITIONS = 1024
"""As many as fairseq's tasks allow by default."""


def _choices(registry) -> str:
    return ", ".join(registry.names())


@dataclass
class AttnRNNConfig(FairseqDataclass):
    """Options of ``attn_rnn``. What fairseq's ``lstm`` has too keeps its flag and its meaning."""

    cell: str = field(default="lstm", metadata={"help": f"recurrent cell of encoder and decoder: {_choices(CELLS)}"})
    dropout: float = field(default=0.1, metadata={"help": "dropout probability wherever no option of its own is given"})

    parameter_init: ChoiceEnum(["uniform", "torch"]) = field(
        default="uniform",
        metadata={"help": "linear maps, recurrent layers and embeddings uniform in ±0.1, or torch's own start "
                          "(embeddings normal with deviation 1)"},
    )
    forget_gate_bias: Optional[float] = field(
        default=None, metadata={"help": "start of the bias of every LSTM forget gate (default: as --parameter-init)"}
    )
    residual_connections: bool = field(
        default=False, metadata={"help": "add a layer's input to its output, from the second layer on"}
    )
    layer_norm: bool = field(default=False, metadata={"help": "normalise the outputs of every recurrent layer"})

    matmul_dtype: ChoiceEnum(list(MATMUL_DTYPES)) = field(
        default="float32",
        metadata={"help": "type of the matrix products, in training and decoding; parameters, the decoder's state, "
                          "softmax, logits and loss stay float32"},
    )

    encoder_embed_dim: int = field(default=512, metadata={"help": "size of a source embedding"})
    encoder_embed_path: Optional[str] = field(
        default=None, metadata={"help": "pretrained source embeddings: text, one symbol and its numbers a line"}
    )
    encoder_freeze_embed: bool = field(default=False, metadata={"help": "do not train the source embeddings"})
    encoder_hidden_size: Optional[int] = field(
        default=None, metadata={"help": "size of an encoder state, each direction (default: --encoder-embed-dim)"}
    )
    encoder_layers: int = field(default=1, metadata={"help": "encoder layers"})
    encoder_direction: ChoiceEnum(["uni", "bi"]) = field(
        default="uni", metadata={"help": "read the source forwards only, or both ways in every layer"}
    )
    encoder_dropout_in: Optional[float] = field(
        default=None, metadata={"help": "dropout on source embeddings (default: --dropout)"}
    )
    encoder_dropout_out: Optional[float] = field(
        default=None, metadata={"help": "dropout between encoder layers and on encoder outputs (default: --dropout)"}
    )

    decoder_embed_dim: int = field(default=512, metadata={"help": "size of a target embedding"})
    decoder_embed_path: Optional[str] = field(
        default=None, metadata={"help": "pretrained target embeddings: text, one symbol and its numbers a line"}
    )
    decoder_freeze_embed: bool = field(default=False, metadata={"help": "do not train the target embeddings"})
    decoder_hidden_size: Optional[int] = field(
        default=None, metadata={"help": "size of a decoder state (default: --decoder-embed-dim)"}
    )
    decoder_layers: int = field(default=1, metadata={"help": "decoder layers; need not equal --encoder-layers"})
    decoder_dropout_in: Optional[float] = field(
        default=None, metadata={"help": "dropout on target embeddings (default: --dropout)"}
    )
    decoder_dropout_out: Optional[float] = field(
        default=None, metadata={"help": "dropout between decoder layers and on the readout (default: --dropout)"}
    )
    decoder_out_embed_dim: Optional[int] = field(
        default=None,
        metadata={"help": "one more linear map, from the readout to this size, before the vocabulary projection"},
    )
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "the vocabulary projection is the target embedding"}
    )
    share_all_embeddings: bool = field(
        default=False, metadata={"help": "one table for source, target and vocabulary projection; joined dictionary"}
    )

    bridge: str = field(
        default="copy", metadata={"help": f"decoder's first state from the encoder's last: {_choices(BRIDGES)}"}
    )
    attention_score: str = field(
        default="general", metadata={"help": f"score of query and keys: none, {_choices(ATTENTION_SCORES)}"}
    )
    attention_dim: Optional[int] = field(
        default=None,
        metadata={"help": "project query and keys to this size (default: as they are; additive and its kin: "
                          "--decoder-hidden-size)"},
    )
    attention_bias: Optional[ChoiceEnum(["on", "off"])] = field(
        default=None,
        metadata={"help": "a bias in the score, for additive and its kin, general and location (default: on for "
                          "additive and normed_additive, else off)"},
    )
    attention_location_positions: Optional[int] = field(
        default=None,
        metadata={"help": "source positions that --attention-score location knows, a limit as --max-source-positions "
                          f"is (default: {LOCATION_POSITIONS})"},
    )
    attention_normalizer: str = field(
        default="softmax", metadata={"help": f"scores to weights: {_choices(NORMALIZERS)}"}
    )
    attention_query: ChoiceEnum(["previous", "current"]) = field(
        default="current",
        metadata={"help": "query from the state before the step (context enters the cell) or after it"},
    )
    attention_query_inputs: Optional[str] = field(
        default=None,
        metadata={"help": "what the query is made of, a subset of state,word,context; word and context are those that "
                          "came before (default: state)"},
    )
    attention_value_inputs: Optional[str] = field(
        default=None,
        metadata={"help": "what the attention finds at a source position: state (the encoder's output), or state,word "
                          "(with the word's embedding beside it, for the score and the context; default: state)"},
    )
    attention_dropout: float = field(default=0.0, metadata={"help": "dropout on attention weights"})
    input_feeding: ChoiceEnum(["on", "off"]) = field(
        default="on", metadata={"help": "the readout of a step enters the cell at the next one"}
    )
    readout_inputs: Optional[str] = field(
        default=None,
        metadata={"help": "what the readout sees, a subset of state,word,context (default: state,context; without "
                          "attention: state)"},
    )
    readout_activation: ChoiceEnum(["none", "tanh", "maxout"]) = field(
        default="tanh",
        metadata={"help": "tanh: after a linear map; maxout: the larger of each pair after a linear map; none: linear, "
                          "or nothing without --readout-dim"},
    )
    readout_dim: Optional[int] = field(
        default=None,
        metadata={"help": "size of the readout (default: --decoder-hidden-size; for none its inputs as they are)"},
    )
    cell_input_activation: ChoiceEnum(["none", "tanh", "relu"]) = field(
        default="none", metadata={"help": "after a linear map of the cell's inputs; none: linear, or nothing without "
                                          "--cell-input-dim"},
    )
    cell_input_dim: Optional[int] = field(
        default=None,
        metadata={"help": "size of that map (default: --decoder-hidden-size; for none the inputs as they are)"},
    )

    scheduled_sampling: str = field(
        default="none",
        metadata={"help": "in training, read the model's own word in place of the true one; the probability of the "
                          f"true word over the updates: none (always 1), {_choices(SCHEDULES)}. The decoder then runs "
                          "step by step"},
    )
    scheduled_sampling_k: Optional[float] = field(
        default=None,
        metadata={"help": "k of constant k, linear k-slope*i, exponential k^i, inverse_sigmoid k/(k+exp(i/k)) at "
                          "update i"},
    )
    scheduled_sampling_slope: Optional[float] = field(default=None, metadata={"help": "slope of linear"})
    scheduled_sampling_floor: float = field(
        default=0.0, metadata={"help": "the probability of the true word never falls below this"}
    )
    scheduled_sampling_word: ChoiceEnum(["argmax", "sample"]) = field(
        default="argmax", metadata={"help": "the model's most probable word, or one drawn from its distribution"}
    )


def flag(option: str) -> str:
    """``attention_dim`` → ``--attention-dim``."""
    return "--" + option.replace("_", "-")


def encoder_dim(cfg) -> int:
    """Size of an encoder output, and of an encoder layer's state."""
    return cfg.encoder_hidden_size * (2 if cfg.encoder_direction == "bi" else 1)


def value_sizes(cfg) -> Dict[str, int]:
    """Inputs of a value and their sizes, in their order in it; see ``_subset``."""
    given = cfg.attention_value_inputs
    sizes = {"state": encoder_dim(cfg), "word": cfg.encoder_embed_dim}
    return _subset("attention_value_inputs", "state" if given is None else given, sizes)


def value_dim(cfg) -> int:
    """M, size of a value, and of a context."""
    return sum(value_sizes(cfg).values())


def fill_defaults(cfg) -> None:
    """Options that default to others get their values."""
    if cfg.encoder_hidden_size is None:
        cfg.encoder_hidden_size = cfg.encoder_embed_dim
    if cfg.decoder_hidden_size is None:
        cfg.decoder_hidden_size = cfg.decoder_embed_dim
    for name in ("encoder_dropout_in", "encoder_dropout_out", "decoder_dropout_in", "decoder_dropout_out"):
        if cfg[name] is None:
            cfg[name] = cfg.dropout
    if cfg.readout_inputs is None:
        cfg.readout_inputs = "state" if cfg.attention_score == "none" else "state,context"
    for part in ("readout", "cell_input"):
        if cfg[f"{part}_dim"] is None and cfg[f"{part}_activation"] != "none":
            cfg[f"{part}_dim"] = cfg.decoder_hidden_size


def attention_size(cfg) -> Optional[int]:
    """A, what the score's option says or defaults to; None = the keys are the values."""
    score = ATTENTION_SCORES[cfg.attention_score]
    defaults = {None: None, "attention_dim": cfg.decoder_hidden_size, POSITIONS: LOCATION_POSITIONS}
    if score.size_option not in defaults:
        raise ValueError(
            f"--attention-score {cfg.attention_score}: {score.__qualname__}.size_option is {score.size_option!r}; "
            f"choose from {', '.join(map(str, defaults))}"
        )
    given = score.size_option and cfg[score.size_option]
    return given or (defaults[score.size_option] if score.always_projects else None)


def readout_sizes(cfg) -> Dict[str, int]:
    """Inputs of the readout and their sizes, in the order of the columns of its matrix; see ``_subset``."""
    return _subset("readout_inputs", cfg.readout_inputs, _step_sizes(cfg))


def query_sizes(cfg) -> Dict[str, int]:
    """The same for the query; nothing without attention."""
    if cfg.attention_score == "none":
        return {}
    given = cfg.attention_query_inputs
    return _subset("attention_query_inputs", "state" if given is None else given, _step_sizes(cfg))


def _step_sizes(cfg) -> Dict[str, int]:
    """What the decoder knows at a step."""
    return {"state": cfg.decoder_hidden_size, "word": cfg.decoder_embed_dim, "context": value_dim(cfg)}


def _subset(option: str, value: str, sizes: Dict[str, int]) -> Dict[str, int]:
    """Those of ``sizes`` that ``value`` names, in their order.

    Raises:
        ValueError: it names something else, or something twice.
    """
    names: List[str] = [name.strip() for name in value.split(",")]
    unknown = [name for name in names if name not in sizes]
    if unknown or len(set(names)) < len(names):
        what = f"got {unknown[0]!r}" if unknown else f"a name twice in {value!r}"
        raise ValueError(f"{flag(option)}: {what}; give a subset of {','.join(sizes)}")
    return {name: size for name, size in sizes.items() if name in names}
