"""Checks of the options of ``attn_rnn``: one line of error with flag, value and remedy."""

import re
from pathlib import Path

from ..data.data_folder import is_tag, tag
from ..modules.attention.addressings import ADDRESSINGS
from ..modules.attention.normalizers import NORMALIZERS
from ..modules.attention.scores import ATTENTION_DIM, ATTENTION_SCORES
from ..modules.options import LEFT_OUT, PRESET, arguments, flag
from ..modules.scheduled_sampling import SCHEDULES
from .bridge import BRIDGES
from .config import REGISTRIES, all_options, attention_options, memory_options, option_of
from .sizes import Sizes

FILLED_UP = re.compile(r"madeupword\d+")
"""Symbols with which fairseq makes the size of a dictionary a multiple of eight."""


def check_names(cfg) -> None:
    """Raises a ValueError where a part is asked for that is not registered, or a value cannot be by itself."""
    for registry in REGISTRIES:
        registry.get(cfg[option_of(registry)])
    for option in all_options():
        option.check_value(cfg[option.name])


def check_config(cfg, sizes: Sizes, source_dictionary, target_dictionary) -> None:
    """Raises a ValueError for the first combination of options in ``cfg``, a ``resolved`` one, that cannot be."""
    _check_recurrence(cfg, sizes)
    _check_pyramid(cfg)
    if not {"state", "context"} & set(sizes.readout_inputs):
        raise ValueError(
            f"--readout-inputs {cfg.readout_inputs}: the output would not depend on the source; add state or context"
        )
    if cfg.readout_bias == "on" and sizes.readout_dim is None:
        raise ValueError(
            "--readout-bias on: --readout-activation none has a linear map only where --readout-dim is given; give "
            "--readout-dim, or use --readout-bias off"
        )
    if cfg.attention_score == "none":
        _check_without_attention(cfg, sizes)
    else:
        _check_attention(cfg, sizes)
        _check_language(cfg, sizes, source_dictionary)
    for registry in REGISTRIES:
        registry.check_options(cfg[option_of(registry)], cfg)
    _check_copying(cfg, source_dictionary, target_dictionary)
    _check_scheduled_sampling(cfg)
    _check_embeddings(cfg, sizes, source_dictionary, target_dictionary)


def _check_recurrence(cfg, sizes: Sizes) -> None:
    bridge = BRIDGES[cfg.bridge]
    if bridge.needs_equal_sizes and sizes.encoder != sizes.decoder:
        raise ValueError(
            f"--bridge {cfg.bridge}: the encoder's state has {sizes.encoder} numbers"
            f"{' (both directions)' if cfg.encoder_direction == 'bi' else ''}, --decoder-hidden-size is "
            f"{sizes.decoder}; use --bridge linear, or --decoder-hidden-size {sizes.encoder}"
        )
    if bridge.needs_backward_encoder and cfg.encoder_direction != "bi":
        raise ValueError(
            f"--bridge {cfg.bridge}: --encoder-direction {cfg.encoder_direction} has no backward encoder; "
            "use --encoder-direction bi, or --bridge tanh"
        )
    if cfg.residual_connections and cfg.encoder_layers == cfg.decoder_layers == 1:
        raise ValueError(
            "--residual-connections: they start at the second layer, and --encoder-layers and --decoder-layers are 1; "
            "leave it out, or give more layers"
        )


def _check_pyramid(cfg) -> None:
    if cfg.encoder_pyramid >= cfg.encoder_layers:
        raise ValueError(
            f"--encoder-pyramid {cfg.encoder_pyramid}: layers from the second on read pairs, and --encoder-layers is "
            f"{cfg.encoder_layers}; use --encoder-pyramid {cfg.encoder_layers - 1}, or give more layers"
        )
    if cfg.residual_connections and cfg.encoder_layers == cfg.encoder_pyramid + 1 and cfg.decoder_layers == 1:
        raise ValueError(
            f"--residual-connections: layers that read pairs (--encoder-pyramid {cfg.encoder_pyramid}) have none, and "
            "no other layer could; leave it out, or give more layers"
        )


