"""What a GPU has as one kernel and the CPU as several, put in its place while calls are counted."""

import importlib
from contextlib import ExitStack, contextmanager
from typing import Callable, Iterator, Sequence, Tuple, Type
from unittest.mock import patch

import torch
from fairseq.modules import FairseqDropout
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils._pytree import tree_flatten, tree_unflatten

from .calls import CallCounter

CELL_FUNCTIONS = ("fairseq_attn_plugin.modules.recurrence.pointwise", "CELL_FUNCTIONS")
"""Where a checkout lists the functions of autograd that are the arithmetic of its cells; an older one has none."""


@contextmanager
def one_call_each(counter: CallCounter) -> Iterator[None]:
    """While entered, these count as one call forward and one backward: torch's LSTM, the arithmetic of a cell's step,
    dropout; drawing a mask of dropout counts as one call. Results stay the same but for the random numbers."""
    with ExitStack() as stack:

        def replace(target, name: str, new: Callable) -> None:
            stack.enter_context(patch.object(target, name, new))

        replace(torch._VF, "lstm_cell", _lstm_cell(counter))
        for home in (torch._VF, torch):
            replace(home, "lstm", _lstm(counter))
        replace(torch.nn.functional, "dropout", _dropout)
        for dropout in _subclasses(FairseqDropout):
            if hasattr(dropout, "mask"):
                replace(dropout, "forward", FairseqDropout.forward)
                replace(dropout, "mask", counter.as_one("dropout_mask", dropout.mask))
        for function in _cell_functions():
            for way, ending in (("forward", ""), ("backward", "_backward")):
                counted = counter.as_one(f"{function.__name__}{ending}", getattr(function, way))
                replace(function, way, staticmethod(counted))
        yield


class _AsOne(Function):
    """Any function of tensors as one call, whose gradient is one call too.

    Args:
        counter: counts them.
        names: of the call, then of those that its gradient counts as.
        run: the function; it returns a tuple of tensors.
    """

    @staticmethod
    def forward(ctx, counter: CallCounter, names: Sequence[str], run: Callable, *tensors: Tensor):
        counter.count(names[0])
        ctx.counter, ctx.names = counter, names[1:]
        with counter.pause(), torch.set_grad_enabled(any(ctx.needs_input_grad)):
            ctx.inputs = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
            ctx.outputs = run(*ctx.inputs)
        return tuple(output.detach() for output in ctx.outputs)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        for name in ctx.names:
            ctx.counter.count(name)
        with ctx.counter.pause():
            wanted = [tensor for tensor in ctx.inputs if tensor.requires_grad]
            found = iter(torch.autograd.grad(ctx.outputs, wanted, grads, allow_unused=True))
            return (None, None, None, *(next(found) if tensor.requires_grad else None for tensor in ctx.inputs))


def _lstm_cell(counter: CallCounter) -> Callable:
    """A step of torch's LSTM cell as on a GPU: two products, and one kernel for the rest, biases included."""
    names = ("_thnn_fused_lstm_cell", "_thnn_fused_lstm_cell_backward_impl", "sum")  # the sum is the biases' gradient

    def pointwise(of_input: Tensor, of_hidden: Tensor, c: Tensor, *biases: Tensor) -> Tuple[Tensor, Tensor]:
        i, f, g, o = sum(biases, of_input + of_hidden).chunk(4, dim=1)
        after = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * after.tanh(), after

    def cell(inputs: Tensor, state: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor, *biases: Tensor):
        h, c = state
        return _AsOne.apply(counter, names, pointwise, inputs.mm(w_ih.t()), h.mm(w_hh.t()), c, *biases)

    return cell


def _lstm(counter: CallCounter) -> Callable:
    """torch's LSTM over whole sequences, plain or packed, as one call."""
    lstm = torch._VF.lstm
    names = ("lstm", "lstm_backward")

    def run(*args):
        leaves, tree = tree_flatten(args)  # states and weights are lists; a function of autograd sees lone tensors only
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def with_tensors(*tensors: Tensor):
            given = dict(zip(places, tensors))
            return lstm(*tree_unflatten([given.get(place, leaf) for place, leaf in enumerate(leaves)], tree))

        return _AsOne.apply(counter, names, with_tensors, *(leaves[place] for place in places))

    return run


def _dropout(inputs: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(inputs, p, True)[0] if training and p > 0 else inputs


def _subclasses(cls: Type[nn.Module]) -> Iterator[Type[nn.Module]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


def _cell_functions() -> Sequence[type]:
    module, name = CELL_FUNCTIONS
    try:
        return getattr(importlib.import_module(module), name, ())
    except ModuleNotFoundError:
        return ()
