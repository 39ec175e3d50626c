"""``scripts/convert_fairseq_lstm.sh``: what it reads and writes, its mistakes, and fairseq's commands on what it wrote.

That the numbers are the same for every shape is in ``test_parity.py``.
"""

import logging
import os
import pickletools
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from argparse import Namespace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from covering import in_full
from fairseq_commands import hypotheses, load, preprocess, write_reversed_text
from full_disk import full_disk
from lstm_checkpoint import lstm_checkpoint

from fairseq_attn_plugin.checkpoints.conversion import convert_checkpoint
from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def script(monkeypatch, capfd):
    """script(checkpoint, out) runs the script in this process and returns its stdout."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert_fairseq_lstm.sh", *map(str, arguments)])
        capfd.readouterr()
        runpy.run_path(str(SCRIPTS / "convert_fairseq_lstm.py"), run_name="__main__")
        return capfd.readouterr().out

    monkeypatch.setattr(logging, "disable", lambda level: None)  # the script would silence the other tests
    return run


# What it reads


def change(state, **entries):
    """The checkpoint with other entries."""
    return {**state, **entries}


@pytest.mark.parametrize("numpy_package", ["numpy._core", "numpy.core"], ids=["numpy 2", "numpy 1"])
def test_counts_of_eval_bleu_are_read_and_left_out(tmp_path, numpy_package):
    state = lstm_checkpoint(tmp_path / "lstm.pt")
    state["extra_state"]["metrics"] = [np.array([1, 2]), np.ones(2), np.float64(3.0)]
    torch.save(state, tmp_path / "written.pt")
    with zipfile.ZipFile(tmp_path / "written.pt") as old, zipfile.ZipFile(tmp_path / "numpy.pt", "w") as new:
        for name in old.namelist():
            written = re.sub(rb"numpy\._?core\.", numpy_package.encode() + b".", old.read(name))
            new.writestr(name, written if name.endswith(".pkl") else old.read(name))
    assert f"{numpy_package}.multiarray _reconstruct" in foreign_classes(tmp_path / "numpy.pt")
    convert_checkpoint(tmp_path / "numpy.pt", tmp_path / "out.pt")
    assert foreign_classes(tmp_path / "out.pt") == set()
    torch.testing.assert_close(
        load(tmp_path / "out.pt")["model"]["decoder.vocabulary.weight"], state["model"]["decoder.fc_out.weight"]
    )


def test_options_that_the_checkpoint_leaves_to_others(tmp_path):
    """What it does not say is up to its preset; the file of its first embeddings may be gone; a task's options that
    came without a dataclass stay what such a task takes."""
    path, task = tmp_path / "lstm.pt", Namespace(task="translation_multi_simple_epoch")
    state = lstm_checkpoint(path, arch="lstm_luong_wmt_en_de", encoder_layers=1, decoder_layers=1)
    model = vars(state["cfg"]["model"])
    del model["decoder_dropout_out"], model["decoder_dropout_in"]
    model.update(encoder_embed_path="gone", dropout=0.4)
    torch.save(change(state, cfg={"model": Namespace(**model), "task": task}), path)
    convert_checkpoint(path, tmp_path / "out.pt")
    found = load(tmp_path / "out.pt")["cfg"]
    assert (found["model"]["decoder_dropout_out"], found["model"]["decoder_dropout_in"]) == (0.0, 0.4)
    assert found["model"]["encoder_embed_path"] is None and found["task"] == task


def foreign_classes(path):
    """What a checkpoint unpickles beside torch's own, whether or not something allows it."""
    with zipfile.ZipFile(path) as file:
        (name,) = (name for name in file.namelist() if name.endswith("data.pkl"))
        found = {given for code, given, _ in pickletools.genops(file.read(name)) if code.name == "GLOBAL"}
    return {name for name in found if not re.match(r"torch|collections OrderedDict", name)}


# Mistakes


