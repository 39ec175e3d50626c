"""Score × normaliser × query × cell × feeding: the equations, padding, the search's steps, reordering, beams.

Every two values meet in some combination; `scripts/test.sh full` runs all combinations.
The choices come from the registries: an entry without a transcription fails here.
"""

import pytest
import torch
from covering import combinations, pairwise, product
from fairseq.sequence_generator import SequenceGenerator
from model_factory import LENGTHS, batch, build, build_once, config, mechanism, task_for, toy_task
from transcription import Transcription

from fairseq_attn_plugin.models.config import resolved
from fairseq_attn_plugin.models.encoder import memory_of
from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS
from fairseq_attn_plugin.modules.attention.histories import HISTORIES
from fairseq_attn_plugin.modules.attention.normalizers import NORMALIZERS
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES
from fairseq_attn_plugin.modules.attention.windows import WINDOWS
from fairseq_attn_plugin.modules.recurrence.cells import CELLS

AXES = (ATTENTION_SCORES.names(), ("current", "previous"), NORMALIZERS.names(), CELLS.names(), ("on", "off"))


def fits(score, query, normalizer, cell, feeding):
    """Fixed weights have no other normaliser: to name one is an error."""
    return ATTENTION_SCORES[score].reads_query or normalizer == "softmax"


PRODUCT = [mechanism(*axes, input_feeding=feeding) for *axes, feeding in combinations(AXES, fits)]
PRODUCT += [mechanism("none", cell=cell) for cell in CELLS.names()]

SHAPES = {
    "deep and bidirectional": dict(encoder_layers=2, decoder_layers=3, encoder_direction="bi"),
    "shallow decoder": dict(encoder_layers=3, decoder_layers=1, cell="gru"),
    "zero bridge": dict(bridge="zero", attention_query="previous"),
    "copy bridge": dict(bridge="copy", encoder_hidden_size=8, decoder_layers=2),
    "word in the readout": dict(readout_inputs="word,context,state", readout_dim=3),
    "linear readout": dict(readout_activation="none", readout_dim=3),
    "readout as it is": dict(readout_activation="none", readout_inputs="state,context,word"),
    "context alone": dict(readout_inputs="context", attention_query="previous", input_feeding="off"),
    "another map before the vocabulary": dict(decoder_out_embed_dim=3),
    "tied": dict(share_decoder_input_output_embed=True, readout_dim=7),
    "projected general": dict(attention_dim=3),
    "wide additive": dict(attention_score="additive", attention_dim=11),
    "equal sizes, unprojected dot": dict(attention_score="dot", encoder_hidden_size=8),
    "no bias where there is one": dict(attention_score="normed_additive", attention_bias="off"),
    "a bias where there is none": dict(attention_score="location", attention_bias="on"),
    "general with a bias": dict(attention_bias="on"),
    "query of word and context": dict(attention_query_inputs="word,context", input_feeding="off"),
    "query of everything, previous": dict(
        attention_query_inputs="state,word,context", attention_query="previous", attention_score="additive"
    ),
    "query of the word, all at once": dict(attention_query_inputs="word", input_feeding="off"),
    "query of the language": dict(attention_query_inputs="state,language", encoder_direction="bi"),
    "query of the language, previous": dict(
        attention_query_inputs="language,state,context", attention_query="previous", attention_score="additive"
    ),
    "query of the language, all at once": dict(attention_query_inputs="state,language", input_feeding="off"),
    "query of the language, pyramid": dict(
        attention_query_inputs="state,language", encoder_pyramid=1, encoder_layers=2
    ),
    "words beside the encoder's outputs": dict(attention_value_inputs="word,state", encoder_direction="bi"),
    "words beside the encoder's outputs, previous": dict(
        attention_value_inputs="state,word", attention_query="previous", attention_score="additive", bridge="mean"
    ),
    "words beside the encoder's outputs, all at once": dict(
        attention_value_inputs="state,word", input_feeding="off", attention_score="dot", attention_dim=4
    ),
    "maxout readout": dict(readout_activation="maxout", readout_inputs="state,word,context", readout_dim=3),
    "mapped cell input": dict(cell_input_activation="relu", attention_query="previous"),
    "mapped cell input, all at once": dict(cell_input_activation="tanh", cell_input_dim=3, input_feeding="off"),
    "linear cell input": dict(cell_input_dim=3),
    "mean bridge": dict(bridge="mean", encoder_layers=2, decoder_layers=2),
    "backward bridge": dict(bridge="backward", encoder_direction="bi", encoder_layers=2, decoder_layers=3),
    "tanh bridge": dict(bridge="tanh", cell="rnn"),
    "residual": dict(residual_connections=True, encoder_layers=3, decoder_layers=3, encoder_direction="bi"),
    "residual, all at once": dict(
        residual_connections=True, decoder_layers=3, input_feeding="off", layer_norm=True, cell="gru"
    ),
    "layer norm": dict(layer_norm=True, encoder_layers=2, decoder_layers=2, attention_query="previous"),
    "deep, reset before": dict(
        cell="gru_reset_before", encoder_layers=2, decoder_layers=2, encoder_direction="bi", residual_connections=True
    ),
    "dense front": dict(encoder_front="dense", encoder_front_layers=2, encoder_direction="bi"),
    "convolutions before the recurrence": dict(
        encoder_front="conv", encoder_front_layers=2, encoder_front_width=5, encoder_front_activation="relu"
    ),
    "convolution and words, previous": dict(
        encoder_front="conv", attention_value_inputs="state,word", attention_query="previous", cell="gru"
    ),
    "pyramid": dict(
        encoder_pyramid=1, encoder_layers=2, encoder_direction="bi", encoder_output_dim=3, decoder_layers=2,
        bridge="backward",
    ),
    "pyramid of two, all at once": dict(
        encoder_pyramid=2, encoder_layers=3, input_feeding="off", attention_value_inputs="state,word", cell="gru"
    ),
    "pyramid beneath a residual connection": dict(
        encoder_pyramid=1, encoder_layers=3, residual_connections=True, bridge="mean", cell="gru"
    ),
    "pyramid above a convolution, location": dict(
        encoder_pyramid=1, encoder_layers=2, encoder_front="conv", attention_score="location", cell="gru_reset_before",
        attention_query="previous", input_feeding="off"
    ),
    "pyramid, last": dict(encoder_pyramid=2, encoder_layers=4, attention_score="last"),
    "pyramid without attention": dict(
        encoder_pyramid=1, encoder_layers=2, decoder_layers=2, attention_score="none", input_feeding="off", cell="rnn"
    ),
    "output mapped, previous": dict(encoder_output_dim=4, attention_score="additive", attention_query="previous"),
    "readout with a bias": dict(readout_bias="on", readout_activation="none", readout_dim=3),
    "maxout readout with a bias": dict(readout_bias="on", readout_activation="maxout", attention_query="previous"),
    "shared bridge": dict(bridge="shared", encoder_layers=2, decoder_layers=3, encoder_direction="bi"),
    "shared bridge without attention": dict(
        bridge="shared", encoder_layers=2, attention_score="none", input_feeding="off"
    ),
    "without attention": dict(attention_score="none", input_feeding="off", layer_norm=True, cell_input_dim=3),
}


