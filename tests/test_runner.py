"""What the runner of experiments starts, skips, resumes, refuses and reports, with commands of a shell in place of
fairseq's."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fairseq_attn_plugin.experiments import runner
from fairseq_attn_plugin.experiments.plan import Plan, PlannedRun, read_plan
from fairseq_attn_plugin.experiments.progress import Progress, share_done


def planned(out, commands, **changes):
    """A plan of a run for each name, which trains by its command and decodes by noting it."""
    runs = [
        PlannedRun(name, {"model": name}, "1", name, f"train --lr 1 --name {name} | generate --beam 1",
                   ["bash", "-c", f"echo train-{name} >>{out}/calls; {command}"],
                   {"test": ["bash", "-c", f"echo generate-{name} >>{out}/calls"]}, 100)
        for name, command in commands.items()
    ]  # fmt: skip
    return Plan(**{**dict(experiment="x", title="X", about="", task="reversal", report={}, runs=runs, versions={}),
                   **changes})  # fmt: skip


def run(plan, out, jobs=1):
    """(by folder why it failed, lines that were said)"""
    said = []
    held = runner.lock(out, said.append)
    runner.claim(plan, out)
    progress = Progress(plan, out, 0.1, lambda line: line.strip() if line.startswith("warning") else None)
    progress.say = said.append
    try:
        return runner.run_all(plan, out, jobs, dict(os.environ), held, progress), said
    finally:
        held.close()


def calls(out):
    return (out / "calls").read_text().split() if (out / "calls").exists() else []


def test_every_step_once_and_what_failed_again(tmp_path):
    error = r"printf 'Traceback\nValueError: --lr: got x\nnoise\n' >&2; exit 1"
    commands = {"a": "echo warning: of all", "b": error, "c": "echo warning: of all", "d": "kill -9 $$"}
    failed, said = run(planned(tmp_path, commands), tmp_path)
    assert calls(tmp_path) == ["train-a", "generate-a", "train-b", "train-c", "generate-c", "train-d"]
    assert failed == {
        "b": f"train failed: ValueError: --lr: got x (log: {tmp_path}/b/train.log)",
        "d": "train was killed by signal 9; run again to go on",
    }
    assert (tmp_path / "b" / "failed").read_text() == failed["b"] + "\n"
    assert [line for line in said if "%" not in line] == [
        "a is done", "a: warning: of all", f"b: {failed['b']}", "c is done", f"d: {failed['d']}"
    ]  # fmt: skip
    assert (tmp_path / "a" / "seconds").read_text().split()[::2] == ["train", "generate-test"]
    log = (tmp_path / "a" / "train.log").read_text()
    assert log.startswith("$ bash -c ") and log.endswith("\nwarning: of all\n")

    (tmp_path / "calls").unlink()
    plan = planned(tmp_path, {**commands, "b": "true", "d": "true"})
    assert run(plan, tmp_path)[0] == {} and not list(tmp_path.glob("*/failed"))
    assert calls(tmp_path) == ["train-b", "generate-b", "train-d", "generate-d"]
    commands = (tmp_path / "b" / "commands").read_text().splitlines()
    assert len(commands) == 2 and subprocess.run(commands[1], shell=True).returncode == 0
    assert calls(tmp_path)[4:] == ["generate-b"], "a command line can be pasted"


def test_jobs_run_together_and_no_more_than_asked_for(tmp_path):
    wait = "until [ $(grep -c train {0}/calls) -ge {1} ]; do sleep 0.02; done; ls {0}/*/train.done | wc -l >>{0}/seen"
    plan = planned(tmp_path, {name: wait.format(tmp_path, "2" if name in "ab" else "1") for name in "abcd"})
    assert run(plan, tmp_path, jobs=2)[0] == {}
    assert (tmp_path / "seen").read_text().split()[:2] == ["0", "0"]
    assert calls(tmp_path)[:2] == ["train-a", "train-b"] and len(calls(tmp_path)) == 8


def test_other_results_are_never_mixed(tmp_path):
    plan = planned(tmp_path, {"a": "true"})
    run(plan, tmp_path)
    settings = tmp_path / "a" / "settings"
    kept = settings.read_text()
    settings.write_text("train --name a --lr 2 --lr 1 | generate --beam 1\n")  # in other words
    assert run(plan, tmp_path)[0] == {} and settings.read_text() == kept
    for words, then, now in [
        ("train --lr 2 --name a | generate --beam 1", "--lr 2", "--lr 1"),
        ("train --lr 1 --name a | generate --beam 1 --quiet", "--quiet", "no --quiet"),
        ("train --lr 1 --name a | generate --beam 1 | processes 2", "processes 2", "no processes"),
    ]:
        settings.write_text(words)
        with pytest.raises(ValueError, match=rf"{tmp_path}/a holds results of other settings \(then {then}; now {now}"):
            run(plan, tmp_path)
    (tmp_path / "a" / "train.done").unlink()
    (tmp_path / "a" / "generate-test.done").unlink()
    assert run(plan, tmp_path)[0] == {}, "a start that left no checkpoint blocks nothing"
    with pytest.raises(ValueError, match=f"{tmp_path} holds the experiment x; set OUT= to another folder for y"):
        run(planned(tmp_path, {"a": "true"}, experiment="y"), tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(ValueError, match="plan.json: damaged; run the experiment again"):
        read_plan(tmp_path)


def test_one_run_at_a_time_in_a_folder_of_its_own(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    with pytest.raises(ValueError, match="holds other files; set OUT= to a new folder"):
        runner.lock(other, print)
    with pytest.raises(ValueError, match="cannot be made"):
        runner.lock(Path("/proc/x"), print)
    out = tmp_path / "out"
    with runner.lock(out, print), pytest.raises(ValueError, match="another run works in"):
        runner.lock(out, print)


def state_of(pid):
    """Letter of a process in /proc; None where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def start(out):
    """A process that runs two trainings, which start a process each; it ends as compare.py does."""
    child = os.fork()
    if child == 0:
        try:
            run(planned(out, dict.fromkeys("ab", f"sleep 60 & echo $$ $! >>{out}/pids; wait")), out, 2)
        except runner.Ended as end:
            runner.exit_by(end.args[0])
        finally:
            os._exit(1)
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_runner_takes_its_trainings_along(tmp_path, number):
    out, pids = tmp_path / "out", tmp_path / "out" / "pids"
    child = start(out)
    while not pids.exists() or len(pids.read_text().split()) < 4:
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.02)
    os.kill(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number
    started = [int(pid) for pid in pids.read_text().split()]
    ended = started[::2] if number == signal.SIGKILL else started  # what a training has started ends by itself then
    deadline = time.time() + 5
    while time.time() < deadline and any(state_of(pid) not in (None, "Z") for pid in ended):
        time.sleep(0.02)
    assert all(state_of(pid) in (None, "Z") for pid in ended)
    for pid in set(started) - set(ended):
        os.kill(pid, signal.SIGKILL)
    assert run(planned(out, dict.fromkeys("ab", "true")), out)[0] == {}
    assert calls(out)[-4:] == ["train-a", "generate-a", "train-b", "generate-b"]


def test_a_launcher_runs_what_is_missing(tmp_path):
    plan = planned(tmp_path, {"a b": "true", "c": "true", "d": "false"})
    with runner.lock(tmp_path, print):
        runner.claim(plan, tmp_path)
    (tmp_path / "c" / "train.done").touch()
    statuses = [subprocess.run(line, shell=True).returncode for line in runner.launcher_lines(plan, tmp_path)]
    assert statuses == [0, 0, 1] and calls(tmp_path) == ["train-a", "b", "generate-a", "b", "generate-c", "train-d"]
    assert [line.count("train-d") for line in runner.launcher_lines(plan, tmp_path)] == [1]


def test_progress_counts_updates_and_decodings(tmp_path):
    plan = planned(tmp_path, dict.fromkeys("ab", "true"))
    folder = tmp_path / "a"
    folder.mkdir()
    assert share_done(plan.runs[0], folder) == 0
    (folder / "train.jsonl").write_text('{"train_num_updates": "50"}\n')
    assert share_done(plan.runs[0], folder) == pytest.approx(0.45)
    for done, share in (("train", 0.9), ("generate-test", 1.0)):
        (folder / f"{done}.done").touch()
        assert share_done(plan.runs[0], folder) == pytest.approx(share)
    shutil.rmtree(folder)
    progress = Progress(plan, tmp_path, 60, lambda line: None)
    progress.shares, progress.begin = [0.5, 0.0], 1000.0
    progress.failed = 1
    assert progress.line(4600.0) == "0 of 2 runs (1 failed), 25 %, about 3:00 h left"


def test_the_lock_is_held_by_what_a_killed_run_has_left(tmp_path):
    (tmp_path / ".lock").write_text("999999999")  # a process that there is not
    child = subprocess.Popen(["bash", "-c", f"exec 9>>{tmp_path}/.lock; flock 9; echo; sleep 0.5"],
                             stdout=subprocess.PIPE)  # fmt: skip
    child.stdout.readline()
    said = []
    with runner.lock(tmp_path, said.append) as held:
        assert child.wait(5) == 0 and said[0].startswith("what a killed run has started still works in")
        with pytest.raises(BlockingIOError):
            fcntl.flock(open(tmp_path / ".lock"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert held
