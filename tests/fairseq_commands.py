"""What the tests of fairseq's commands share: options, data, and how to read what a command prints and leaves."""

import random
import re
from pathlib import Path

import torch

import fairseq_attn_plugin

PLUGIN = Path(fairseq_attn_plugin.__file__).parent
SMALL = (
    "--encoder-embed-dim 8 --encoder-hidden-size 8 --decoder-embed-dim 8 --decoder-hidden-size 8 --bridge linear "
    "--optimizer adam --lr 0.01 --batch-size 8 --no-epoch-checkpoints"
)


def write_reversed_text(folder, sizes, longest):
    """Per split of ``sizes``: src of lengths 1 to ``longest`` in mixed order and tgt, the same back to front in
    capitals."""
    generator = random.Random(1)
    for split, size in sizes.items():
        lines = [[generator.choice("abcde") for _ in range(generator.randint(1, longest))] for _ in range(size)]
        texts = {
            "src": [" ".join(line) for line in lines],
            "tgt": [" ".join(line[::-1]).upper() for line in lines],
        }
        for suffix, text in texts.items():
            (folder / f"{split}.{suffix}").write_text("".join(line + "\n" for line in text))


def preprocess(command, folder, *options):
    """The splits of ``write_reversed_text`` in fairseq's binary form; returns their folder."""
    splits = " ".join(f"--{name}pref {folder / name}" for name in ("train", "valid", "test"))
    command("preprocess", f"-s src -t tgt {splits} --destdir {folder / 'bin'}", *options)
    return folder / "bin"


def hypotheses(text, letter="H"):
    """(number, rest) of each line ``H-<number>``, or of another letter, that fairseq-generate printed."""
    return re.findall(rf"^{letter}-(\d+)\t(.*)$", text, re.M)


def alignment_accuracy(text, before=0):
    """Share of the target positions for which ``--print-alignment hard`` names the mirrored source position, or the one
    ``before`` places before it; target positions for which there is none such do not count."""
    lengths = {number: len(source.split()) for number, source in hypotheses(text, "S")}
    right = 0
    for number, alignment in hypotheses(text, "A"):
        pairs = (pair.split("-") for pair in alignment.split())
        right += sum(int(source) == lengths[number] - 1 - int(target) - before for source, target in pairs)
    return right / sum(max(0, length - before) for length in lengths.values())


def load(path):
    """A checkpoint, without unpickling anything but tensors and plain values."""
    return torch.load(path, weights_only=True)


def save_state(task_state, path):
    """A checkpoint of which only a task's state matters."""
    history = [{"num_updates": 1}]
    state = {"cfg": {"model": {"_name": "attn_lstm"}}, "model": {}, "optimizer_history": history, "extra_state": {}}
    torch.save({**state, "task_state": task_state}, path)
