"""What an experiment comes to: every run with its command lines, as ``plan.json`` keeps them."""

import json
import os
import platform
import shlex
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional

import fairseq
import torch

from ..evaluation import whole_files
from ..evaluation.report_keys import read_report_keys
from .check import Checker
from .experiment import Experiment, options_of, value_of
from .grid import Run, runs_of

PLAN = "plan.json"
WEIGHTS = "--print-alignment"
OF_A_RUN = "checkpoints and logs are in the folder of the run; leave it out, or set OUT="


@dataclass(frozen=True)
class Programs:
    """What is run, and where.

    Attributes:
        root: the checkout.
        bin: folder of fairseq's commands.
        processes: that each training has.
    """

    root: Path
    bin: Path
    processes: int = 1

    @property
    def plugin(self) -> str:
        """The ``--user-dir``."""
        return str(self.root / "fairseq_attn_plugin")

    @property
    def train(self) -> List[str]:
        """The command that trains."""
        if self.processes == 1:
            return [str(self.bin / "fairseq-train")]
        return ["bash", str(self.root / "scripts/train_distributed.sh"), "--nproc", str(self.processes), "--"]


@dataclass
class PlannedRun:
    """A training with its decodings, of one seed.

    Attributes:
        name: of the combination of values, without the seed.
        facts: by axis what sets it apart.
        seed: text; empty where it is fairseq's own.
        folder: below that of the experiment.
        settings: what results of other settings are told by.
        train: the command line that trains (of ``scripts/nmt.sh`` the one that does everything).
        decodings: by split the command line that decodes.
        updates: of the training; None where its options do not say.
        environment: variables of the commands.
    """

    name: str
    facts: Dict[str, str]
    seed: str
    folder: str
    settings: str
    train: List[str]
    decodings: Dict[str, List[str]] = field(default_factory=dict)
    updates: Optional[int] = None
    environment: Dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What tables call it."""
        return ", ".join([*self.facts.values(), *([f"seed {self.seed}"] if self.seed else [])])

    @property
    def command_lines(self) -> List[str]:
        """To be pasted, one a line."""
        before = "".join(f"{name}={shlex.quote(value)} " for name, value in self.environment.items())
        return [before + shlex.join(command) for command in (self.train, *self.decodings.values())]


@dataclass
class Plan:
    """All runs of an experiment, in the order of the tables.

    Attributes:
        task: ``reversal`` or ``translation``.
        beside: by label folders of other runs of ``scripts/nmt.sh`` that the table shows as well.
    """

    experiment: str
    title: str
    about: str
    task: str
    report: Dict[str, Any]
    runs: List[PlannedRun]
    versions: Dict[str, str]
    beside: Dict[str, str] = field(default_factory=dict)

    def write(self, out: Path) -> None:
        """``plan.json``, with paths of folders below ``out``."""
        whole_files.write_json(out / PLAN, {**vars(self), "runs": [vars(run) for run in self.runs]})


def read_plan(out: Path) -> Plan:
    """What ``Plan.write`` has written.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = out / PLAN
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Plan(**{**found, "runs": [PlannedRun(**run) for run in found["runs"]]})
    except FileNotFoundError:
        raise ValueError(f"{out}: no {PLAN} in this folder; name one that compare.sh has filled") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path}: damaged; run the experiment again, which keeps what is finished") from None


