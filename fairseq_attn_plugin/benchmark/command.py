"""The command: options, their errors, and what is written."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Tuple

import torch
from fairseq.criterions import CRITERION_REGISTRY

from ..evaluation import plots, whole_files
from . import comparison, launches, scaling
from .report import machine, markdown
from .systems import CHUNKED, PLAIN, SYSTEMS, USUAL
from .workloads import GPU_ONLY, GROUPS, WORKLOADS

DESCRIPTION = "Measures this plugin's models beside fairseq's own lstm, on random sentences and with random weights."
DTYPES = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")
MODES = ("table", "scaling", "launches")
LEFT_OUT = {
    "table": ("list",),
    "scaling": ("workloads", "measure", "dtype", "mixed", "against", "list"),
    "launches": ("measure", "mixed", "rounds", "seconds", "steps", "criterion"),
}
"""Options that mean nothing in a mode."""

WHY_LEFT_OUT = {
    "table": "only launches lists calls",
    "scaling": "scaling has workloads, measures and a type of its own",
    "launches": "launches counts one training step and one search",
}
PACKAGE = __name__.split(".")[0]
POSITIVE = ("rounds", "seconds", "steps", "threads")
TIMING = ("device", "rounds", "seconds", "steps", "dropout", "criterion")
"""Options of both modes that take time. What is not given is left to the plan."""

QUICK: Dict[str, Dict[str, Any]] = {
    "table": dict(workloads="reversal,nmt15", rounds=3, seconds=0.3),
    "scaling": dict(lengths=(25, 200), beams=(2, 10), rounds=2, seconds=0.2),
    "launches": dict(workloads="reversal"),
}
"""What ``--quick`` stands for in a mode, by option."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmark.sh", description=DESCRIPTION, allow_abbrev=False)
    add = parser.add_argument
    add("mode", nargs="?", default="table", help="table (the default); scaling: time over source length and beam; "
        "launches: calls that a GPU is given for a target step")  # fmt: skip
    add("--against", metavar="DIR", help="another checkout of this project, whose systems are measured beside ours")
    add("--workloads", help=f"from {_list((*WORKLOADS, *GROUPS))} (default: all; on a CPU without {_list(GPU_ONLY)}; "
        f"launches: {_list(launches.Plan.workloads)})")  # fmt: skip
    add("--systems", help=f"from {_list(SYSTEMS)} (default: {_list(USUAL)}; scaling: {_list(scaling.SYSTEMS)})")
    add("--measure", help=f"from {_list(comparison.MEASURES)} (default: all)")
    add("--dtype", help=f"from {_list(DTYPES)} (default: {DTYPES[0]})")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--rounds", type=int, help=f"rounds that count (default: {comparison.Plan.rounds}; scaling: "
        f"{scaling.Plan.rounds})")  # fmt: skip
    add("--seconds", type=float, help="how long one round of one system takes, about (default: "
        f"{comparison.Plan.seconds}; scaling: {scaling.Plan.seconds})")  # fmt: skip
    add("--steps", type=int, help="training steps or searches of a round, instead of --seconds")
    add("--dropout", type=float, default=0.1, help="of all systems (default: 0.1)")
    add("--criterion", help=f"of ours: {PLAIN} or {CHUNKED} (default: the second where fairseq knows it); fairseq's "
        "lstm has the first")  # fmt: skip
    add("--mixed", action="store_true", default=None, help="lengths between half and all of the workload's")
    add("--threads", type=int, help="of torch on the CPU (default: torch's choice)")
    add("--list", action="store_true", default=None, help="launches: also every call of a target step by name")
    add("--quick", action="store_true", help="fewer workloads or points, fewer and shorter rounds, unless given")
    add("--output", type=Path, metavar="FILE.json", help="file for every timing; scaling draws FILE.png beside it")
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = build_parser().parse_args(arguments)
    try:
        check(args)
        if args.quick:
            vars(args).update({**QUICK[args.mode], **given(args, *QUICK[args.mode])})
        if args.threads:
            torch.set_num_threads(args.threads)
        modes = {"table": table, "scaling": scaling_table, "launches": launches_table}
        print(modes[args.mode](args), end="")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def table(args: argparse.Namespace) -> str:
    """Measures, writes all results so far after every measure, and returns the table."""
    usual = [name for name in WORKLOADS if args.device == "cuda" or name not in GPU_ONLY]
    plan = comparison.Plan(
        workloads=some_of("--workloads", args.workloads, WORKLOADS, usual, GROUPS),
        systems=some_of("--systems", args.systems, SYSTEMS, USUAL),
        measures=some_of("--measure", args.measure, comparison.MEASURES, comparison.MEASURES),
        dtypes=some_of("--dtype", args.dtype, DTYPES, DTYPES[:1]),
        mixed=bool(args.mixed),
        threads=torch.get_num_threads(),
        against=args.against,
        **given(args, *TIMING),
    )
    facts, results = machine(plan.device, plan.against), []
    for more in comparison.compare(plan):
        results += more
        write(args.output, machine=facts, plan=asdict(plan), results=[asdict(result) for result in results])
    return markdown(plan, results, facts)


