"""scripts/train_distributed.sh, by its Python files: two processes against one, resumed, ended, refused."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from covering import in_full
from fairseq_commands import SMALL, load

from fairseq_attn_plugin import processes

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))
from train_distributed import told  # noqa: E402

TASK = "--task reversal --reversal-max-length 6 --reversal-train-size 128 --reversal-valid-size 9 --max-epoch 1"
TRAIN = f"{TASK} --arch attn_lstm_reversal {SMALL} --save-interval-updates 2 --log-format none"
SAMPLED = "--dropout 0.1 --scheduled-sampling linear --scheduled-sampling-k 1 --scheduled-sampling-slope 0.05"

# A --user-dir of one's own: process 1 dies when DIE= says so, before the processes have met or after so many updates.
OWN = """
import os, signal
import fairseq_attn_plugin
from fairseq.trainer import Trainer

rank, train_step = os.environ["RANK"], Trainer.train_step
when = os.environ.get("DIE") if rank == "1" else None

def dying_step(self, *args, **kwargs):
    die(str(self.get_num_updates()))
    return train_step(self, *args, **kwargs)

def die(now):
    if now == when:
        os.kill(os.getpid(), signal.SIGKILL)

Trainer.train_step = dying_step
with open(os.path.join(os.environ["PIDS"], rank), "w") as file:
    file.write(str(os.getpid()))
