"""Checkpoints of fairseq as files: read without running any code in them, written whole or not at all."""

import re
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple, Union

import numpy as np
import torch


def _rebuilder(example: Any) -> Callable[..., Any]:
    """The function that rebuilds such an object from its pickle."""
    return example.__reduce__()[0]


NUMPY_GLOBALS: List[Union[Callable[..., Any], Tuple[Callable[..., Any], str]]] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in "?ilqfd"),
    *(
        (function, f"numpy.{core}.multiarray.{function.__name__}")
        for function in map(_rebuilder, (np.zeros(1), np.float64(0)))
        for core in ("core", "_core")
    ),
]
"""Arrays and scalars, as numpy 1 and 2 write them: ``--eval-bleu`` leaves its counts in a checkpoint."""

FIRST_EPOCH = {"version": 2, "epoch": 1, "iterations_in_epoch": 0, "shuffle": True}
"""The place in the data of a training that has not begun."""


def load_checkpoint(path: str) -> Dict[str, Any]:
    """What torch's safe loader reads, and nothing that could run code; the tensors are mapped from the file where it
    can be.

    The package allows ``argparse.Namespace``, in which fairseq's own ``lstm`` keeps its options.

    Raises:
        ValueError: no such file, or not a checkpoint that fairseq loads.
    """
    try:
        with torch.serialization.safe_globals(NUMPY_GLOBALS):
            mapped = zipfile.is_zipfile(path)  # not before torch 1.6
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # whatever a file of another kind makes of the unpickler
        foreign = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        found = f"it holds a {foreign[1]}, which could run code" if foreign else "torch cannot read it"
        raise ValueError(f"{path}: not a checkpoint of fairseq, {found}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a checkpoint of fairseq, it holds a {type(state).__name__}")
    if "model" not in state or not (state.get("args") or state.get("cfg")):
        raise ValueError(f"{path}: not a checkpoint of fairseq, it lacks a model or its options")
    if not {"optimizer_history", "best_loss"} & state.keys():  # the latter in old releases
        raise ValueError(f"{path}: not a checkpoint of fairseq, it lacks the optimizer_history")
    return state


def has_attention(path: str) -> bool:
    """Whether the model of a checkpoint has attention; of models that know no option for that, yes."""
    state = load_checkpoint(path)
    options = state.get("args") or (state.get("cfg") or {}).get("model") or {}
    options = options if isinstance(options, dict) else vars(options)
    without = str(options.get("decoder_attention", True)).lower() in ("false", "0")  # fairseq's lstm
    return options.get("attention_score") != "none" and not without


def check_folder(out: str) -> None:
    """ValueError where there is no folder for ``out``."""
    if not Path(out).absolute().parent.is_dir():
        raise ValueError(f"{out}: no folder {Path(out).parent}; make it first")


def save_checkpoint(state: Dict[str, Any], out: str) -> None:
    """Writes a checkpoint, which has its name only when it is whole. ValueError: it cannot be written."""
    part = Path(f"{out}.part")
    try:
        torch.save(state, part)
        part.replace(out)
    except (OSError, RuntimeError) as error:  # torch writes in C++
        raise ValueError(f"{out}: cannot be written, is there room on the disk? ({first_line(error)})") from None
    finally:
        part.unlink(missing_ok=True)


def first_line(error: Exception) -> str:
    """Of its message."""
    return str(error).partition("\n")[0]
