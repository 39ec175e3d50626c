"""Copying: the mixture against its formula, whatever the dictionaries; every loss; search; a task that needs it."""

import math

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.data import Dictionary
from fairseq.sequence_generator import SequenceGenerator
from model_factory import LENGTHS, batch, build, dictionary, task_for, toy_task
from torch.nn import functional as F

from fairseq_attn_plugin.criterions.chunked_cross_entropy import ChunkedCrossEntropyCriterion
from fairseq_attn_plugin.modules import vocabulary_loss
from fairseq_attn_plugin.modules.copying import Copies, Mixture

PAD = 1
COPY = dict(copy="on")
TASK = task_for(COPY)


def dictionary_of(*symbols):
    result = Dictionary()
    for symbol in symbols:
        result.add_symbol(symbol)
    return result


# The formula


def transcribed(gate, weights, symbols, scores):
    """See et al. (2017), eq. 9, of one step, over what can be copied: symbol j of the source is ``symbols[j]``."""
    g = 1 / (1 + torch.exp(-gate))
    powers = [torch.exp(score) for score in scores]
    shares, total = [g * power / sum(powers) for power in powers], g
    for weight, symbol in zip(weights, symbols, strict=True):
        if symbol != PAD:
            shares[symbol] = shares[symbol] + (1 - g) * weight
            total = total + (1 - g) * weight
    return torch.stack([torch.log(share / total) for share in shares])


SOURCES = torch.tensor([[4, 6, 4, 4, PAD], [PAD, PAD, 5, PAD, 5], [PAD] * 5])
"""Words that come twice, and nothing to copy at all."""


