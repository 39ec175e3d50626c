"""Sparse output: probabilities and losses against their formulas, search that ends, and one line for what cannot be."""

import math

import pytest
import torch
from entmax import entmax_bisect_loss
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.logging import metrics
from fairseq.search import Sampling
from fairseq.sequence_generator import SequenceGenerator, SequenceGeneratorWithAlignment
from model_factory import batch, build, toy_task
from transcribed_parts import NORMALIZERS

from fairseq_attn_plugin.criterions.chunked_cross_entropy import ChunkedCrossEntropyCriterion
from fairseq_attn_plugin.criterions.entmax_loss import EntmaxLossCriterion
from fairseq_attn_plugin.modules import output_normalizers
from fairseq_attn_plugin.modules.output_normalizers import SPARSE_OUTPUTS

ALPHAS = {"entmax15": 1.5, "sparsemax": 2.0}
PAD = 1
TASK = toy_task()


def criterion_task():
    return type("Task", (), {"target_dictionary": TASK.target_dictionary})()


def sample():
    source, lengths, previous = batch(TASK)
    target = previous.roll(-1, dims=1)
    target[0, 3:] = PAD
    target[2] = PAD  # a row of padding
    net_input = {"src_tokens": source, "src_lengths": lengths, "prev_output_tokens": previous}
    return {"net_input": net_input, "target": target, "ntokens": int(target.ne(PAD).sum())}


