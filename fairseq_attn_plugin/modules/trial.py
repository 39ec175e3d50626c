"""Trials: a part does once, when the model is built, what it will do in training, so that one that does not fit is
reported by name, and not by what breaks later."""

import math
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

Shape = Union[Tuple[Optional[int], ...], List[Any], None]
"""Of a tensor, None where any size will do; in a list, those of a sequence of tensors; None = of anything."""


@contextmanager
def trial() -> Iterator[None]:
    """Within it nothing has a gradient, and random numbers that are drawn change none that are drawn later."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        yield


def toy(*sizes: int) -> Tensor:
    """Numbers between -1 and 1."""
    return torch.linspace(-1, 1, math.prod(sizes)).view(sizes)


def checked(part: str, what: Any, method: str, call: Callable[[Any], Any], contract: str, shape: Shape = None) -> Any:
    """What ``call(what)`` returns.

    Args:
        part: what the user has asked for, as ``--cell lstm``.
        what: its class, or an object of it.
        method: what is called, as ``.first``; empty = the constructor.
        contract: what it ought to take, or to give.
        shape: of what is returned.

    Raises:
        ValueError: it raises an error, or returns another shape or NaN; names part, class and method.
    """
    cls = what if isinstance(what, type) else type(what)
    named = f"{part}: {getattr(cls, '__qualname__', cls)}{method} {contract}"
    try:
        result = call(what)
    except Exception as error:
        if lacks_memory(error):
            raise
        reason = " ".join(str(error).split()) or "no reason given"
        raise ValueError(f"{named}, but raised {type(error).__name__}: {reason}") from error
    wrong = _mismatch(result, shape)
    if wrong is not None:
        raise ValueError(f"{named}, but {wrong}")
    return result


def lacks_memory(error: Exception) -> bool:
    """Whether an error is none of the program, but of the machine."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)


def _mismatch(result: Any, shape: Shape) -> Optional[str]:
    """What is wrong with a result; None where nothing is."""
    if shape is None:
        return None
    if isinstance(shape, list):
        if not isinstance(result, (list, tuple)) or len(result) != len(shape):
            return f"where {_due(shape)} was due, it returned {_given(result)}"
        return next(filter(None, map(_mismatch, result, shape)), None)
    given = tuple(result.shape) if isinstance(result, Tensor) else ()
    fits = len(given) == len(shape) and all(want in (None, have) for want, have in zip(shape, given))
    if not isinstance(result, Tensor) or not fits:
        return f"where {_due(shape)} was due, it returned {_given(result)}"
    return "returned NaN" if result.isnan().any() else None


def _due(shape: Shape) -> str:
    if shape is None:
        return "something"
    if isinstance(shape, list):
        return f"({', '.join(map(_due, shape))})"
    return _times(["A" if size is None else size for size in shape])


def _given(result: Any) -> str:
    if isinstance(result, Tensor):
        return _times(result.shape)
    if isinstance(result, (list, tuple)):
        return f"({', '.join(map(_given, result))})"
    return type(result).__name__


def _times(sizes: Sequence) -> str:
    return "×".join(map(str, sizes)) or "a number"
