"""Ways of working with fairseq's commands: hydra, fine-tuning, validation of a checkpoint, supervised alignments."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from covering import in_full
from fairseq_commands import (
    PLUGIN,
    SMALL,
    alignment_accuracy,
    hypotheses,
    load,
    preprocess,
    write_reversed_text,
)

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parent.parent / "docs"
TASKS = ("translation", "reversal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workflows")
    write_reversed_text(folder, {"train": 800, "valid": 90, "test": 111}, longest=9)
    for path in folder.glob("*.src"):
        lengths = [len(line.split()) for line in path.read_text().splitlines()]
        links = (" ".join(f"{length - 2 - t}-{t}" for t in range(length - 1)) for length in lengths)
        path.with_suffix(".align").write_text("".join(line + "\n" for line in links))
    return folder


@pytest.fixture
def task(request, folder, command):
    """Options that name a task and its data; of fairseq's translation task with the alignments of every split."""
    if request.param == "reversal":
        sizes = "--reversal-train-size 64 --reversal-valid-size 45 --reversal-test-size 45"
        return f"--task reversal --reversal-max-length 9 {sizes}"
    if not (folder / "bin").exists():
        preprocess(command, folder, "--align-suffix align")
    return f"{folder / 'bin'} --task translation"


def train(command, save, *options):
    """Trains, and returns the last checkpoint's path."""
    command("train", *options, f"--save-dir {save}")
    return save / "checkpoint_last.pt"


# hydra


@pytest.fixture
def hydra_train(tmp_path, programs):
    """hydra_train(override...) runs the example of ``docs`` for a few updates in a folder of its own; returns (status,
    stdout and stderr)."""

    def run(*overrides):
        overrides = [f"common.user_dir={PLUGIN}", "optimization.max_update=5", *overrides]
        given = ["--config-dir", str(DOCS), "--config-name", "hydra-reversal", *overrides]
        command = [programs / "bin" / "fairseq-hydra-train", *given]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


def test_hydra_example_trains_what_the_preset_does(command, tmp_path, hydra_train):
    """Weight for weight, with two fields more; a field of the example that had no effect would change the sizes."""
    status, log = hydra_train("model.decoder_embed_dim=24", "+model.attention_score=additive")
    assert status == 0, log[-2000:]
    hydra = tmp_path / "checkpoints" / "hydra" / "checkpoint_best.pt"
    ours = load(hydra)["model"]
    assert ours["decoder.embed_tokens.weight"].shape == (8, 24) and "decoder.attention.score.vector" in ours

    options = "--task reversal --arch attn_lstm_reversal --decoder-embed-dim 24 --attention-score additive"
    options += " --max-update 5 --criterion cross_entropy --optimizer adam --lr 0.01 --clip-norm 1.0 --max-tokens 2000"
    schedule = "--lr-scheduler polynomial_decay --total-num-update 660 --no-epoch-checkpoints"
    twin = train(command, tmp_path / "twin", options, schedule)
    torch.testing.assert_close(ours, load(twin)["model"])

    text = command("generate", f"--task reversal --path {hydra} --reversal-test-size 20 --beam 2 --max-len-b 5")
    assert len(hypotheses(text)) == 20


@pytest.mark.parametrize(
    "override, message",
    [
        ("+model.atention_score=dot", "Key 'atention_score' not in 'AttnRNNConfig'"),
        ("model.encoder_direction=both", "Invalid value 'both', expected one of [uni, bi]"),
        ("+model.attention_score=lunog", "ValueError: --attention-score: got 'lunog'; choose from none"),
    ],
)
def test_hydra_names_the_mistake(hydra_train, override, message):
    status, log = hydra_train(override)
    assert status and message in log, log[-2000:]


# Fine-tuning


@pytest.mark.parametrize("task", TASKS, indirect=True)
def test_finetuning_starts_from_the_weights_alone(command, tmp_path, task):
    """At a learning rate of zero the weights stay what they were; the optimiser counts from the start."""
    common = f"{task} --arch attn_gru_additive {SMALL}"
    before = train(command, tmp_path / "before", common, "--max-update 6")
    finetune = f"{common} --seed 5 --finetune-from-model {before}"
    after = train(command, tmp_path / "after", finetune, "--max-update 2 --lr 0")
    old, new = load(before), load(after)
    torch.testing.assert_close(new["model"], old["model"], rtol=0, atol=0)
    assert [state["optimizer_history"][-1]["num_updates"] for state in (old, new)] == [6, 2]
    assert {state["step"] for state in new["last_optimizer_state"]["state"].values()} == {2}

    train(command, tmp_path / "after", finetune, "--max-update 5")  # goes on where it stopped, not from the old weights
    last = load(after)
    assert {state["step"] for state in last["last_optimizer_state"]["state"].values()} == {5}
    assert any(not torch.equal(last["model"][name], weight) for name, weight in new["model"].items())


# Validation


@pytest.mark.parametrize("task", TASKS, indirect=True)
def test_validate_repeats_the_validation_of_the_training(command, tmp_path, task):
    """The same numbers from the checkpoint; the same loss whatever the size of the batches."""
    every = "--required-batch-size-multiple 1"
    path = train(
        command, tmp_path / "save", f"{task} --arch attn_lstm {SMALL} {every} --max-update 4 --dropout 0.5",
        f"--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --log-format json --log-file {tmp_path}/log",
    )
    expected = last_validation((tmp_path / "log").read_text())
    losses = ["valid_loss", "valid_nll_loss", "valid_ppl"]
    # how long a sentence may get, and so an accuracy, is up to the longest of its batch
    accuracies = [f"valid_{what}_accuracy" for what in ("token", "sentence", "alignment") if "reversal" in task]
    for batch_size, names in ((8, losses + accuracies), (3, losses)):
        given = f"{task} --path {path} {every} --log-format json --batch-size {batch_size}"
        found = last_validation(command("validate", given))
        for name in names:
            assert float(found[name]) == pytest.approx(float(expected[name]), abs=0.002), name


def last_validation(log):
    """The numbers of the last validation in a log with ``--log-format json``."""
    line = [line for line in log.splitlines() if '"valid_loss"' in line][-1]
    return json.loads(line[line.index("{") :])


# Supervised alignments


@in_full
@pytest.mark.slow(seconds=35)
@pytest.mark.parametrize("task", ["translation"], indirect=True)
def test_alignments_of_a_corpus_can_be_supervised(command, tmp_path, task):
    """The corpus links a word to the one before its source, where the attention would not go by itself. The task pads
    sources on the left, and the links count from the first symbol; forced decoding shows the links of the reference."""
    common = f"{task} --arch attn_lstm_reversal --attention-score additive --attention-query previous --optimizer adam"
    common += " --lr 0.01 --clip-norm 1 --batch-size 64 --max-update 200 --no-epoch-checkpoints"
    criteria = {
        "guided": "--load-alignments --criterion label_smoothed_cross_entropy_with_alignment --alignment-lambda 1",
        "unguided": "--criterion label_smoothed_cross_entropy",
    }
    accuracy = {}
    for name, criterion in criteria.items():
        path = train(command, tmp_path / name, common, criterion, "--disable-validation")
        options = "--score-reference --batch-size 16 --required-batch-size-multiple 1 --print-alignment hard"
        accuracy[name] = alignment_accuracy(command("generate", task, options, f"--path {path}"), before=1)
    assert accuracy["guided"] > 0.9 and accuracy["unguided"] < 0.5, accuracy
