"""From options to modules: what ``build_model`` puts together."""

from typing import Any, Dict, Mapping, Optional, Tuple, Union

from torch import Tensor, nn

from ..modules.attention.addressings import ADDRESSINGS
from ..modules.attention.attention import Attention
from ..modules.attention.heads import HeadKeys, MultiHeadAttention
from ..modules.attention.histories import HISTORIES
from ..modules.attention.normalizers import NORMALIZERS
from ..modules.attention.past import OwnPast
from ..modules.attention.scores import ATTENTION_DIM, ATTENTION_SCORES, POSITIONS, build_score
from ..modules.attention.windows import WINDOWS
from ..modules.combination import Combination
from ..modules.copying import CopyGate, symbol_map
from ..modules.options import arguments
from ..modules.output_normalizers import SPARSE_OUTPUTS
from ..modules.recurrence.cells import CELLS, RecurrentLayer
from ..modules.recurrence.shared_products import Linear
from ..modules.recurrence.stack import RecurrentStack
from ..modules.registry import Registry
from ..modules.scheduled_sampling import SCHEDULES, ScheduledSampling
from ..modules.trial import checked
from .bridge import BRIDGES, Bridge
from .config import option_of
from .decoder import AttnRNNDecoder
from .decoder_step import DecoderStep
from .dropout import Dropout
from .embedding import INIT_BOUND, build_embeddings
from .encoder import RNNEncoder
from .encoder_fronts import ENCODER_FRONTS, EncoderFront
from .precision import MATMUL_DTYPES
from .sizes import Sizes
from .trials import try_attention, try_bridge, try_cell, try_front


def build_encoder_decoder(cfg, sizes: Sizes, task) -> Tuple[RNNEncoder, AttnRNNDecoder]:
    """Both halves of a model, from a ``resolved`` config that has been checked."""
    embed_source, embed_target = build_embeddings(cfg, task.source_dictionary, task.target_dictionary)
    keys, attention = build_attention(cfg, sizes)
    source_positions, target_positions = task.max_positions()
    score_class = ATTENTION_SCORES.get(cfg.attention_score)
    if score_class is not None and score_class.size_option() == POSITIONS:
        source_positions = min(source_positions, sizes.key * 2**cfg.encoder_pyramid)
    encoder = RNNEncoder(
        task.source_dictionary,
        embed_source,
        build_front(cfg, sizes),
        build_encoder_recurrence(cfg, sizes, keys),
        None if sizes.output is None else nn.Linear(sizes.encoder, sizes.output, bias=False),
        Combination(sizes.values),
        keys,
        dropout_in=Dropout(cfg.encoder_dropout_in, module_name="RNNEncoder"),
        dropout_out=Dropout(cfg.encoder_dropout_out, module_name="RNNEncoder"),
        max_positions=source_positions,
        matmul_dtype=MATMUL_DTYPES[cfg.matmul_dtype],
        reads_language="language" in sizes.query,
        attention_values=None if sizes.value_dim is None else nn.Linear(sizes.found, sizes.value_dim, bias=False),
        splits=cfg.attention_key_value == "split",
        copy_map=build_copy_map(cfg, task.source_dictionary, task.target_dictionary),
        nothing=task.target_dictionary.pad(),
    )
    step = build_step(cfg, sizes, attention)
    projection, vocabulary = build_vocabulary(cfg, sizes, embed_target)
    decoder = AttnRNNDecoder(
        task.target_dictionary,
        embed_target,
        build_bridge(cfg, sizes, step.recurrence.state_tensors),
        step,
        projection,
        vocabulary,
        build_scheduled_sampling(cfg),
        dropout_in=Dropout(cfg.decoder_dropout_in, module_name="AttnRNNDecoder"),
        max_target_positions=target_positions,
        matmul_dtype=MATMUL_DTYPES[cfg.matmul_dtype],
        sparse_output=SPARSE_OUTPUTS.get(cfg.output_normalizer),
    )
    return encoder, decoder


AnyAttention = Union[Attention, MultiHeadAttention]


def build_attention(cfg, sizes: Sizes) -> Tuple[Optional[nn.Module], Optional[AnyAttention]]:
    """The two halves of the score, in their homes: key half for the encoder, ``Attention`` for the decoder."""
    if cfg.attention_score == "none":
        return None, None
    heads = [_build_head(cfg, sizes) for _ in range(cfg.attention_heads)]
    if len(heads) == 1:
        return heads[0]
    keys, attentions = zip(*heads)
    return HeadKeys(keys), MultiHeadAttention(attentions, sizes.value)


