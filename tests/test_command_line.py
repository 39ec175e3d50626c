"""fairseq's commands end to end: both tasks, every preset, every way of decoding, a killed training."""

import os
import re
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from covering import in_full
from fairseq_commands import PLUGIN, SMALL, alignment_accuracy, hypotheses, load, preprocess, write_reversed_text
from torch.serialization import get_unsafe_globals_in_checkpoint

from fairseq_attn_plugin.models.presets import PRESETS
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translation")
    write_reversed_text(folder, {"train": 40, "valid": 9, "test": 11}, longest=6)
    return folder


@pytest.fixture
def data(folder, command):
    """The folder's text in fairseq's binary form."""
    return folder / "bin" if (folder / "bin").exists() else preprocess(command, folder)


def train_translation(command, data, arch, *options):
    save = data.parent / f"{arch}{len(list(data.parent.iterdir()))}"
    command("train", data, f"--task translation --arch {arch} {SMALL} --max-update 4 --save-dir {save}", *options)
    return save / "checkpoint_last.pt"


DIFFERENT = {
    "attn_rnn", "attn_gru_bahdanau", "attn_gru_coverage", "attn_gru_location", "attn_lstm_local_p",
    "attn_lstm_monotonic", "attn_lstm_pyramid", "attn_lstm_shift", "seq2seq_lstm",
}  # fmt: skip
"""Presets of which each other is a relative."""


@pytest.mark.parametrize(
    "arch",
    [pytest.param(arch, marks=[] if arch in DIFFERENT else in_full) for arch in sorted({"attn_rnn", *PRESETS})],
)
def test_presets_under_the_translation_task(arch, command, data):
    """fairseq's own task, whose sources are left-padded; the checkpoint loads where nothing of us is imported."""
    checkpoint = train_translation(command, data, arch)
    assert get_unsafe_globals_in_checkpoint(checkpoint) == []
    if arch == "attn_rnn":  # in a process of its own, which takes seconds: once
        loading = "import sys, torch; torch.load(sys.argv[1], weights_only=True)"
        subprocess.run([sys.executable, "-c", loading, str(checkpoint)], check=True)
    both = f"{data} --task translation --path {checkpoint} --batch-size 4"
    assert len(hypotheses(command("generate", both, "--max-len-b 4 --required-batch-size-multiple 1"))) == 11
    command("validate", both)


def test_every_way_of_decoding(command, data, tmp_path, monkeypatch):
    first = train_translation(command, data, "attn_gru_additive")
    second = train_translation(command, data, "attn_lstm", "--seed 2 --source-lang src --target-lang tgt")
    common = f"{data} --task translation --batch-size 4 --max-len-b 6 --path {first}"
    one = f"{common} --required-batch-size-multiple 1"
    both = one.replace(str(first), f"{first}:{second}")

    for options, letter in ((one, "soft"), (both, "hard"), (f"{one} --score-reference", "hard")):
        text = command("generate", options, f"--print-alignment {letter}")
        alignments, sources = hypotheses(text, "A"), dict(hypotheses(text, "S"))
        assert len(alignments) == 11
        for number, alignment in alignments:
            length = len(sources[number].split())
            if letter == "soft":
                for row in alignment.split():
                    weights = [float(weight) for weight in row.split(",")]
                    assert len(weights) == length + 1 and sum(weights) == pytest.approx(1, abs=1e-4)
            else:
                assert all(0 <= int(pair.split("-")[0]) < length for pair in alignment.split())

    text = command("generate", one, "--prefix-size 2")
    for (_, target), (_, found) in zip(hypotheses(text, "T"), hypotheses(text), strict=True):
        assert found.split("\t")[1].split()[:2] == target.split()[:2]
    for options in ("--sampling --beam 2 --nbest 2", "--sampling --sampling-topk 3 --beam 1"):
        assert len(hypotheses(command("generate", one, options))) % 11 == 0

    typed = tmp_path / "typed"
    typed.write_text("a b c d e\tE\nb\tC A\n")
    options = f"--buffer-size 4 --input {typed} --beam 3 --constraints"
    text = command("interactive", common, options)
    found = [line.split("\t")[1].split() for _, line in hypotheses(text)]
    assert "E" in found[0] and {"C", "A"} <= set(found[1])
    # not with --constraints: fairseq fails where fewer hypotheses than the beam is wide have met them
    typed.write_text("a b c d e\nb\n")
    text = command("interactive", common, options.replace("--constraints", "--print-alignment hard"))
    assert len(hypotheses(text)) == len(hypotheses(text, "A")) == 2


