"""One process of a training: fairseq-train, told of the others by the variables that torch's launcher sets."""

import ctypes
import os
import signal
import sys
import threading
from datetime import timedelta
from typing import Dict, Tuple

from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing.errors import get_error_handler, record

BEAT, SILENCE = 5, 40  # seconds
PR_SET_PDEATHSIG = 1


class Watch:
    """Ends this process when another is gone: killed, or on a machine that cannot be reached.

    Every process counts up in the store of machine 0, which its launcher keeps; process 0 looks whether the others do.
    When it ends, so do its launcher and the store, and with that the others.

    Args:
        rank: of this process.
        size: how many there are.
        host, port: of the store.
    """

    def __init__(self, rank: int, size: int, host: str, port: int):
        self.rank, self.size, self.address = rank, size, (host, port)
        self.seconds = self.replied = 0
        """In which this process ran, and the last at which the store answered; it may be stopped for a while."""
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self._beat, self._look)]

    def __enter__(self) -> "Watch":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(BEAT)

    def _beat(self) -> None:
        try:
            store = TCPStore(*self.address, is_master=False, timeout=timedelta(seconds=SILENCE))
            others = range(1, self.size) if self.rank == 0 else ()
            heard: Dict[int, Tuple[int, int]] = {other: (0, self.seconds) for other in others}
            while not self.ended.is_set():
                store.add(f"train_process/{self.rank}", 1)
                for other, (count, since) in heard.items():
                    now = store.add(f"train_process/{other}", 0)
                    if now != count:
                        heard[other] = (now, self.seconds)
                    elif self.seconds - since > SILENCE:
                        self._leave(f"nothing was heard of process {other} for {SILENCE} seconds")
                self.replied = self.seconds
                self.ended.wait(BEAT)
        except Exception:  # whatever torch says of a connection
            if not self.ended.is_set():
                self._leave("the launcher of machine 0 is gone")

    def _look(self) -> None:
        """A machine that is off the net leaves a call waiting for an answer."""
        while not self.ended.wait(1):
            self.seconds += 1
            if self.seconds - self.replied > SILENCE:
                self._leave(f"machine 0 has not answered for {SILENCE} seconds")

    def _leave(self, why: str) -> None:
        get_error_handler().record_exception(ConnectionError(why))  # for the launcher, which says it
        os._exit(1)


def end_with_launcher() -> None:
    """Where the launcher is killed by the hardest of signals, it cannot end its processes."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@record
def main() -> None:
    end_with_launcher()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with Watch(rank, size, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])):
        sys.argv[0] = "fairseq-train"
        sys.argv += ["--distributed-world-size", str(size), "--distributed-rank", str(rank), "--distributed-no-spawn"]
        sys.argv += ["--device-id", os.environ["LOCAL_RANK"], "--distributed-init-method", "env://"]
        from fairseq_cli.train import cli_main

        cli_main()


if __name__ == "__main__":
    main()