def name_of(options) -> str:
    short = ("attention_score", "attention_query", "attention_normalizer", "cell")
    return "-".join(options[name] for name in short) + ("" if options.get("input_feeding") == "off" else "-feeding")


REMEMBERING = dict(
    score=ATTENTION_SCORES.names(),
    history=["none", *HISTORIES.names()],
    window=["none", *WINDOWS.names()],
    addressing=["none", *ADDRESSINGS.names()],
    heads=["1", "2"],
    past=["off", "on"],
    query=["current", "previous"],
    feeding=["on", "off"],
    normalizer=NORMALIZERS.names(),
    cell=["lstm", "gru"],
)
"""Axes of what the attention remembers, with those that they meet: too many for all combinations, ever."""


def goes_together(score, history, window, addressing, heads, past, query, feeding, normalizer, cell):
    """For the others there is an error with a remedy."""
    if not ATTENTION_SCORES[score].reads_query:
        return False
    if addressing == "monotonic" and normalizer != "softmax":
        return False
    return history == "none" or ATTENTION_SCORES[score].reads_keys


def remembering(score, history, window, addressing, heads, past, query, feeding, normalizer, cell, copy):
    return mechanism(
        score, query, normalizer, cell, input_feeding=feeding, attention_history=history, attention_window=window,
        attention_addressing=addressing, attention_heads=int(heads), attention_past=past,
        attention_window_width=None if window == "none" else 2, copy=copy,
        attention_monotonic_noise=0.0 if addressing == "monotonic" else None,  # so that training can be compared
    )  # fmt: skip


