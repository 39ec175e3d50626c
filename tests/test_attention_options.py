"""Options of what the attention remembers, of heads, values and the decoder's own past: a mistake is one line with
flag, value and remedy, and the remedy helps."""

import math
from types import SimpleNamespace

import pytest
from model_factory import build, mechanism, toy_task

NONE = dict(attention_score="none", input_feeding="off")

ERRORS = {
    # unknown, or no value of it
    "--attention-history: got 'covrage'; choose from none, coverage, fertility, gru_coverage, location":
        dict(attention_history="covrage"),
    "--attention-window: got 'local'; choose from none, local_m, local_p": dict(attention_window="local"),
    "--attention-addressing: got 'ntm'; choose from none, monotonic, shift": dict(attention_addressing="ntm"),
    "--attention-past-score: got 'dto'; choose from additive": dict(attention_past="on", attention_past_score="dto"),
    "--attention-past-normalizer: got 'max'; choose from entmax15, softmax, sparsemax":
        dict(attention_past="on", attention_past_normalizer="max"),
    "--attention-history-size: got 0; give at least 1":
        dict(attention_history="gru_coverage", attention_history_size=0),
    "--attention-history-width: got 4; give an odd number":
        dict(attention_history="location", attention_history_width=4),
    "--attention-fertility: got 0.0; give a number above 0":
        dict(attention_history="fertility", attention_fertility=0.0),
    "--attention-window-width: got 0; give at least 1": dict(attention_window="local_m", attention_window_width=0),
    "--attention-shift-width: got 2; give an odd number":
        dict(attention_addressing="shift", attention_shift_width=2),
    "--attention-monotonic-bias: got nan; give a finite number":
        dict(attention_addressing="monotonic", attention_monotonic_bias=math.nan),
    "--attention-monotonic-noise: got -1.0; give 0 or more":
        dict(attention_addressing="monotonic", attention_monotonic_noise=-1.0),
    "--attention-heads: got 0; give at least 1": dict(attention_heads=0),
    "--attention-hidden-layers: got 0; give at least 1":
        dict(attention_score="additive", attention_hidden_layers=0),
    # without the part that they belong to
    "--attention-history-size 3: --attention-history coverage has one number at each position; leave it out":
        dict(attention_history="coverage", attention_history_size=3),
    "--attention-history-size 3: --attention-history none": dict(attention_history_size=3),
    "--attention-history-width 3: --attention-history gru_coverage has no filters; leave it out":
        dict(attention_history="gru_coverage", attention_history_width=3),
    "--attention-history-over sum: --attention-history none has no filters": dict(attention_history_over="sum"),
    "--attention-fertility 3.0: --attention-history coverage has no fertilities; leave it out":
        dict(attention_history="coverage", attention_fertility=3.0),
    "--attention-window-width 3: --attention-window none has no width; leave it out": dict(attention_window_width=3),
    "--attention-shift-width 3: --attention-addressing monotonic does not shift; leave it out":
        dict(attention_addressing="monotonic", attention_shift_width=3),
    "--attention-addressing-start last: --attention-addressing none has no start to choose; leave it out":
        dict(attention_addressing_start="last"),
    "--attention-monotonic-bias 0.0: --attention-addressing shift has no such bias; leave it out":
        dict(attention_addressing="shift", attention_monotonic_bias=0.0),
    "--attention-monotonic-noise 0.0: --attention-addressing none adds no noise; leave it out":
        dict(attention_monotonic_noise=0.0),
    "--attention-monotonic-search hard: --attention-addressing shift has one way to search; leave it out":
        dict(attention_addressing="shift", attention_monotonic_search="hard"),
    "--attention-hidden-layers 2: --attention-score general has no hidden layer; leave it out":
        dict(attention_hidden_layers=2),
    "--attention-past-score dot: --attention-past is off; leave it out, or use --attention-past on":
        dict(attention_past_score="dot"),
    "--attention-past-normalizer entmax15: --attention-past is off": dict(attention_past_normalizer="entmax15"),
    "--attention-past-dim 4: --attention-past is off": dict(attention_past_dim=4),
    # a history needs keys, and fixed weights have nothing to change
    "--attention-history coverage: it is part of the keys, and --attention-score location reads none; use "
    "--attention-history none, or a score such as general or additive":
        dict(attention_score="location", attention_history="coverage"),
    "--attention-history location: the weights of --attention-score last are fixed; use --attention-history none":
        dict(attention_score="last", attention_history="location"),
    "--attention-window local_m: the weights of --attention-score last are fixed; use --attention-window none":
        dict(attention_score="last", attention_window="local_m"),
    "--attention-addressing shift: the weights of --attention-score last are fixed; use --attention-addressing none":
        dict(attention_score="last", attention_addressing="shift"),
    "--attention-heads 2: the weights of --attention-score last are fixed, the heads would be equal; use "
    "--attention-heads 1": dict(attention_score="last", attention_heads=2),
    "--attention-normalizer sparsemax: --attention-addressing monotonic makes weights of the scores itself; use "
    "--attention-normalizer softmax": dict(attention_addressing="monotonic", attention_normalizer="sparsemax"),
    # sizes
    "--attention-heads 4: a value has 6 numbers, which 4 does not divide; give another --attention-value-dim":
        dict(attention_heads=4),
    "--attention-heads 4: a value has 10 numbers, which 4 does not divide":
        dict(attention_heads=4, attention_value_dim=10),
    "--attention-heads 3: a key has 8 numbers, which 3 does not divide; give another --attention-dim":
        dict(attention_heads=3),
    "--attention-heads 2: a key has 5 numbers, which 2 does not divide":
        dict(attention_heads=2, attention_score="additive", attention_dim=5),
    "--attention-key-value split: the encoder's output has 7 numbers, which have no half; use an even "
    "--encoder-hidden-size": dict(attention_key_value="split", encoder_hidden_size=7),
    "--attention-key-value split: the encoder's output has 5 numbers, which have no half; use an even "
    "--encoder-output-dim": dict(attention_key_value="split", encoder_output_dim=5),
    # the decoder's own past
    "--attention-query-inputs word: --attention-past compares the decoder's state with its earlier ones; add state, or "
    "use --attention-past off": dict(attention_past="on", attention_query_inputs="word"),
    "--attention-past-score last: it does not compare the query with the states; use general or additive":
        dict(attention_past="on", attention_past_score="last"),
    "--attention-past-score location: it does not compare the query with the states":
        dict(attention_past="on", attention_past_score="location"),
    "--attention-past-score dot: the query has 15 numbers, a state 8; give --attention-past-dim":
        dict(attention_past="on", attention_past_score="dot", attention_query_inputs="state,word"),
    # without attention
    "--attention-history coverage needs attention, and --attention-score is none; use --attention-history none":
        dict(NONE, attention_history="coverage"),
    "--attention-dim 64 needs attention, and --attention-score is none; leave it out, or where a preset gives it, use "
    "another --arch": dict(NONE, attention_dim=64),
    "--attention-window local_p needs attention": dict(NONE, attention_window="local_p"),
    "--attention-addressing shift needs attention": dict(NONE, attention_addressing="shift"),
    "--attention-past on needs attention, and --attention-score is none; use --attention-past off":
        dict(NONE, attention_past="on"),
    "--attention-heads 2 needs attention, and --attention-score is none; use --attention-heads 1":
        dict(NONE, attention_heads=2),
    "--attention-key-value split needs attention, and --attention-score is none; use --attention-key-value shared":
        dict(NONE, attention_key_value="split"),
    "--attention-value-dim 4 needs attention": dict(NONE, attention_value_dim=4),
    "--attention-hidden-layers 2 needs attention": dict(NONE, attention_hidden_layers=2),
}  # fmt: skip


