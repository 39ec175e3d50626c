"""Work that can be killed at any moment: each stage builds a folder under another name and renames it when it is whole.

A finished stage holds its fingerprint: a checksum over the settings that it reads and the fingerprints of what it is
made from. A stage whose fingerprint is there is skipped, so that a changed setting redoes what depends on it, no more.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Callable, Iterator

STAMP = "fingerprint"


def say(text: str) -> None:
    print(f"data-prep: {text}", file=sys.stderr, flush=True)


def fingerprint(*parts: object) -> str:
    """SHA-256 over anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def make_folder(folder: Path, option: str) -> None:
    """Raises: ValueError, one line, if the folder cannot be made or written"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option}: cannot make '{folder}': {error.strerror}; name another folder") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: cannot write in '{folder}'; name another folder")


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[int]:
    """Holds ``folder`` for one run at a time; another one waits. Yields the descriptor that holds it.

    A program that is started with that descriptor (``pass_fds``) holds the folder too: one that outlives a killed run
    ends before the next run begins, and writes into nothing of it.
    """
    with open(folder / ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run in {folder}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream.fileno()


def remove(folder: Path) -> None:
    """Removes a folder; one that is finished is marked as unfinished first."""
    (folder / STAMP).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def stage(folder: Path, mark: str, build: Callable[[Path], None]) -> Path:
    """Makes ``folder`` by ``build(part)`` unless it is there with this fingerprint."""
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text() == mark:
        say(f"{folder.name}: done already")
        return folder
    part = folder.with_name(folder.name + ".part")
    remove(part)
    part.mkdir()
    build(part)
    (part / STAMP).write_text(mark)
    remove(folder)
    part.rename(folder)
    return folder


def publish(part: Path, final: Path, aside: Path) -> None:
    """Gives a whole folder its final name, in place of an older one, which is there until then."""
    if final.exists():
        final.rename(aside)
    part.rename(final)
    remove(aside)
