"""The language in the query: whose tag it is, sentences without one, and what cannot be."""

import pytest
import torch
from model_factory import batch, build, task_for, toy_task

from fairseq_attn_plugin.models.encoder import memory_of

READS = dict(attention_query_inputs="state,language")


def tagged(**options):
    task = task_for(READS)
    return task, build(task, **READS, **options)


@pytest.mark.parametrize("left_pad", [False, True])
def test_the_memory_has_the_embedding_of_each_sentences_tag(left_pad):
    task, model = tagged()
    source, _, _ = batch(task, left_pad=left_pad)
    fr, en = (task.source_dictionary.index(tag) for tag in ("<2fr>", "<2en>"))
    weight = model.encoder.embed_tokens.weight
    expected = torch.stack([weight[fr], torch.zeros_like(weight[fr]), weight[fr], weight[en]])
    memory = memory_of(model.encoder(source))
    torch.testing.assert_close(memory.language, expected)  # the second sentence is </s> alone
    order = torch.tensor([2, 2, 0])
    torch.testing.assert_close(memory.select(order).language, expected[order])
    shared = memory.reorder(torch.arange(4).repeat_interleave(2))
    assert shared.language is memory.language
    torch.testing.assert_close(shared.language_for(torch.zeros(8, 3)), expected.repeat_interleave(2, dim=0))
    torch.testing.assert_close(memory.language_for(torch.zeros(4, 5, 3))[:, 4], expected)


def test_the_tag_says_where_to_look():
    task, model = tagged(input_feeding="off")
    source, lengths, previous = batch(task)
    other = source.clone()
    other[0, 0] = task.source_dictionary.index("<2en>")
    with torch.no_grad():
        language = model.encoder(other)["language"]
        mixed = {**model.encoder(source), "language": language}  # all else as it was
        weights = [model.decoder(previous, encoder_out=out)[1]["attn"][0] for out in (model.encoder(source), mixed)]
    assert not torch.allclose(weights[0][0], weights[1][0]) and torch.equal(weights[0][2:], weights[1][2:])


def test_nothing_is_handed_on_where_no_query_reads_it():
    model = build(task_for(READS))
    assert model.encoder(batch(task_for(READS))[0])["language"] == []
    assert build(**READS).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("left_pad", [False, True])
def test_a_sentence_without_a_tag_is_an_error(left_pad):
    task, model = tagged()
    source, lengths, previous = batch(task, left_pad=left_pad)
    source[source >= task.source_dictionary.index("<2fr>")] = task.source_dictionary.nspecial
    message = (
        "^--attention-query-inputs: .* a source sentence has no tag as <2LANG>; begin every source sentence with one"
    )
    with pytest.raises(ValueError, match=message):
        model(source, lengths, previous)
    nothing = torch.full_like(source, task.source_dictionary.pad())
    logits, extra = model(nothing, None, previous)
    assert logits.isfinite().all() and not extra["attn"][0].any()


def test_what_cannot_be_is_an_error():
    with pytest.raises(
        ValueError, match="^--attention-query-inputs state,language: .* no tag .*<2LANG>; make the data"
    ):
        build(toy_task(), **READS)
    task = task_for(READS)
    with pytest.raises(ValueError, match="^--attention-query-inputs language: the query would be the same .*; add sta"):
        build(task, attention_query_inputs="language", readout_inputs="state,context")
    with pytest.raises(ValueError, match="--readout-inputs: got .*language"):
        build(task, readout_inputs="state,context,language")
    with pytest.raises(ValueError, match="--attention-query-inputs .*needs attention, and --attention-score is none"):
        build(task, attention_score="none", input_feeding="off", **READS)


def test_products_in_bfloat16_come_close():
    task, exact = tagged(attention_query="previous")
    rounded = build(task, **READS, attention_query="previous", matmul_dtype="bfloat16")
    with torch.no_grad():
        for parameter, other in zip(exact.parameters(), rounded.parameters(), strict=True):
            other.copy_(parameter.div_(8.0 if parameter.dim() else 1.0))  # no softmax is saturated
        (expected, _), (found, _) = (model(*batch(task)) for model in (exact, rounded))
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.05)
