"""From options to modules: what ``build_model`` puts together."""

from typing import Optional, Tuple

from torch import nn

from ..modules.attention.attention import Attention
from ..modules.attention.normalizers import NORMALIZERS
from ..modules.attention.scores import POSITIONS, build_score
from ..modules.combination import Combination
from ..modules.options import arguments
from ..modules.recurrence.cells import CELLS, RecurrentLayer
from ..modules.recurrence.shared_products import Linear
from ..modules.recurrence.stack import RecurrentStack
from ..modules.scheduled_sampling import SCHEDULES, ScheduledSampling
from .bridge import BRIDGES, Bridge
from .decoder import AttnRNNDecoder
from .decoder_step import DecoderStep
from .dropout import Dropout
from .embedding import INIT_BOUND, build_embeddings
from .encoder import RNNEncoder
from .encoder_fronts import ENCODER_FRONTS, EncoderFront
from .precision import MATMUL_DTYPES
from .sizes import Sizes


def build_encoder_decoder(cfg, sizes: Sizes, task) -> Tuple[RNNEncoder, AttnRNNDecoder]:
    """Both halves of a model, from a ``resolved`` config that has been checked."""
    embed_source, embed_target = build_embeddings(cfg, task.source_dictionary, task.target_dictionary)
    keys, attention = build_attention(cfg, sizes)
    source_positions, target_positions = task.max_positions()
    if attention is not None and attention.score.size_option() == POSITIONS:
        source_positions = min(source_positions, sizes.key * 2**cfg.encoder_pyramid)
    encoder = RNNEncoder(
        task.source_dictionary,
        embed_source,
        build_encoder_front(cfg, sizes),
        build_encoder_recurrence(cfg, sizes, keys),
        None if sizes.output is None else nn.Linear(sizes.encoder, sizes.output, bias=False),
        Combination(sizes.values),
        keys,
        dropout_in=Dropout(cfg.encoder_dropout_in, module_name="RNNEncoder"),
        dropout_out=Dropout(cfg.encoder_dropout_out, module_name="RNNEncoder"),
        max_positions=source_positions,
        matmul_dtype=MATMUL_DTYPES[cfg.matmul_dtype],
        reads_language="language" in sizes.query,
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
    )
    return encoder, decoder


def build_attention(cfg, sizes: Sizes) -> Tuple[Optional[nn.Module], Optional[Attention]]:
    """The two halves of the score, in their homes: key half for the encoder, ``Attention`` for the decoder."""
    if cfg.attention_score == "none":
        return None, None
    query, key = sum(sizes.query.values()), sizes.key
    keys, score = build_score(cfg.attention_score, query, sizes.value, cfg)
    normalizer_class = NORMALIZERS[cfg.attention_normalizer]
    attention = Attention(
        score,
        normalizer_class(**arguments(normalizer_class.options, cfg)),
        query_projection=None if key is None or not score.projects_query(key) else Linear(query, key, bias=False),
        dropout=Dropout(cfg.attention_dropout, module_name="Attention"),
    )
    return keys, attention


def build_encoder_front(cfg, sizes: Sizes) -> Optional[EncoderFront]:
    """What stands before the encoder's layers; None where nothing does."""
    front_class = ENCODER_FRONTS.get(cfg.encoder_front)
    return None if front_class is None else front_class(sizes.source_word, **arguments(front_class.options, cfg))


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
    if recurrence.norms is not None and keys is None and not BRIDGES[cfg.bridge].reads_values:
        recurrence.norms[-1] = nn.Identity()  # nothing reads the outputs of the top layer
    return recurrence


def build_step(cfg, sizes: Sizes, attention: Optional[Attention]) -> DecoderStep:
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
    return DecoderStep(
        cell_input=cell_input,
        recurrence=recurrence,
        query=Combination(sizes.query),
        attention=attention,
        readout=readout,
        dropout_out=dropout_out,
        query_is_previous=attention is not None and cfg.attention_query == "previous",
        input_feeding=cfg.input_feeding == "on",
    )


def build_bridge(cfg, sizes: Sizes, state_tensors: int) -> Bridge:
    """The decoder's first state."""
    bridge_class = BRIDGES[cfg.bridge]
    size = sizes.value if bridge_class.reads_values else sizes.encoder
    others = arguments(bridge_class.options, cfg)
    return bridge_class(size, sizes.decoder, cfg.decoder_layers, state_tensors, **others)


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
    schedule_class = SCHEDULES.get(cfg.scheduled_sampling)
    if schedule_class is None:
        return None
    schedule = schedule_class(**arguments(schedule_class.options, cfg))
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
