"""Options of model ``attn_rnn``: those of the model as a whole, composed with those that its parts declare."""

from dataclasses import field, make_dataclass
from typing import Any, List, Mapping, Optional, Set, Tuple, Type

from fairseq import registry as fairseq_registry
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.dataclass import configs as fairseq_configs
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import DictConfig, OmegaConf

from ..modules.attention.addressings import ADDRESSINGS
from ..modules.attention.histories import HISTORIES
from ..modules.attention.normalizers import NORMALIZERS
from ..modules.attention.scores import ATTENTION_SCORES
from ..modules.attention.windows import WINDOWS
from ..modules.options import (
    Option,
    at_least_one,
    at_least_zero,
    copies,
    declare,
    dropout_probability,
    follow,
    probability,
)  # fmt: skip
from ..modules.output_normalizers import SPARSE_OUTPUTS
from ..modules.recurrence.cells import CELLS
from ..modules.registry import Registry
from ..modules.scheduled_sampling import SCHEDULES
from .bridge import BRIDGES
from .encoder_fronts import ENCODER_FRONTS
from .precision import MATMUL_DTYPES

REGISTRIES = (
    CELLS, ENCODER_FRONTS, BRIDGES, ATTENTION_SCORES, NORMALIZERS, HISTORIES, WINDOWS, ADDRESSINGS, SCHEDULES
)  # fmt: skip
"""Tables of parts; ``option_of`` has the name of the option that selects from each."""


def option_of(registry: Registry) -> str:
    """``--attention-score`` → ``attention_score``."""
    return registry.flag.removeprefix("--").replace("-", "_")


def _size(name: str, help: str, default: Optional[int] = None, fallback: Any = None) -> Option:
    return Option(name, int, default, help, check=at_least_one, fallback=fallback)


def _layers(name: str, help: str) -> Option:
    return Option(name, int, 1, help, check=copies)


def _dropout(name: str, help: str) -> Option:
    help = f"dropout {help} (default: --dropout)"
    return Option(name, float, None, help, check=dropout_probability, fallback=follow("dropout"))


def _choice(name: str, choices: Tuple[str, ...], default: str, help: str, neutral: Optional[str] = None) -> Option:
    return Option(name, str, default, help, choices=choices, neutral=neutral)


def _text(name: str, help: str, fallback: Any = None, neutral: Optional[str] = None) -> Option:
    return Option(name, str, None, help, fallback=fallback, neutral=neutral)


def _flag(name: str, help: str) -> Option:
    return Option(name, bool, False, help)


def _selects(registry: Registry, default: str, help: str) -> Option:
    return Option(option_of(registry), str, default, f"{help}: {registry.choices()}")


def _size_where_active(part: str):
    """A fallback: --decoder-hidden-size where the part has an activation, else nothing."""

    def fallback(values: Mapping[str, Any]) -> Optional[int]:
        return None if values[f"{part}_activation"] == "none" else values["decoder_hidden_size"]

    return fallback


def _readout_inputs(values: Mapping[str, Any]) -> str:
    return "state" if values["attention_score"] == "none" else "state,context"


def general_options() -> List[Option]:
    """Of encoder and decoder alike."""
    return [
        _selects(CELLS, "lstm", "recurrent cell of encoder and decoder"),
        Option("dropout", float, 0.1, "dropout probability wherever no option of its own is given",
               check=dropout_probability),
        _choice("parameter_init", ("uniform", "torch"), "uniform",
                "linear maps, recurrent layers and embeddings uniform in ±0.1, or torch's own start (embeddings normal "
                "with deviation 1)"),
        *CELLS.options(),
        _flag("residual_connections", "add a layer's input to its output, from the second layer on"),
        _flag("layer_norm", "normalise the outputs of every recurrent layer"),
        _choice("matmul_dtype", tuple(MATMUL_DTYPES), "float32",
                "type of the matrix products, in training and decoding; parameters, the decoder's state, softmax, "
                "logits and loss stay float32"),
    ]  # fmt: skip


def encoder_options() -> List[Option]:
    """Of the encoder."""
    return [
        _size("encoder_embed_dim", "size of a source embedding", 512),
        _text("encoder_embed_path",
              "pretrained source embeddings: text, in the first line their number and size, then a symbol and its "
              "numbers a line"),
        _flag("encoder_freeze_embed", "do not train the source embeddings"),
        _size("encoder_hidden_size", "size of an encoder state, each direction (default: --encoder-embed-dim)",
              fallback=follow("encoder_embed_dim")),
        _layers("encoder_layers", "encoder layers"),
        _choice("encoder_direction", ("uni", "bi"), "uni",
                "read the source forwards only, or both ways in every layer"),
        _selects(ENCODER_FRONTS, "none", "between source embeddings and recurrence"),
        *ENCODER_FRONTS.options(),
        Option("encoder_pyramid", int, 0,
               "from the second encoder layer on, that many layers read pairs of neighbours, which halves the length "
               "each time", check=at_least_zero),
        _dropout("encoder_dropout_in", "on source embeddings"),
        _dropout("encoder_dropout_out", "between encoder layers and on encoder outputs"),
    ]  # fmt: skip