@pytest.mark.parametrize("name", SPARSE_OUTPUTS)
@pytest.mark.parametrize("sorted_first", [2, 128])
def test_probabilities_and_loss_equal_their_formulas(monkeypatch, name, sorted_first):
    monkeypatch.setattr(output_normalizers, "SORTED", sorted_first)
    output, alpha = SPARSE_OUTPUTS[name], ALPHAS[name]
    scores = torch.randn(6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores[0] *= 0.01  # all of them in the support
    scores[1, 3] = 9.0  # one alone
    target = torch.tensor([0, 3, 1, 2, 8, 5])
    found = output.log_probabilities(scores).exp()
    expected = torch.stack([NORMALIZERS[name](row) for row in scores])
    torch.testing.assert_close(found, expected)
    assert bool((found == 0).any()) and bool((found[0] > 0).all())
    scores.requires_grad_()
    losses = output.loss(scores, target)
    entropy = (1 - (expected**alpha).sum(dim=1)) / (alpha * (alpha - 1))
    by_hand = entropy + (expected * scores).sum(dim=1) - scores[range(6), target]
    torch.testing.assert_close(losses, by_hand)
    torch.testing.assert_close(losses, entmax_bisect_loss(scores, target, alpha), atol=1e-6, rtol=1e-6)
    assert losses[1] == 0
    (gradient,) = torch.autograd.grad(losses.sum(), scores)
    expected[range(6), target] -= 1
    torch.testing.assert_close(gradient, expected)
    assert output.loss(scores.half(), target).dtype == torch.float32


@pytest.mark.parametrize("name", SPARSE_OUTPUTS)
@pytest.mark.parametrize("sentence_avg", [False, True])
def test_criterion_sums_over_the_words(name, sentence_avg):
    model, given = build(TASK, output_normalizer=name).train(), sample()
    criterion = EntmaxLossCriterion(criterion_task(), sentence_avg=sentence_avg, report_accuracy=True)
    loss, sample_size, log = criterion(model, given)
    scores, total, support, correct = model(**given["net_input"])[0], 0.0, 0, 0
    by_word = torch.zeros(given["target"].shape)
    for b, row in enumerate(given["target"].tolist()):
        for t, word in enumerate(row):
            if word != PAD:
                one = scores[b, t].unsqueeze(0)
                by_word[b, t] = entmax_bisect_loss(one, torch.tensor([word]), ALPHAS[name]).detach()
                support += int((NORMALIZERS[name](one[0].detach()) > 0).sum())
                correct += int(one.argmax() == word)
    total = by_word.sum()
    torch.testing.assert_close(loss, total, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(criterion(model, given, reduce=False)[0], by_word.flatten(), atol=1e-4, rtol=1e-4)
    assert sample_size == (4 if sentence_avg else given["ntokens"])
    assert (int(log["support"]), log["n_correct"], log["total"]) == (support, correct, given["ntokens"])
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_logs_of_several_batches_are_weighted_by_their_size():
    logs = [dict(loss=torch.tensor(6.0), support=torch.tensor(8), ntokens=4, sample_size=4, nsentences=1),
            dict(loss=torch.tensor(2.0), support=torch.tensor(4), ntokens=8, sample_size=8, nsentences=2)]  # fmt: skip
    assert EntmaxLossCriterion.logging_outputs_can_be_summed()
    with metrics.aggregate() as found:
        EntmaxLossCriterion.reduce_metrics(logs)
    assert found.get_smoothed_values() == {"loss": round(8 / 12, 3), "support": 1.0}


# Search


def generator_of(model, beam, kind=SequenceGenerator, **options):
    options = {**dict(max_len_a=0, max_len_b=6, normalize_scores=False), **options}
    return kind([model], TASK.target_dictionary, beam_size=beam, **options)


def search(model, beam, *kind, **options):
    source, lengths, _ = batch(TASK, left_pad=True)
    found = generator_of(model, beam, *kind, **options).generate(
        [model], {"net_input": {"src_tokens": source, "src_lengths": lengths}}
    )
    return source, found


def forced(model, source, tokens):
    previous = torch.cat([tokens[-1:], tokens[:-1]]).unsqueeze(0)
    with torch.no_grad():
        scores = model(source.unsqueeze(0), None, previous)[0][0]
    rows = [NORMALIZERS[name_of(model)](row.double()) for row in scores]
    return [float(row[token]) for row, token in zip(rows, tokens.tolist(), strict=True)]


def name_of(model):
    return next(name for name, output in SPARSE_OUTPUTS.items() if output is model.decoder.sparse_output)


@pytest.mark.parametrize("name", SPARSE_OUTPUTS)
@pytest.mark.parametrize("beam, scale", [(1, 1.0), (4, 0.3), (5, 1.0)])
def test_hypotheses_are_those_with_a_probability(name, beam, scale):
    model = build(TASK, output_normalizer=name)
    with torch.no_grad():
        model.decoder.vocabulary.weight.mul_(scale)
        model.decoder.vocabulary.bias[TASK.target_dictionary.eos()] += 1.0
    source, found = search(model, beam)
    for row, hypotheses in enumerate(found):
        assert 1 <= len(hypotheses) <= beam
        assert len({tuple(each["tokens"].tolist()) for each in hypotheses}) == len(hypotheses)
        for each in hypotheses:
            probabilities = forced(model, source[row], each["tokens"])
            if each["score"] == -math.inf:  # cut at the longest that may be
                assert len(hypotheses) == 1 and len(each["tokens"]) == 7 and min(probabilities[:-1]) > 0
                assert probabilities[-1] == 0 and each["positional_scores"][-1] == -math.inf
                continue
            expected = torch.tensor(probabilities).log()
            torch.testing.assert_close(each["score"], expected.sum(), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(each["positional_scores"], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bias, length, score", [(1e3, 1, 0.0), (-1e3, 7, -math.inf)])
@pytest.mark.parametrize("how", ["beam", "sampling", "one step later"])
def test_search_ends_where_nothing_else_is_possible(how, bias, length, score):
    """Where </s> alone has a probability there is one hypothesis, however wide the beam; and where it has none,
    sentences are as long as they may be."""
    model = build(TASK, output_normalizer="sparsemax")
    eos = TASK.target_dictionary.eos()
    with torch.no_grad():
        model.decoder.vocabulary.weight.zero_()
        model.decoder.vocabulary.bias.zero_()[eos] = bias
        model.decoder.vocabulary.bias[PAD] = -1e3
    more = {"search_strategy": Sampling(TASK.target_dictionary)} if how == "sampling" else {}
    more = {**more, "min_len": 1 if how == "one step later" else 0}
    _, found = search(model, 5, **more)
    for hypotheses in found:
        if how == "one step later" and bias > 0:  # what is asked for has no probability
            assert [each["score"] for each in hypotheses] == [-math.inf]
            continue
        if how == "beam" or bias < 0:
            assert len(hypotheses) == 1
        for each in hypotheses:
            assert len(each["tokens"]) == length and float(each["score"]) == score
            assert not each["positional_scores"].isnan().any()


def test_as_many_alignments_as_hypotheses():
    """fairseq's aligner wants as many hypotheses for every sentence as the beam is wide."""
    model = build(TASK, output_normalizer="sparsemax")
    with torch.no_grad():
        model.decoder.vocabulary.weight.mul_(4.0)
        model.decoder.vocabulary.bias[TASK.target_dictionary.eos()] += 2.0
    _, found = search(model, 5)
    _, aligned = search(model, 5, SequenceGeneratorWithAlignment, print_alignment="soft")
    assert len(set(map(len, found))) > 1
    for one, other in zip(found, aligned, strict=True):
        for expected, each in zip(one, other, strict=True):
            assert torch.equal(each["tokens"], expected["tokens"]) and each["score"] == expected["score"]
            assert len(each["alignment"]) == len(each["tokens"])


def test_search_of_a_softmax_is_left_alone():
    generator = generator_of(build(TASK), 3)
    assert not hasattr(generator.search.step, "__wrapped__")


# What cannot be


def criterions():
    given = dict(sentence_avg=False)
    smoothed = dict(given, label_smoothing=0.0)
    return {
        "cross_entropy": CrossEntropyCriterion(criterion_task(), **given),
        "chunked_cross_entropy": ChunkedCrossEntropyCriterion(criterion_task(), **smoothed),
    }


@pytest.mark.parametrize("name", ["cross_entropy", "chunked_cross_entropy"])
def test_a_logarithm_of_zero_is_an_error(name):
    model = build(TASK, output_normalizer="entmax15").train()
    with pytest.raises(ValueError, match="^--criterion.*takes the logarithm of probabilities.*--criterion entmax_loss"):
        criterions()[name](model, sample())


def test_a_softmax_has_no_entmax_loss():
    with pytest.raises(ValueError, match="^--criterion entmax_loss: .* softmax; use --output-normalizer entmax15"):
        EntmaxLossCriterion(criterion_task(), sentence_avg=False)(build(TASK).train(), sample())


@pytest.mark.parametrize(
    "option, message",
    [
        (dict(label_smoothing=0.1), "^--label-smoothing 0.1: --criterion entmax_loss has none.*leave it out"),
        (dict(entmax_best_metric="ppl"), "^--best-checkpoint-metric ppl: .*use --best-checkpoint-metric loss"),
    ],
)
def test_options_that_mean_nothing(option, message):
    with pytest.raises(ValueError, match=message):
        EntmaxLossCriterion(criterion_task(), sentence_avg=False, **option)


@pytest.mark.slow(seconds=8)
def test_fairseq_s_commands(command, tmp_path):
    """The checkpoint says what normalises the output; the loss has no perplexity."""
    command(
        "train",
        "--task reversal --arch attn_gru_additive --encoder-embed-dim 8 --decoder-embed-dim 8 --optimizer adam "
        "--reversal-valid-size 20 --reversal-max-length 6 --reversal-train-size 300 --max-tokens 200 --max-update 4 "
        f"--update-freq 2 --no-epoch-checkpoints --save-dir {tmp_path} --log-format json --log-file {tmp_path}/log "
        "--output-normalizer entmax15 --criterion entmax_loss --validate-interval-updates 4 --copy off",
    )
    log = (tmp_path / "log").read_text()
    assert '"valid_support"' in log and '"valid_loss"' in log and "ppl" not in log
    words = f"--task reversal --path {tmp_path}/checkpoint_last.pt --reversal-test-size 9 --beam 5 --nbest 5"
    words += " --max-len-b 9"
    output = command("generate", words)
    aligned = command("generate", words, "--print-alignment hard")
    assert [line for line in aligned.splitlines() if line[:2] in ("H-", "D-")] == [
        line for line in output.splitlines() if line[:2] in ("H-", "D-")
    ] and aligned.count("\nA-") == output.count("\nH-")
    numbers = [float(line.split("\t")[1]) for line in output.splitlines() if line.startswith("H-")]
    assert len({line.split("\t")[0] for line in output.splitlines() if line.startswith("H-")}) == 9
    assert 9 <= len(numbers) <= 45 and not any(map(math.isnan, numbers))