def _check_attention(cfg, sizes: Sizes) -> None:
    score = ATTENTION_SCORES[cfg.attention_score]
    if cfg.attention_query == "current" and "context" not in sizes.readout_inputs:
        raise ValueError(
            f"--readout-inputs {cfg.readout_inputs}: with --attention-query current the context enters nothing but the "
            "readout; add context, or use --attention-query previous, or --attention-score none"
        )
    if "state" not in sizes.readout_inputs and not (score.reads_query and "state" in sizes.query):
        raise ValueError(
            f"--readout-inputs {cfg.readout_inputs}: neither the readout nor the query reads the decoder's state; add "
            "state"
        )
    if not score.reads_query:
        _check_fixed_weights(cfg, sizes)
    _check_memory(cfg, sizes)
    _check_heads(cfg, sizes)
    if "state" not in sizes.values:
        raise ValueError(
            f"--attention-value-inputs {cfg.attention_value_inputs}: the attention would not read what the encoder's "
            "recurrence makes of the words; add state"
        )
    ATTENTION_SCORES.check_options(cfg.attention_score, cfg)
    query = sum(sizes.query.values())
    if score.needs_equal_sizes and sizes.key is None and query != sizes.found:
        made_of = "--decoder-hidden-size" if list(sizes.query) == ["state"] else "--attention-query-inputs"
        found = "the encoder's outputs" if list(sizes.values) == ["state"] else "--attention-value-inputs"
        raise ValueError(
            f"--attention-score {cfg.attention_score}: the query has {query} numbers ({made_of}), {found} "
            f"{sizes.found}; give --attention-dim to project both, or make them equal"
        )


def _check_language(cfg, sizes: Sizes, source_dictionary) -> None:
    """A query that reads the language needs tags, and more than the language, which is the same at every step."""
    if "language" not in sizes.query:
        return
    given = f"--attention-query-inputs {cfg.attention_query_inputs}"
    if not any(map(is_tag, source_dictionary.symbols)):
        raise ValueError(
            f"{given}: the source dictionary has no tag of a language, as {tag('LANG')}; make the data folder with "
            "--tag-target, or leave language out"
        )
    if list(sizes.query) == ["language"]:
        raise ValueError(f"{given}: the query would be the same at every step; add state")


def _check_fixed_weights(cfg, sizes: Sizes) -> None:
    """What a score that does not read the query makes idle is an error, never dropped in silence."""
    given = f"--attention-score {cfg.attention_score}"
    if list(sizes.query) != ["state"]:
        raise ValueError(
            f"--attention-query-inputs {cfg.attention_query_inputs}: {given} does not read the query; use "
            "--attention-query-inputs state"
        )
    neutral = dict(
        attention_normalizer="softmax", attention_history="none", attention_window="none", attention_addressing="none",
        copy="off",
    )  # fmt: skip
    for name, value in neutral.items():
        if cfg[name] != value:
            raise ValueError(f"{flag(name)} {cfg[name]}: the weights of {given} are fixed; use {flag(name)} {value}")


def _check_memory(cfg, sizes: Sizes) -> None:
    """Keys, history, addressing and the decoder's own past."""
    if cfg.attention_key_value == "split" and not ATTENTION_SCORES[cfg.attention_score].reads_keys:
        raise ValueError(
            f"--attention-key-value split: --attention-score {cfg.attention_score} reads no keys, and half of the "
            "encoder's output would go nowhere; use --attention-key-value shared"
        )
    if cfg.attention_history != "none" and not ATTENTION_SCORES[cfg.attention_score].reads_keys:
        raise ValueError(
            f"--attention-history {cfg.attention_history}: it is part of the keys, and --attention-score "
            f"{cfg.attention_score} reads none; use --attention-history none, or a score such as general or additive"
        )
    addressing = ADDRESSINGS.get(cfg.attention_addressing)
    if addressing is not None and addressing.takes_scores and cfg.attention_normalizer != "softmax":
        raise ValueError(
            f"--attention-normalizer {cfg.attention_normalizer}: --attention-addressing {cfg.attention_addressing} "
            "makes weights of the scores itself; use --attention-normalizer softmax, its neutral value"
        )
    if cfg.attention_past == "on":
        _check_past(cfg, sizes)
        return
    for option in memory_options():
        value = cfg[option.name]
        if option.name.startswith("attention_past_") and not option.says_nothing(value):
            given = f"{option.flag} {value}"
            raise ValueError(f"{given}: --attention-past is off; leave it out, or use --attention-past on")


