"""Checks of the options of ``attn_rnn``: one line of error with flag, value and remedy."""

import math
from pathlib import Path

from ..modules.attention_scores import ATTENTION_SCORES
from ..modules.normalizers import NORMALIZERS
from ..modules.recurrent_cells import CELLS
from ..modules.scheduled_sampling import SCHEDULES
from .attn_rnn_config import (
    POSITIONS,
    attention_size,
    encoder_dim,
    flag,
    query_sizes,
    readout_sizes,
    value_dim,
    value_sizes,
)
from .bridge import BRIDGES


def check_config(cfg, source_dictionary, target_dictionary) -> None:
    """Raises a ValueError for the first option or combination of ``cfg`` that cannot be."""
    _check_names(cfg)
    _check_numbers(cfg)
    _check_recurrence(cfg)
    if not {"state", "context"} & set(readout_sizes(cfg)):
        raise ValueError(
            f"--readout-inputs {cfg.readout_inputs}: the output would not depend on the source; add state or context"
        )
    if cfg.attention_score == "none":
        _check_without_attention(cfg)
    else:
        _check_attention(cfg)
    _check_scheduled_sampling(cfg)
    _check_embeddings(cfg, source_dictionary, target_dictionary)


def _check_names(cfg) -> None:
    for registry, option in ((CELLS, "cell"), (NORMALIZERS, "attention_normalizer"), (BRIDGES, "bridge")):
        registry[cfg[option]]
    for registry, option in ((ATTENTION_SCORES, "attention_score"), (SCHEDULES, "scheduled_sampling")):
        names = ["none", *registry.names()]
        if cfg[option] not in names:
            raise ValueError(f"{flag(option)}: got {cfg[option]!r}; choose from {', '.join(names)}")


def _check_numbers(cfg) -> None:
    for option, value in cfg.items():
        if value is None:
            continue
        if option.endswith(("_dim", "_size", "_layers", "_positions")) and value < 1:
            raise ValueError(f"{flag(option)}: got {value}; give at least 1")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{flag(option)}: got {value}; give a finite number")
        if "dropout" in option and not 0.0 <= value < 1.0:
            raise ValueError(f"{flag(option)}: got {value}; give a probability in [0, 1)")
    if not 0.0 <= cfg.scheduled_sampling_floor <= 1.0:
        raise ValueError(
            f"--scheduled-sampling-floor: got {cfg.scheduled_sampling_floor}; give a probability in [0, 1]"
        )


def _check_recurrence(cfg) -> None:
    size, hidden, bridge = encoder_dim(cfg), cfg.decoder_hidden_size, BRIDGES[cfg.bridge]
    if bridge.needs_equal_sizes and size != hidden:
        raise ValueError(
            f"--bridge {cfg.bridge}: the encoder's state has {size} numbers"
            f"{' (both directions)' if cfg.encoder_direction == 'bi' else ''}, --decoder-hidden-size is {hidden}; "
            f"use --bridge linear, or --decoder-hidden-size {size}"
        )
    if bridge.needs_backward_encoder and cfg.encoder_direction != "bi":
        raise ValueError(
            f"--bridge {cfg.bridge}: --encoder-direction {cfg.encoder_direction} has no backward encoder; "
            "use --encoder-direction bi, or --bridge tanh"
        )
    if cfg.forget_gate_bias is not None and not CELLS[cfg.cell].has_forget_gate:
        raise ValueError(
            f"--forget-gate-bias {cfg.forget_gate_bias}: --cell {cfg.cell} has no forget gate; leave it out, or use "
            "--cell lstm"
        )
    if cfg.residual_connections and cfg.encoder_layers == cfg.decoder_layers == 1:
        raise ValueError(
            "--residual-connections: they start at the second layer, and --encoder-layers and --decoder-layers are 1; "
            "leave it out, or give more layers"
        )


def _check_attention(cfg) -> None:
    score, reads = ATTENTION_SCORES[cfg.attention_score], readout_sizes(cfg)
    query = query_sizes(cfg)
    if cfg.attention_query == "current" and "context" not in reads:
        raise ValueError(
            f"--readout-inputs {cfg.readout_inputs}: with --attention-query current the context enters nothing but the "
            "readout; add context, or use --attention-query previous, or --attention-score none"
        )
    if "state" not in reads and not (score.reads_query and "state" in query):
        raise ValueError(
            f"--readout-inputs {cfg.readout_inputs}: neither the readout nor the query reads the decoder's state; add "
            "state"
        )
    _check_score_options(cfg, score)
    if "state" not in value_sizes(cfg):
        raise ValueError(
            f"--attention-value-inputs {cfg.attention_value_inputs}: the attention would not read what the encoder's "
            "recurrence makes of the words; add state"
        )
    query_dim, value = sum(query.values()), value_dim(cfg)
    if score.needs_equal_sizes and attention_size(cfg) is None and query_dim != value:
        made_of = "--decoder-hidden-size" if list(query) == ["state"] else "--attention-query-inputs"
        found = "the encoder's outputs" if list(value_sizes(cfg)) == ["state"] else "--attention-value-inputs"
        raise ValueError(
            f"--attention-score {cfg.attention_score}: the query has {query_dim} numbers ({made_of}), {found} {value}; "
            "give --attention-dim to project both, or make them equal"
        )


