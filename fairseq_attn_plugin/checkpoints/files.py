"""Checkpoints of fairseq as files: read without running any code in them, written whole or not at all."""

import os
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Tuple, Union

import numpy as np
import torch

from ..evaluation.whole_files import half_of


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


ZIP = b"PK\x03\x04"
"""How a file begins that torch has written since 1.6."""

AGAIN = "get it again, or use another checkpoint"
REFUSED = re.compile(r"GLOBAL (\S+)|unrecognized function (.+?)(?: which|$)")


def load_checkpoint(path: str) -> Dict[str, Any]:
    """As :func:`read_checkpoint`. ValueError: also where a parameter is not a number."""
    state = read_checkpoint(path)
    for name, tensor in state["model"].items():
        numbers = isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel()
        if numbers and not torch.stack(tensor.aminmax()).isfinite().all():  # a fifth of the time of isfinite alone
            raise ValueError(f"{path}: the parameter {name} has NaN or infinite numbers; use an earlier checkpoint")
    return state


def read_checkpoint(path: str) -> Dict[str, Any]:
    """What torch's safe loader reads of a whole file, and nothing that could run code; the tensors are mapped from the
    file where it can be.

    The package allows ``argparse.Namespace``, in which fairseq's own ``lstm`` keeps its options.

    Raises:
        ValueError: no such file, a damaged one, or not a checkpoint that fairseq loads.
    """
    check_whole(path)
    try:
        with torch.serialization.safe_globals(NUMPY_GLOBALS):
            mapped = zipfile.is_zipfile(path)  # not before torch 1.6
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # whatever a file of another kind makes of the unpickler
        raise ValueError(f"{path}: {_refusal(error)}") from None
    missing = _missing(state)
    if missing:
        raise ValueError(f"{path}: not a checkpoint of fairseq, it {missing}")
    return state


def _refusal(error: Exception) -> str:
    """Why torch's safe loader has not read a file."""
    refused = REFUSED.search(str(error))
    if not refused:
        return "not a checkpoint of fairseq, torch cannot read it"
    name = refused[1] or refused[2]
    return f"dangerous, not loaded: it holds {name}, which could run code; take checkpoints from those you trust"


def _missing(state: Any) -> str:
    """What a checkpoint lacks that fairseq needs; nothing of a good one."""
    if not isinstance(state, dict):
        return f"holds a {type(state).__name__}"
    if not isinstance(state.get("model"), dict) or not (state.get("args") or state.get("cfg")):
        return "lacks a model or its options"
    history = state.get("optimizer_history", [{}] if "best_loss" in state else None)  # the latter in old releases
    if not isinstance(history, list) or not history or not isinstance(history[-1], dict):
        return "lacks the optimizer_history"
    if not isinstance(state.get("extra_state", {} if "epoch" in state else None), dict):  # the latter likewise
        return "lacks the extra_state"
    if not isinstance(state.get("task_state") or {}, dict):
        return f"has a {type(state['task_state']).__name__} for the state of its task"
    return ""


def check_is_file(path: str) -> None:
    """ValueError where a checkpoint's path is that of no file."""
    if os.path.isdir(path):
        found = sorted(each.name for each in Path(path).glob("*.pt"))
        example = f", such as {os.path.join(path, found[0])}" if found else ""
        raise ValueError(f"{path}: a folder; give a file{example}")
    if not os.path.isfile(path):
        raise ValueError(f"{path}: {'not a file' if os.path.exists(path) else 'No such file or directory'}")


def check_whole(path: str) -> None:
    """ValueError where a file is not as it was written, by the checksums within, which torch does not compare; files of
    torch before 1.6 have none."""
    check_is_file(path)
    try:
        with open(path, "rb") as file:
            damage = _damage(file) if file.read(len(ZIP)) == ZIP else None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    if damage:
        raise ValueError(f"{path}: damaged, {damage}; {AGAIN}")


def _damage(file: BinaryIO) -> Optional[str]:
    """What of a zip archive is not as torch has written it."""
    if not zipfile.is_zipfile(file):
        return "its end is missing"
    try:
        with zipfile.ZipFile(file) as archive:
            plain = all(record.compress_type == zipfile.ZIP_STORED for record in archive.infolist())
            size = sum(record.file_size for record in archive.infolist())
            if not plain or size > file.seek(0, os.SEEK_END):  # could unpack to more than there is room for
                return "its records are not as torch writes them"
            record = archive.testzip()
    except OSError:
        raise
    except Exception:  # names, sizes or flags that make no sense
        return "its table of contents is not as it was written"
    return record and f"{record} is not as it was written"


def has_attention(path: str) -> bool:
    """Whether the model of a checkpoint has attention; of models that know no option for that, yes."""
    state = load_checkpoint(path)
    options = state.get("args") or (state.get("cfg") or {}).get("model") or {}
    options = options if isinstance(options, dict) else vars(options)
    without = str(options.get("decoder_attention", True)).lower() in ("false", "0")  # fairseq's lstm
    return options.get("attention_score") != "none" and not without


def save_checkpoint(state: Dict[str, Any], out: str) -> None:
    """Writes a checkpoint, which has its name only when it is whole; a link stays one. ValueError: it cannot be
    written."""
    real = Path(os.path.realpath(out))
    part = half_of(real)
    try:
        torch.save(state, part)
        part.replace(real)
    except (OSError, RuntimeError) as error:  # torch writes in C++
        raise ValueError(f"{out}: cannot be written, is there room on the disk? ({first_line(error)})") from None
    finally:
        part.unlink(missing_ok=True)


def first_line(error: Exception) -> str:
    """Of its message."""
    return str(error).partition("\n")[0]