def mixture_inputs(steps=2, words=7):
    generator = torch.Generator().manual_seed(2)
    shapes = ((3, steps, 1), (3, steps, SOURCES.size(1)), (3, steps, words))
    made = [2 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    made[1] = torch.softmax(made[1], dim=2)
    made[1][0, 0, 1] = 0.0  # as sparse weights have it; one that is copied
    return [tensor.requires_grad_() for tensor in made]


def test_mixture_and_its_gradients_equal_the_formula():
    gate, weights, scores = mixture_inputs()
    found = Mixture.of(gate, weights, Copies.of(SOURCES, PAD)).logits(scores).log_softmax(dim=2)
    rows = [[transcribed(gate[b, t, 0], weights[b, t], SOURCES[b].tolist(), scores[b, t]) for t in range(2)]
            for b in range(3)]  # fmt: skip
    expected = torch.stack([torch.stack(row) for row in rows])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[2], torch.log_softmax(scores[2], dim=1))
    cost = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ours = torch.autograd.grad((found * cost).sum(), (gate, weights, scores))
    theirs = torch.autograd.grad((expected * cost).sum(), (gate, weights, scores))
    is_zero = weights == 0  # a weight of zero has no gradient, nor has what makes it zero
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1][~is_zero], theirs[1][~is_zero])
    torch.testing.assert_close(ours[2], theirs[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gate", [-1000.0, 0.0, 1000.0])
def test_logits_are_finite_however_sure_the_gate_is(gate, dtype):
    given = [torch.full((3, 2, 1), gate), mixture_inputs()[1].detach(), 100 * mixture_inputs()[2].detach()]
    gates, weights, scores = (tensor.to(dtype).requires_grad_() for tensor in given)
    found = Mixture.of(gates, weights, Copies.of(SOURCES, PAD)).logits(scores)
    assert found.dtype == torch.float32 and found.isfinite().all()
    found.log_softmax(dim=2).square().sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (scores, gates))


@pytest.mark.parametrize("joined", [True, False])
def test_symbols_are_copied_by_name_and_what_ends_a_sentence_is_not(joined):
    target = dictionary(3)
    source = target if joined else dictionary_of("s2", "elsewhere", "s0")
    encoder = build(toy_task(source, target), copy="on").encoder
    names = [target[int(i)] for i in encoder.copy_map]
    expected = ["s0", "s1", "s2"] if joined else ["s2", "<pad>", "s0"]
    assert names == ["<pad>", "<pad>", "<pad>", "<unk>", *expected]


def test_dictionaries_without_a_word_in_common():
    source, target = dictionary_of("a", "madeupword0000"), dictionary_of("b", "madeupword0000")
    with pytest.raises(ValueError, match="^--copy on: source and target dictionary have no word in common.*--copy off"):
        build(toy_task(source, target), copy="on")


# Losses


def sample():
    source, lengths, previous = batch(TASK)
    target = previous.roll(-1, dims=1)
    target[0, 3:] = PAD
    net_input = {"src_tokens": source, "src_lengths": lengths, "prev_output_tokens": previous}
    return {"net_input": net_input, "target": target, "ntokens": int(target.ne(PAD).sum())}


def loss_and_gradients(criterion, model):
    model.zero_grad()
    loss, _, log = criterion(model, sample())
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return loss.detach(), {name: float(value) for name, value in log.items()}, gradients


@pytest.mark.parametrize("prefix, smoothing", [(0, 0.1), (1, 0.0)])
def test_chunked_loss_equals_fairseq_s(monkeypatch, prefix, smoothing):
    monkeypatch.setattr(vocabulary_loss, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(vocabulary_loss, "CHUNK_ROWS", 4)
    model = build(TASK, **COPY).train()
    options = dict(sentence_avg=False, label_smoothing=smoothing, ignore_prefix_size=prefix, report_accuracy=True)
    fairseq = type("Task", (), {"target_dictionary": TASK.target_dictionary})()
    ours = loss_and_gradients(ChunkedCrossEntropyCriterion(fairseq, **options), model)
    theirs = loss_and_gradients(LabelSmoothedCrossEntropyCriterion(fairseq, **options), model)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert all(gradient.abs().sum() > 0 for name, gradient in ours[2].items() if "copy_gate" in name)


@pytest.mark.parametrize("more", [dict(input_feeding="off"), dict(attention_normalizer="sparsemax", attention_heads=2)])
@pytest.mark.parametrize("matmul_dtype", ["float32", "bfloat16"])
def test_half_precision_is_finite(matmul_dtype, more):
    model = build(TASK, **COPY, matmul_dtype=matmul_dtype, **more).train()
    model = model if matmul_dtype == "bfloat16" else model.bfloat16()
    source, lengths, previous = batch(TASK)
    logits = model(source, lengths, previous)[0]
    assert logits.dtype == torch.float32
    logits.log_softmax(dim=2).gather(2, previous.unsqueeze(2)).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_scheduled_sampling_reads_the_words_of_the_mixture():
    sampling = dict(scheduled_sampling="constant", scheduled_sampling_k=0.0)
    model = build(TASK, **COPY, **sampling).train()
    source, lengths, previous = batch(TASK)
    logits = model(source, lengths, previous)[0]
    own = logits.detach().clone()
    own[:, :, PAD] = -math.inf
    read = torch.cat([previous[:, :1], own.argmax(dim=2)[:, :-1]], dim=1)
    assert not torch.equal(read, previous)
    torch.testing.assert_close(model.eval()(source, lengths, read)[0], logits, atol=1e-5, rtol=1e-5)


# Search


def test_an_ensemble_has_the_mean_of_the_mixtures():
    models = [build(TASK, seed=seed, **COPY).eval() for seed in (1, 2)]
    source, lengths, _ = batch(TASK, left_pad=True)
    for model in models:
        model.make_generation_fast_(need_attn=None)
    generator = SequenceGenerator(
        models, TASK.target_dictionary, beam_size=3, max_len_a=0, max_len_b=5, normalize_scores=False
    )
    found = generator.generate(models, {"net_input": {"src_tokens": source, "src_lengths": lengths}})
    for row, hypotheses in enumerate(found):
        assert len(hypotheses) == 3
        for hypothesis in hypotheses:
            tokens = hypothesis["tokens"]
            previous = torch.cat([tokens[-1:], tokens[:-1]]).unsqueeze(0)
            with torch.no_grad():
                each = [model(source[row : row + 1], None, previous)[0][0].softmax(dim=1) for model in models]
            expected = (sum(each) / 2).log().gather(1, tokens.unsqueeze(1)).sum()
            torch.testing.assert_close(hypothesis["score"], expected, atol=1e-4, rtol=1e-4)


def test_beam_of_one_is_greedy():
    model, steps, eos = build(TASK, **COPY), 5, TASK.target_dictionary.eos()
    source, lengths, _ = batch(TASK)
    tokens = torch.full((len(LENGTHS), 1), eos)
    with torch.no_grad():
        for _ in range(steps):
            logits = model(source, lengths, tokens)[0][:, -1]
            logits[:, PAD] = -math.inf
            tokens = torch.cat([tokens, logits.argmax(1, keepdim=True)], dim=1)
        generator = SequenceGenerator([model], TASK.target_dictionary, beam_size=1, max_len_a=0, max_len_b=steps)
        found = generator.generate([model], {"net_input": {"src_tokens": source, "src_lengths": lengths}})
    for row, (hypothesis,) in enumerate(found):
        greedy = tokens[row, 1:].tolist()
        greedy = greedy[: greedy.index(eos)] if eos in greedy else greedy
        assert hypothesis["tokens"].tolist() == [*greedy, eos]


# What it is for


def learned(copy):
    """Share of right words that no target of the training had. The first word of a source asks for its second word, or
    for always the same word; the unseen second words come with the latter alone. What generates has one number to tell
    twenty words by."""
    words = dictionary_of("copy", "same", *(f"w{i}" for i in range(40)))
    asks, same, first, eos = 4, 5, 6, words.eos()
    seen, unseen = range(first, first + 20), range(first + 20, first + 40)
    model = build(toy_task(words, words), copy=copy, attention_value_inputs="state,word", input_feeding="off",
                  encoder_embed_dim=16, readout_dim=1, parameter_init="torch")  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(8.0)  # as they are before the tests make them large
    pairs = [([asks, word, eos], word) for word in seen] + [([same, word, eos], first) for word in unseen]
    source, target = (torch.tensor(part) for part in zip(*pairs, strict=True))
    previous = torch.full((len(pairs), 1), eos)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = F.cross_entropy(model(source, None, previous)[0][:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(torch.tensor([[asks, word, eos] for word in unseen]), None, previous[: len(unseen)])[0]
    return float(logits[:, 0].argmax(dim=1).eq(torch.tensor(unseen)).float().mean())


@pytest.mark.slow(seconds=3)
def test_words_that_no_target_had_are_copied():
    assert learned("on") >= 0.8
    assert learned("off") == 0.0