@pytest.mark.parametrize("message", ERRORS)
def test_contradiction_is_one_clear_line(message):
    with pytest.raises(ValueError) as error:
        build(**ERRORS[message])
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


REMEDIES = {
    "another value": mechanism("general", attention_heads=4, attention_value_dim=8),
    "another key": dict(attention_heads=3, attention_dim=9),
    "an even output": dict(attention_key_value="split", encoder_hidden_size=7, encoder_output_dim=6),
    "a size of the past": dict(
        attention_past="on", attention_past_score="dot", attention_query_inputs="state,word", attention_past_dim=4
    ),
    "neutral values": dict(
        NONE, attention_history="none", attention_window="none", attention_addressing="none", attention_past="off",
        attention_past_score="general", attention_past_normalizer="softmax", attention_heads=1,
        attention_key_value="shared",
    ),
    "monotonic with softmax": dict(attention_addressing="monotonic", attention_normalizer="softmax"),
}  # fmt: skip


@pytest.mark.parametrize("remedy", REMEDIES)
def test_the_remedy_helps(remedy):
    build(**REMEDIES[remedy])


ZERO = {
    "--attention-addressing shift": dict(attention_addressing="shift"),
    "--attention-addressing monotonic": dict(attention_addressing="monotonic", attention_heads=2),
    "--attention-window local_m": dict(attention_window="local_m"),
    "--attention-window local_p": dict(attention_window="local_p"),
}


@pytest.mark.parametrize("what", ZERO)
def test_weights_that_may_be_zero_cannot_be_supervised(what):
    task = toy_task()
    task.cfg = SimpleNamespace(load_alignments=True)
    with pytest.raises(ValueError, match=f"--load-alignments: --criterion .*{what}") as error:
        build(task, **ZERO[what])
    assert "\n" not in str(error.value) and f"use {what.split()[0]} none" in str(error.value)
    build(task, attention_history="coverage", attention_heads=2)
