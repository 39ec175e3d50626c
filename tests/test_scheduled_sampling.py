"""Scheduled sampling: the schedules, the coins, and a decoder that reads the mixture as if it were the truth."""

import json
import math

import pytest
import torch
from model_factory import batch, build, mechanism, toy_task

from fairseq_attn_plugin.modules.scheduled_sampling import SCHEDULES, ScheduledSampling

# schedule: constants, ε at updates 0, 10 and 1000, worked out from Bengio et al. (2015), section 2.4
BY_HAND = {
    "constant": ((0.75, None), (0.75, 0.75, 0.75)),
    "linear": ((0.9, 0.02), (0.9, 0.7, -19.1)),
    "exponential": ((0.9, None), (1.0, 0.9**10, 0.9**1000)),
    "inverse_sigmoid": ((5.0, None), (5 / 6, 5 / (5 + math.e**2), 0.0)),
}


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_schedule_by_hand(name):
    constants, expected = BY_HAND[name]
    schedule = SCHEDULES[name](*constants)
    assert schedule.fits()
    assert [schedule(update) for update in (0, 10, 1000)] == pytest.approx(expected, abs=1e-12)
    values = [schedule(update) for update in range(0, 100_000, 997)]
    assert values == sorted(values, reverse=True)
    sampling = ScheduledSampling(schedule, floor=0.6)
    sampling.set_num_updates(1000)
    assert sampling.probability == max(0.6, expected[2])


def test_coins_are_thrown_for_each_token_of_each_sentence():
    torch.manual_seed(1)
    sampling = ScheduledSampling(SCHEDULES["constant"](0.3))
    coins = sampling.true_words(torch.zeros(400, 50))
    assert coins[:, 0].all()
    rest = coins[:, 1:].double()
    # the share of a row, of a column and of all: means of 49, 400 and 19600 coins, five standard deviations
    for share, count in ((rest.mean(1), 49), (rest.mean(0), 400), (rest.mean(), 49 * 400)):
        assert ((share - 0.3).abs() < 5 * math.sqrt(0.21 / count)).all()
    assert rest.unique(dim=0).size(0) == 400 and rest.unique(dim=1).size(1) == 49


def test_drawn_words_have_their_probabilities():
    torch.manual_seed(1)
    logits = torch.tensor([[0.0, 1.0, 2.0, -math.inf]])
    sampling = ScheduledSampling(SCHEDULES["constant"](0.0), samples=True)
    drawn = sampling.words(logits.expand(20_000, -1)).bincount(minlength=4) / 20_000
    torch.testing.assert_close(drawn, torch.softmax(logits[0], 0), atol=0.015, rtol=0)
    assert ScheduledSampling(SCHEDULES["constant"](0.0)).words(logits).tolist() == [2]


MODELS = {
    "general, feeding": mechanism("general"),
    "no feedback": mechanism("additive", input_feeding="off"),
    "previous, context in the query": mechanism(
        "additive", "previous", attention_query_inputs="state,word,context", cell="gru", decoder_layers=2
    ),
    "without attention": mechanism("none", cell="rnn"),
}


def mixture(model, source, tokens, is_true):
    """What the decoder ought to read, by teacher forcing of longer and longer prefixes in evaluation mode."""
    mixed = tokens.clone()
    for t in range(1, tokens.size(1)):
        with torch.no_grad():
            logits = model(source, None, mixed[:, :t])[0][:, -1]
        logits[:, model.decoder.dictionary.pad()] = -math.inf
        mixed[:, t] = torch.where(is_true[:, t], tokens[:, t], logits.argmax(1))
    return mixed


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_decoder_reads_the_mixture_with_the_same_gradients(name, share):
    task = toy_task()
    source, _, previous = batch(task, left_pad=True)
    sampled = build(task, **MODELS[name], scheduled_sampling="constant", scheduled_sampling_k=0.5)
    sampled.decoder.scheduled_sampling.schedule.k = share
    plain = build(task, **MODELS[name])
    with torch.no_grad():  # padding is likely, and yet never a word
        for model in (sampled, plain):
            model.decoder.vocabulary.bias[task.target_dictionary.pad()] += 100
    torch.manual_seed(7)
    is_true = sampled.decoder.scheduled_sampling.true_words(previous)
    mixed = mixture(plain, source, previous, is_true)
    assert (share == 1.0) == torch.equal(mixed, previous)

    torch.manual_seed(7)
    logits, extra = sampled.train()(source, None, previous)
    expected, expected_extra = plain.train()(source, None, mixed)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    if extra["attn"]:
        torch.testing.assert_close(extra["attn"][0], expected_extra["attn"][0], atol=1e-5, rtol=1e-5)
    for result in (logits, expected):
        result.logsumexp(-1).sum().backward()
    for (parameter_name, ours), theirs in zip(sampled.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3, rtol=1e-4, msg=parameter_name)


def test_only_training_samples():
    task = toy_task()
    source, _, previous = batch(task)
    sampled = build(task, scheduled_sampling="constant", scheduled_sampling_k=0.0)
    plain = build(task)
    with torch.no_grad():
        torch.testing.assert_close(sampled(source, None, previous)[0], plain(source, None, previous)[0])
        sampled.train()
        encoder_out, cache = sampled.encoder(source), {}
        for t in range(previous.size(1)):
            step = sampled.decoder(previous[:, : t + 1], encoder_out=encoder_out, incremental_state=cache)[0][:, -1]
            torch.testing.assert_close(step, plain(source, None, previous[:, : t + 1])[0][:, -1])


TRAINING = (
    "--task reversal --arch attn_lstm_reversal --optimizer adam --lr 0.01 --max-tokens 200 --reversal-train-size 300 "
    "--reversal-valid-size 5 --no-epoch-checkpoints --log-format json --log-interval 1 --disable-validation "
    "--scheduled-sampling linear --scheduled-sampling-k 1.0 --scheduled-sampling-slope 0.02 --dropout 0.2"
)


@pytest.mark.slow
@pytest.mark.parametrize("word", ["argmax", "sample"])
def test_resumed_training_is_exact_and_logs_the_probability(command, tmp_path, word):
    options = f"{TRAINING} --scheduled-sampling-word {word}"
    command("train", options, "--max-update 12", f"--save-dir {tmp_path}/straight --log-file {tmp_path}/log")
    for updates in (5, 12):
        command("train", options, f"--max-update {updates}", f"--save-dir {tmp_path}/resumed")
    straight, resumed = (
        torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=True)["model"]
        for name in ("straight", "resumed")
    )
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith('{"')]
    logged = {int(line["num_updates"]): float(line["true_word_probability"]) for line in lines if "num_updates" in line}
    assert logged[1] == 1.0 and logged[12] == pytest.approx(1.0 - 0.02 * 11)
