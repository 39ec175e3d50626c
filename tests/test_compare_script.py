"""scripts/compare.sh and reversal.sh: what they run, print and leave. fairseq's commands are stand-ins here, but for
one small real run that is killed and started again."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fairseq_attn_plugin.experiments.experiment import names

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]

TRAIN = r"""#!/usr/bin/env bash
echo "train $*" >>"$CALLS"
echo "$OMP_NUM_THREADS" >>"$CALLS.threads"
case "$BREAK $*" in "error "*no_attention*) printf 'Traceback\nValueError: --lr: got x\nnoise\n' >&2; exit 1 ;; esac
while [ $# -gt 0 ]; do
  case $1 in --log-file) log=$2 ;; esac
  shift
done
cat >>"$log" <<'LOG'
num. shared model params: 1,234 (num. trained: 1,234)
{"epoch": 1, "valid_sentence_accuracy": "75", "valid_token_accuracy": "90", "valid_num_updates": "8"}
done training in 7.5 seconds
LOG
"""
GENERATE = r"""#!/usr/bin/env bash
echo "generate $*" >>"$CALLS"
weights=
while [ $# -gt 0 ]; do
  case $1 in
    --results-path) folder=$2 ;;
    --gen-subset) split=$2 ;;
    --print-alignment) weights=$(printf '\nA-0\t0,1,0 1,0,0 0,0,1') ;;
  esac
  shift
done
printf 'S-0\ta b\nT-0\tb a\nH-0\t-0.1\tb a\nD-0\t-0.1\tb a\nP-0\t-0.1 -0.1 -0.1%s\nGenerate %s with beam=5: ok\n' \
  "$weights" "$split" >"$folder/generate-$split.txt"
"""


PYTHON = """#!/usr/bin/env bash
case "$*" in
  *train_distributed.py*) echo "processes ${*:4:2}" >>"$CALLS"; exec "${0%/*}/fairseq-train" "${@:7}" ;;
