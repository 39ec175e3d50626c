"""What ``fairseq-train --log-format json --log-file`` writes, as a dataclass."""

import json
import re
from dataclasses import dataclass, field
from statistics import median
from typing import Dict, List, Optional, Tuple

PARAMETERS = re.compile(r"num\. shared model params: ([\d,]+)")
OPTION = re.compile(r"'(\w+)': ('[^']*'|[^,{}\[\]]*)[,}]")
TIMES = ("train_num_updates", "train_wall", "train_wps")
DONE = re.compile(r"done training in ([\d.]+) seconds")


@dataclass
class TrainingLog:
    """One training, resumed or not.

    Attributes:
        options: what the training was started with, by name (``max_epoch``), as text; numbers and words only.
        parameters: number of model parameters.
        seconds: fairseq's "done training in", validation included; None for a training that was resumed or that
            has not ended, whose time the log does not know.
        validations: statistics by name without ``valid_``, one dict per validation of the subset, in order;
            ``epoch`` and ``num_updates`` are among them.
        wall: updates → seconds since the start, validations included, in order; empty for a training that was resumed.
        speeds: updates at the end of an epoch → target tokens per second in it, ``</s>`` included.
    """

    options: Dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    seconds: Optional[float] = None
    validations: List[Dict[str, float]] = field(default_factory=list)
    wall: Dict[float, float] = field(default_factory=dict)
    speeds: Dict[float, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> Optional[float]:
        """Median over the epochs; None before the end of the first."""
        return median(self.speeds.values()) if self.speeds else None

    @property
    def updates(self) -> int:
        """Updates at the last validation; 0 before the first."""
        return int(self.validations[-1]["num_updates"]) if self.validations else 0


def read_training_log(path, subset: str = "valid") -> TrainingLog:
    """Reads a log; a validation that a killed training repeated after its restart counts once, the later one.

    Args:
        path: file that ``--log-file`` named.
        subset: the validation set whose statistics are wanted.
    Raises:
        ValueError: a damaged line, with file and number; no training in the file at all.
    """
    log, by_update, starts = TrainingLog(), {}, 0
    prefix = f"{subset}_"
    wanted = ("epoch", "num_updates", "wall", *TIMES, prefix)
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith("{'"):  # the options, as Python's dict
                log.options = {name: value.strip("'") for name, value in OPTION.findall(line)}
            elif line.startswith("{"):
                stats = _statistics(line, f"{path}:{number}", wanted)
                if f"{prefix}num_updates" in stats:
                    own = (name for name in stats if name == "epoch" or name.startswith(prefix))
                    by_update[stats[f"{prefix}num_updates"]] = {name.removeprefix(prefix): stats[name] for name in own}
                _add_times(log, stats)
            elif parameters := PARAMETERS.match(line):
                starts += 1
                log.parameters = int(parameters[1].replace(",", ""))
            elif done := DONE.match(line):
                log.seconds = float(done[1]) if starts == 1 else None
    if not starts:
        raise ValueError(f"{path}: no training in this file; is it a --log-file of fairseq-train?")
    log.validations = [by_update[updates] for updates in sorted(by_update)]
    if starts > 1:
        log.wall = {}
    return log


def _add_times(log: TrainingLog, stats: Dict[str, float]) -> None:
    """Takes in what a line of the training, in the middle of an epoch or at its end, says of time."""
    for prefix in ("", "train_"):
        if {f"{prefix}num_updates", f"{prefix}wall"} <= stats.keys():
            log.wall[stats[f"{prefix}num_updates"]] = stats[f"{prefix}wall"]
    if {"train_num_updates", "train_wps"} <= stats.keys():
        log.speeds[stats["train_num_updates"]] = stats["train_wps"]


def _statistics(line: str, where: str, wanted: Tuple[str, ...]) -> Dict[str, float]:
    """Numbers of one JSON line (fairseq writes them as strings) whose names begin so."""
    try:
        return {name: float(value) for name, value in json.loads(line).items() if name.startswith(wanted)}
    except (ValueError, TypeError):
        raise ValueError(f"{where}: damaged line {line.rstrip()[:60]!r}") from None