def decoder_options() -> List[Option]:
    """Of the decoder, its embeddings and its vocabulary projection."""
    return [
        _size("decoder_embed_dim", "size of a target embedding", 512),
        _text("decoder_embed_path",
              "pretrained target embeddings: text, in the first line their number and size, then a symbol and its "
              "numbers a line"),
        _flag("decoder_freeze_embed", "do not train the target embeddings"),
        _size("decoder_hidden_size", "size of a decoder state (default: --decoder-embed-dim)",
              fallback=follow("decoder_embed_dim")),
        _layers("decoder_layers", "decoder layers; need not equal --encoder-layers"),
        _dropout("decoder_dropout_in", "on target embeddings"),
        _dropout("decoder_dropout_out", "between decoder layers and on the readout"),
        _size("decoder_out_embed_dim",
              "one more linear map, from the readout to this size, before the vocabulary projection"),
        _flag("share_decoder_input_output_embed", "the vocabulary projection is the target embedding"),
        _flag("share_all_embeddings",
              "one table for source, target and vocabulary projection; joined dictionary"),
        _selects(BRIDGES, "copy", "decoder's first state from the encoder's last"),
        *BRIDGES.options(),
    ]  # fmt: skip


def attention_options() -> List[Option]:
    """Those that mean nothing without attention, where they may be given their neutral value."""
    normalizer = _selects(NORMALIZERS, "softmax", "scores to weights")
    return [
        *ATTENTION_SCORES.options(),
        normalizer,
        *NORMALIZERS.options(),
        _choice("attention_query", ("previous", "current"), "current",
                "query from the state before the step (context enters the cell) or after it"),
        _text("attention_query_inputs",
              "what the query is made of, a subset of state,word,context,language; word and context are those that "
              "came before, language is the source embedding of the tag that --tag-target puts first (default: state)",
              "state", neutral="state"),
        _text("attention_value_inputs",
              "what the attention finds at a source position: state (the encoder's output), or state,word (with the "
              "word's embedding beside it, for the score and the context; default: state)", "state", neutral="state"),
        _size("encoder_output_dim", "map the encoder's output to this size, before keys and values are made of it"),
        Option("attention_dropout", float, 0.0, "dropout on attention weights", check=dropout_probability),
        _choice("input_feeding", ("on", "off"), "on", "the readout of a step enters the cell at the next one", "off"),
        _choice("copy", ("off", "on"), "off",
                "part of a word's probability is that of the attention on the source words that are the same"),
        *memory_options(),
        *value_options(),
    ]  # fmt: skip


def memory_options() -> List[Option]:
    """What the attention remembers, and where it may look."""
    return [
        _selects(HISTORIES, "none", "what was attended to so far becomes part of the keys"),
        *HISTORIES.options(),
        _selects(WINDOWS, "none", "the attention looks at a stretch of the source alone"),
        *WINDOWS.options(),
        _selects(ADDRESSINGS, "none", "where the attention looks follows from where it has looked"),
        *ADDRESSINGS.options(),
        _choice("attention_past", ("on", "off"), "off",
                "a second attention, over the decoder's own earlier states; its context stands beside the other one"),
        _text("attention_past_score", "score of that attention (default: general)", "general", neutral="general"),
        _text("attention_past_normalizer", "normaliser of that attention (default: softmax)", "softmax",
              neutral="softmax"),
        _size("attention_past_dim", "project the query and the earlier states to this size (default: as they are; "
              "additive and its kin: --decoder-hidden-size)"),
    ]  # fmt: skip


def value_options() -> List[Option]:
    """Heads, and what a context is made of."""
    return [
        Option("attention_heads", int, 1,
               "attentions side by side, each with keys, query and values of its own and 1/N of the sizes; the weights "
               "returned are their mean", check=copies),
        _choice("attention_key_value", ("shared", "split"), "shared",
                "split: half of the encoder's output is key, half is value"),
        _size("attention_value_dim", "map the values, but not the keys, to this size (default: as they are; with "
              "several heads the size that they have)"),
    ]  # fmt: skip