die("before")
"""


class Processes:
    """Starts the script by its Python file, with programs that start in a moment."""

    def __init__(self, programs: Path, folder: Path):
        self.python, self.folder, self.own = programs / "bin" / "python", folder, folder / "own"
        self.own.mkdir()
        (self.own / "__init__.py").write_text(OWN)

    def start(self, *options, before="--nproc 2", **env) -> subprocess.Popen:
        words = [word for option in options for word in str(option).split()]
        env = {**os.environ, "PIDS": str(self.folder), "PYTHONPATH": str(ROOT), **env}
        return subprocess.Popen(
            [self.python, ROOT / "scripts" / "train_distributed.py", *before.split(), "--", *words],
            cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *options, **kwargs) -> subprocess.CompletedProcess:
        process = self.start(*options, **kwargs)
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def train(self, save, *options, **env) -> subprocess.CompletedProcess:
        return self.run(f"--cpu --num-workers 0 --user-dir {self.own} --save-dir {save}", *options, **env)


@pytest.fixture
def together(programs, tmp_path):
    return Processes(programs, tmp_path)


def last_line(result) -> str:
    assert result.returncode == 1, result.stdout
    return result.stdout.strip().splitlines()[-1]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load(folder / "checkpoint_last.pt") for folder in (one, other))
    assert first["optimizer_history"][-1]["num_updates"] == second["optimizer_history"][-1]["num_updates"] > 6
    return all(torch.equal(first["model"][name], second["model"][name]) for name in first["model"])


@pytest.mark.slow(seconds=15)
@pytest.mark.parametrize("sampled", [False, pytest.param(True, marks=in_full)])
def test_killed_and_resumed_two_processes_end_where_one_does(command, together, tmp_path, sampled):
    """One that sums two batches; with draws, which every process makes for itself, two that nothing has stopped."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = [TRAIN, SAMPLED if sampled else ""]
    if sampled:
        assert together.train(whole, *options).returncode == 0
    else:
        command("train", *options, f"--update-freq 2 --save-dir {whole}")
    result = together.train(killed, *options, DIE="5")
    assert last_line(result) == (
        "train_distributed.sh: error: process 1 was killed by signal 9; run this again to go on"
    )
    result = together.train(killed, *options)
    assert result.returncode == 0, result.stdout
    assert "Loaded checkpoint" in result.stdout and same_weights(whole, killed)


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("option", ["--finetune-from-model", pytest.param("--restore-file", marks=in_full)])
def test_two_processes_go_on_from_another_folder(command, together, tmp_path, option):
    command("train", TRAIN, f"--save-dir {tmp_path}/first")
    more = [TRAIN.replace("--max-epoch 1", "--max-epoch 2"), f"{option} {tmp_path}/first/checkpoint_last.pt"]
    command("train", *more, f"--update-freq 2 --save-dir {tmp_path}/one")
    result = together.train(tmp_path / "two", *more)
    assert result.returncode == 0, result.stdout
    assert same_weights(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_one_that_dies_before_they_have_met_ends_the_other(together, tmp_path):
    began = time.monotonic()
    result = together.train(tmp_path / "save", TRAIN, DIE="before")
    assert "process 1 was killed by signal 9" in last_line(result) and time.monotonic() - began < 30


@pytest.mark.slow
def test_a_launcher_that_is_killed_takes_them_along(together, tmp_path):
    options = TRAIN.replace("--max-epoch 1", "--max-epoch 1000")
    script = together.start(f"--cpu --num-workers 0 --user-dir {together.own} --save-dir {tmp_path}/save", options)
    while not (tmp_path / "save" / "checkpoint_last.pt").exists():
        assert script.poll() is None, script.communicate()
        time.sleep(0.05)
    script.kill()
    script.communicate()
    pids = [int((tmp_path / rank).read_text()) for rank in "01"]
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_mistake_is_said_once_more_in_the_last_line(together, tmp_path):
    result = together.train(tmp_path / "save", TRAIN, "--attention-score lunog")
    assert "--attention-score: got 'lunog'; choose from" in last_line(result)
    result = together.train(tmp_path / "save", TRAIN, f"--finetune-from-model {tmp_path}")
    assert f"--finetune-from-model: {tmp_path}: a folder; give a file (process " in last_line(result)
    result = together.train(tmp_path / "save", TRAIN, "--lunog")
    assert last_line(result).startswith("train_distributed.sh: process ")
    assert "fairseq-train: error: unrecognized arguments: --lunog" in result.stdout


BY_TORCH = dict(exitcode=-signal.SIGTERM, message="Signal 15 (SIGTERM) received by PID 2")
OURS = dict(exitcode=1, message={"message": "ValueError: --restore-file half.pt: damaged"})
LOST = dict(exitcode=1, message={"message": "RuntimeError: [gloo] Connection closed by peer"})
KILLED = dict(exitcode=-signal.SIGKILL, message="Signal 9 (SIGKILL) received by PID 1")
STATUS = dict(exitcode=2, message="To enable traceback see: https://pytorch.org")


@pytest.mark.parametrize(
    "failures, words",
    [
        ([OURS, BY_TORCH], "--restore-file half.pt: damaged (process 0)"),
        ([LOST, OURS], "--restore-file half.pt: damaged (process 1)"),
        ([STATUS, BY_TORCH], "process 0 ended with status 2"),
        ([LOST, KILLED], "process 1 was killed by signal 9; run this again"),
        ([LOST, BY_TORCH], "process 0 has lost another"),
    ],
)
def test_the_last_line_names_the_one_that_failed_by_itself(failures, words):
    assert words in told({rank: SimpleNamespace(timestamp=rank, **each) for rank, each in enumerate(failures)})


def test_a_folder_in_use_is_refused(together, tmp_path):
    save = tmp_path / "save"
    save.mkdir()
    with open(save / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = together.train(save, TRAIN)
    assert f"error: --save-dir {save}: another training works there; wait for its end" in last_line(result)


@pytest.mark.parametrize(
    "before, options, words",
    [
        ("--nproc two", "", "--nproc: got 'two'; give a number, 1 or more"),
        ("--nproc 0", "", "--nproc: got '0'; give a number, 1 or more"),
        ("--nproc 1 --nnodes 2 --node-rank 2", "", "--node-rank: got 2; of --nnodes 2 the last is 1"),
        ("--nproc 1 --nnodes 2", "", "--master: got ''; give name or address of machine 0 and a port"),
        ("--nproc 1 --nnodes 2 --master a:b", "", "--master: got 'a:b'; give name or address"),
        ("--nproc 1", "--distributed-world-size=2", "--distributed-world-size: this script sets it; leave it out"),
        ("--nproc 1", "--save-dir /proc/x", "--save-dir /proc/x: cannot be written (No such file or directory)"),
    ],
)
def test_mistakes_are_one_line(together, before, options, words):
    result = together.run(options, before=before)
    (line,) = result.stdout.splitlines()
    assert result.returncode == 1 and line.startswith(f"train_distributed.sh: error: {words}")


@pytest.mark.parametrize("left", ["alone", "without a GPU", "met"])
def test_processes_of_torchrun_that_would_train_alone_are_refused(monkeypatch, left):
    """Whatever release of fairseq: where it gives the process no way to the others, or divides by no GPU."""
    cfg = type("cfg", (), {"distributed_init_method": None})()

    def infer(cfg):
        if left == "without a GPU":
            raise ZeroDivisionError
        cfg.distributed_init_method = "env://" if left == "met" else None

    monkeypatch.setattr(processes, "_infer_init_method", infer)
    for name, value in dict(MASTER_ADDR="x", MASTER_PORT="1", RANK="0", WORLD_SIZE="3").items():
        monkeypatch.setenv(name, value)
    cfg.distributed_init_method = None
    if left == "met":
        return processes.infer_init_method(cfg)
    with pytest.raises(ValueError, match="^torchrun: each of its 3 processes would train alone.*/train_distributed.sh"):
        processes.infer_init_method(cfg)


def test_a_task_that_would_train_alone_says_so(command, monkeypatch, tmp_path):
    """fairseq-hydra-train loads the plugin too late for the other way."""
    monkeypatch.setattr("fairseq.distributed.utils.infer_init_method", lambda cfg: None)
    for name, value in dict(MASTER_ADDR="x", MASTER_PORT="1", RANK="0", WORLD_SIZE="2").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="torchrun: each of its 2 processes would train alone"):
        command("train", TRAIN, f"--save-dir {tmp_path}")
