"""Runs an experiment: trains and decodes every combination of its axes, and writes the report."""

import argparse
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Optional, Tuple

logging.disable(logging.INFO)  # fairseq logs while it is imported, matplotlib while it looks for fonts

from training_progress import LEFT_OUT, WARNING, progress  # noqa: E402

from fairseq_attn_plugin.evaluation.experiment_report import write_experiment_report  # noqa: E402
from fairseq_attn_plugin.experiments import runner  # noqa: E402
from fairseq_attn_plugin.experiments.experiment import Experiment, list_of, read_experiment  # noqa: E402
from fairseq_attn_plugin.experiments.grid import option_of  # noqa: E402
from fairseq_attn_plugin.experiments.plan import Plan, Programs, as_nmt_ran, make_plan, read_plan  # noqa: E402
from fairseq_attn_plugin.experiments.progress import Progress  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"
BIN = Path(os.environ.get("VENV") or ROOT / ".venv").absolute() / "bin"
DEFAULT = "grid"
LISTS = {"seeds": "SEEDS", "jobs": "JOBS"}
"""Options that a variable stands for as well."""


def say(text: str) -> None:
    print(f"compare: {text}", file=sys.stderr, flush=True)


def main() -> int:
    args, axes = parse(sys.argv[1:])
    try:
        if args.gather:
            return report(read_plan(Path(args.gather)), Path(args.gather))
        return run(args, axes)
    except runner.Ended as end:
        runner.exit_by(end.args[0])
    except KeyboardInterrupt:
        runner.exit_by(2)
    except OSError as error:
        say(f"error: {error.filename}: {error.strerror}")
    except ValueError as error:
        for line in str(error).splitlines():
            print(f"compare.sh: {line}", file=sys.stderr)
    return 1


def parse(words: List[str]) -> Tuple[argparse.Namespace, Dict[str, str]]:
    """The command's own options, and axes: ``--NAME VALUES`` of any other name."""
    words, training = _halves(words, "--")
    words, preparing = _halves(words, "--prepare")
    parser = argparse.ArgumentParser(prog="compare.sh", usage="see compare.sh --help", allow_abbrev=False)
    parser.add_argument("experiment", nargs="?")
    for name, variable in LISTS.items():
        parser.add_argument(f"--{name}", default=os.environ.get(variable) or None)
    parser.add_argument("--launcher", action="store_true")
    parser.add_argument("--gather")
    parser.add_argument("--beside", action="append", default=[])
    own = [f"--{name}" for name in (*LISTS, "gather", "beside")]
    mine: List[str] = []
    axes: Dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if name in own:
            mine += [word] if value else [name, *rest[:1]]
            rest = rest if value else rest[1:]
        elif word == "--launcher" or not word.startswith("--"):
            mine.append(word)
        elif not value and (not rest or rest[0].startswith("--")):
            parser.error(f"{name}: no values; give some, as {name} a,b")
        else:
            axes[name.removeprefix("--")] = value or rest.pop(0)
    args = parser.parse_args(mine)
    args.words, args.preparing = training, preparing
    return args, axes


def _halves(words: List[str], mark: str) -> Tuple[List[str], List[str]]:
    place = words.index(mark) if mark in words else len(words)
    return words[:place], words[place + 1 :]


def number(name: str, text: Optional[str], least: int = 1) -> int:
    """ValueError for what is none, or too small."""
    text = "1" if text is None else text
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) < least:
        raise ValueError(f"{name}: got '{text}'; give a number, {least} or more")
    return int(text)


