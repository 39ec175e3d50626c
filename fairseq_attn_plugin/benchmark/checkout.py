"""A process of its own for each checkout of the project whose models are measured; it waits while another one works."""

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, Callable, Dict, Tuple

from . import serve as bootstrap
from .rounds import reason_of
from .work import Work, give_back_memory, synchronized_clock

HERE = Path(__file__).resolve().parent.parent.parent
"""The checkout that this file belongs to."""


class Checkout:
    """The process, for use in a ``with`` statement. The functions that it calls are those of this benchmark, the models
    are the checkout's; functions, arguments and results must be fit to be pickled.

    Args:
        root: folder that holds ``fairseq_attn_plugin/``.
    """

    def __init__(self, root: Path):
        command = [sys.executable, "-W", "ignore", bootstrap.__file__, str(root.resolve())]
        self.root = root
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stdout is not None  # they are pipes
        self._requests, self._replies = self.process.stdin, self.process.stdout

    def __enter__(self) -> "Checkout":
        return self

    def __exit__(self, *error) -> None:
        with suppress(BrokenPipeError):  # it has ended by itself, and something is left that it did not read
            self._requests.close()  # which ends it, once it has done what it is doing
        self.process.wait()
        self._replies.close()

    def call(self, function: Callable, *args) -> Any:
        """What the function returns there.

        Raises:
            RuntimeError: it failed there, or the process ended; in one line, why.
        """
        try:
            _send(self._requests, (function, args))
            worked, result = pickle.load(self._replies)
        except (EOFError, BrokenPipeError):
            raise RuntimeError(f"the process of {self.root} ended with {self.process.wait()}") from None
        if not worked:
            raise RuntimeError(result)
        return result

    def work(self, build: Callable[..., Work], *args) -> Work:
        """A piece of work that is built, kept and run there."""
        key, facts = self.call(_keep, build, args)
        return RemoteWork(key, facts, checkout=self)

    def forget(self) -> None:
        """Throws away all pieces of work that are kept there."""
        self.call(_forget)


class RemoteWork(Work):
    """Work that another process does: its rounds are run and timed there, without a message between two runs."""

    def __init__(self, key: int, facts: Dict[str, Any], checkout: Checkout):
        super().__init__(run=lambda: checkout.call(_run, key), **facts)
        self._checkout, self._key = checkout, key

    def warm_up(self, seconds: float, clock: Callable[[], float]) -> int:
        return self._checkout.call(_warm_up, self._key, seconds)

    def time(self, runs: int, clock: Callable[[], float]) -> float:
        return self._checkout.call(_time, self._key, runs)


def serve() -> None:
    """Does what a ``Checkout`` asks for, until that is closed. Whatever is printed meanwhile goes to stderr."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            function, args = pickle.load(requests)
        except EOFError:
            return
        _send(replies, _attempt(function, args))


def in_a_fork(function: Callable, *args) -> Any:
    """What the function returns in a process that is forked off this one, and leaves nothing behind.

    Raises:
        RuntimeError: it failed there, or the process ended; in one line, why.
    """
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(_attempt(function, args)))
    process.start()
    sender.close()
    try:
        worked, result = receiver.recv()
    except EOFError:
        process.join()
        worked, result = False, f"the process ended with {process.exitcode}"
    process.join()
    if not worked:
        raise RuntimeError(result)
    return result


def _attempt(function: Callable, args: tuple) -> Tuple[bool, Any]:
    """(True, what it returns) or (False, why it fails): not every error can travel from one process to another."""
    try:
        return True, function(*args)
    except Exception as error:
        return False, reason_of(error)


def _send(pipe: IO[bytes], message: tuple) -> None:
    pipe.write(pickle.dumps(message))
    pipe.flush()


_kept: Dict[int, Work] = {}
_keys = count()


def _keep(build: Callable[..., Work], args: tuple) -> Tuple[int, Dict[str, Any]]:
    work, key = build(*args), next(_keys)
    _kept[key] = work
    return key, {name: value for name, value in vars(work).items() if name != "run"}


def _run(key: int) -> None:
    _kept[key].run()


def _warm_up(key: int, seconds: float) -> int:
    return _kept[key].warm_up(seconds, synchronized_clock)


def _time(key: int, runs: int) -> float:
    return _kept[key].time(runs, synchronized_clock)


def _forget() -> None:
    _kept.clear()
    give_back_memory()
