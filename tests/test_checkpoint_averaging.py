"""Averaging of checkpoints: means against a loop over numbers, what is kept, tied tensors, and every mistake."""

import subprocess
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq_commands import SMALL, hypotheses, load, preprocess, write_reversed_text
from full_disk import full_disk

from fairseq_attn_plugin.checkpoints.averaging import average_checkpoints
from fairseq_attn_plugin.checkpoints.files import has_attention

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "average_checkpoints.py"


def checkpoint(path, seed, **changes):
    """Three parameters of three types, two of them one tensor; the optimiser's state is large."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(4, 3, generator=generator)
    state = {
        "args": None,
        "cfg": {"model": {"_name": "attn_rnn", "seed": seed}},
        "model": {
            "table": table,
            "tied": table,
            "half": torch.randn(5, generator=generator).half(),
            "steps": torch.tensor(seed),
        },
        "optimizer_history": [{"optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": seed}],
        "last_optimizer_state": {"moments": torch.randn(1000, generator=generator)},
        "task_state": {"translation": {"source": "de", "sha256": {"dict.de.txt": "00"}}},
        "extra_state": {"train_iterator": {"epoch": seed, "iterations_in_epoch": 0}},
    }
    for name, change in changes.items():
        state[name] = change(state[name])
    torch.save(state, path)
    return str(path)


def test_means_are_those_of_the_numbers(tmp_path):
    paths = [checkpoint(tmp_path / f"{seed}.pt", seed) for seed in (1, 2, 4)]
    models = [load(path)["model"] for path in paths]
    out = tmp_path / "mean.pt"
    assert "mean of 3 checkpoints" in average_checkpoints(paths, str(out))
    averaged = load(out)
    for name in ("table", "half"):
        numbers = zip(*(model[name].flatten().tolist() for model in models))
        expected = torch.tensor([sum(row) / 3 for row in numbers], dtype=torch.float64)
        assert torch.equal(averaged["model"][name].flatten(), expected.to(models[0][name].dtype))
    assert averaged["model"]["steps"] == 4 and averaged["cfg"]["model"]["seed"] == 4, "the last one's"
    assert averaged["task_state"] == load(paths[0])["task_state"]
    assert averaged["model"]["table"].data_ptr() == averaged["model"]["tied"].data_ptr(), "written once"
    assert "last_optimizer_state" not in averaged and out.stat().st_size < Path(paths[0]).stat().st_size - 3500
    assert list(tmp_path.glob("*.part")) == []


def test_one_checkpoint_is_stripped_only(tmp_path):
    path = checkpoint(tmp_path / "1.pt", 1)
    average_checkpoints([path], str(tmp_path / "out.pt"))
    stripped, whole = load(tmp_path / "out.pt"), load(path)
    assert all(torch.equal(stripped["model"][name], whole["model"][name]) for name in whole["model"])
    assert "last_optimizer_state" not in stripped


def test_sum_of_halves_does_not_overflow(tmp_path):
    def large(model):
        return {"half": torch.full((2,), 60000.0).half()}

    paths = [checkpoint(tmp_path / f"{seed}.pt", seed, model=large) for seed in (1, 2)]
    average_checkpoints(paths, str(tmp_path / "mean.pt"))
    assert load(tmp_path / "mean.pt")["model"]["half"].tolist() == [60000.0] * 2


def without(name):
    return lambda model: {key: value for key, value in model.items() if key != name}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model": without("half")}, "2.pt lacks the parameter half"),
        ({"model": lambda model: {**model, "more": model["half"]}}, "1.pt lacks the parameter more"),
        ({"model": lambda model: {**model, "half": torch.zeros(6).half()}}, "the shape of half is 6, in "),
        ({"model": lambda model: {**model, "half": torch.zeros(5)}}, "the dtype of half is torch.float32"),
        ({"task_state": lambda _: {"translation": {"source": "fr"}}}, "trained on other data than"),
        ({"model": lambda model: Path("x")}, "which could run code"),
    ],
)
def test_checkpoints_that_do_not_go_together(tmp_path, changes, words):
    paths = [checkpoint(tmp_path / "1.pt", 1), checkpoint(tmp_path / "2.pt", 2, **changes)]
    with pytest.raises(ValueError, match="2.pt: ") as error:
        average_checkpoints(paths, str(tmp_path / "mean.pt"))
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.glob("mean*"))


def test_files_that_cannot_be_read_or_written(tmp_path):
    good = checkpoint(tmp_path / "1.pt", 1)
    (tmp_path / "text.pt").write_text("text")
    old = torch.load(good)
    torch.save({"best_loss": old.pop("optimizer_history"), **old}, tmp_path / "old.pt")
    for out, path, words in [
        ("mean.pt", "none.pt", "none.pt: No such file"),
        ("mean.pt", "text.pt", "text.pt: not a checkpoint of fairseq"),
        ("no/mean.pt", "1.pt", "no folder"),
        ("mean.pt", "old.pt", "old.pt: written by an old release of fairseq"),
    ]:
        with pytest.raises(ValueError, match=words):
            average_checkpoints([good, str(tmp_path / path)], str(tmp_path / out))
    mean = tmp_path / "mean.pt"
    mean.write_text("old")
    with full_disk(), pytest.raises(ValueError, match=r"mean\.pt: cannot be written, is there room on the disk\?.*$"):
        average_checkpoints([good], str(mean))
    assert mean.read_text() == "old" and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"_name": "seq2seq_lstm", "attention_score": "none"}, False),
        ({"_name": "attn_lstm", "attention_score": "dot"}, True),
        (Namespace(arch="lstm", decoder_attention="False"), False),
        (Namespace(arch="lstm", decoder_attention="1"), True),
        (Namespace(arch="transformer"), True),
    ],
)
def test_whether_a_model_has_attention(tmp_path, options, expected):
    for number, change in enumerate([{"cfg": lambda _: {"model": options}}, {"args": lambda _: options}]):
        assert has_attention(checkpoint(tmp_path / f"{number}.pt", 1, **change)) == expected


@pytest.mark.slow
def test_script_says_what_is_wrong_in_one_line(programs):
    command = [programs / "bin" / "python", str(SCRIPT), "x.pt", "none.pt"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, "error: none.pt: No such file or directory\n")


OPTIONS = {
    "attn_lstm": "--arch attn_lstm --bridge linear --share-all-embeddings",
    "lstm": "--arch lstm --share-all-embeddings --decoder-out-embed-dim 8",
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", OPTIONS)
def test_fairseq_decodes_with_the_mean(tmp_path, command, arch):
    """The mean of two epochs decodes otherwise than either, that of one epoch as the epoch itself does."""
    write_reversed_text(tmp_path, {"train": 64, "valid": 8, "test": 8}, 5)
    data = preprocess(command, tmp_path, "--joined-dictionary")
    small = SMALL.replace("--bridge linear", "").replace("--no-epoch-checkpoints", "")
    command("train", data, f"--task translation {small} {OPTIONS[arch]} --max-epoch 2 --save-dir {tmp_path}")
    first, second, mean, again = (str(tmp_path / f"{name}.pt") for name in ("checkpoint1", "checkpoint2", "mean", "1"))
    average_checkpoints([first, second], mean)
    average_checkpoints([first], again)
    decode = f"{data} --task translation --beam 2 --max-len-b 10 --batch-size 8 --path"
    found = [hypotheses(command("generate", f"{decode} {path}")) for path in (first, second, mean, again)]
    assert found[0] == found[3] and len(found[2]) == 8
    assert found[2] not in found[:2]