def scaling_table(args: argparse.Namespace) -> str:
    """Measures, writes the numbers and the picture, and returns the numbers as a table."""
    plan = scaling.Plan(
        systems=some_of("--systems", args.systems, SYSTEMS, scaling.SYSTEMS),
        **given(args, "lengths", "beams", *TIMING),
    )
    facts, panels = machine(plan.device), scaling.measure(plan)
    write(args.output, machine=facts, plan=asdict(plan), panels=[asdict(panel) for panel in panels])
    if args.output is not None:
        plots.save(scaling.draw(panels), args.output.with_suffix(".png"))
    return scaling.markdown(panels, facts)


def launches_table(args: argparse.Namespace) -> str:
    """Counts, writes the numbers and returns them as tables."""
    plan = launches.Plan(
        workloads=some_of("--workloads", args.workloads, WORKLOADS, launches.Plan.workloads, GROUPS),
        systems=some_of("--systems", args.systems, SYSTEMS, USUAL),
        dtypes=some_of("--dtype", args.dtype, DTYPES, DTYPES[:1]),
        listed=bool(args.list),
        device=args.device,
        dropout=args.dropout,
        against=args.against,
    )
    facts, results = machine(plan.device, plan.against), launches.measure(plan)
    write(args.output, machine=facts, plan=asdict(plan), results=[asdict(counts) for counts in results])
    return launches.markdown(plan, results, facts)


def given(args: argparse.Namespace, *names: str) -> Dict[str, Any]:
    """Those of the options that are not None."""
    return {name: vars(args)[name] for name in names if vars(args).get(name) is not None}


def check(args: argparse.Namespace) -> None:
    """Raises a ValueError with flag, value and remedy for what cannot be, before anything is measured."""
    one_of("MODE", args.mode, MODES)
    for name in given(args, *LEFT_OUT[args.mode]):
        raise ValueError(f"--{name}: {WHY_LEFT_OUT[args.mode]}; leave it out")
    if one_of("--device", args.device, DEVICES) == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: got 'cuda', and torch sees no GPU; choose cpu")
    for name, value in given(args, *POSITIVE).items():
        if not 0 < value < float("inf"):
            raise ValueError(f"--{name}: got {value}; give more than 0")
    if not 0 <= args.dropout < 1:
        raise ValueError(f"--dropout: got {args.dropout}; give at least 0 and less than 1")
    if args.criterion is not None:
        one_of("--criterion", args.criterion, [name for name in (PLAIN, CHUNKED) if name in CRITERION_REGISTRY])
    if args.against is not None and not Path(args.against, PACKAGE, "__init__.py").is_file():
        raise ValueError(f"--against: got '{args.against}', which holds no {PACKAGE}/; give the folder of a checkout")
    if args.output is not None:
        if args.output.suffix != ".json":
            raise ValueError(f"--output: got '{args.output}'; give a name that ends in .json")
        args.output.parent.mkdir(parents=True, exist_ok=True)
        for path in (args.output, args.output.with_suffix(".png")):
            whole_files.check_output(path, streams=False)


def one_of(flag: str, value: str, choices: Iterable[str]) -> str:
    if value not in choices:
        raise ValueError(f"{flag}: got '{value}'; choose from {_list(choices)}")
    return value


def some_of(
    flag: str,
    value: Optional[str],
    choices: Iterable[str],
    default: Iterable[str],
    groups: Optional[Mapping[str, Tuple[str, ...]]] = None,
) -> Tuple[str, ...]:
    """Names between commas, each once; a group stands for its members.

    Raises:
        ValueError: one of them is none of the choices.
    """
    groups = groups or {}
    names = tuple(default) if value is None else tuple(name.strip() for name in value.split(","))
    for name in names:
        one_of(flag, name, (*choices, *groups))
    return tuple(dict.fromkeys(member for name in names for member in groups.get(name, (name,))))


def write(path: Optional[Path], **content) -> None:
    if path is not None:
        whole_files.write_json(path, content)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