def _check_score_options(cfg, score) -> None:
    """What the score does not read is an error, never dropped in silence."""
    given = f"--attention-score {cfg.attention_score}"
    if not score.reads_query and list(query_sizes(cfg)) != ["state"]:
        raise ValueError(
            f"--attention-query-inputs {cfg.attention_query_inputs}: {given} does not read the query; use "
            "--attention-query-inputs state"
        )
    if not score.reads_query and cfg.attention_normalizer != "softmax":
        raise ValueError(
            f"--attention-normalizer {cfg.attention_normalizer}: the weights of {given} are fixed; use "
            "--attention-normalizer softmax"
        )
    for option in ("attention_dim", POSITIONS):
        if cfg[option] is not None and option != score.size_option:
            why = "has no size of its own" if score.size_option is None else f"takes {flag(score.size_option)}"
            raise ValueError(f"{flag(option)} {cfg[option]}: {given} {why}; leave it out")
    if cfg.attention_bias == "on" and score.default_bias is None:
        places = [name for name in ATTENTION_SCORES.names() if ATTENTION_SCORES[name].default_bias is not None]
        raise ValueError(
            f"--attention-bias on: {given} has no place for a bias; use --attention-bias off, or one of "
            f"{', '.join(places)}"
        )


def _check_without_attention(cfg) -> None:
    """What needs attention is an error without it, never dropped in silence."""
    without = dict(input_feeding="off", attention_query="current", attention_normalizer="softmax", attention_dropout=0)
    optional = dict(attention_bias="off", attention_query_inputs="state", attention_value_inputs="state")
    optional.update({"attention_dim": None, POSITIONS: None})
    for option, remedy in {**without, **optional}.items():
        if cfg[option] != remedy and not (option in optional and cfg[option] is None):
            use = "leave it out" if remedy is None else f"use {flag(option)} {remedy}"
            raise ValueError(
                f"{flag(option)} {cfg[option]} needs attention, and --attention-score is none; {use}, or use another "
                "--attention-score"
            )
    reads = ",".join(name for name in readout_sizes(cfg) if name != "context")
    if reads != ",".join(readout_sizes(cfg)):
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
    if cfg.encoder_layers > cfg.decoder_layers and not bridge.reads_values:
        raise ValueError(
            f"--encoder-layers {cfg.encoder_layers}: {given} decoder layer l starts from encoder layer l, and "
            f"--decoder-layers is {cfg.decoder_layers}; use --encoder-layers {cfg.decoder_layers}, or --bridge mean"
        )


def _check_scheduled_sampling(cfg) -> None:
    name = cfg.scheduled_sampling
    needs = () if name == "none" else SCHEDULES[name].needs
    for constant in ("k", "slope"):
        value = cfg[f"scheduled_sampling_{constant}"]
        if constant in needs and value is None:
            raise ValueError(
                f"--scheduled-sampling {name} needs --scheduled-sampling-{constant}: the probability of the true word "
                f"is {SCHEDULES[name].formula}"
            )
        if constant not in needs and value is not None:
            raise ValueError(
                f"--scheduled-sampling-{constant} {value}: --scheduled-sampling {name} has no such constant; leave it "
                "out"
            )
    for option, unset in (("scheduled_sampling_floor", 0.0), ("scheduled_sampling_word", "argmax")):
        if name == "none" and cfg[option] != unset:
            raise ValueError(
                f"{flag(option)} {cfg[option]}: --scheduled-sampling is none; leave it out, or give a schedule"
            )
    if name != "none":
        schedule = SCHEDULES[name](cfg.scheduled_sampling_k, cfg.scheduled_sampling_slope)
        if not schedule.fits():
            given = ", ".join(f"--scheduled-sampling-{key} {cfg[f'scheduled_sampling_{key}']}" for key in needs)
            raise ValueError(f"{given}: --scheduled-sampling {name} takes {schedule.limits}")
        if cfg.scheduled_sampling_floor >= schedule(0) and cfg.scheduled_sampling_floor:
            raise ValueError(
                f"--scheduled-sampling-floor {cfg.scheduled_sampling_floor}: --scheduled-sampling {name} starts at "
                f"{schedule(0):g}; give less"
            )


def _check_embeddings(cfg, source_dictionary, target_dictionary) -> None:
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
        _check_tied_size(cfg)


def _check_tied_size(cfg) -> None:
    size = cfg.readout_dim or sum(readout_sizes(cfg).values())
    size = cfg.decoder_out_embed_dim or size
    if size != cfg.decoder_embed_dim:
        tied = "share_all_embeddings" if cfg.share_all_embeddings else "share_decoder_input_output_embed"
        raise ValueError(
            f"{flag(tied)}: the vocabulary projection sees {size} numbers and --decoder-embed-dim is "
            f"{cfg.decoder_embed_dim}; give --decoder-out-embed-dim {cfg.decoder_embed_dim}, or --readout-dim "
            f"{cfg.decoder_embed_dim}"
        )
