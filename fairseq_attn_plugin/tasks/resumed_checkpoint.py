"""The checkpoint that fairseq-train will start from, known before the model is built."""

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

from ..checkpoints.files import check_is_file, load_checkpoint, read_checkpoint

logger = logging.getLogger(__name__)

LAST, BEST = "checkpoint_last.pt", "checkpoint_best.pt"
OTHERS = re.compile(r"checkpoint(\d+|_\d+_\d+|_best|\.best_.+)\.pt")
"""What fairseq-train calls its checkpoints, beside the last one."""


class ResumedCheckpoint(NamedTuple):
    """What a task has to know of it."""

    task_state: Dict[str, Any]
    starts_anew: bool
    """The weights go on, the data need not."""

    remedy: str
    """What one who wants other settings can do instead."""


def resumed_checkpoint(cfg, prefix: str) -> Optional[ResumedCheckpoint]:
    """The checkpoint that training starts from, whole; None where there is none.

    Args:
        cfg: has fairseq's ``save_dir``, ``restore_file``, ``finetune_from_model``, ``reset_dataloader`` and
            ``no_last_checkpoints`` as fields with ``prefix`` before their names.

    Raises:
        ValueError: what is to be started from is no file, or cannot be used.
    """
    names = ("finetune_from_model", "reset_dataloader", "restore_file", "no_last_checkpoints")
    finetuned, starts_anew, path, no_last = (_given(cfg, prefix + name) for name in names)
    if path is None:
        return None
    if path == LAST:
        folder = Path(getattr(cfg, prefix + "save_dir"))
        path = str(folder / LAST)
        if not no_last:
            mend(folder, finetuned)
        if not os.path.lexists(path):
            if not finetuned:
                return None
            path, starts_anew = finetuned, True
    option = "--finetune-from-model" if path == finetuned else "--restore-file"
    try:
        check_is_file(path)  # fairseq would train from scratch
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
    task_state = load_checkpoint(path).get("task_state") or {}
    remedy = "leave --finetune-from-model out" if path == finetuned else "train anew in another --save-dir"
    return ResumedCheckpoint(task_state, bool(starts_anew), remedy)


def _given(cfg, name: str) -> Any:
    """An option; None of a task that is built without fairseq's other configs, and so still refers to one of them."""
    value = getattr(cfg, name)
    return None if isinstance(value, str) and value.startswith("${") else value


def mend(folder: Path, finetuned: Optional[str] = None) -> None:
    """Where the last checkpoint of a training is not whole, or not there beside others than the one that it is
    ``finetuned`` from, makes it of the newest whole one.

    fairseq writes one checkpoint whole or not at all, and copies it to its other names: a kill leaves half a copy.

    Raises:
        ValueError: the last checkpoint is damaged, and there is no whole one.
    """
    last, others = folder / LAST, [path for path in folder.glob("*.pt") if OTHERS.fullmatch(path.name)]
    others = [path for path in others if not finetuned or os.path.realpath(path) != os.path.realpath(finetuned)]
    damage = _damage(last) if os.path.lexists(last) else f"{last}: not there"
    if not damage or not (others or os.path.lexists(last)):
        return
    updates = {path: number for path in others if (number := _updates(path)) is not None}
    if not updates:
        raise ValueError(f"{damage}; no other checkpoint in {folder} is whole: train anew in another --save-dir")
    newest = max(updates, key=lambda path: (updates[path], path.stat().st_mtime_ns))
    logger.warning(f"{damage}; going on from {newest}, the newest whole checkpoint, after {updates[newest]} updates")
    for path in (last, folder / BEST):
        if path == last or path in others and path not in updates:  # it was to be a copy of the newest
            part = Path(f"{path}.{os.getpid()}.part")  # each process of a training mends for itself
            try:
                shutil.copyfile(newest, part)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)


def _damage(path: Path) -> str:
    """What is wrong with a file; nothing with a checkpoint that is whole."""
    try:
        read_checkpoint(str(path))
    except ValueError as error:
        return str(error)
    return ""


def _updates(path: Path) -> Optional[int]:
    """How many updates a checkpoint has seen; None of one that a training cannot go on from."""
    try:
        state = load_checkpoint(str(path))
    except ValueError as error:
        logger.warning(str(error))
        return None
    return state["optimizer_history"][-1].get("num_updates")