_MEMORIES = pairwise(product(list(REMEMBERING.values()), goes_together))
MEMORIES = {  # nothing that remembers goes without copying, so that it need not make the product twice as large
    "-".join(row): remembering(*row) for row in pairwise([(*row, copy) for row in _MEMORIES for copy in ("off", "on")])
}
SHAPES.update({
    "wide filters over both": dict(
        attention_history="location", attention_history_over="both", attention_history_size=3,
        attention_history_width=7, attention_score="additive",
    ),
    "filters over the sum": dict(attention_history="location", attention_history_over="sum", input_feeding="off"),
    "high fertility": dict(attention_history="fertility", attention_fertility=3.5, attention_query="previous"),
    "small gru coverage": dict(
        attention_history="gru_coverage", attention_history_size=3, attention_query="previous", attention_dim=4,
        attention_score="cosine",
    ),
    "wide shift from the last token": dict(
        attention_addressing="shift", attention_shift_width=5, attention_addressing_start="last"
    ),
    "shift from the first token": dict(attention_addressing="shift", attention_addressing_start="first"),
    "hard monotonic": dict(
        attention_addressing="monotonic", attention_monotonic_search="hard", attention_monotonic_noise=0.0
    ),
    "three heads of other values": dict(
        attention_heads=3, attention_value_dim=9, attention_dim=6, attention_score="dot", attention_query="previous"
    ),
    "mapped values": dict(attention_value_dim=3, attention_score="additive"),
    "split values": dict(attention_key_value="split", attention_value_inputs="state,word", encoder_direction="bi"),
    "split values, all at once": dict(attention_key_value="split", input_feeding="off", attention_value_dim=2),
    "three hidden layers": dict(attention_score="normed_additive", attention_hidden_layers=3),
    "past of another score": dict(
        attention_past="on", attention_past_score="additive", attention_past_normalizer="sparsemax",
        attention_past_dim=3, attention_query_inputs="state,word,context",
    ),
    "copying": dict(copy="on", encoder_direction="bi", decoder_layers=2),
    "copying, all at once": dict(copy="on", input_feeding="off", share_decoder_input_output_embed=True, readout_dim=7),
    "copying of what a pyramid reads": dict(copy="on", encoder_pyramid=1, encoder_layers=2, attention_query="previous"),
    "sparse output": dict(output_normalizer="entmax15", cell="gru"),
    "window over a target longer than the source": dict(
        attention_window="local_m", attention_window_width=1, input_feeding="off"
    ),
})  # fmt: skip
ALL = {**{name_of(options): options for options in PRODUCT}, **MEMORIES, **SHAPES}


def settings(options):
    return resolved(config(**options))


def attention_of(extra):
    return None if extra["attn"] is None else extra["attn"][0]


def rows(options, left_pad):
    task = task_for(options)
    model = build_once(task, **options)
    source, lengths, previous = batch(task, left_pad=left_pad)
    with torch.no_grad():
        logits, extra = model(source, lengths, previous)
    return task, model, source, previous, logits, attention_of(extra)


def assert_equals_transcription(options, left_pad):
    task, model, source, previous, logits, weights = rows(options, left_pad)
    reference = Transcription(model, settings(options))
    for row in range(len(source)):
        real = source[row] != task.source_dictionary.pad()
        target = [t for t in previous[row].tolist() if t != task.target_dictionary.pad()]
        expected, expected_weights = reference(source[row][real].tolist(), target)
        close = dict(atol=2e-5, rtol=2e-5)
        if options.get("copy") == "on":  # the transcription has probabilities, of which logits may be any constant away
            logits = logits.log_softmax(dim=2)
        torch.testing.assert_close(logits[row, : len(target)].double(), expected, **close)
        if expected_weights is None:
            assert weights is None
            continue
        ours = weights[row, : len(target)].double()
        torch.testing.assert_close(ours[:, real], expected_weights, **close)
        assert (ours[:, ~real] == 0).all()


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_padded_batch_equals_the_equations_sentence_by_sentence(options):
    assert_equals_transcription(options, left_pad=False)


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_left_padded_batch_equals_the_equations(options):
    assert_equals_transcription(options, left_pad=True)


def decode_step(model, tokens, encoder_out, cache):
    logits, extra = model.decoder(tokens, encoder_out=encoder_out, incremental_state=cache)
    attention = attention_of(extra)
    return logits[:, -1], None if attention is None else attention[:, -1]


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_incremental_decoding_equals_teacher_forcing(options):
    _, model, source, previous, logits, weights = rows(options, left_pad=True)
    cache = {}
    with torch.no_grad():
        encoder_out = model.encoder(source)
        for t in range(previous.size(1)):
            step_logits, step_weights = decode_step(model, previous[:, : t + 1], encoder_out, cache)
            torch.testing.assert_close(step_logits, logits[:, t], atol=1e-5, rtol=1e-5)
            if weights is not None:
                torch.testing.assert_close(step_weights, weights[:, t], atol=1e-5, rtol=1e-5)