def _part(registry: Registry, name: str, cfg, **sizes: int):
    """The part that is called so in its table, of these sizes, by the names of its arguments; None for ``none``."""
    part_class = registry.get(name)
    if part_class is None:
        return None
    others = arguments(part_class.options, cfg)
    takes = f"takes ({', '.join(sizes)})"
    return checked(f"{registry.flag} {name}", part_class, "", lambda cls: cls(*sizes.values(), **others), takes)


def build_front(cfg, sizes: Sizes) -> Optional[EncoderFront]:
    """What stands between source embeddings and recurrence."""
    front = _part(ENCODER_FRONTS, cfg.encoder_front, cfg, size=sizes.source_word)
    if front is not None:
        try_front(f"{ENCODER_FRONTS.flag} {cfg.encoder_front}", front, sizes.source_word)
    return front


def _build_head(cfg, sizes: Sizes) -> Tuple[nn.Module, Attention]:
    """Key half and attention of one head, which has its share of keys and values."""
    query, heads, values = sum(sizes.query.values()), cfg.attention_heads, dict(cfg)
    if heads > 1 and ATTENTION_SCORES[cfg.attention_score].size_option() == ATTENTION_DIM:
        values[ATTENTION_DIM.name] = sizes.key // heads
    keys, attention, key = _build_scored(cfg.attention_score, cfg.attention_normalizer, query, sizes.found, values, cfg)
    value = sizes.value // heads
    attention.history = _part(
        HISTORIES, cfg.attention_history, cfg, key_dim=key, value_dim=value, query_dim=query
    )
    attention.window = _part(WINDOWS, cfg.attention_window, cfg, query_dim=query)
    attention.addressing = _part(ADDRESSINGS, cfg.attention_addressing, cfg, query_dim=query)
    tables: Dict[str, Registry] = {
        "normalizer": NORMALIZERS, "history": HISTORIES, "window": WINDOWS, "addressing": ADDRESSINGS
    }  # fmt: skip
    parts = {name: f"{table.flag} {cfg[option_of(table)]}" for name, table in tables.items()}
    try_attention(parts, attention, query, value)
    return keys, attention


def _build_scored(
    name: str, normalizer: str, query: int, value: int, values: Mapping[str, Any], cfg
) -> Tuple[nn.Module, Attention, int]:
    """Key half, attention of score and normaliser alone, and A.

    Args:
        name: of the score.
        normalizer: its name.
        query: Q, size of a query.
        value: of what the keys are made of.
        values: of the score's options.
    """
    keys, score = build_score(name, query, value, values)
    size_option = score.size_option()
    key = None if size_option is None else size_option.value(values)
    attention = Attention(
        score,
        _part(NORMALIZERS, normalizer, cfg),
        Linear(query, key, bias=False) if key is not None and score.projects_query(key) else None,
        Dropout(cfg.attention_dropout, module_name="Attention"),
    )
    return keys, attention, key or value


def build_past(cfg, sizes: Sizes) -> Optional[OwnPast]:
    """Attention over the decoder's own states; the options of its score have their defaults."""
    if cfg.attention_past == "off":
        return None
    values = {option.name: option.default for option in ATTENTION_SCORES.options()}
    values.update(attention_dim=cfg.attention_past_dim, decoder_hidden_size=sizes.decoder)
    score, normalizer, query = cfg.attention_past_score, cfg.attention_past_normalizer, sum(sizes.query.values())
    keys, attention, _ = _build_scored(score, normalizer, query, sizes.decoder, values, cfg)
    try_attention({"normalizer": f"--attention-past-normalizer {normalizer}"}, attention, query, sizes.decoder)
    return OwnPast(keys, attention, sizes.decoder)


def build_encoder_recurrence(cfg, sizes: Sizes, keys: Optional[nn.Module]) -> RecurrentStack:
    """The encoder's layers."""
    recurrence = RecurrentStack(
        cfg.cell,
        sizes.source_word,
        cfg.encoder_hidden_size,
        cfg.encoder_layers,
        bidirectional=cfg.encoder_direction == "bi",
        dropout=Dropout(cfg.encoder_dropout_out, module_name="RNNEncoder"),
        residual=cfg.residual_connections,
        layer_norm=cfg.layer_norm,
        options=arguments(CELLS[cfg.cell].options, cfg),
        pyramid=cfg.encoder_pyramid,
    )
    try_cell(f"{CELLS.flag} {cfg.cell}", recurrence.layers[0], sizes.source_word)
    if recurrence.norms is not None and keys is None and not BRIDGES[cfg.bridge].reads_values:
        recurrence.norms[-1] = nn.Identity()  # nothing reads the outputs of the top layer
    return recurrence