def make_plan(
    experiment: Experiment,
    out: Path,
    programs: Programs,
    words: List[str],
    preparing: Optional[List[str]] = None,
    updates: Optional[int] = None,
) -> Plan:
    """Expands the axes and checks every command line.

    Args:
        experiment: with axes, splits and seeds as the user wants them.
        out: folder of the experiment.
        words: the user's, for every ``fairseq-train``.
        preparing: the user's, for every ``prepare_corpus.sh`` of runs of ``scripts/nmt.sh``.
        updates: of a run of ``scripts/nmt.sh``, in place of those of the file.

    Raises:
        ValueError: values, options or combinations that cannot be, a line each.
    """
    _check_given(experiment, words, preparing)
    checker, translation = Checker(), experiment.prepare is not None
    shared = _shared(experiment, words)
    runs = runs_of(experiment.grids or [{}], lambda option: checker.is_switch(option, _stand_in(experiment, shared)))
    if runs and not runs[0].name:
        runs[0] = Run(experiment.name, {"model": experiment.title or experiment.name})
    _check_runs(experiment, checker, runs, shared)
    task = "translation" if translation or value_of("--task", shared) != "reversal" else "reversal"
    splits = [] if translation else [split for run in runs for split in run.splits or experiment.splits]
    facts = [axis for run in runs for axis in run.facts]
    read_report_keys(experiment.report, task, list(dict.fromkeys(splits)), list(dict.fromkeys(facts)))
    plan = _translation if translation else _training
    planned = [
        plan(experiment, run, seed, out, programs, shared, preparing or [], updates or experiment.updates)
        for run in runs
        for seed in experiment.seeds or [""]
    ]
    found = (experiment.name, experiment.title or experiment.name, experiment.about, task, experiment.report)
    return Plan(*found, planned, versions())


def as_nmt_ran(run: PlannedRun, folder: Path) -> PlannedRun:
    """A run of ``scripts/nmt.sh`` with the commands of fairseq that its logs name."""
    logs = {path.stem.removeprefix("generate-"): path.with_suffix(".log") for path in folder.glob("generate-*.txt")}
    found = {split: last_command(log) for split, log in sorted(logs.items())}
    return replace(run, train=last_command(folder / "train.log") or run.train, decodings=found)