def _check_past(cfg, sizes: Sizes) -> None:
    NORMALIZERS.named(cfg.attention_past_normalizer, "--attention-past-normalizer")
    score = ATTENTION_SCORES.named(cfg.attention_past_score, "--attention-past-score")
    if not (score.reads_query and score.reads_keys):
        raise ValueError(
            f"--attention-past-score {cfg.attention_past_score}: it does not compare the query with the states; use "
            "general or additive"
        )
    if "state" not in sizes.query:
        raise ValueError(
            f"--attention-query-inputs {cfg.attention_query_inputs}: --attention-past compares the decoder's state "
            "with its earlier ones; add state, or use --attention-past off"
        )
    query, size_option = sum(sizes.query.values()), score.size_option()
    if cfg.attention_past_dim is not None and size_option != ATTENTION_DIM:
        raise ValueError(
            f"--attention-past-dim {cfg.attention_past_dim}: --attention-past-score {cfg.attention_past_score} does "
            "not project to a size; leave it out"
        )
    options = {ATTENTION_DIM.name: cfg.attention_past_dim, "decoder_hidden_size": sizes.decoder}
    size = size_option.value(options) if size_option == ATTENTION_DIM else None
    if score.needs_equal_sizes and size is None and query != sizes.decoder:
        raise ValueError(
            f"--attention-past-score {cfg.attention_past_score}: the query has {query} numbers, a state "
            f"{sizes.decoder}; give --attention-past-dim"
        )


def _check_heads(cfg, sizes: Sizes) -> None:
    heads = cfg.attention_heads
    output = sizes.output or sizes.encoder
    if cfg.attention_key_value == "split" and output % 2:
        option = "--encoder-output-dim" if sizes.output else "--encoder-hidden-size"
        raise ValueError(
            f"--attention-key-value split: the encoder's output has {output} numbers, which have no half; use an even "
            f"{option}"
        )
    if heads == 1:
        return
    score = ATTENTION_SCORES[cfg.attention_score]
    if not score.reads_query:
        raise ValueError(
            f"--attention-heads {heads}: the weights of --attention-score {cfg.attention_score} are fixed, the heads "
            "would be equal; use --attention-heads 1"
        )
    if sizes.value % heads:
        raise ValueError(
            f"--attention-heads {heads}: a value has {sizes.value} numbers, which {heads} does not divide; give "
            "another --attention-value-dim"
        )
    if score.size_option() == ATTENTION_DIM and sizes.key is not None and sizes.key % heads:
        raise ValueError(
            f"--attention-heads {heads}: a key has {sizes.key} numbers, which {heads} does not divide; give another "
            "--attention-dim"
        )


def _check_without_attention(cfg, sizes: Sizes) -> None:
    """What needs attention is an error without it, never dropped in silence."""
    for option in attention_options():
        if not option.says_nothing(cfg[option.name]):
            neutral = option.default if option.neutral is None else option.neutral
            use = LEFT_OUT + PRESET if neutral is None else f"use {option.flag} {neutral}"
            raise ValueError(
                f"{option.flag} {cfg[option.name]} needs attention, and --attention-score is none; {use}, or use "
                "another --attention-score"
            )
    if "context" in sizes.readout_inputs:
        reads = ",".join(name for name in sizes.readout_inputs if name != "context")
        raise ValueError(
            f"--readout-inputs {cfg.readout_inputs}: without attention (--attention-score none) there is no context; "
            f"use --readout-inputs {reads or 'state'}"
        )
    _check_source_is_seen(cfg, BRIDGES[cfg.bridge])