def build_step(cfg, sizes: Sizes, attention: Optional[AnyAttention]) -> DecoderStep:
    """One step of the decoder."""
    if cfg.cell_input_dim is None:
        cell_input = Combination(sizes.fed)
    else:
        inputs = {"word": sizes.target_word, **sizes.fed}
        cell_input = Combination(inputs, cfg.cell_input_activation, cfg.cell_input_dim, bias=True)
    readout = Combination(sizes.readout_inputs, cfg.readout_activation, cfg.readout_dim, cfg.readout_bias == "on")
    dropout_out = Dropout(cfg.decoder_dropout_out, module_name="AttnRNNDecoder")
    recurrence = RecurrentStack(
        cfg.cell,
        sizes.cell_input,
        cfg.decoder_hidden_size,
        cfg.decoder_layers,
        dropout=Dropout(cfg.decoder_dropout_out, module_name="AttnRNNDecoder"),
        residual=cfg.residual_connections,
        layer_norm=cfg.layer_norm,
        options=arguments(CELLS[cfg.cell].options, cfg),
    )
    try_cell(f"{CELLS.flag} {cfg.cell}", recurrence.layers[0], sizes.cell_input)
    return DecoderStep(
        past=build_past(cfg, sizes),
        cell_input=cell_input,
        recurrence=recurrence,
        query=Combination(sizes.query),
        attention=attention,
        readout=readout,
        dropout_out=dropout_out,
        query_is_previous=attention is not None and cfg.attention_query == "previous",
        input_feeding=cfg.input_feeding == "on",
        copy_gate=None if cfg["copy"] == "off" else CopyGate(sizes.decoder, sizes.target_word, sizes.context),
    )


def build_copy_map(cfg, source_dictionary, target_dictionary) -> Optional[Tensor]:
    """The target symbol of each source symbol; None where nothing is copied. ``<unk>`` is copied as itself, and what
    ends or begins a sentence is not."""
    if cfg["copy"] == "off":  # the attribute is a method of every config
        return None
    target = target_dictionary
    left_out = [target[i] for i in (target.bos(), target.pad(), target.eos())]
    return symbol_map(source_dictionary.symbols, target.symbols, left_out, target.pad())


def build_bridge(cfg, sizes: Sizes, state_tensors: int) -> Bridge:
    """The decoder's first state."""
    bridge_class = BRIDGES[cfg.bridge]
    size = sizes.value if bridge_class.reads_values else sizes.encoder
    bridge = _part(
        BRIDGES, cfg.bridge, cfg,
        encoder_dim=size, hidden_dim=sizes.decoder, num_layers=cfg.decoder_layers, state_tensors=state_tensors,
    )  # fmt: skip
    part = f"{BRIDGES.flag} {cfg.bridge}"
    try_bridge(part, bridge, cfg.encoder_layers, sizes.encoder, sizes.value, state_tensors)
    return bridge


def build_vocabulary(cfg, sizes: Sizes, embed_tokens: nn.Embedding) -> Tuple[Optional[Linear], Linear]:
    """The map before the vocabulary projection, where there is one, and that projection, tied where it is asked for."""
    projection = None
    if cfg.decoder_out_embed_dim is not None:
        projection = Linear(sizes.readout, cfg.decoder_out_embed_dim)
    tied = cfg.share_decoder_input_output_embed or cfg.share_all_embeddings
    vocabulary = Linear(sizes.vocabulary, embed_tokens.num_embeddings, bias=not tied)
    if tied:
        vocabulary.weight = embed_tokens.weight
    return projection, vocabulary


def build_scheduled_sampling(cfg) -> Optional[ScheduledSampling]:
    """None where the decoder always reads the true words."""
    schedule = _part(SCHEDULES, cfg.scheduled_sampling, cfg)
    if schedule is None:
        return None
    return ScheduledSampling(schedule, cfg.scheduled_sampling_floor, cfg.scheduled_sampling_word == "sample")


def initialize(model: nn.Module, cfg) -> None:
    """Where ``--parameter-init`` says so, linear maps and recurrent layers uniform in ±``INIT_BOUND``: embeddings have
    had their start, a score's own vectors and layer norms keep theirs. Then ``--forget-gate-bias``."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        if cfg.parameter_init == "uniform" and isinstance(module, (nn.Linear, nn.Conv1d, RecurrentLayer)):
            for parameter in module.parameters():
                if id(parameter) not in embeddings:
                    nn.init.uniform_(parameter, -INIT_BOUND, INIT_BOUND)
        set_bias = getattr(module, "set_forget_gate_bias", None)
        if cfg.forget_gate_bias is not None and set_bias is not None:
            set_bias(cfg.forget_gate_bias)