def last_command(log: Path) -> List[str]:
    """The words of the last command that a log holds; none where it holds none."""
    found: List[str] = []
    if log.exists():
        with open(log, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                found = shlex.split(line[2:]) if line.startswith("$ ") else found
    return found


def versions() -> Dict[str, str]:
    """Of what the runs are made with."""
    try:
        own = metadata.version("fairseq_attn_plugin")
    except metadata.PackageNotFoundError:
        own = "a checkout"
    return {
        "python": platform.python_version(), "torch": torch.__version__, "fairseq": fairseq.__version__,
        "fairseq_attn_plugin": own,
    }  # fmt: skip


def _check_given(experiment: Experiment, words: List[str], preparing: Optional[List[str]]) -> None:
    """Options that the user may not give."""
    if preparing and experiment.prepare is None:
        raise ValueError(f"--prepare: {experiment.name} reads no text; leave it out")
    remedies = {"--save-dir": OF_A_RUN, "--log-file": OF_A_RUN, **experiment.fixed}
    if experiment.seeds:
        remedies["--seed"] = "give --seeds 1,2,3"
    for option, _ in options_of([*words, *(preparing or [])]):
        if option in remedies:
            raise ValueError(f"{option}: {remedies[option]}")


def _shared(experiment: Experiment, words: List[str]) -> List[str]:
    """Options of ``fairseq-train`` that come before a run's own."""
    found = [*experiment.train, *experiment.more]
    if experiment.updates is not None and experiment.prepare is None:
        found += ["--max-update", str(experiment.updates), "--total-num-update", str(experiment.updates)]
    return [*found, *words]


OF_NMT = (
    "data --task attn_translation --arch attn_lstm_multi30k --criterion chunked_cross_entropy --optimizer adam "
    "--lr-scheduler polynomial_decay --total-num-update 1"
).split()
"""Stand in for what ``scripts/nmt.sh`` says itself."""


def _stand_in(experiment: Experiment, words: List[str]) -> List[str]:
    """Words of ``fairseq-train`` as they are checked."""
    if experiment.prepare is None:
        return [*_folder(experiment), *words]
    if value_of("--arch", words) not in (None, "") and not (value_of("--arch", words) or "").startswith("attn_"):
        return [*OF_NMT, "--criterion", "label_smoothed_cross_entropy", *words]
    return [*OF_NMT, *words]


def _folder(experiment: Experiment) -> List[str]:
    return [] if experiment.data is None else [experiment.data]


def _check_runs(experiment: Experiment, checker: Checker, runs: List[Run], shared: List[str]) -> None:
    """Raises all that is wrong with any run, a line each."""
    wrong: Dict[str, List[str]] = {}
    for run in runs:
        try:
            splits = run.splits or experiment.splits
            checker.train(_stand_in(experiment, [*shared, *run.own]), splits if experiment.prepare is None else ())
            if experiment.prepare is None:
                checker.generate([*_folder(experiment), *_decoding(experiment, run, shared)])
        except ValueError as error:
            wrong.setdefault(str(error), []).append(run.name)
    if wrong:
        raise ValueError("\n".join(
            error if len(names) == len(runs) else f"{error} (in {', '.join(names[:3])}{', ...' * (len(names) > 3)})"
            for error, names in wrong.items()
        ))  # fmt: skip


def _decoding(experiment: Experiment, run: Run, shared: List[str]) -> List[str]:
    """Options of ``fairseq-generate``: there are no weights to be printed where there is no attention."""
    words = experiment.decode if run.decode is None else run.decode
    if value_of("--attention-score", [*shared, *run.own]) == "none" and WEIGHTS in words:
        place = words.index(WEIGHTS)
        after = place + 1
        while after < len(words) and not words[after].startswith("--"):
            after += 1
        words = words[:place] + words[after:]
    task, own = value_of("--task", shared), value_of("--user-dir", shared)
    return [*(["--task", task] if task else []), *(["--user-dir", own] if own else []), *words]


def _training(
    experiment: Experiment, run: Run, seed: str, out: Path, programs: Programs, shared: List[str],
    preparing: List[str], updates: Optional[int],
) -> PlannedRun:  # fmt: skip
    """``fairseq-train``, and ``fairseq-generate`` for each split."""
    name = f"{run.name}-seed{seed}" if seed else run.name
    folder = out / name
    words = [*shared, *run.own, *(["--seed", seed] if seed else [])]
    decoding = _decoding(experiment, run, shared)
    of_task = decoding.index("--task") + 2 if "--task" in decoding else 0
    data = _folder(experiment)
    train = [
        *programs.train, *data, "--user-dir", programs.plugin, *words,
        "--save-dir", f"{folder}/checkpoints", "--log-file", f"{folder}/train.jsonl",
    ]  # fmt: skip
    decodings = {
        split: [
            str(programs.bin / "fairseq-generate"), *data, "--user-dir", programs.plugin, *decoding[:of_task],
            "--path", f"{folder}/checkpoints/checkpoint_best.pt", "--gen-subset", split, *decoding[of_task:],
            "--results-path", str(folder),
        ]
        for split in run.splits or experiment.splits
    }  # fmt: skip
    settings = f"train {' '.join([*data, *words])} | generate {' '.join(decoding[of_task:])}"
    settings += f" | processes {programs.processes}" * (programs.processes > 1)
    most = value_of("--max-update", words) or ""
    most_updates = int(most) if most.isdecimal() else None
    return PlannedRun(run.name, run.facts, seed, name, settings, train, decodings, most_updates)


def _translation(
    experiment: Experiment, run: Run, seed: str, out: Path, programs: Programs, shared: List[str],
    preparing: List[str], updates: Optional[int],
) -> PlannedRun:  # fmt: skip
    """One run of ``scripts/nmt.sh``, which prepares, trains, translates and scores, and keeps its own settings."""
    name = f"{run.name}-seed{seed}" if seed else run.name
    words = [*shared, *run.own, *(["--seed", seed] if seed else [])]
    command = ["bash", str(programs.root / "scripts/nmt.sh"), *(experiment.prepare or ()), *run.prepare, *preparing]
    environment = {"OUT": str(out / name), **({"UPDATES": str(updates)} if updates else {})}
    for variable in ("AVERAGE", "BEAM", "SPLITS"):
        if os.environ.get(variable):
            environment[variable] = os.environ[variable]
    if programs.processes > 1:
        environment["NPROC"] = str(programs.processes)
    return PlannedRun(run.name, run.facts, seed, name, "", [*command, "--", *words], {}, updates, environment)
