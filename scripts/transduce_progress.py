"""Says on stderr, every so often, how far many trainings are, and how long the rest will take at the pace since it was
started; it ends with the process that started it. It imports nothing but the standard library.

usage: transduce_progress.py SECONDS UPDATES FOLDER...     the folder of each training, of so many updates"""

import os
import re
import sys
import time
from pathlib import Path
from typing import List, Tuple

UPDATES = re.compile(rb'"(?:valid_|train_)?num_updates": "(\d+)"')
TAIL = 20_000
"""Bytes of a log that hold its last line with a number; fairseq writes a line as often as there were epochs."""


def updates_of(folder: Path, updates: int) -> int:
    """Updates that a training has done: all once it is done, else what its log says last."""
    if (folder / "train.done").exists():
        return updates
    try:
        with open(folder / "train.jsonl", "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
            found = UPDATES.findall(log.read())
    except OSError:  # not begun
        return 0
    return min(int(found[-1]), updates) if found else 0


def state(folders: List[Path], updates: int) -> Tuple[int, int, int]:
    """(trainings that are done, all trainings, updates that are done); of a language that failed none counts."""
    counted = [folder for folder in folders if not (folder.parent / "failed").exists()]
    done = [updates_of(folder, updates) for folder in counted]
    return sum((folder / "train.done").exists() for folder in counted), len(counted), sum(done)


def line(done: int, trainings: int, share: float, left: float) -> str:
    """
    Args:
        share: of the updates that are done, 0 to 1.
        left: seconds, infinite where nothing was done yet.
    """
    minutes = round(left / 60) if left < 10**9 else None
    time_left = "time left is not known yet" if minutes is None else f"about {minutes // 60}:{minutes % 60:02} h left"
    return f"{done} of {trainings} trainings, {100 * share:.0f} % of the updates, {time_left}"


def main() -> None:
    seconds, updates, folders = float(sys.argv[1]), int(sys.argv[2]), [Path(name) for name in sys.argv[3:]]
    parent, begin, said = os.getppid(), time.monotonic(), 0.0
    _, _, before = state(folders, updates)
    while os.getppid() == parent:
        if time.monotonic() - said >= seconds:
            said = time.monotonic()
            done, trainings, now = state(folders, updates)
            whole, gained = trainings * updates, now - before
            left = (whole - now) * (said - begin) / gained if gained > 0 else float("inf")
            print("transduce:", line(done, trainings, now / whole if whole else 1.0, left), file=sys.stderr, flush=True)
        time.sleep(min(0.2, seconds))


if __name__ == "__main__":
    main()
