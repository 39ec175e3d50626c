"""The checkpoint that fairseq-train will start from, known before the model is built."""

import os
from typing import Any, Dict, NamedTuple, Optional

import torch


class ResumedCheckpoint(NamedTuple):
    """What a task has to know of it."""

    task_state: Dict[str, Any]
    starts_anew: bool
    """The weights go on, the data need not."""

    remedy: str
    """What one who wants other settings can do instead."""


def resumed_checkpoint(cfg, prefix: str) -> Optional[ResumedCheckpoint]:
    """The checkpoint that training starts from; None where there is none.

    Args:
        cfg: has fairseq's ``save_dir``, ``restore_file``, ``finetune_from_model`` and ``reset_dataloader`` as fields
            with ``prefix`` before their names.
    """
    finetuned = getattr(cfg, prefix + "finetune_from_model")
    starts_anew = bool(getattr(cfg, prefix + "reset_dataloader"))
    path = getattr(cfg, prefix + "restore_file")
    if path == "checkpoint_last.pt":
        path = os.path.join(getattr(cfg, prefix + "save_dir"), path)
        if not os.path.isfile(path) and finetuned:
            path, starts_anew = finetuned, True
    if not os.path.isfile(path):
        return None
    task_state = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("task_state", {})
    remedy = "leave --finetune-from-model out" if path == finetuned else "train anew in another --save-dir"
    return ResumedCheckpoint(task_state, starts_anew, remedy)
