"""Checks of the options of ``attn_rnn``: one line of error with flag, value and remedy."""

from pathlib import Path

from ..modules.attention_scores import ATTENTION_SCORES
from ..modules.normalizers import NORMALIZERS
from ..modules.recurrence import CELLS
from .attn_rnn_config import encoder_dim, flag, readout_sizes
from .bridge import BRIDGES


def check_config(cfg, source_dictionary, target_dictionary) -> None:
    """Raises a ValueError for the first option or combination of ``cfg`` that cannot be."""
    _check_names(cfg)
    _check_numbers(cfg)
    _check_attention(cfg)
    _check_embeddings(cfg, source_dictionary, target_dictionary)


def _check_names(cfg) -> None:
    for registry, option in ((CELLS, "cell"), (NORMALIZERS, "attention_normalizer"), (BRIDGES, "bridge")):
        registry[cfg[option]]
    if cfg.attention_score != "none" and cfg.attention_score not in ATTENTION_SCORES.names():
        names = ", ".join(["none"] + ATTENTION_SCORES.names())
        raise ValueError(f"--attention-score: got {cfg.attention_score!r}; choose from {names}")


def _check_numbers(cfg) -> None:
    for option, value in cfg.items():
        if value is None:
            continue
        if option.endswith(("_dim", "_size", "_layers")) and value < 1:
            raise ValueError(f"{flag(option)}: got {value}; give at least 1")
        if "dropout" in option and not 0.0 <= value < 1.0:
            raise ValueError(f"{flag(option)}: got {value}; give a probability in [0, 1)")


def _check_attention(cfg) -> None:
    value_dim, hidden = encoder_dim(cfg), cfg.decoder_hidden_size
    if BRIDGES[cfg.bridge].needs_equal_sizes and value_dim != hidden:
        raise ValueError(
            f"--bridge {cfg.bridge}: the encoder's state has {value_dim} numbers"
            f"{' (both directions)' if cfg.encoder_direction == 'bi' else ''}, --decoder-hidden-size is {hidden}; "
            f"use --bridge linear, or --decoder-hidden-size {value_dim}"
        )
    if cfg.attention_score == "none":
        return _check_without_attention(cfg)
    if cfg.attention_query == "current" and "context" not in readout_sizes(cfg):
        raise ValueError(
            f"--readout-inputs {cfg.readout_inputs}: with --attention-query current the context enters nothing but the "
            "readout; add context, or use --attention-query previous, or --attention-score none"
        )
    score = ATTENTION_SCORES[cfg.attention_score]
    if cfg.attention_dim is not None and not score.reads_query:
        raise ValueError(
            f"--attention-dim {cfg.attention_dim}: --attention-score {cfg.attention_score} compares nothing that could "
            "be projected; leave it out"
        )
    projected = cfg.attention_dim is not None or score.always_projects
    if score.needs_equal_sizes and not projected and hidden != value_dim:
        raise ValueError(
            f"--attention-score {cfg.attention_score}: the query has {hidden} numbers (--decoder-hidden-size), the "
            f"encoder's outputs {value_dim}; give --attention-dim to project both, or make them equal"
        )


def _check_without_attention(cfg) -> None:
    """What needs attention is an error without it, never dropped in silence."""
    for option, remedy in (("input_feeding", "off"), ("attention_normalizer", "softmax")):
        if cfg[option] != remedy:
            raise ValueError(
                f"{flag(option)} {cfg[option]} needs attention, and --attention-score is none; "
                f"use {flag(option)} {remedy} or another --attention-score"
            )
    for option, unset in (("attention_dim", None), ("attention_dropout", 0.0)):
        if cfg[option] != unset:
            raise ValueError(
                f"{flag(option)} {cfg[option]} needs attention, and --attention-score is none; leave it out"
            )
    if "context" in readout_sizes(cfg):
        raise ValueError(
            f"--readout-inputs {cfg.readout_inputs}: without attention (--attention-score none) there is no context; "
            "leave it out"
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
