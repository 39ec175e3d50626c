"""scripts/training_progress.py: what it shows of a training's log, and when."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "training_progress.py"
LOG = [
    ("$ fairseq-train {broken\n", None),
    ('… | INFO | train_inner | {"epoch": 1, "update": 0.2, "loss": "9.5", "wps": "813", "num_updates": "20"}\n',
     "nmt:   run  update 20  loss 9.5  words a second 813"),
    ('… | INFO | valid | {"epoch": 1, "valid_loss": "5", "valid_nll_loss": "4", "valid_ppl": "9", "valid_chrf": "44", '
     '"valid_best_bleu": "3", "valid_num_updates": "99"}\n', "nmt:   run  epoch 1  loss 5  nll_loss 4  chrf 44"),
    ("… | WARNING | fairseq.tasks | 1,203 samples have invalid sizes and will be skipped, max_positions=(500, 500), "
     "first few sample ids=[7]\n",
     "nmt:   run  1,203 sentence pairs are left out: more than (500, 500) tokens (--max-tokens or positions)"),
    ("… | WARNING | fairseq_attn_plugin.tasks.resumed_checkpoint | x.pt: cut; going on from y.pt\n",
     "nmt:   run  warning: x.pt: cut; going on from y.pt"),
    ('… | INFO | train | {"epoch": 1, "train_loss": "8", "train_num_updates": "99"}\n', None),
]  # fmt: skip


def run(*options) -> subprocess.Popen:
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
    return subprocess.Popen([sys.executable, SCRIPT, "nmt:   run", *options], **pipes)


def test_each_line_is_shown_before_the_next_one_comes():
    with run("--updates") as process:
        for line, shown in LOG:
            process.stdin.write(line)
            process.stdin.flush()
            if shown:
                assert process.stdout.readline() == shown + "\n"
        assert process.communicate() == ("", None)


def test_updates_are_shown_where_they_are_asked_for_and_nothing_twice():
    lines = [line for line, _ in LOG]
    with run() as process:
        expected = f"{LOG[2][1]}\n" + f"{LOG[3][1]}\n{LOG[4][1]}\n" * 2
        assert process.communicate("".join(lines[:3] * 2 + lines[3:] * 2))[0] == expected