def with_model(state, **options):
    """Other options of the model."""
    return change(state, cfg={**state["cfg"], "model": Namespace(**{**vars(state["cfg"]["model"]), **options})})


def with_parameters(state, **parameters):
    """Other parameters, with __ for a point; None takes one away."""
    names = {name.replace("__", "."): value for name, value in parameters.items()}
    kept = {name: value for name, value in {**state["model"], **names}.items() if value is not None}
    return change(state, model=kept)


MISTAKES = {
    "no file": (None, "No such file or directory"),
    "text": (b"hello\n", "not a checkpoint of fairseq, torch cannot read it"),
    "nothing": (b"", "not a checkpoint of fairseq, torch cannot read it"),
    "a tensor": (lambda state: torch.ones(3), "not a checkpoint of fairseq, it holds a Tensor"),
    "weights alone": (lambda state: state["model"], "not a checkpoint of fairseq, it lacks a model or its options"),
    "lost entry": (
        lambda state: {k: v for k, v in state.items() if k != "extra_state"},
        "lacks the extra_state",
    ),
    "foreign class": (
        lambda state: change(state, more=Fraction(1, 2)),
        "dangerous, not loaded: it holds fractions.Fraction, which could run code",
    ),
    "another model": (
        lambda state: with_model(state, _name="transformer_iwslt_de_en"),
        "a checkpoint of transformer_iwslt_de_en; give one of fairseq's lstm",
    ),
    "its language model": (
        lambda state: with_model(state, _name="lstm_lm"), "a checkpoint of lstm_lm; give one of fairseq's lstm"
    ),
    "converted already": (
        lambda state: change(state, cfg={"model": {"_name": "attn_gru_d2l"}}),
        "a checkpoint of attn_rnn (attn_gru_d2l) already; there is nothing to convert",
    ),
    "without attention": (
        lambda state: with_model(state, decoder_attention="False"),
        "--decoder-attention False: attn_rnn has no input feeding without attention",
    ),
    "adaptive softmax": (
        lambda state: with_parameters(
            state, decoder__fc_out__weight=None, decoder__adaptive_softmax__head__weight=torch.ones(3)
        ),
        "--criterion adaptive_loss: attn_rnn has no adaptive softmax",
    ),
    "no embedding": (
        lambda state: with_parameters(state, encoder__embed_tokens__weight=None),
        "lacks the parameter encoder.embed_tokens.weight",
    ),
    "missing parameter": (
        lambda state: with_parameters(state, decoder__encoder_cell_proj__bias=None),
        "lacks the parameter decoder.encoder_cell_proj.bias",
    ),
    "unexpected parameter": (
        lambda state: with_parameters(state, decoder__norm__weight=torch.ones(3)),
        "has the parameter decoder.norm.weight, which fairseq's lstm of these options does not have",
    ),
    "another size": (
        lambda state: with_model(state, decoder_hidden_size=9, decoder_out_embed_dim=9),
        "by the options of the checkpoint",
    ),
    "an option out of range": (lambda state: with_model(state, dropout=1.5), "--dropout: got 1.5; give a probability"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(script, tmp_path, mistake):
    content, message = MISTAKES[mistake]
    path, out = tmp_path / "lstm.pt", tmp_path / "out.pt"
    if callable(content):
        torch.save(content(lstm_checkpoint(path)), path)
    elif content is not None:
        path.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        script(path, out)
    assert ended.value.code.startswith(f"error: {path}: ") and message in ended.value.code
    assert "\n" not in ended.value.code and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "out, message",
    [("lstm.pt", "exists; give the name of a new file"), ("no/out.pt", "no folder {}/no; make it first")],
)
def test_out_that_cannot_be(script, tmp_path, out, message):
    lstm_checkpoint(tmp_path / "lstm.pt")
    before = (tmp_path / "lstm.pt").read_bytes()
    with pytest.raises(SystemExit) as ended:
        script(tmp_path / "lstm.pt", tmp_path / out)
    assert ended.value.code == f"error: {tmp_path / out}: {message.format(tmp_path)}"
    assert (tmp_path / "lstm.pt").read_bytes() == before


def test_a_disk_that_is_full_leaves_nothing(tmp_path):
    lstm_checkpoint(tmp_path / "lstm.pt")
    with full_disk(room=100), pytest.raises(ValueError, match=r"out\.pt: cannot be written"):
        convert_checkpoint(tmp_path / "lstm.pt", tmp_path / "out.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["lstm.pt"]


def test_shell_script_passes_arguments_on(tmp_path):
    """With stand-ins for set-up and Python."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPTS / "convert_fairseq_lstm.sh", tmp_path / "scripts")
    (tmp_path / "scripts" / "setup.sh").write_text("echo setup\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "VENV"}
    command = ["bash", str(tmp_path / "scripts" / "convert_fairseq_lstm.sh"), "a b.pt", "out.pt"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"-W|ignore|{tmp_path}/scripts/convert_fairseq_lstm.py|a b.pt|out.pt|"
    assert done.stderr == "setup\n"


# fairseq's commands


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert")
    write_reversed_text(folder, {"train": 1000, "valid": 40, "test": 45}, longest=7)
    return folder


TRAININGS = {
    "one-layer": "--optimizer adam --lr 0.02 --max-update 250 --encoder-embed-dim 32 --encoder-hidden-size 24 "
                 "--decoder-embed-dim 24 --decoder-hidden-size 24 --decoder-out-embed-dim 24",
    "two-layers-bidirectional": "--optimizer adamax --lr 0.05 --max-update 300 --encoder-layers 2 --decoder-layers 2 "
                                "--encoder-bidirectional --encoder-embed-dim 64 --encoder-hidden-size 32 "
                                "--decoder-embed-dim 48 --decoder-hidden-size 48 --decoder-out-embed-dim 48",
}  # fmt: skip
"""Of these optimisers the second has no dataclass: its options are a Namespace in the checkpoint."""


@pytest.fixture(params=[pytest.param("one-layer", marks=in_full), "two-layers-bidirectional"])
def trained(request, corpus, command, script):
    """Checkpoint of an ``lstm``, what it was converted to, and what the script said."""
    if not (corpus / "bin").exists():
        preprocess(command, corpus)
    save = corpus / request.param
    if not save.exists():
        command("train", f"{corpus / 'bin'} --task translation --arch lstm --dropout 0 {TRAININGS[save.name]} "
                f"--batch-size 32 --clip-norm 1 --disable-validation --no-epoch-checkpoints --save-dir {save}")
        (save / "said").write_text(script(save / "checkpoint_last.pt", save / "out.pt"))
    return save / "checkpoint_last.pt", save / "out.pt", (save / "said").read_text()


def generated(command, corpus, path):
    """(sentence, score, text) of the best of five hypotheses; sources are padded on the left."""
    given = f"{corpus / 'bin'} --path {path} --beam 5 --max-len-b 12 --batch-size 16 --required-batch-size-multiple 1"
    return [(number, *text.split("\t")) for number, text in hypotheses(command("generate", given))]


def test_commands_answer_the_same(command, corpus, trained):
    theirs, ours = (generated(command, corpus, path) for path in trained[:2])
    assert len(ours) == 45 and len({text for _, _, text in ours}) > 20
    losses = []
    for path, found in ((trained[0], theirs), (trained[1], ours)):
        text = command("interactive", f"{corpus / 'bin'} --path {path} --beam 5 --input {corpus / 'test.src'}")
        found += [(number, *text.split("\t")) for number, text in hypotheses(text)]
        log = command("validate", f"{corpus / 'bin'} --task translation --path {path} --batch-size 40")
        losses.append(set(re.findall(r"valid on 'valid' subset \| loss ([\d.]+)", log)))
    assert [(number, text) for number, _, text in ours] == [(number, text) for number, _, text in theirs]
    assert [float(score) for _, score, _ in ours] == pytest.approx([float(score) for _, score, _ in theirs], abs=1e-4)
    assert len(ours) == 90 and losses[0] == losses[1] and len(losses[0]) == 1


def test_converted_checkpoint_holds_plain_values(trained, corpus):
    before, after, said = trained
    assert foreign_classes(before) == {"argparse Namespace"} and foreign_classes(after) == set()
    assert torch.serialization.get_unsafe_globals_in_checkpoint(after) == []
    old, new = load(before)["cfg"], load(after)["cfg"]
    assert new["model"].pop("_name") == "attn_rnn"
    assert {**new, "model": 0, "optimizer": 0} == {**old, "model": 0, "optimizer": 0}
    hub = AttnRNNModel.from_pretrained(str(after.parent), after.name, str(corpus / "bin"))
    size = sum(parameter.numel() for parameter in hub.models[0].parameters())
    assert said.startswith(f"{after}: {size:,} parameters, 16 source and 16 target symbols, --arch attn_rnn ")


RESET = "--reset-optimizer --reset-lr-scheduler --reset-meters --reset-dataloader"


@pytest.mark.parametrize("how", ["--finetune-from-model {}", "--restore-file {}", f"--restore-file {{}} {RESET}"])
def test_training_goes_on_from_the_weights_alone(command, corpus, trained, tmp_path, how):
    """With the options that the script has said; at a learning rate of zero the weights stay what they were."""
    _, path, said = trained
    command("train", f"{corpus / 'bin'} --task translation --optimizer adam --lr 0 --batch-size 32 --max-update 3",
            said[said.index("--arch") :], how.format(path), f"--disable-validation --save-dir {tmp_path}")
    old, new = load(path), load(tmp_path / "checkpoint_last.pt")
    torch.testing.assert_close(new["model"], old["model"], rtol=0, atol=0)
    place = new["extra_state"]["train_iterator"]
    assert new["optimizer_history"][-1]["num_updates"] == place["iterations_in_epoch"] == 3 and place["epoch"] == 1
    assert {state["step"] for state in new["last_optimizer_state"]["state"].values()} == {3}


@pytest.mark.parametrize("oldest", [False, True], ids=["flat options", "flat options and state"])
def test_checkpoint_of_an_old_release(command, corpus, trained, tmp_path, oldest):
    """As fairseq 0.9 and 0.5 wrote them."""
    state = load(trained[0])
    sizes = {k: v for k, v in vars(state["cfg"]["model"]).items() if re.match("encoder_|decoder_|share_|dropout", k)}
    args = Namespace(
        arch="lstm", task="translation", data=[str(corpus / "bin")], source_lang="src", target_lang="tgt", lr=0.01,
        min_lr=1e-9, optimizer="nag", momentum=0.99, lr_scheduler="fixed", criterion="cross_entropy",
        left_pad_source="True", left_pad_target="False", max_source_positions=1024, raw_text=False, **sizes,
    )  # fmt: skip
    old = {"args": args, "model": state["model"]}
    if oldest:
        old.update(optimizer={}, best_loss=3.0, epoch=2, batch_offset=0, val_loss=3.0)
        del args.task
    else:
        old.update({k: state[k] for k in ("optimizer_history", "extra_state", "last_optimizer_state")})
    torch.save(old, tmp_path / "old.pt")
    convert_checkpoint(tmp_path / "old.pt", tmp_path / "out.pt")
    assert foreign_classes(tmp_path / "out.pt") == set()
    expected, found = load(trained[1]), load(tmp_path / "out.pt")
    torch.testing.assert_close(found["model"], expected["model"], rtol=0, atol=0)
    assert found["cfg"]["model"] == expected["cfg"]["model"]
    assert generated(command, corpus, tmp_path / "out.pt") == generated(command, corpus, trained[1])