def chosen(args: argparse.Namespace, axes: Dict[str, str]) -> Experiment:
    """The experiment with the axes and seeds of the command line: those of an experiment that was named go through
    their own as well, the default one's are replaced."""
    experiment = read_experiment(args.experiment or DEFAULT, EXPERIMENTS)
    for axis in axes:
        if option_of(axis) in ("--seed", "--save-dir", "--log-file"):
            raise ValueError(f"--{axis}: {'give --seeds 1,2,3' if axis == 'seed' else 'set OUT='}; leave it out")
    if axes and args.experiment is None:
        experiment = replace(experiment, name="axes", title=" × ".join(axes), grids=[dict(axes)])
    elif axes:
        experiment = replace(experiment, grids=[{**grid, **axes} for grid in experiment.grids or [{}]])
    if args.seeds is not None:
        experiment = replace(experiment, seeds=list_of("seeds", args.seeds))
    return experiment


def run(args: argparse.Namespace, axes: Dict[str, str]) -> int:
    jobs = number("JOBS", args.jobs)
    processes = number("NPROC", os.environ.get("NPROC") or None)
    updates = number("UPDATES", os.environ["UPDATES"]) if os.environ.get("UPDATES") else None
    seconds = number("PROGRESS", os.environ.get("PROGRESS") or "60")
    experiment = chosen(args, axes)
    out = Path(os.environ.get("OUT") or ROOT / "runs" / f"compare-{experiment.name}").absolute()
    if ":" in str(out):
        raise ValueError(f"OUT: got '{out}'; fairseq takes : for the end of a path; set it to another folder")
    programs = Programs(ROOT, BIN, processes)
    plan = make_plan(experiment, out, programs, args.words, args.preparing, updates)
    plan.beside = {os.path.basename(os.path.normpath(folder)): os.path.abspath(folder) for folder in args.beside}
    if len(plan.beside) < len(args.beside):
        raise ValueError("--beside: two folders have one name; the table names them so")
    held = runner.lock(out, say)
    runner.claim(plan, out)
    if args.launcher:
        for line in runner.launcher_lines(plan, out):
            print(line)
        return 0
    say(f"{plan.title}: {len(plan.runs)} runs, in {out}")
    failed = runner.run_all(plan, out, jobs, environment(jobs, processes), held, Progress(plan, out, seconds, warning))
    status = report(plan, out)
    for folder, why in failed.items():
        say(f"{folder} failed: {why}")
    return 1 if failed else status


def environment(jobs: int, processes: int) -> Dict[str, str]:
    """The matrices are small: more than two threads would wait for each other."""
    threads = 1 if jobs * processes > 1 or (os.cpu_count() or 1) < 2 else 2
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads)}


def warning(line: str) -> Optional[str]:
    """What a line of a training's log warns of."""
    return progress(line, False) if WARNING.search(line) or LEFT_OUT.search(line) else None


def report(plan: Plan, out: Path) -> int:
    """Prints the table and writes it, with all else that shows the results."""
    if any(not run.settings for run in plan.runs):
        return report_translations(plan, out)
    print(write_experiment_report(out), end="")
    say(f"table, page, pictures and logs: {out}")
    return 0


def report_translations(plan: Plan, out: Path) -> int:
    """The same of runs of ``nmt.sh``, which has scored each; the table is that of its reports."""
    replace(plan, runs=[as_nmt_ran(run, out / run.folder) for run in plan.runs]).write(out)
    write_experiment_report(out)
    folders = {run.label: out / run.folder for run in plan.runs if (out / run.folder / "report.json").exists()}
    rows = [f"{label}={folder}" for label, folder in {**folders, **plan.beside}.items()]
    if not folders:
        return 1
    command = [str(BIN / "python"), "-W", "ignore", str(ROOT / "scripts/nmt_report.py"), "compare", str(out), *rows]
    sys.stdout.flush()
    with open(out / "report.log", "w", encoding="utf-8") as log:
        status = subprocess.run(command, stderr=log).returncode
    if status:
        raise ValueError(f"the report failed: {runner.reason(out / 'report.log')} (log: {out / 'report.log'})")
    say(f"table: {out}/report.md, page: {out}/report.html; models, translations and logs in its folders")
    return 0


if __name__ == "__main__":
    sys.exit(main())