def test_alignment_of_a_model_without_attention_is_a_clear_error(command, data):
    checkpoint = train_translation(command, data, "seq2seq_lstm")
    with pytest.raises(ValueError, match="--print-alignment soft: this model has no attention"):
        command("generate", f"{data} --task translation --path {checkpoint} --print-alignment soft")


def test_model_error_is_the_last_line(data, programs):
    given = f"--user-dir {PLUGIN} --cpu --task translation --arch attn_lstm {SMALL} --attention-score lunog"
    command = [programs / "bin" / "fairseq-train", str(data), *given.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    names = ", ".join(["none", *ATTENTION_SCORES.names()])
    expected = f"fairseq-train: error: --attention-score: got 'lunog'; choose from {names}"
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == expected and "Traceback" not in done.stderr


REVERSAL = (
    "--task reversal --arch attn_lstm_reversal --optimizer adam --lr 0.01 --clip-norm 1 --max-tokens 400 "
    "--reversal-min-length 8 --reversal-max-length 16 --reversal-train-size 20000 --reversal-valid-size 50 "
    "--reversal-test-size 200 --no-epoch-checkpoints --seed 3 --lr-scheduler polynomial_decay"
)


def accuracy_after(command, tmp_path, updates, *options):
    schedule = f"--max-update {updates} --total-num-update {updates}"
    command("train", REVERSAL, schedule, "--save-dir", tmp_path, *options)
    text = command("generate", f"--task reversal --path {tmp_path}/checkpoint_last.pt --scoring reversal --beam 5")
    assert len(hypotheses(text)) == 200
    return float(re.search(r"length=all sentence_accuracy=([\d.]+)", text).group(1))


@pytest.mark.slow(seconds=20)
def test_attention_learns_what_no_attention_does_not(command, tmp_path):
    """Both thresholds are far from what is reached: a broken attention does not come near the first."""
    criterion = "--criterion cross_entropy"
    assert accuracy_after(command, tmp_path / "with", 250, criterion) >= 90
    assert accuracy_after(command, tmp_path / "without", 250, criterion, "--attention-score none") <= 75


@pytest.mark.slow(seconds=10)
def test_alignments_can_be_supervised(command, tmp_path):
    guided = "--attention-score additive --attention-query previous --alignment-lambda 1 --label-smoothing 0"
    criterion = "--criterion label_smoothed_cross_entropy_with_alignment"
    command("train", REVERSAL, "--max-update 150 --total-num-update 150", "--save-dir", tmp_path, criterion, guided)
    text = command("generate", f"--task reversal --path {tmp_path}/checkpoint_last.pt --print-alignment hard")
    assert alignment_accuracy(text) > 0.9


@pytest.mark.slow(seconds=15)
def test_killed_training_goes_on_exactly(command, tmp_path):
    options = f"{REVERSAL} --criterion cross_entropy --max-update 60 --total-num-update 60 --save-interval-updates 10"
    options += " --keep-interval-updates 1 --disable-validation --input-feeding on --dropout 0.2"
    command("train", options, f"--save-dir {tmp_path}/straight")
    given = [sys.executable, "-m", "fairseq_cli.train", "--user-dir", str(PLUGIN), "--cpu", *options.split()]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*given, "--save-dir", f"{tmp_path}/killed"], stdout=log, stderr=log)
    last = tmp_path / "killed" / "checkpoint_last.pt"
    deadline = time.time() + 120
    while not zipfile.is_zipfile(last) and process.poll() is None and time.time() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and last.exists(), (tmp_path / "log").read_text()[-2000:]
    assert load(last)["optimizer_history"][-1]["num_updates"] < 60
    command("train", options, f"--save-dir {tmp_path}/killed")
    straight = load(tmp_path / "straight" / "checkpoint_last.pt")["model"]
    resumed = load(last)["model"]
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
    text = command("generate", f"--task reversal --path {last} --max-len-b 10 --reversal-test-size 20")
    assert len(hypotheses(text)) == 20
