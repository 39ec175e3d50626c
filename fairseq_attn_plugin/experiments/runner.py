"""Runs the command lines of a plan: so many at once, each once, resumed where they were stopped."""

import ctypes
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, TextIO, Tuple

from ..evaluation import whole_files
from .experiment import options_of
from .plan import PLAN, Plan, PlannedRun, read_plan
from .progress import Progress

TICK = 0.05
"""Seconds from one look at the trainings to the next."""
PATIENCE = 10
"""Seconds that what is told to end has, before it is killed."""
PR_SET_PDEATHSIG = 1
ERROR = re.compile(r"[A-Za-z_.]*(Error|Exception|Interrupt)(:|$)")
SAYS_ERROR = re.compile(r": error: |^\w+\.sh: ")


class Ended(Exception):
    """The signal that ends the program."""


def lock(out: Path, say: Callable[[str], None]) -> TextIO:
    """Makes the folder, and holds it for as long as this process or one that it has started lives.

    Raises:
        ValueError: another run works in it, it holds other files, or it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        path = out / ".lock"
        if not path.exists() and any(out.iterdir()):
            raise ValueError(f"{out} holds other files; set OUT= to a new folder")
        held = open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise ValueError(
            f"{out}: cannot be made ({error.strerror}); set OUT= to a folder that can be written"
        ) from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        owner = held.read().strip()
        if not owner.isdecimal() or _lives(int(owner)):
            raise ValueError(f"another run works in {out}; wait for it, or set OUT= to another folder") from None
        say(f"what a killed run has started still works in {out}: waiting for its end")
        fcntl.flock(held, fcntl.LOCK_EX)
    held.truncate(0)
    print(os.getpid(), file=held, flush=True)
    return held


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def claim(plan: Plan, out: Path) -> None:
    """Makes the folders of all runs and keeps what they are made with; results of other settings are never mixed.

    Raises:
        ValueError: the folder holds another experiment, or results of other settings.
    """
    if (out / PLAN).exists():
        other = read_plan(out).experiment
        if other != plan.experiment:
            raise ValueError(f"{out} holds the experiment {other}; set OUT= to another folder for {plan.experiment}")
    differ = [(run, *other) for run in plan.runs for other in other_settings(out / run.folder, run.settings)]
    if differ:
        run, then, now = differ[0]
        raise ValueError(
            f"{out / run.folder} holds results of other settings (then {then}; now {now}); remove that folder, or set "
            "OUT= to another"
        )
    for run in plan.runs:
        folder = out / run.folder
        folder.mkdir(exist_ok=True)
        if run.settings:
            whole_files.write_text(folder / "settings", run.settings + "\n")
        else:
            (folder / ".lock").touch()  # a folder of nmt.sh
        whole_files.write_text(folder / "commands", "\n".join(run.command_lines) + "\n")
    plan.write(out)


def other_settings(folder: Path, settings: str) -> Iterator[Tuple[str, str]]:
    """What a folder's results were made with, and what differs from it now; nothing where that means the same.

    A training that left no checkpoint is no result.
    """
    path = folder / "settings"
    if not settings or not path.exists():
        return
    if not any(folder.glob("checkpoints/*.pt")) and not any(folder.glob("*.done")):
        return
    then, now = _meaning(path.read_text(encoding="utf-8")), _meaning(settings)
    for key in [*now, *then]:
        if then.get(key) != now.get(key):
            yield _shown(key, then), _shown(key, now)
            return


def _meaning(settings: str) -> Dict[Tuple[str, str], str]:
    """By part and option of ``settings`` what they say last."""
    found = {}
    for part in settings.strip().split(" | "):
        name, _, words = part.partition(" ")
        found.update({(name, option): value for option, value in options_of(words.split())} or {(name, ""): ""})
    return found


def _shown(key: Tuple[str, str], meaning: Dict[Tuple[str, str], str]) -> str:
    return " ".join(filter(None, (key[1] or key[0], meaning[key]))) if key in meaning else f"no {key[1] or key[0]}"


def steps_of(run: PlannedRun) -> Dict[str, List[str]]:
    """Commands of a run by their names, in order."""
    if not run.settings:
        return {"nmt": run.train}  # which knows itself what is done
    return {"train": run.train, **{f"generate-{split}": words for split, words in run.decodings.items()}}


def is_done(folder: Path, name: str) -> bool:
    """Whether a step has ended well; one of nmt.sh is asked again."""
    return (folder / f"{name}.done").exists()


def failures(plan: Plan, out: Path) -> Dict[str, str]:
    """By the folder of a run why it failed."""
    paths = {run.folder: out / run.folder / "failed" for run in plan.runs}
    return {name: path.read_text(encoding="utf-8").strip() for name, path in paths.items() if path.exists()}


def reason(log: Path) -> str:
    """The line of a log's last command that says what went wrong."""
    line = error = ""
    with open(log, encoding="utf-8", errors="replace") as lines:
        for each in map(str.rstrip, lines):
            if each.startswith("$ "):
                line = error = ""
            elif each:
                line = each
                error = each if ERROR.match(each) or SAYS_ERROR.search(each) else error
    said = error or line
    return said[:500] + "..." * (len(said) > 500)