esac
exec "$PROGRAMS/bin/python" "$@"
"""


class Checkout:
    """A copy of the scripts under a path with a space, with stand-ins for set-up, training and decoding."""

    def __init__(self, folder: Path, programs: Path):
        self.root, self.out, self.calls_file = folder / "a b", folder / "out put", folder / "calls"
        self.programs = programs
        for name in ("scripts", "experiments"):
            shutil.copytree(ROOT / name, self.root / name)
        (self.root / "fairseq_attn_plugin").symlink_to(ROOT / "fairseq_attn_plugin")
        self.write("scripts/setup.sh", "#!/usr/bin/env bash\n")
        self.write("venv/bin/fairseq-train", TRAIN)
        self.write("venv/bin/fairseq-generate", GENERATE)
        self.write("venv/bin/python", PYTHON)
        self.venv = self.root / "venv"

    def write(self, name: str, text: str):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *args, script="compare", **env):
        here = dict(OUT=str(self.out), VENV=str(self.venv), CALLS=str(self.calls_file), PYTHONPATH=str(ROOT))
        here.update(PROGRAMS=str(self.programs), BREAK="")
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / f"{script}.sh"), *args], cwd="/", env={**os.environ, **here, **env},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *args, **env):
        script = self.start(*args, **env)
        output, errors = script.communicate(timeout=300)
        return subprocess.CompletedProcess(script.args, script.returncode, output, errors)

    def calls(self):
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def checkout(tmp_path, programs):
    return Checkout(tmp_path, programs)


def last_line(result) -> str:
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def cells(line: str) -> list:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_reversal_runs_everything_once_and_prints_its_table(checkout):
    result = checkout.run("--lr", "0.1", script="reversal", SEEDS="1 2", JOBS="2", OMP_NUM_THREADS="")
    assert result.returncode == 0, result.stderr
    head, _, *rows = map(cells, result.stdout.splitlines()[:4])
    assert head == ["", "parameters", "updates", "training seconds", "sentence accuracy", "token accuracy",
                    "alignment accuracy", "sentences, lengths 15–20", "sentences, lengths 21–40",
                    "sentences, length 200"]  # fmt: skip
    assert rows[0] == ["with attention", "1,234", "8", "7.5", "100.00", "100.00", "100.00", "–", "–", "–"]
    assert rows[1] == ["without attention", "1,234", "8", "7.5", "100.00", "100.00", "–", "–", "–", "–"]
    assert [row["seeds"] for row in json.loads((checkout.out / "report.json").read_text())] == [2, 2, 2]
    assert (checkout.out / "report.html").exists()
    assert len((checkout.out / "measures.jsonl").read_text().splitlines()) == 6
    calls = checkout.calls()
    assert sorted(call.split()[0] for call in calls) == ["generate"] * 18 + ["train"] * 6
    assert set(checkout.calls_file.with_suffix(".threads").read_text().split()) == {"1"}
    trains = [call for call in calls if call.startswith("train")]
    assert all(call.rindex("--lr 0.1") > call.rindex("--lr 0.005") for call in trains), "options come last"
    assert sum("--attention-score none" in call for call in trains) == 2
    assert sum("attn_lstm_shift" in call for call in trains) == 2
    assert all(
        ("--print-alignment soft" in call) != ("/no_attention-seed" in call) for call in calls if "generate" in call
    )

    again = checkout.run("compare", "--seeds", "1,2", "--", "--lr", "0.1")
    assert (again.returncode, again.stdout, checkout.calls()) == (0, result.stdout, calls)


def test_a_failing_run_is_reported_and_the_others_go_on(checkout):
    result = checkout.run("compare", BREAK="error", NPROC="2")
    log = checkout.out / "no_attention-seed1" / "train.log"
    why = f"no_attention-seed1 failed: train failed: ValueError: --lr: got x (log: {log})"
    assert result.returncode == 1 and last_line(result) == f"compare: {why}"
    assert "| with attention | 1,234 |" in result.stdout and "| attention that remembers | 1,234 |" in result.stdout
    assert checkout.calls()[0] == "processes --nproc 2"
    assert "compare.sh: " in last_line(checkout.run("compare")), "so many processes are a setting"
    assert checkout.run("compare", NPROC="2").returncode == 0


def test_a_launcher_runs_the_lines_and_the_report_comes_after(checkout):
    result = checkout.run("--score", "none,dot", "--dropout=0.1", "--launcher", "--seeds", "3")
    assert result.returncode == 0 and not checkout.calls()
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    missing = checkout.run("--gather", str(checkout.out))
    assert missing.returncode == 0 and "train is not finished" in (checkout.out / "report.html").read_text()
    for line in lines:
        assert subprocess.run(line, shell=True, env={**os.environ, "CALLS": str(checkout.calls_file)}).returncode == 0
    assert [call.split()[0] for call in checkout.calls()] == ["train", "generate", "generate"] * 2
    gathered = checkout.run("--gather", str(checkout.out))
    labels = [cells(line)[0] for line in gathered.stdout.splitlines()[2:4]]
    assert (gathered.returncode, labels) == (0, ["none, dropout 0.1", "dot, dropout 0.1"])


def test_usage_and_mistakes(checkout):
    assert "usage: bash scripts/compare.sh" in checkout.run("guided", "--help").stdout
    usage = checkout.run("-h", script="reversal").stdout
    assert "usage: bash scripts/reversal.sh" in usage
    result = checkout.run("compair", script="reversal")
    assert result.returncode == 1 and "got 'compair'; choose from " in last_line(result)
    modes = last_line(result).partition("choose from ")[2].split(", ")
    there = [name for name in names(ROOT / "experiments") if not name.startswith(("nmt-", "question-"))]
    assert sorted([*modes, "grid", "recipe"]) == there and all(f"\n  {mode} " in usage for mode in modes)
    for words, env, said in [
        (["--", "--save-dir", "x"], {}, "compare.sh: --save-dir: checkpoints and logs are in the folder of the run"),
        (["--save-dir", "x,y"], {}, "compare.sh: --save-dir: set OUT=; leave it out"),
        (["--query"], {}, "compare.sh: error: --query: no values; give some, as --query a,b"),
        (["grod"], {}, "compare.sh: got 'grod'; choose from compare, "),
        ([], dict(JOBS="two"), "compare.sh: JOBS: got 'two'; give a number, 1 or more"),
        ([], dict(NPROC="0"), "compare.sh: NPROC: got '0'; give a number, 1 or more"),
        ([], dict(OUT="/proc/x"), "compare.sh: /proc/x: cannot be made (No such file or directory); set OUT="),
        ([], dict(OUT="/tmp/a:b"), "compare.sh: OUT: got '/tmp/a:b'; fairseq takes : for the end of a path"),
        (["--gather", "/tmp"], {}, "compare.sh: /tmp: no plan.json in this folder"),
    ]:
        result = checkout.run(*words, **env)
        assert result.returncode in (1, 2) and last_line(result).startswith(said)
    assert not checkout.calls()


TINY = """
title: Tiny
train: >-
  --task reversal --arch attn_lstm_reversal --optimizer adam --lr 0.005 --max-update 6 --max-tokens 200 --num-workers 0
  --cpu --save-interval-updates 1 --keep-interval-updates 1 --reversal-train-size 100 --reversal-valid-size 20
  --reversal-test-size 20 --reversal-max-length 8 --log-format json
decode: --beam 1 --scoring reversal --print-alignment soft
axes: {score: [general, none]}
"""


@pytest.mark.slow(seconds=30)
def test_real_tools_killed_on_the_way_give_the_same_report(checkout):
    checkout.write("tiny.yaml", TINY)
    here = dict(VENV=str(checkout.programs), PYTHONPATH=str(checkout.root))
    killed = checkout.start(str(checkout.root / "tiny.yaml"), **here)
    half = checkout.out / "none-seed1" / "checkpoints"
    while not list(half.glob("checkpoint_*_[2-5].pt")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    kept = (checkout.out / "general-seed1" / "train.log").read_text()
    result = checkout.run(str(checkout.root / "tiny.yaml"), **here)
    assert result.returncode == 0, result.stderr
    assert (checkout.out / "general-seed1" / "train.log").read_text() == kept
    assert "Loaded checkpoint" in (checkout.out / "none-seed1" / "train.log").read_text()
    whole = checkout.run(str(checkout.root / "tiny.yaml"), **here, OUT=f"{checkout.out}2")
    assert whole.returncode == 0, whole.stderr
    rows = [json.loads((Path(out) / "report.json").read_text()) for out in (checkout.out, f"{checkout.out}2")]
    general, none = rows[0]
    assert general["alignment accuracy"] > 0 and none["alignment accuracy"] is None
    assert general["parameters"] > none["parameters"] and general["updates"] == none["updates"] == 6
    times = ("seconds", "tokens/s")
    for row in itertools.chain(*rows):
        for name in [name for name in row if any(each in name for each in times)]:
            del row[name]
    assert rows[0] == rows[1]
