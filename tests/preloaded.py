"""Programs that start in a moment: they are forked off a process that has imported torch and fairseq, nothing of ours.

``Programs(folder)`` starts it and leaves ``python`` and fairseq's commands in ``folder/bin``, in the way of a virtual
environment. Every start of one of these is a process of its own, with its arguments, variables, folder and files, and
ends with it when it is killed; what a real start does beside that, it does in the tests of the launches themselves.
"""

import atexit
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Callable

IMPORTS = (
    "torch, torch._dynamo, torch.optim, matplotlib.figure, matplotlib.backends.backend_agg, sacrebleu, sentencepiece, "
    "fairseq.trainer, fairseq.sequence_generator, fairseq.sequence_scorer, fairseq.tasks, fairseq.criterions, "
    "fairseq.models, fairseq.options, fairseq.hub_utils, fairseq.dataclass.utils, fairseq.dataclass.initialize"
)
COMMANDS = ("train", "generate", "interactive", "preprocess", "validate", "hydra-train")
CLIENT = """#!{python} -SE
import os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    words = [{path!r}, os.getcwd(), str(len(sys.argv) - 1), *sys.argv[1:]]
    words += [f"{{name}}={{value}}" for name, value in os.environ.items()]
    socket.send_fds(server, [b"x"], [0, 1, 2])
    server.sendall("\\0".join(words).encode(errors="surrogateescape") + b"\\0\\0")
    status = int(server.recv(10) or 255)
if status < 0:
    if status != -signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


class Programs:
    """The process and its folder; for use in a ``with`` statement."""

    def __init__(self, folder: Path):
        self.root, self.address = folder, str(folder / "socket")
        (folder / "bin").mkdir()
        for name in ("python", *(f"fairseq-{command}" for command in COMMANDS)):
            path = folder / "bin" / name
            python = os.path.realpath(sys.executable)
            path.write_text(CLIENT.format(python=python, address=self.address, path=str(path)))
            path.chmod(0o755)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, __file__, self.address], env=environment)
        while not os.path.exists(self.address):
            assert self.process.poll() is None, "it cannot be started"
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait()


def serve(address: str) -> None:
    """Forks a process for each connection, which ends with this one or with the connection."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.part")
        server.listen(64)
        os.rename(f"{address}.part", address)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                attend(connection)
            connection.close()
            forget_those_that_ended()


def forget_those_that_ended() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def attend(connection: socket.socket) -> None:
    """Runs what is asked for in a child, which ends with the connection, and sends back how it ended."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    text = b""
    while not text.endswith(b"\0\0"):
        text += connection.recv(1 << 16) or os._exit(0)  # nothing: the client was killed meanwhile
    path, folder, count, *words = text[:-2].decode(errors="surrogateescape").split("\0")
    pid = os.fork()
    if pid == 0:
        connection.close()
        become(path, files, folder, dict(word.split("=", 1) for word in words[int(count) :]))
        leave_with(lambda: run(os.path.basename(path), words[: int(count)]))
    ended = os.pidfd_open(pid)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        connection.sendall(str(status).encode())
    finally:
        os._exit(0)


def become(path, files, folder, environment) -> None:
    sys.executable = f"{os.path.dirname(path)}/python"
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))


def run(name, arguments) -> None:
    """What the command line of this name would; errors go up to the interpreter."""
    if name != "python":
        module = name.removeprefix("fairseq-").replace("-", "_")
        sys.path[0] = sysconfig.get_path("scripts")
        sys.argv = [f"{sys.path[0]}/{name}", *arguments]
        return importlib.import_module(f"fairseq_cli.{module}").cli_main()
    while arguments[:1] == ["-W"]:
        warnings.simplefilter(arguments[1])
        arguments = arguments[2:]
    kind, *rest = arguments
    if kind in ("-c", "-m"):
        sys.argv, sys.path[0] = [kind, *rest[1:]], ""
        if kind == "-c":
            return exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
        sys.path[0] = os.getcwd()
        return runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.realpath(kind))
    runpy.run_path(kind, run_name="__main__")


def leave_with(program: Callable[[], None]) -> None:
    """Ends as an interpreter does after a program, without the second that it takes to throw away what was imported."""
    status = 0
    try:
        program()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    exec(f"import {IMPORTS}")
    gc.freeze()  # so that what is shared with every program stays shared
    serve(sys.argv[1])
