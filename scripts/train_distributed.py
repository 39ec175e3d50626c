"""Starts the processes of a training through torch's launcher and says how they ended; see train_distributed.sh."""

import argparse
import fcntl
import logging
import os
import re
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import IO, List, NoReturn, Optional, Tuple

from nmt_options import value_of

HERE = Path(__file__).resolve().parent
PLUGIN = HERE.parent / "fairseq_attn_plugin"
OURS = re.compile(r"--(distributed-(world-size|num-procs|rank|init-method|port|no-spawn)|device-id|local[_-]rank)\b")
FOLLOWS = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe|\b(tcp|prefix|file)?store\b", re.IGNORECASE)
SIOCGIFADDR = 0x8915


def die(why: str) -> NoReturn:
    sys.exit(f"train_distributed.sh: error: {why}")


def number(option: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        die(f"{option}: got {text!r}; give a number, {least} or more")
    return int(text)


def read_options(words: List[str]) -> Tuple[argparse.Namespace, List[str]]:
    """What stands before ``--``, checked, and the options of fairseq-train that stand after it."""
    if "--" not in words:
        die("give the options of fairseq-train after --")
    end = words.index("--")
    parser = argparse.ArgumentParser(prog="train_distributed.sh", allow_abbrev=False)
    parser.add_argument("--nproc", required=True)
    for name, default in (("--nnodes", "1"), ("--node-rank", "0"), ("--master", "")):
        parser.add_argument(name, default=default)
    args = parser.parse_args(words[:end])
    args.nproc, args.nnodes = number("--nproc", args.nproc, 1), number("--nnodes", args.nnodes, 1)
    args.node_rank = number("--node-rank", args.node_rank, 0)
    if args.node_rank >= args.nnodes:
        die(f"--node-rank: got {args.node_rank}; of --nnodes {args.nnodes} the last is {args.nnodes - 1}")
    args.host, _, port = args.master.rpartition(":")
    if args.nnodes > 1 and not (args.host and port.isdecimal() and 0 < int(port) < 65536):
        die(f"--master: got {args.master!r}; give name or address of machine 0 and a port, as node0:29500")
    args.port = int(port or 0)
    for word in words[end + 1 :]:
        if OURS.match(word):
            die(f"{word.partition('=')[0]}: this script sets it; leave it out")
    return args, words[end + 1 :]


def lock(folder: str, node_rank: int) -> IO:
    """Held for as long as this process lives; a file for each machine, since all may see one folder."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = open(Path(folder, f".lock{node_rank or ''}"), "ab")
    except OSError as error:
        die(f"--save-dir {folder}: cannot be written ({error.strerror}); give another")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        die(f"--save-dir {folder}: another training works there; wait for its end, or give another")
    except OSError:  # a file system without locks
        pass
    return file


def defaults(words: List[str], nproc: int) -> List[str]:
    """Options that come before the user's own."""
    import torch

    options = ["--user-dir", str(PLUGIN), "--ddp-backend", "legacy_ddp"]
    gpus = 0 if "--cpu" in words else torch.cuda.device_count()
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # fairseq would use one that is there
        return [*options, "--distributed-backend", "gloo", *([] if "--cpu" in words else ["--cpu"])]
    if nproc > gpus:
        die(f"--nproc: got {nproc}, but this machine has {gpus} GPUs; give at most that, or --cpu among the options")
    return [*options, "--distributed-backend", "nccl"]


def interface_towards(host: str) -> Optional[str]:
    """Name of the network interface by which this machine reaches the host, with IPv4; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # sends nothing
            mine = probe.getsockname()[0]
        except OSError:
            return None
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue
            if socket.inet_ntoa(found[20:24]) == mine:
                return name
    return None


def launch(args: argparse.Namespace, words: List[str]) -> None:
    """Returns when every process of this machine has ended well."""
    from torch.distributed import run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # it repeats what the end says
    options = ["--nproc-per-node", str(args.nproc), "--nnodes", str(args.nnodes), "--node-rank", str(args.node_rank)]
    if args.nnodes > 1:
        options += ["--master-addr", args.host, "--master-port", str(args.port)]
        interface = interface_towards(args.host)
        if interface:  # gloo would take that of this machine's name, which may be the loopback
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    else:
        options += ["--standalone", "--local-addr", "localhost"]
    process = [sys.executable, str(HERE / "train_process.py"), *defaults(words, args.nproc), *words]
    run.run(run.parse_args([*options, "--no-python", *process]))


def told(failures) -> str:
    """How the process ended that failed first, of torch's ``ProcessFailure`` by rank."""

    def follows(rank: int) -> bool:
        """Whether it failed for want of another."""
        return failures[rank].exitcode == -signal.SIGTERM or bool(FOLLOWS.search(str(failures[rank].message)))

    def order(rank: int) -> tuple:
        """What ended by torch's own signal comes last."""
        failure = failures[rank]
        return failure.exitcode == -signal.SIGTERM, follows(rank), failure.exitcode > 0, failure.timestamp

    rank = min(failures, key=order)
    failure = failures[rank]
    if failure.exitcode < 0:
        return f"error: process {rank} was killed by signal {-failure.exitcode}; run this again to go on"
    if isinstance(failure.message, dict):
        if follows(rank):
            return f"error: process {rank} has lost another, which says why where it ran; run this again to go on"
        return f"error: {failure.message['message']} (process {rank})"
    return f"process {rank} ended with status {failure.exitcode}; its message stands above"


def main() -> None:
    args, words = read_options(sys.argv[1:])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        with lock(value_of("--save-dir", words, "checkpoints"), args.node_rank):
            launch(args, words)
    except ChildFailedError as error:
        sys.exit(f"train_distributed.sh: {told(error.failures)}")
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except (OSError, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        die(f"--master {args.master}: the machines have not met ({why})" if args.nnodes > 1 else why)


if __name__ == "__main__":
    main()
