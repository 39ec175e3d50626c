"""Calls of a model's training step and search, counted as a GPU would see them, and where they would wait for it."""

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Callable, Dict, Iterator, Optional, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

NO_LAUNCH = {
    aten._unsafe_view, aten.unsafe_split, aten.unsafe_split_with_sizes, aten.unsafe_chunk, aten.empty, aten.empty_like,
    aten.empty_strided, aten.empty_permuted, aten.new_empty, aten.new_empty_strided, aten.set_, aten.resize_as_,
    aten.record_stream,
}  # fmt: skip
"""Calls that look at a tensor differently or make room for one; those that torch marks as views are left out, too."""

WAITS = {
    aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim,
    aten.unique_consecutive, aten.bincount,
}  # fmt: skip
"""Calls whose result, or its size, the program needs to know before it goes on."""

INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
"""These wait where an index is a mask: the program counts what it selects."""

TO_HOST = {Tensor.tolist: "tolist", Tensor.cpu: "cpu", Tensor.numpy: "numpy"}
"""Waits that torch's dispatcher does not see where the tensor is on the CPU already."""

NOWHERE = "autograd"
"""The caller where no file outside torch is on the stack: the backward pass of a GPU has a thread of its own."""

TORCH = str(Path(torch.__file__).parent)
ROOTS = (Path(__file__).resolve().parent.parent.parent, Path(torch.__file__).resolve().parent.parent)
"""Callers are named from here on."""


class CallCounter(TorchDispatchMode):
    """Counts while it is entered.

    Args:
        device: "cpu" or "cuda"; there, calls that touch no tensor of the GPU do not count.
    """

    def __init__(self, device: str):
        super().__init__()
        self.device = device
        self.phase = ""
        """Counts are kept apart by this, which the caller sets."""

        self.calls: Counter = Counter()
        """(phase, name of the call) → number."""

        self.waits: Counter = Counter()
        """(phase, name of the call, caller) → number."""

        self._paused = False
        self._functions = HostReads(self)

    def __enter__(self) -> "CallCounter":
        self._functions.__enter__()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._functions.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not self._paused:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            if any(tensor.device.type == self.device for tensor in tensors):
                self._see(function, args, result)
        return result

    def count(self, name: str) -> None:
        if not self._paused:
            self.calls[self.phase, name] += 1

    def count_wait(self, name: str) -> None:
        if not self._paused:
            self.waits[self.phase, name, caller()] += 1

    def as_one(self, name: str, function: Callable) -> Callable:
        """The function, which counts as one call whatever it calls."""

        def counted(*args, **kwargs):
            self.count(name)
            with self.pause():
                return function(*args, **kwargs)

        return counted

    @contextmanager
    def pause(self) -> Iterator[None]:
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _see(self, function, args: tuple, result) -> None:
        packet, name = function.overloadpacket, function.name().split("::")[-1]
        if packet in WAITS or (packet in INDEXING and _has_mask(args)) or _goes_to_host(packet, args, result):
            self.count_wait(name.split(".")[0])
        is_launch = any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)) or packet is aten.equal
        is_view = function.is_view or torch.Tag.inplace_view in function.tags
        if is_launch and not is_view and packet not in NO_LAUNCH:
            self.count(name)


class HostReads(TorchFunctionMode):
    """Sees what is read into Python's own numbers without a call of torch's dispatcher."""

    def __init__(self, counter: CallCounter):
        super().__init__()
        self.counter = counter

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if self.counter.device == "cpu" and function in TO_HOST:
            self.counter.count_wait(TO_HOST[function])
        return function(*args, **(kwargs or {}))


def _has_mask(args: tuple) -> bool:
    """Whether an index is a mask whose positions must be known; filling with a number needs none."""
    fills = len(args) > 2 and isinstance(args[2], Tensor) and args[2].dim() == 0
    return not fills and any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _goes_to_host(packet, args: tuple, result) -> bool:
    if packet is aten._to_copy:
        source, target = args[0], result
    elif packet is aten.copy_:
        target, source = args[:2]
    else:
        return False
    return target.device.type == "cpu" and source.device.type != "cpu"


def caller() -> str:
    """File and line of the innermost frame outside torch and this file."""
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not (path == __file__ or path.startswith((TORCH, "<"))):
            return f"{_short(path)}:{frame.f_lineno}"
        frame = frame.f_back
    return NOWHERE


def _short(path: str) -> str:
    for root in sorted(ROOTS, key=lambda root: -len(str(root))):  # an environment may lie within the checkout
        if Path(path).is_relative_to(root):
            return str(Path(path).relative_to(root))
    parts = Path(path).parts  # of another checkout
    return "/".join(parts[parts.index("fairseq_attn_plugin") :]) if "fairseq_attn_plugin" in parts else path


def difference(longer: Dict, shorter: Dict, steps: int) -> Dict[Tuple[str, ...], float]:
    """What one step more adds, from the counts of two lengths that are so many steps apart; zeros are left out."""
    every = {key: (longer.get(key, 0) - shorter.get(key, 0)) / steps for key in {**shorter, **longer}}
    return {key: number for key, number in sorted(every.items()) if number}
