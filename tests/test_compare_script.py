"""scripts/reversal.sh: what it runs, skips and says. The tools are stand-ins here, but for one small real run."""

import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from model_factory import check_command

from fairseq_attn_plugin.evaluation import report
from fairseq_attn_plugin.experiments import reversal
from fairseq_attn_plugin.models.bridge import BRIDGES
from fairseq_attn_plugin.models.encoder_fronts import ENCODER_FRONTS
from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS
from fairseq_attn_plugin.modules.attention.histories import HISTORIES
from fairseq_attn_plugin.modules.attention.normalizers import NORMALIZERS
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES
from fairseq_attn_plugin.modules.attention.windows import WINDOWS
from fairseq_attn_plugin.modules.recurrence.cells import CELLS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]

TRAIN = r"""#!/usr/bin/env bash
echo "train $*" >>"$CALLS"
echo "$OMP_NUM_THREADS" >>"$CALLS.threads"
case ${BREAK:-} in
  error) printf 'Traceback (most recent):\n  File "x.py", line 1\nValueError: --lr: got x\nnoise\n' >&2; exit 1 ;;
  kill) kill -9 $$ ;;
  hang) echo $$ >>"$CALLS.pids"; exec sleep 60 ;;
  second) # the first training hangs, the second fails meanwhile
    case $* in *no_attention*) BREAK=error ;; *) BREAK=hang ;; esac
    until [ "$BREAK" = hang ] || [ -e "$CALLS.pids" ]; do sleep 0.05; done
    BREAK=$BREAK exec "$0" "$@" ;;
  together) # every training waits until there are two
    until [ "$(grep -c train "$CALLS")" -ge 2 ]; do sleep 0.05; done ;;
esac
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
  *reversal_report.py*) [ -z "${NO_REPORT:-}" ] || exit 0 ;;
  *train_distributed.py*) echo "processes ${*:4:2}" >>"$CALLS"; exec "${0%/*}/fairseq-train" "${@:7}" ;;
  *reversal_experiments.py*) [ -n "${REAL_EXPERIMENTS:-}" ] || exec cat "${0%/*}/experiments/${!#}" ;;
esac
exec "$PROGRAMS/bin/python" "$@"
"""


