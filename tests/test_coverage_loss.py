"""The coverage loss of ``chunked_cross_entropy`` against loops over its formula."""

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from fairseq_commands import load
from model_factory import build, toy_task
from test_chunked_cross_entropy import MODELS, TRAIN, distributed, logged, result, sample_of

from fairseq_attn_plugin.criterions.chunked_cross_entropy import ChunkedCrossEntropyCriterion
from fairseq_attn_plugin.modules.coverage_loss import repeated_attention


def criterion(task, weight, smoothing=0.1, prefix=0, **more):
    return ChunkedCrossEntropyCriterion(task, False, smoothing, prefix, coverage_loss=weight, **more)


def by_loops(weights, target, pad, prefix=0):
    """Eq. 12 of See et al. (2017), term by term, over the words of B×T targets beyond the prefix."""
    total = weights.new_zeros(())
    for a, words in zip(weights, target.tolist(), strict=True):
        for t in range(prefix, len(words)):
            if words[t] != pad:
                for j in range(a.size(1)):
                    before = sum((a[earlier, j] for earlier in range(t)), a.new_zeros(()))
                    total = total + (a[t, j] if a[t, j] < before else before)
    return total


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_sums_are_those_of_the_formula(dtype):
    weights = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).softmax(-1)
    weights[1, :, 2:] = 0.0  # padding
    weights = weights.to(dtype)
    found = repeated_attention(weights)
    assert found.shape == (3, 6) and found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (found[:, 0] == 0).all() and (found >= 0).all()
    for row, a in zip(found, weights.to(found.dtype), strict=True):
        for t in range(6):
            expected = sum(min(float(a[t, j]), sum(float(a[k, j]) for k in range(t))) for j in range(4))
            assert float(row[t]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert repeated_attention(torch.zeros(2, 0, 3)).shape == (2, 0)


def test_gradients_of_the_sums_are_those_of_finite_differences():
    weights = torch.rand(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).softmax(-1)
    torch.autograd.gradcheck(repeated_attention, weights.requires_grad_())


SPARSE = {**MODELS, "zeros among the weights": {"attention_normalizer": "sparsemax"}}


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("options", SPARSE.values(), ids=SPARSE)
def test_loss_and_gradients_are_fairseqs_and_those_of_the_formula(options, smoothing, prefix):
    """With λ = 3; the gradients flow through the attention."""
    task = toy_task()
    model, sample = build(task, **options).double().train(), sample_of(task)
    loss, sample_size, log, gradients = result(criterion(task, 3.0, smoothing, prefix), model, sample)
    weights = model(**sample["net_input"])[1]["attn"][0]
    coverage = by_loops(weights, sample["target"], task.target_dictionary.pad(), prefix)
    plain = LabelSmoothedCrossEntropyCriterion(task, False, smoothing, prefix)
    expected = result(plain, model, sample)  # leaves its gradients in the model
    (3.0 * coverage).backward()
    both = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert coverage > 0.1
    close = dict(atol=1e-5, rtol=1e-5)  # the weights are in float32, fairseq's softmax too
    torch.testing.assert_close(loss.double(), expected[0].double() + 3.0 * coverage.detach().double(), **close)
    torch.testing.assert_close(gradients, both, **close)
    assert log["coverage_loss"] == pytest.approx(float(coverage), abs=1e-5) and sample_size == expected[1]
    assert {name: log[name] for name in ("nll_loss", "ntokens")} == pytest.approx(
        {name: expected[2][name] for name in ("nll_loss", "ntokens")}
    )
    unreduced = criterion(task, 3.0, smoothing, prefix)(model, sample, reduce=False)[0]
    assert unreduced.numel() == 4 * (5 - prefix)
    torch.testing.assert_close(unreduced.sum().detach(), loss, **close)


def test_without_a_weight_nothing_is_logged_and_nothing_added():
    task = toy_task()
    model, sample = build(task), sample_of(task)
    found, expected = (result(each, model, sample) for each in (criterion(task, 0.0), criterion(task, 1.0)))
    coverage = expected[2].pop("coverage_loss")
    assert found[2].keys() == expected[2].keys() and found[2]["nll_loss"] == expected[2]["nll_loss"]
    torch.testing.assert_close(found[0] + coverage, expected[0])


def test_a_batch_is_its_sentences_on_either_side_of_the_padding():
    task = toy_task()
    model, sample, one = build(task, attention_score="additive"), sample_of(task), criterion(task, 1.0)
    whole = float(one(model, sample)[2]["coverage_loss"])
    inputs, source_pad = sample["net_input"], task.source_dictionary.pad()
    alone, other_side = 0.0, inputs["src_tokens"].clone()
    for row, source in enumerate(inputs["src_tokens"]):
        real = source[source != source_pad]
        other_side[row] = source_pad
        other_side[row, len(source) - len(real) :] = real
        words = sample["target"][row] != task.target_dictionary.pad()
        net_input = {
            "src_tokens": real.unsqueeze(0),
            "src_lengths": inputs["src_lengths"][row : row + 1],
            "prev_output_tokens": inputs["prev_output_tokens"][row : row + 1, words],
        }
        each = {"net_input": net_input, "target": sample["target"][row : row + 1, words], "ntokens": int(words.sum())}
        alone += float(one(model, each)[2]["coverage_loss"])
    assert whole > 0.1 and alone == pytest.approx(whole, rel=1e-5)
    left = {**sample, "net_input": {**inputs, "src_tokens": other_side}}
    assert float(one(model, left)[2]["coverage_loss"]) == pytest.approx(whole, rel=1e-5)


def test_padding_alone_costs_nothing():
    task = toy_task()
    model = build(task).train()
    nothing = sample_of(task, (0, 0, 0, 0))
    loss, _, log, gradients = result(criterion(task, 1.0), model, nothing)
    assert loss == log["coverage_loss"] == 0 and not any(g.any() for g in gradients.values() if g is not None)
    sample = sample_of(task)
    sample["net_input"]["src_tokens"] = torch.full_like(sample["net_input"]["src_tokens"], task.source_dictionary.pad())
    _, _, log, gradients = result(criterion(task, 1.0), model, sample)
    assert log["coverage_loss"] == 0 and all(g.isfinite().all() for g in gradients.values() if g is not None)


def test_sums_of_processes_and_batches_are_logged_per_word():
    def sums(loss, coverage, ntokens):
        both = {"loss": loss, "nll_loss": loss, "ntokens": ntokens, "sample_size": ntokens}
        return both if coverage is None else {**both, "coverage_loss": torch.tensor(coverage)}

    def logs(*batches):
        with metrics.aggregate(new_root=True) as values:
            for batch in batches:
                ChunkedCrossEntropyCriterion.reduce_metrics(batch)
        return values.get_smoothed_values()

    one, two, three = sums(1.0, 0.5, 2), sums(1.0, 3.5, 6), sums(1.0, 8.0, 8)
    assert logs([one, two], [three])["coverage_loss"] == pytest.approx((0.5 + 3.5 + 8) / 16)
    assert logs([one, two, three]) == pytest.approx(logs([one, two], [three]))
    assert "coverage_loss" not in logs([sums(1.0, None, 2)])


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_an_error(weight):
    with pytest.raises(ValueError, match=rf"^--coverage-loss: got {weight}; give a number of 0 or more, at most"):
        criterion(toy_task(), weight)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(attention_score="none", input_feeding="off"), "this model has no attention .*; leave it out, or use"),
        (dict(attention_score="last"), "the attention weights of this model are fixed .*; leave it out, or use"),
    ],
    ids=["none", "last"],
)
@pytest.mark.parametrize("reduce", [True, False])
def test_attention_that_cannot_learn_is_an_error(options, message, reduce):
    task = toy_task()
    model, sample = build(task, **options), sample_of(task)
    with pytest.raises(ValueError, match=f"^--coverage-loss: {message} another --attention-score$"):
        criterion(task, 1.0)(model, sample, reduce)
    criterion(task, 0.0)(model, sample, reduce)


@pytest.mark.slow
def test_training_in_two_processes_is_training_in_one(command, programs, tmp_path):
    options = ("--criterion chunked_cross_entropy", "--coverage-loss 0.5")
    command("train", TRAIN, *options, f"--update-freq 2 --save-dir {tmp_path}/one --log-file {tmp_path}/one.log")
    both = distributed(programs, tmp_path / "two", *options, f"--log-file {tmp_path}/two.log")
    torch.testing.assert_close(both["model"], load(tmp_path / "one" / "checkpoint_last.pt")["model"])
    logs = [logged((tmp_path / name).read_text())[-1] for name in ("one.log", "two.log")]
    one, two = (float(log["valid_coverage_loss"]) for log in logs)
    assert one == pytest.approx(two, abs=0.002) and one > 0.01