# beams of 2 form, trade places, repeat a row; sentences 1 and 2 end; a beam trades again; rows of any pattern
ORDERS = [
    [0, 0, 1, 1, 2, 2, 3, 3],
    [1, 0, 3, 3, 4, 5, 7, 7],
    [0, 1, 6, 7],
    [1, 1, 2, 3],
    [3, 0, 0],
]


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_reordering_equals_recomputing_every_row(options):
    task = task_for(options)
    model = build_once(task, **options)
    source, _, _ = batch(task, left_pad=True)
    generator = torch.Generator().manual_seed(5)
    sentences, prefixes, cache = torch.arange(len(source)), torch.full((len(source), 1), 2), {}
    with torch.no_grad():
        encoder_out = model.encoder(source)
        for order in map(torch.tensor, ORDERS):
            model.decoder(prefixes, encoder_out=encoder_out, incremental_state=cache)
            model.decoder.reorder_incremental_state_scripting(cache, order)
            encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
            sentences, prefixes = sentences[order], prefixes[order]
            words = torch.randint(4, len(task.target_dictionary), (len(order), 1), generator=generator)
            prefixes = torch.cat([prefixes, words], dim=1)
            logits, weights = decode_step(model, prefixes, encoder_out, dict(cache))
            expected, extra = model(source[sentences], None, prefixes)
            torch.testing.assert_close(logits, expected[:, -1], atol=1e-5, rtol=1e-5)
            if weights is not None:
                torch.testing.assert_close(weights, attention_of(extra)[:, -1], atol=1e-5, rtol=1e-5)


def test_search_shares_the_memory_and_shrinks_it_once():
    model = build(attention_score="additive")
    source, _, _ = batch(toy_task())
    first = model.encoder(source)
    beams = model.encoder.reorder_encoder_out(first, torch.arange(4).repeat_interleave(2))
    assert memory_of(beams).values is memory_of(first).values and memory_of(beams).keys is memory_of(first).keys
    assert model.encoder.reorder_encoder_out(beams, torch.tensor([1, 1, 2, 3, 5, 4, 6, 6])) is beams
    shrunk = model.encoder.reorder_encoder_out(beams, torch.tensor([1, 0, 4, 4]))
    assert torch.equal(memory_of(shrunk).values, memory_of(first).values[[0, 2]])
    assert memory_of(shrunk).beam == 2


def test_keys_of_an_unprojected_score_are_the_values():
    memory = memory_of(build(attention_score="general").encoder(batch(toy_task())[0]))
    assert memory.keys is memory.values


def forced(model, source, tokens):
    """Log-probability and T×S attention of ``tokens`` (``</s>`` last) given one source row, by teacher forcing."""
    previous = torch.cat([tokens[-1:], tokens[:-1]]).unsqueeze(0)
    logits, extra = model(source.unsqueeze(0), None, previous)
    scores = model.get_normalized_probs((logits, extra), log_probs=True)[0]
    return scores.gather(1, tokens.unsqueeze(1)).sum(), attention_of(extra)


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_beam_scores_and_attention_equal_forced_decoding(options):
    task = task_for(options)
    model = build_once(task, **options)
    source, lengths, _ = batch(task, left_pad=True)
    generator = SequenceGenerator(
        [model], task.target_dictionary, beam_size=3, max_len_a=0, max_len_b=6, normalize_scores=False
    )
    with torch.no_grad():
        found = generator.generate([model], {"net_input": {"src_tokens": source, "src_lengths": lengths}})
        for row, hypotheses in enumerate(found):
            for hypothesis in hypotheses:
                expected, weights = forced(model, source[row], hypothesis["tokens"])
                torch.testing.assert_close(hypothesis["score"], expected, atol=1e-4, rtol=1e-4)
                if weights is not None:
                    torch.testing.assert_close(hypothesis["attention"].T, weights[0], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("score", ["none", *ATTENTION_SCORES.names()])
@pytest.mark.parametrize("query", ["current", "previous"])
def test_beam_of_one_is_greedy(score, query):
    task = toy_task()
    model = build(task, **mechanism(score, query))
    source, lengths, _ = batch(task)
    steps = 5
    tokens = torch.full((len(LENGTHS), 1), task.target_dictionary.eos())
    with torch.no_grad():
        for _ in range(steps):
            logits = model(source, lengths, tokens)[0][:, -1]
            logits[:, task.target_dictionary.pad()] = -torch.inf
            tokens = torch.cat([tokens, logits.argmax(1, keepdim=True)], dim=1)
        generator = SequenceGenerator(
            [model], task.target_dictionary, beam_size=1, max_len_a=0, max_len_b=steps, min_len=0
        )
        found = generator.generate([model], {"net_input": {"src_tokens": source, "src_lengths": lengths}})
    for row, (hypothesis,) in enumerate(found):
        greedy = tokens[row, 1:].tolist()
        eos = task.target_dictionary.eos()
        greedy = greedy[: greedy.index(eos)] if eos in greedy else greedy
        assert hypothesis["tokens"].tolist() == greedy + [eos]
