"""Mistakes seen in public implementations: none of them here."""

import pytest
import torch
from fairseq.sequence_generator import SequenceGeneratorWithAlignment
from fairseq.sequence_scorer import SequenceScorer
from model_factory import batch, build, build_once, mechanism, task_for, toy_task
from test_ladder import ALL

from fairseq_attn_plugin.models.decoder import AttnRNNDecoder
from fairseq_attn_plugin.models.dropout import Dropout
from fairseq_attn_plugin.models.encoder import memory_of
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES, AttentionKeys
from fairseq_attn_plugin.modules.recurrence.cells import CELLS

SCORES = ATTENTION_SCORES.names()


def run(task, model, left_pad=False, **more):
    source, lengths, previous = batch(task, left_pad=left_pad, **more)
    return source, *model(source, lengths, previous)


def net_input(source, lengths):
    return {"net_input": {"src_tokens": source, "src_lengths": lengths}}


@pytest.mark.parametrize("query", ["current", "previous"])
@pytest.mark.parametrize("score", SCORES)
def test_attention_comes_in_training_and_carries_gradient(score, query):
    task = toy_task()
    model = build(task, **mechanism(score, query)).train()
    source, _, extra = run(task, model)
    (weights,) = extra["attn"]
    assert weights.shape == (4, 5, source.size(1))
    if score != "last":
        weights[..., 0].sum().backward()
        assert model.encoder.embed_tokens.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("score", SCORES)
def test_padding_side_moves_the_columns_and_nothing_else(score):
    task = toy_task()
    model = build(task, **mechanism(score))
    with torch.no_grad():
        right, logits, extra = run(task, model)
        left, other_logits, other = run(task, model, left_pad=True)
    torch.testing.assert_close(other_logits, logits)
    for row in range(len(right)):
        ours = extra["attn"][0][row][:, right[row] != 1]
        torch.testing.assert_close(other["attn"][0][row][:, left[row] != 1], ours)


@pytest.mark.parametrize("cell", CELLS.names())
@pytest.mark.parametrize("direction", ["uni", "bi"])
def test_batches_need_not_be_sorted(cell, direction):
    task = toy_task()
    model = build(task, cell=cell, encoder_direction=direction, encoder_layers=2)
    source, lengths, previous = batch(task)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        expected = model(source, lengths, previous)[0][order]
        torch.testing.assert_close(model(source[order], lengths[order], previous[order])[0], expected)


