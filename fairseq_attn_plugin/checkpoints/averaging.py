"""The mean of several checkpoints of one training, as a checkpoint that decodes: parameters, options and the state of
the task, without the optimiser's. Of one checkpoint it is that checkpoint, stripped."""

from typing import Any, Dict, List, Sequence

import torch
from torch import Tensor

from ..evaluation.whole_files import check_output
from .files import FIRST_EPOCH, load_checkpoint, save_checkpoint

KEPT = ("args", "cfg", "criterion", "optimizer_history", "task_state")
"""What is taken over from the last checkpoint; fairseq reads no checkpoint without ``optimizer_history`` (names and
the number of updates)."""


def average_checkpoints(paths: Sequence[str], out: str) -> str:
    """Writes the mean of the checkpoints at ``paths`` to ``out``, which may be there already, but is none of them.

    Floating-point parameters: the mean in float64, rounded to their type (Junczys-Dowmunt et al., 2016); all others,
    the options and the state of the task: those of the last. The optimiser and the place in the data are left out.

    Returns:
        One line: how many checkpoints, parameters.

    Raises:
        ValueError, OSError: a checkpoint cannot be read, or is of another model or data than the first; one line.
    """
    if not paths:
        raise ValueError("no checkpoint given")
    check_output(out, *paths, streams=False)
    states = [load_checkpoint(path) for path in paths]
    for path, state in zip(paths, states):
        if "optimizer_history" not in state:
            raise ValueError(f"{path}: written by an old release of fairseq; scripts/convert_fairseq_lstm.sh reads it")
    for path, state in zip(paths[1:], states[1:]):
        check_same(states[0], state, paths[0], path)
    averaged = {name: states[-1].get(name) for name in KEPT}
    averaged["task_state"] = averaged["task_state"] or {}
    averaged["model"] = mean_parameters([state["model"] for state in states])
    averaged["extra_state"] = {"train_iterator": FIRST_EPOCH}
    save_checkpoint(averaged, out)
    return f"{out}: {'mean of ' if len(paths) > 1 else ''}{len(paths)} checkpoint{'s' * (len(paths) > 1)}"


def check_same(first: Dict[str, Any], other: Dict[str, Any], first_path: str, path: str) -> None:
    """ValueError where two checkpoints differ in the parameters' names, shapes or types, or in the task's state, which
    holds the data's dictionaries."""
    one, two = first["model"], other["model"]
    lacking = sorted(one.keys() ^ two.keys())
    if lacking:
        which = path if lacking[0] in one else first_path
        raise ValueError(f"{path}: another model than {first_path}; {which} lacks the parameter {lacking[0]}")
    for name, tensor in one.items():
        if not isinstance(tensor, Tensor):
            continue
        for kind in ("shape", "dtype"):
            ours, theirs = getattr(tensor, kind), getattr(two[name], kind, None)
            if ours != theirs:
                found = f"{_text(theirs)}, in {first_path} {_text(ours)}"
                raise ValueError(f"{path}: another model than {first_path}; the {kind} of {name} is {found}")
    if (first.get("task_state") or {}) != (other.get("task_state") or {}):
        raise ValueError(f"{path}: trained on other data than {first_path} (dictionaries or settings of the task)")


def _text(shape_or_type: Any) -> str:
    return " × ".join(map(str, shape_or_type)) if isinstance(shape_or_type, torch.Size) else str(shape_or_type)


def mean_parameters(models: List[Dict[str, Tensor]]) -> Dict[str, Tensor]:
    """Means by name. Names that share one tensor (tied embeddings) share the mean, too."""
    means: Dict[str, Tensor] = {}
    tied: Dict[tuple, Tensor] = {}
    for name, last in models[-1].items():
        if not isinstance(last, Tensor) or not last.is_floating_point():
            means[name] = last
            continue
        place = (last.data_ptr(), last.shape, last.stride())
        if place not in tied or not last.numel():
            total = torch.zeros(last.shape, dtype=torch.float64)
            for model in models:
                total += model[name]
            tied[place] = (total / len(models)).to(last.dtype)
        means[name] = tied[place]
    return means