def _check_source_is_seen(cfg, bridge) -> None:
    """Without attention the bridge alone tells the decoder of the source, and what it does not read is idle."""
    given = "without attention (--attention-score none)"
    if not (bridge.reads_states or bridge.reads_values):
        raise ValueError(f"--bridge {cfg.bridge}: {given} the decoder learns nothing of the source; use --bridge tanh")
    if bridge.needs_backward_encoder:
        raise ValueError(f"--bridge {cfg.bridge}: {given} the forward encoder is read by nothing; use --bridge tanh")
    if cfg.encoder_layers > cfg.decoder_layers and not (bridge.reads_values or bridge.reads_top):
        raise ValueError(
            f"--encoder-layers {cfg.encoder_layers}: {given} decoder layer l starts from encoder layer l, and "
            f"--decoder-layers is {cfg.decoder_layers}; use --encoder-layers {cfg.decoder_layers}, or --bridge mean"
        )


def _check_copying(cfg, source_dictionary, target_dictionary) -> None:
    if cfg["copy"] == "off":  # the attribute is a method of every config
        return
    if cfg.output_normalizer != "softmax":
        raise ValueError(
            f"--copy on: it mixes the attention with a softmax, and --output-normalizer is {cfg.output_normalizer}; "
            "use --copy off, or --output-normalizer softmax"
        )
    source, target = (
        {symbol for symbol in dictionary.symbols[dictionary.nspecial :] if not FILLED_UP.fullmatch(symbol)}
        for dictionary in (source_dictionary, target_dictionary)
    )
    if not source & target:
        raise ValueError(
            "--copy on: source and target dictionary have no word in common, so that there is nothing to copy; use "
            "--copy off, or preprocess so that what is to be copied is the same symbol on both sides, as with "
            "--joined-dictionary"
        )


def _check_scheduled_sampling(cfg) -> None:
    name = cfg.scheduled_sampling
    for option, unset in (("scheduled_sampling_floor", 0.0), ("scheduled_sampling_word", "argmax")):
        if name == "none" and cfg[option] != unset:
            raise ValueError(
                f"{flag(option)} {cfg[option]}: --scheduled-sampling is none; leave it out, or give a schedule"
            )
    if name == "none":
        return
    options = SCHEDULES[name].options
    schedule = SCHEDULES[name](**arguments(options, cfg))
    if not schedule.fits():
        given = ", ".join(f"{option.flag} {cfg[option.name]}" for option in options)
        raise ValueError(f"{given}: --scheduled-sampling {name} takes {schedule.limits}")
    if cfg.scheduled_sampling_floor >= schedule(0) and cfg.scheduled_sampling_floor:
        raise ValueError(
            f"--scheduled-sampling-floor {cfg.scheduled_sampling_floor}: --scheduled-sampling {name} starts at "
            f"{schedule(0):g}; give less"
        )


def _check_embeddings(cfg, sizes: Sizes, source_dictionary, target_dictionary) -> None:
    for option in ("encoder_embed_path", "decoder_embed_path"):
        if cfg[option] and not Path(cfg[option]).is_file():
            raise ValueError(f"{flag(option)}: no file {cfg[option]!r}; give a text file of embeddings")
    if cfg.share_all_embeddings:
        if source_dictionary != target_dictionary:
            raise ValueError(
                f"--share-all-embeddings: source and target dictionary differ ({len(source_dictionary)} and "
                f"{len(target_dictionary)} symbols); preprocess with --joined-dictionary"
            )
        for what in ("embed_dim", "embed_path", "freeze_embed"):
            ours, theirs = cfg[f"encoder_{what}"], cfg[f"decoder_{what}"]
            if ours != theirs:
                raise ValueError(
                    f"--share-all-embeddings: {flag('encoder_' + what)} is {ours} and {flag('decoder_' + what)} is "
                    f"{theirs}; one table has one of each"
                )
    if cfg.share_all_embeddings or cfg.share_decoder_input_output_embed:
        _check_tied_size(cfg, sizes)


def _check_tied_size(cfg, sizes: Sizes) -> None:
    size = sizes.vocabulary
    if size != cfg.decoder_embed_dim:
        tied = "share_all_embeddings" if cfg.share_all_embeddings else "share_decoder_input_output_embed"
        raise ValueError(
            f"{flag(tied)}: the vocabulary projection sees {size} numbers and --decoder-embed-dim is "
            f"{cfg.decoder_embed_dim}; give --decoder-out-embed-dim {cfg.decoder_embed_dim}, or --readout-dim "
            f"{cfg.decoder_embed_dim}"
        )