@pytest.mark.parametrize("query", ["current", "previous"])
@pytest.mark.parametrize("score", SCORES)
def test_source_of_padding_alone_is_harmless(score, query):
    task = toy_task()
    model = build(task, **mechanism(score, query)).train()
    source, lengths, previous = batch(task)
    with torch.no_grad():
        expected = model(source, lengths, previous)[0]
    source = torch.cat([source, torch.full_like(source[:1], task.source_dictionary.pad())])
    previous = torch.cat([previous, previous[:1]])
    logits, extra = model(source, None, previous)
    (logits.logsumexp(-1).sum() + extra["attn"][0].square().sum()).backward()
    torch.testing.assert_close(logits[:-1], expected)
    assert (extra["attn"][0][-1] == 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("query", ["current", "previous"])
@pytest.mark.parametrize("score", SCORES)
def test_keys_are_computed_once_a_sentence(score, query, monkeypatch):
    task = toy_task()
    model = build(task, **mechanism(score, query))
    calls = []
    keys_class = type(model.encoder.attention_keys)
    forward = keys_class.forward
    monkeypatch.setattr(keys_class, "forward", lambda self, *args: calls.append(self) or forward(self, *args))
    source, lengths, _ = batch(task)
    generator = SequenceGeneratorWithAlignment([model], task.target_dictionary, beam_size=3, max_len_b=8)
    generator.generate([model], net_input(source, lengths))
    assert len(calls) == 1 and issubclass(keys_class, AttentionKeys)


@pytest.mark.parametrize("left_pad", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_alignments_of_a_mixed_batch_equal_those_alone(kind, left_pad):
    """Beam search, in fairseq's own numbering of the source tokens."""
    task = toy_task()
    model = build(task, **mechanism("additive", "previous"))
    source, lengths, _ = batch(task, lengths=(7, 3, 5, 6), left_pad=left_pad)
    generator = SequenceGeneratorWithAlignment(
        [model], task.target_dictionary, beam_size=4, max_len_a=0, max_len_b=6, print_alignment=kind
    )
    together = generator.generate([model], net_input(source, lengths))
    for row, hypotheses in enumerate(together):
        alone = source[row : row + 1][:, source[row] != task.source_dictionary.pad()]
        (expected,) = generator.generate([model], net_input(alone, lengths[row : row + 1]))
        for ours, theirs in zip(hypotheses, expected, strict=True):
            assert torch.equal(ours["tokens"], theirs["tokens"])
            ours, theirs = ([[float(x) for x in line] for line in h["alignment"]] for h in (ours, theirs))
            torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_every_parameter_learns(options):
    """No module is built that nothing reads, and no gradient is cut off; autocast changes types and nothing else."""
    task = task_for(options)
    model = build_once(task, **options).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(8.0 if parameter.dim() else 1.0)  # the start: no activation and no softmax is saturated
    source, lengths, previous = batch(task)
    logits, extra = model(source, lengths, previous)
    logits[..., ::2].logsumexp(-1).sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not idle
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = model(source, lengths, previous)
        half[..., ::2].logsumexp(-1).sum().backward()
    torch.testing.assert_close(half.float(), logits, atol=0.05, rtol=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_dropout_is_where_its_option_says(monkeypatch):
    """Every rate is another; what is dropped tells the place."""
    task, calls = toy_task(), []
    mask = Dropout.mask
    monkeypatch.setattr(Dropout, "mask", lambda self, *x: calls.append((self.p, tuple(x[0]))) or mask(self, *x))
    model = build(
        task, encoder_layers=2, decoder_layers=2, dropout=0.9, attention_dropout=0.5, decoder_out_embed_dim=9,
        encoder_dropout_in=0.1, encoder_dropout_out=0.2, decoder_dropout_in=0.3, decoder_dropout_out=0.4,
    )  # fmt: skip
    source, lengths, previous = batch(task)
    model.train()(source, lengths, previous)
    b, s, t = *source.shape, previous.size(1)
    encoder = [(0.1, (b, s, 5)), (0.2, (b, s, 6)), (0.2, (b, s, 6))]  # last: on the outputs
    step = [(0.4, (b, 8)), (0.5, (b, 1, s)), (0.4, (b, 8))]  # between layers, on the weights, on the readout
    assert calls == [*encoder, (0.3, (b, t, 7)), *step * t, (0.4, (b, t, 9))]
    plain = build(task, dropout=0.6)
    both = (plain.encoder.dropout_in, plain.encoder.dropout_out, plain.decoder.dropout_in, plain.decoder.dropout_out)
    assert [dropout.p for dropout in both] == [0.6] * 4 and plain.decoder.attention.dropout.p == 0.0


def test_nothing_that_is_returned_is_also_kept():
    """fairseq's search changes logits and attention in place."""
    task = toy_task()
    model = build(task, **mechanism("general"))
    source, _, previous = batch(task)
    with torch.no_grad():
        encoder_out = model.encoder(source)
        expected = model.decoder(previous, encoder_out=encoder_out)[0]
        cache = {}
        for t in range(previous.size(1)):
            logits, extra = model.decoder(previous[:, : t + 1], encoder_out=encoder_out, incremental_state=cache)
            torch.testing.assert_close(logits[:, 0], expected[:, t])
            logits.fill_(torch.nan)
            extra["attn"][0].fill_(torch.nan)


@pytest.mark.parametrize("scores", [("additive", "none"), ("dot", "general")])
def test_ensembles_and_scoring_of_references(scores):
    task = toy_task()
    models = [build(task, seed=i, **mechanism(score)) for i, score in enumerate(scores)]
    source, lengths, previous = batch(task, target_lengths=(5, 5, 5, 5))
    target = previous.roll(-1, dims=1)
    sample = net_input(source, lengths)
    sample["net_input"]["prev_output_tokens"] = previous
    sample["target"] = target
    found = SequenceScorer(task.target_dictionary).generate(models, sample)
    with torch.no_grad():
        each = [torch.softmax(model(source, lengths, previous)[0], -1) for model in models]
    mean = sum(each) / len(each)
    for row, (hypothesis,) in enumerate(found):
        tokens = hypothesis["tokens"]
        expected = mean[row, : len(tokens)].gather(1, tokens.unsqueeze(1)).log().mean()
        torch.testing.assert_close(hypothesis["score"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS.names())
@pytest.mark.parametrize("more", [{}, dict(residual_connections=True, layer_norm=True)], ids=["plain", "normed"])
def test_recurrence_and_kernel_are_one_function(cell, more):
    """The step-by-step reference gives what torch's kernel gives, with the feedback taken out."""
    task = toy_task()
    model = build(task, **mechanism("general", cell=cell, input_feeding="off", decoder_layers=3, **more))
    source, _, previous = batch(task)
    decoder: AttnRNNDecoder = model.decoder
    with torch.no_grad():
        encoder_out = model.encoder(source)
        words, state = decoder.embed_tokens(previous), decoder._first(encoder_out, memory_of(encoder_out)).parts["cell"]
        outputs, layers = decoder.recurrence(words, state)
        for t in range(previous.size(1)):
            output, state = decoder.recurrence.step([words[:, t]], state)
            torch.testing.assert_close(output, outputs[:, t], atol=1e-5, rtol=1e-5)
    for kernel, reference in zip(layers, state, strict=True):
        for ours, expected in zip(reference, kernel, strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