def output_options() -> List[Option]:
    """Of the readout, the cell's input and the output."""
    return [
        _text("readout_inputs",
              "what the readout sees, a subset of state,word,context (default: state,context; without attention: "
              "state)", _readout_inputs),
        _choice("readout_activation", ("none", "tanh", "maxout"), "tanh",
                "tanh: after a linear map; maxout: the larger of each pair after a linear map; none: linear, or "
                "nothing without --readout-dim"),
        _size("readout_dim", "size of the readout (default: --decoder-hidden-size; for none its inputs as they are)",
              fallback=_size_where_active("readout")),
        _choice("readout_bias", ("on", "off"), "off", "a bias in the readout's linear map"),
        _choice("cell_input_activation", ("none", "tanh", "relu"), "none",
                "after a linear map of the cell's inputs; none: linear, or nothing without --cell-input-dim"),
        _size("cell_input_dim", "size of that map (default: --decoder-hidden-size; for none the inputs as they are)",
              fallback=_size_where_active("cell_input")),
        _choice("output_normalizer", ("softmax", *SPARSE_OUTPUTS), "softmax",
                "scores of the vocabulary to probabilities; with entmax15 and sparsemax, which need --criterion "
                "entmax_loss, most are zero"),
    ]  # fmt: skip


def sampling_options() -> List[Option]:
    """Of scheduled sampling."""
    return [
        _selects(SCHEDULES, "none",
                 "in training, read the model's own word in place of the true one at times; the decoder then runs step "
                 "by step. The probability of the true word over the updates (none: always 1)"),
        *SCHEDULES.options(),
        Option("scheduled_sampling_floor", float, 0.0, "the probability of the true word never falls below this",
               check=probability),
        _choice("scheduled_sampling_word", ("argmax", "sample"), "argmax",
                "the model's most probable word, or one drawn from its distribution"),
    ]  # fmt: skip


def all_options() -> List[Option]:
    """Every option of the model, each once."""
    score = _selects(ATTENTION_SCORES, "general", "score of query and keys")
    return [
        *general_options(), *encoder_options(), *decoder_options(), score, *attention_options(), *output_options(),
        *sampling_options(),
    ]  # fmt: skip


def compose() -> Type[FairseqDataclass]:
    """The dataclass that is parser, config and documentation at once.

    Raises:
        ValueError: an option of a part has the name of another option, of the model or of fairseq, which would take its
            value without a word.
    """
    options, theirs = all_options(), fairseq_names()
    part_options = {option.name: registry.owner(option) for registry in REGISTRIES for option in registry.options()}
    theirs |= names_of_other_tables() & set(part_options)
    declare([option for option in options if option.name not in part_options], "model attn_rnn")
    names: Set[str] = set()
    for option in options:
        if option.name in names or option.name in theirs:
            whose = "fairseq" if option.name in theirs else "model attn_rnn or of another table"
            owner = part_options.get(option.name, "model attn_rnn")
            raise ValueError(f"{owner}: option {option.name} has the name of one of {whose}; rename it")
        names.add(option.name)
    document = "Options of ``attn_rnn``. What fairseq's ``lstm`` has too keeps its flag and its meaning."
    return make_dataclass(
        "AttnRNNConfig",
        [_field(option) for option in options],
        bases=(FairseqDataclass,),
        namespace={"__doc__": document, "__module__": __name__},
    )


def fairseq_names() -> Set[str]:
    """Fields of fairseq's own configs, of which all commands make options."""
    groups = [value for value in vars(fairseq_configs).values() if hasattr(value, "__dataclass_fields__")]
    return {name for group in groups for name in group.__dataclass_fields__} - {"_name"}


def names_of_other_tables() -> Set[str]:
    """Options of fairseq's tasks, criterions, optimisers and the like, and those that choose among them."""
    tables = [TASK_DATACLASS_REGISTRY, *(kind["dataclass_registry"] for kind in fairseq_registry.REGISTRIES.values())]
    configs = [config for table in tables for config in table.values() if config is not None]
    names = {name for config in configs for name in config.__dataclass_fields__}
    return names | set(fairseq_registry.REGISTRIES) | {"arch", "task"}


def _field(option: Option) -> tuple:
    """As fairseq's parser wants it: a type without quotation marks, help in the metadata."""
    kind: Any = option.type if option.choices is None else ChoiceEnum(list(option.choices))
    kind = Optional[kind] if option.default is None else kind
    return option.name, kind, field(default=option.default, metadata={"help": option.help})


def resolved(cfg: DictConfig) -> DictConfig:
    """A copy in which options that follow others have their values. Options of parts stay as they are given: what None
    stands for is for each part to say."""
    cfg = cfg.copy()
    of_parts = {option.name for registry in REGISTRIES for option in registry.options()}
    for option in all_options():
        if option.name not in of_parts:
            OmegaConf.update(cfg, option.name, option.value(cfg))
    return cfg
