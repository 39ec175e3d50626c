"""Training with several processes: two places in which fairseq goes wrong without a word or cannot go on.

Importing the package puts :func:`broadcast_object` and :func:`infer_init_method` before fairseq's own functions.
"""

import os
from typing import Any

import torch
from fairseq.distributed import utils as distributed

from .checkpoints.files import NUMPY_GLOBALS

_broadcast_object, _infer_init_method = distributed.broadcast_object, distributed.infer_init_method


def install() -> None:
    """Whatever task and model train, with fairseq's commands or from Python."""
    distributed.broadcast_object, distributed.infer_init_method = broadcast_object, infer_init_method


def broadcast_object(obj: Any, *args, **kwargs) -> Any:
    """fairseq's, by which a process that reads a checkpoint hands it to the others.

    They read it with torch's safe loader, which takes plain values: without the options in it, for which fairseq has a
    class, and which no trainer looks at, and with fairseq's mark for a tensor that comes by itself.
    """
    if isinstance(obj, dict) and "optimizer_history" in obj:
        obj = {name: value for name, value in obj.items() if name != "cfg"}
    with torch.serialization.safe_globals([*NUMPY_GLOBALS, distributed._TensorPlaceholder]):
        return _broadcast_object(obj, *args, **kwargs)


def infer_init_method(cfg, *args, **kwargs) -> Any:
    """fairseq's, by which a process learns of the others.

    Raises:
        ValueError: torchrun has started several, and fairseq would have each train alone, or fail for want of a GPU.
    """
    try:
        found = _infer_init_method(cfg, *args, **kwargs)
    except ZeroDivisionError:  # of a rank by the number of GPUs
        raise ValueError(_alone()) from None
    if cfg.distributed_init_method is None and number_of_processes() > 1:
        raise ValueError(_alone())
    return found


def number_of_processes() -> int:
    """How many torchrun has started, of which this is one; 1 where it is not torchrun's."""
    started = all(name in os.environ for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"))
    return int(os.environ["WORLD_SIZE"]) if started else 1


def check_that_they_have_met() -> None:
    """For a task that trains.

    Raises:
        ValueError: there are several processes that do not know of each other.
    """
    if number_of_processes() > 1 and not torch.distributed.is_initialized():
        raise ValueError(_alone())


def _alone() -> str:
    return (
        f"torchrun: each of its {number_of_processes()} processes would train alone, into the same folder; "
        "start them with bash scripts/train_distributed.sh --nproc N -- OPTION..., which tells fairseq of the others"
    )