class Job:
    """The steps of one run, one after the other, each in a process group of its own."""

    def __init__(self, run: PlannedRun, folder: Path, environment: Dict[str, str], held: TextIO):
        self.run, self.folder, self.held = run, folder, held
        self.environment = {**environment, **run.environment}
        self.left = [(name, words) for name, words in steps_of(run).items() if not is_done(folder, name)]
        self.name = ""
        self.begin = 0.0
        self.process: Optional[subprocess.Popen] = None
        self.failed = ""

    @property
    def log(self) -> Path:
        """Of the step that runs."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Begins the next step."""
        self.name, command = self.left.pop(0)
        self.begin = time.monotonic()
        with open(self.log, "a", encoding="utf-8") as log:
            print("$", shlex.join(command), file=log, flush=True)
            try:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
                    start_new_session=True, pass_fds=[self.held.fileno()], preexec_fn=_end_with(os.getpid()),
                )  # fmt: skip
            except OSError as error:
                self._fail(f"{command[0]}: {error.strerror}")

    def look(self) -> bool:
        """Whether the run has ended, well or not; begins the next step where one has."""
        status = self.process.poll() if self.process else None
        if status is not None:
            self.process = None
            with open(self.folder / "seconds", "a", encoding="utf-8") as seconds:
                print(self.name, round(time.monotonic() - self.begin), file=seconds)
            if status < 0 or status > 128:
                number = -status if status < 0 else status - 128
                self._fail(f"{self.name} was killed by signal {number}; run again to go on")
            elif status:
                self._fail(f"{self.name} failed: {reason(self.log)} (log: {self.log})")
            elif self.name != "nmt":
                (self.folder / f"{self.name}.done").touch()
        if self.failed or not self.process and not self.left:
            return True
        if not self.process:
            self.start()
        return bool(self.failed)

    def _fail(self, why: str) -> None:
        self.failed = " ".join(why.split())
        whole_files.write_text(self.folder / "failed", self.failed + "\n")

    def end(self, number: int) -> None:
        """Sends a signal to all that the step has started."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, number)


def _end_with(parent: int) -> Callable[[], None]:
    """What makes a child of this process end when it is killed, on Linux."""
    libc = ctypes.CDLL(None)

    def tie() -> None:
        if hasattr(libc, "prctl"):
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

    return tie


def run_all(
    plan: Plan,
    out: Path,
    jobs: int,
    environment: Dict[str, str],
    held: TextIO,
    progress: Progress,
) -> Dict[str, str]:
    """Runs what is not done, so many at once; one that fails leaves the others to go on.

    Returns:
        By the folder of a run why it failed.
    """
    waiting = [Job(run, out / run.folder, environment, held) for run in plan.runs]
    for job in waiting:
        (job.folder / "failed").unlink(missing_ok=True)
    waiting = [job for job in waiting if job.left]
    working: List[Job] = []
    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, _raise) for number in signals}
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                working.append(waiting.pop(0))
            for job in list(working):
                if job.look():
                    working.remove(job)
                    progress.ended(job.run, job.folder, job.failed)
            progress.show([job.run for job in working])
            time.sleep(TICK)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if working else handler)
        end_all(working)
        progress.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return failures(plan, out)


def _raise(number: int, frame: object) -> None:
    raise Ended(number)


def end_all(jobs: List[Job]) -> None:
    """Ends what works, and waits for it."""
    deadline = time.monotonic() + PATIENCE
    for number in (signal.SIGTERM, signal.SIGKILL):
        for job in jobs:
            job.end(number)
        while any(job.process and job.process.poll() is None for job in jobs):
            if number == signal.SIGTERM and time.monotonic() > deadline:
                break
            time.sleep(TICK)


def launcher_lines(plan: Plan, out: Path) -> Iterator[str]:
    """One shell line for each run that is not done: it skips its finished steps and resumes what was stopped."""
    for run in plan.runs:
        folder, parts = out / run.folder, []
        for name, command in steps_of(run).items():
            if is_done(folder, name):
                continue
            log, done = shlex.quote(f"{folder}/{name}.log"), shlex.quote(f"{folder}/{name}.done")
            variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in run.environment.items())
            line = f"{variables} {shlex.join(command)} >>{log} 2>&1".strip()
            parts.append(line if name == "nmt" else f"{{ test -e {done} || {line} && touch {done}; }}")
        if parts:
            yield " && ".join(parts)


def exit_by(number: int) -> None:
    """Ends this process as the signal would have."""
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
