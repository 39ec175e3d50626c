"""How far the runs of an experiment are, and how long the rest will take."""

import os
import re
import sys
import time
from pathlib import Path
from typing import Callable, List, Optional, Set

from tqdm import tqdm

from .plan import Plan, PlannedRun

UPDATES = re.compile(rb'"(?:valid_|train_)?num_updates": "(\d+)"')
TAIL = 20_000
"""Bytes of a log that hold its last line with a number."""
OF_TRAINING = 0.9
"""Share of a run that is its training; the rest are its decodings."""
EVERY = 1.0
"""Seconds from one look at the logs to the next."""


def updates_of(folder: Path) -> int:
    """Updates that the log of a training names last."""
    try:
        with open(folder / "train.jsonl", "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
            found = UPDATES.findall(log.read())
    except OSError:  # not begun
        return 0
    return int(found[-1]) if found else 0


def share_done(run: PlannedRun, folder: Path) -> float:
    """Of a run, 0 to 1."""
    decoded = [(folder / f"generate-{split}.done").exists() for split in run.decodings]
    if not run.settings:  # nmt.sh decodes and scores as well
        decoded = [(folder / "report.json").exists()]
    of_training = OF_TRAINING if decoded else 1.0
    if (folder / "train.done").exists():
        trained = 1.0
    else:
        trained = min(updates_of(folder) / run.updates, 1.0) if run.updates else 0.0
    return of_training * trained + ((1 - of_training) * sum(decoded) / len(decoded) if decoded else 0.0)


class Progress:
    """A bar on stderr, or where that is no terminal a line every so often.

    Args:
        plan: of the experiment.
        out: its folder.
        seconds: from one line to the next.
        warning: what of a line of a log is to be said; None for nothing.
    """

    def __init__(self, plan: Plan, out: Path, seconds: float, warning: Callable[[str], Optional[str]]):
        self.plan, self.out, self.seconds, self.warning = plan, out, seconds, warning
        self.shares = [share_done(run, out / run.folder) for run in plan.runs]
        self.ends: Set[str] = {run.folder for run, share in zip(plan.runs, self.shares) if share == 1.0}
        self.failed = 0
        self.begin = self.said = time.monotonic()
        self.looked = 0.0
        self.before = sum(self.shares)
        self.warnings: Set[str] = set()
        self.bar: Optional[tqdm] = None
        tqdm.monitor_interval = 0  # a thread that starts no process must not live
        if sys.stderr.isatty():
            form = "{desc} {percentage:3.0f} %|{bar}|{postfix}"
            self.bar = tqdm(total=len(plan.runs), desc="compare", bar_format=form, file=sys.stderr)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.bar is None:
            print(f"compare: {text}", file=sys.stderr, flush=True)
        else:
            self.bar.write(f"compare: {text}", file=sys.stderr)

    def ended(self, run: PlannedRun, folder: Path, failed: str) -> None:
        """Says how a run has ended, and what its training warned of."""
        self.ends.add(run.folder)
        self.failed += bool(failed)
        self.say(f"{run.folder}: {failed}" if failed else f"{run.folder} is done")
        for log in (folder / "train.log", folder / "nmt.log"):
            for text in self._warnings_in(log):
                self.say(f"{run.folder}: {text}")

    def _warnings_in(self, log: Path) -> List[str]:
        if not log.exists():
            return []
        with open(log, encoding="utf-8", errors="replace") as lines:
            found = dict.fromkeys(filter(None, map(self.warning, lines)))
        new = [text for text in found if text not in self.warnings]
        self.warnings.update(new)
        return new

    def show(self, working: List[PlannedRun]) -> None:
        """The bar as it is now, or a line when it is time for one."""
        now = time.monotonic()
        due = now - self.said >= self.seconds
        if now - self.looked < EVERY and not (due and self.bar is None) or self.bar is None and not due:
            return
        self.looked = now
        at_work = {run.folder for run in working}
        for place, run in enumerate(self.plan.runs):
            if run.folder in at_work or run.folder in self.ends and self.shares[place] < 1.0:
                self.shares[place] = 1.0 if run.folder in self.ends else share_done(run, self.out / run.folder)
        if self.bar is not None:
            self.bar.n = sum(self.shares)
            self.bar.set_postfix_str(self.line(now))
        else:
            self.said = now
            self.say(f"{self.line(now)}; {', '.join(map(self._where, working))}")

    def _where(self, run: PlannedRun) -> str:
        updates = updates_of(self.out / run.folder)
        return f"{run.folder}: update {updates:,}{f' of {run.updates:,}' if run.updates else ''}"

    def line(self, now: float) -> str:
        """How many have ended, the share that is done, and the time that is left at the pace so far."""
        done, whole = sum(self.shares), len(self.shares)
        gained = done - self.before
        left = "time left is not known yet"
        if gained > 0:
            minutes = round((whole - done) * (now - self.begin) / gained / 60)
            left = f"about {minutes // 60}:{minutes % 60:02} h left"
        failed = f" ({self.failed} failed)" if self.failed else ""
        return f"{len(self.ends)} of {whole} runs{failed}, {100 * done / whole:.0f} %, {left}"

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self.bar is not None:
            self.bar.close()