class Checkout:
    """A copy of the scripts under a path with a space, with stand-ins for set-up, training and decoding."""

    def __init__(self, folder: Path, programs: Path):
        self.root, self.out, self.calls_file = folder / "a b", folder / "out put", folder / "calls"
        self.programs = programs
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        self.write("scripts/setup.sh", "#!/usr/bin/env bash\n")
        self.write("venv/bin/fairseq-train", TRAIN)
        self.write("venv/bin/fairseq-generate", GENERATE)
        self.write("venv/bin/python", PYTHON)
        for mode, experiments in reversal.MODES.items():  # the script that prints them imports fairseq, for seconds
            self.write(f"venv/bin/experiments/{mode}", "".join(each.line + "\n" for each in experiments()))
        self.venv = self.root / "venv"

    def write(self, name: str, text: str):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *args: str, **env: str) -> subprocess.Popen:
        here = dict(OUT=str(self.out), VENV=str(self.venv), CALLS=str(self.calls_file), PYTHONPATH=str(ROOT))
        here["PROGRAMS"] = str(self.programs)
        return subprocess.Popen(
            ["bash", str(self.root / "scripts" / "reversal.sh"), *args], cwd="/", env={**os.environ, **here, **env},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess:
        script = self.start(*args, **env)
        output, errors = script.communicate(timeout=300)
        return subprocess.CompletedProcess(script.args, script.returncode, output, errors)

    def calls(self) -> list:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def checkout(tmp_path, programs):
    return Checkout(tmp_path, programs)


def last_line(result) -> str:
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_compare_runs_everything_once_and_reports(checkout):
    result = checkout.run("compare", "--lr", "0.1", SEEDS="1 2", REAL_EXPERIMENTS="yes")
    assert result.returncode == 0, result.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.stdout.splitlines()[2:4]]
    assert rows[0] == ["with attention", "1,234", "8", "7.5", "100.00", "100.00", "100.00", "–", "–", "–"]
    assert rows[1] == ["without attention", "1,234", "8", "7.5", "100.00", "100.00", "–", "–", "–", "–"]
    assert [row["seeds"] for row in json.loads((checkout.out / "report.json").read_text())] == [2, 2, 2]
    for name in ("attention", "accuracy_per_epoch", "accuracy_by_length"):
        assert (checkout.out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    calls = checkout.calls()
    assert [call.split()[0] for call in calls] == ["train", "generate", "generate", "generate"] * 6
    trains = [call for call in calls if call.startswith("train")]
    assert all(call.rindex("--lr 0.1") > call.rindex("--lr 0.005") for call in trains), "options come last"
    assert ["--attention-score none" in call for call in trains] == [False, False, True, True, False, False]
    assert ["attn_lstm_shift" in call for call in trains] == [False, False, False, False, True, True]
    assert all(
        ("--print-alignment soft" in call) != ("/no_attention-seed" in call) for call in calls if "generate" in call
    )

    again = checkout.run("--lr", "0.1", SEEDS="1 2")
    assert (again.returncode, again.stdout, checkout.calls()) == (0, result.stdout, calls)


def test_failure_ends_with_the_cause_and_the_log(checkout):
    result = checkout.run(BREAK="error")
    log = checkout.out / "attention-seed1" / "train.log"
    assert result.returncode == 1 and "ValueError: --lr: got x" in last_line(result) and str(log) in last_line(result)
    assert "Traceback" in log.read_text()
    assert checkout.run(NO_REPORT="1").returncode == 0, "a failed step must be run again"


def test_killed_training_is_resumed_in_its_folder(checkout):
    result = checkout.run(BREAK="kill")
    assert result.returncode == 1 and "killed by signal 9" in last_line(result)
    assert checkout.run(NO_REPORT="1").returncode == 0
    first, second = [call for call in checkout.calls() if call.startswith("train") and "/attention-seed1" in call][:2]
    assert first == second and "--save-dir" in first


def test_other_settings_are_not_mixed_with_old_results(checkout):
    assert checkout.run(NO_REPORT="1").returncode == 0
    calls = checkout.calls()
    result = checkout.run("--lr", "0.1")
    assert result.returncode == 1 and f"{checkout.out}/attention-seed1" in last_line(result)
    assert "other settings" in last_line(result) and "> 0.1" in result.stderr
    assert checkout.calls() == calls


def test_second_run_on_one_folder_is_refused(checkout):
    checkout.out.mkdir()
    with open(checkout.out / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = checkout.run()
    assert result.returncode == 1 and "another run" in last_line(result) and checkout.calls() == []


@pytest.mark.slow(seconds=20)
def test_real_tools_on_a_tiny_problem(checkout):
    (checkout.root / "fairseq_attn_plugin").symlink_to(ROOT / "fairseq_attn_plugin")
    tiny = "--reversal-train-size 100 --reversal-valid-size 20 --reversal-test-size 20 --reversal-long-size 5"
    tiny += " --reversal-exact-size 3 --reversal-max-length 8 --max-epoch 2"
    here = dict(VENV=str(checkout.programs), PYTHONPATH=str(checkout.root))
    result = checkout.run("compare", *tiny.split(), "--cpu", **here)
    assert result.returncode == 0, result.stderr
    with_attention, without, remembers = json.loads((checkout.out / "report.json").read_text())
    assert with_attention["alignment accuracy"] > 0 and without["alignment accuracy"] is None
    assert with_attention["parameters"] > without["parameters"] and with_attention["updates"] == without["updates"] > 0
    assert remembers["alignment accuracy"] > 0 and remembers["sentences, length 200"] is not None
    assert (checkout.out / "accuracy_by_length.png").exists()

    refused = checkout.run("--attention-score", "lunog", OUT=str(checkout.out) + "2", **here)
    assert refused.returncode == 1 and "--attention-score: got 'lunog'; choose from" in last_line(refused)


def test_plot_attention_draws_a_log_or_says_what_is_missing(checkout):
    def plot(*args):
        command = ["bash", str(checkout.root / "scripts" / "plot_attention.sh"), *map(str, args)]
        env = {**os.environ, "VENV": str(checkout.programs), "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=env, capture_output=True, text=True)

    log, picture = checkout.root / "log", checkout.root / "x.png"
    log.write_text("S-0\ta\nH-0\t-1\ta\nD-0\t-1\ta\nP-0\t-1 -1\nA-0\t1,0 0,1\n")
    assert plot(log, picture).returncode == 0 and picture.read_bytes().startswith(b"\x89PNG")
    assert "--ids" in last_line(plot(log, picture, "--ids", "1"))
    log.write_text(log.read_text().replace("A-0\t1,0 0,1\n", ""))
    assert "--print-alignment soft" in last_line(plot(log, picture))


def test_usage_and_unknown_mode(checkout):
    assert "usage: bash scripts/reversal.sh" in checkout.run("-h").stdout
    result = checkout.run("compair")
    assert result.returncode == 1 and "got 'compair'; choose from " in last_line(result)
    modes = last_line(result).partition("choose from ")[2].split(", ")
    assert report.FAR == reversal.FAR
    assert modes == list(reversal.MODES) and sorted(modes) == sorted(report.TABLES), "every mode has a table"
    assert "--save-dir: checkpoints and logs are in" in last_line(checkout.run("--save-dir", "x"))
    for jobs in ("0", "two"):
        assert f"JOBS: got '{jobs}'" in last_line(checkout.run(JOBS=jobs))


FLAGS = ("--attention-score", "--attention-query", "--attention-normalizer", "--cell")


def words_after(options: str, flags) -> tuple:
    """The values of flags in a command line, None where it does not name one."""
    values = dict(itertools.pairwise(options.split()))
    return tuple(values.get(flag) for flag in flags)


@pytest.mark.parametrize(
    "mode, queries, normalizers, cells",
    [
        ("mechanisms", ["previous", "current"], [None], CELLS.names()),
        ("normalizers", ["previous", "current"], NORMALIZERS.names(), [None]),
        ("lengths", [None], [None], [None]),
    ],
)
def test_tables_of_mechanisms_cover_the_registries_once(mode, queries, normalizers, cells):
    memories = ("history", "window", "addressing")  # of ``lengths``, held by a test of their own
    experiments = [each for each in reversal.MODES[mode]() if not each.facts.keys() & set(memories)]
    expected = list(itertools.product(ATTENTION_SCORES.names(), queries, normalizers, cells))
    fixed = [name for name in ATTENTION_SCORES.names() if not ATTENTION_SCORES[name].reads_query]
    expected = {(s, q, None if s in fixed else n, c) for s, q, n, c in expected}  # no normaliser changes their weights
    expected = [*expected, *(("none", None, None, cell) for cell in cells)]  # no query, no normaliser
    trained = [words_after(each.own, FLAGS) for each in experiments]
    assert sorted(trained, key=str) == sorted(expected, key=str)
    facts = [tuple(each.facts.get(name) for name in ("score", "query", "normalizer", "cell")) for each in experiments]
    assert facts == trained, "the report tells what was trained"
    assert len({each.name for each in experiments}) == len(experiments)
    assert all((reversal.WEIGHTS in each.decoding) == (each.facts["score"] != "none") for each in experiments)
    assert {each.splits for each in experiments} == {"test test_long" if mode == "lengths" else "test"}


def test_lengths_covers_what_attention_remembers():
    registries = {"history": HISTORIES, "window": WINDOWS, "addressing": ADDRESSINGS}
    own = [each.own for each in reversal.lengths()]
    for kind, registry in registries.items():
        for name in registry.names():
            assert own.count(f"--attention-{kind} {name}") == 1


def test_parts_covers_bridges_cells_and_fronts():
    own = [each.own for each in reversal.parts()]
    assert len(set(own)) == len(own) and own[0] == ""
    for registry, as_it_is in ((BRIDGES, "copy"), (CELLS, "lstm"), (ENCODER_FRONTS, "none")):
        assert {f"{registry.flag} {name}" for name in registry.names()} - set(own) <= {f"{registry.flag} {as_it_is}"}


@pytest.mark.parametrize("mode", reversal.MODES)
def test_options_of_every_experiment_fit(mode):
    for each in reversal.MODES[mode]():
        check_command(f"{each.shared} {each.own}".split())


def test_sampling_trains_with_and_without():
    without, sampled = reversal.MODES["sampling"]()
    (updates,) = words_after(sampled.shared, ["--max-update"])
    slope, floor = map(float, words_after(sampled.own, ["--scheduled-sampling-slope", "--scheduled-sampling-floor"]))
    assert "--scheduled-sampling" not in without.own + without.shared and floor == 0.75
    assert 1.0 - slope * int(updates) == pytest.approx(floor, abs=0.01), "the floor is reached at the end"


@pytest.mark.parametrize("mode", reversal.MODES)
def test_what_bash_splits_holds_nothing_that_it_would_split_elsewhere(mode):
    names = [each.name for each in reversal.MODES[mode]()]
    assert len(set(names)) == len(names), "a folder each"
    for each in reversal.MODES[mode]():
        assert each.line.count("|") == 4 and not set("*?[\n\\'\"") & set(each.line)
        assert each.name and " " not in each.name and " ".join(each.shared.split()) == each.shared


def test_options_of_an_experiment_come_last(checkout):
    result = checkout.run("guided", "--cell", "x y", NO_REPORT="1", SEEDS="1 2")
    assert result.returncode == 0, result.stderr
    trains = [call for call in checkout.calls() if call.startswith("train")]
    for call, (each, seed) in zip(trains, itertools.product(reversal.guided(), "12"), strict=True):
        assert f" {each.shared} --cell x y {each.own} --seed {seed} --save-dir" in call
        assert f"/{each.name}-seed{seed}/checkpoints " in call


def test_jobs_run_together_each_on_one_thread(checkout):
    result = checkout.run(JOBS="2", BREAK="together", OMP_NUM_THREADS="", NO_REPORT="1")
    assert result.returncode == 0, result.stderr
    assert sorted(call.split()[0] for call in checkout.calls()) == ["generate"] * 9 + ["train"] * 3
    assert set(checkout.calls_file.with_suffix(".threads").read_text().split()) == {"1"}


def ended(pid: int) -> bool:
    """Whether a process that was told to end is gone within seconds, or will be once its parent has looked."""
    deadline = time.time() + 10
    while time.time() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_each_training_in_so_many_processes(checkout):
    result = checkout.run(NPROC="3", OMP_NUM_THREADS="", NO_REPORT="1")
    assert result.returncode == 0, result.stderr
    calls = [call[:17] for call in checkout.calls() if not call.startswith("generate")]
    assert calls == ["processes --nproc", "train --user-dir "] * 3 and checkout.calls()[0].endswith(" 3")
    assert set(checkout.calls_file.with_suffix(".threads").read_text().split()) == {"1"}
    refused = checkout.run(NPROC="2")
    assert refused.returncode == 1 and "other settings" in last_line(refused)


def test_failed_job_ends_the_others(checkout):
    result = checkout.run(JOBS="2", BREAK="second")
    assert result.returncode == 1 and "no_attention-seed1 failed: ValueError: --lr: got x" in last_line(result)
    assert ended(int(checkout.calls_file.with_suffix(".pids").read_text()))
    assert checkout.run(JOBS="2", NO_REPORT="1").returncode == 0, "what was ended and what failed must be run again"


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ended_script_leaves_no_training_behind(checkout, jobs):
    pids = checkout.calls_file.with_suffix(".pids")
    script = checkout.start(JOBS=jobs, BREAK="hang")
    while not pids.exists() or len(pids.read_text().splitlines()) < int(jobs):
        assert script.poll() is None
        time.sleep(0.05)
    script.terminate()
    script.communicate(timeout=20)
    assert script.returncode == -signal.SIGTERM and all(ended(int(pid)) for pid in pids.read_text().split())
