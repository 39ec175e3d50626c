"""What the steps of a loop share: products with the same weights, keys or values, and what is worked out of them once.

A step is ordinary PyTorch under ordinary autograd. What makes a loop of T steps slow is not its arithmetic but the
gradients of what all steps read: T small products and T additions for every weight. The functions of this module,
:func:`linear`, :func:`multiply`, :func:`lookup`, :func:`once` and :func:`known_steps`, compute what their docstrings
say wherever they are called. Within ``with products.active():`` they also know that they are called again and again,
and the gradient of what the calls share is worked out once, after the last step (``deferred_gradients``). A module that
calls them is right in any loop, and so is a subclass of it.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .deferred_gradients import (
    LinearProduct,
    LinearStep,
    Lookup,
    LookupStep,
    MemoryProduct,
    MemoryStep,
    affine,
    joined,
    token_of,
)

Made = TypeVar("Made")


def linear(parts: Sequence[Tensor], weights: Sequence[Tensor], bias: Optional[Tensor] = None) -> Tensor:
    """``y = [W1 W2 ...] [x1; x2; ...] + b``, the matrices and the inputs side by side, however either is cut.

    Args:
        parts: N×X tensors, of K columns together.
        weights: G×K' matrices, of K columns together.
        bias: b, G; None = 0.

    Returns:
        N×G, in the type of the first part.
    """
    return (_active.get() or PLAIN).linear(parts, weights, bias)


def multiply(inputs: Tensor, memory: Tensor, transposed: bool = False) -> Tensor:
    """``torch.bmm`` with something that stays the same over the steps.

    Args:
        inputs: B×n×A with ``transposed`` (queries), else B×n×S (weights).
        memory: B×S×A (keys with ``transposed``, else values).

    Returns:
        B×n×S with ``transposed`` (scores), else B×n×A (contexts), in the type of ``inputs``.
    """
    return (_active.get() or PLAIN).multiply(inputs, memory, transposed)


def lookup(tokens: Tensor, table: nn.Embedding) -> Tensor:
    """``table(tokens)``: N int64 → N×E, for words that are known no sooner than their step."""
    return (_active.get() or PLAIN).lookup(tokens, table)


def once(make: Callable[..., Made], *tensors: Any) -> Made:
    """``make(*tensors)``, worked out once for all steps that pass the same tensors to the same function.

    Args:
        make: a function or a bound method; one that is made anew at every step is called at every step.
        tensors: its arguments, tensors told apart by identity, and others by value.
    """
    return (_active.get() or PLAIN).once(make, *tensors)


def known_steps(inputs: Tensor) -> Sequence[Tensor]:
    """B×T×E inputs that are known before the first step → T tensors B×E, one for each step. :func:`linear` takes them
    as its first part and has their product with its weights ready."""
    return (_active.get() or PLAIN).known_steps(inputs)


class Linear(nn.Linear):
    """``nn.Linear`` that takes part in shared products: N×K, or B×T×K → N×G, or B×T×G."""

    def forward(self, inputs: Tensor) -> Tensor:
        products = _active.get()
        if products is None:
            return super().forward(inputs)
        return products.linear([inputs.flatten(0, -2)], [self.weight], self.bias).unflatten(0, inputs.shape[:-1])


class PlainProducts:
    """The reference: each call by itself, through ``F.linear`` and ``torch.bmm``. It can be differentiated twice."""

    def linear(self, parts: Sequence[Tensor], weights: Sequence[Tensor], bias: Optional[Tensor]) -> Tensor:
        """See :func:`linear`."""
        return F.linear(joined(parts), joined(weights), bias).type_as(parts[0])

    def multiply(self, inputs: Tensor, memory: Tensor, transposed: bool) -> Tensor:
        """See :func:`multiply`."""
        memory = memory.mT if transposed else memory
        return torch.bmm(inputs.type_as(memory), memory).type_as(inputs)

    def lookup(self, tokens: Tensor, table: nn.Embedding) -> Tensor:
        """See :func:`lookup`."""
        return table(tokens)

    def once(self, make: Callable[..., Made], *tensors: Any) -> Made:
        """See :func:`once`."""
        return make(*tensors)

    def known_steps(self, inputs: Tensor) -> Sequence[Tensor]:
        """See :func:`known_steps`."""
        return inputs.unbind(1)

    def forget_unused(self) -> None:
        """For a search, once a step: what the step before has not used is forgotten, such as sentences that ended."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """The functions of this module are these products' within the block."""
        before = _active.set(self)
        try:
            yield
        finally:
            _active.reset(before)


PLAIN = PlainProducts()
_active: ContextVar[Optional[PlainProducts]] = ContextVar("active_products", default=None)
_only_plain: ContextVar[bool] = ContextVar("only_plain", default=False)


@contextmanager
def plain_products() -> Iterator[None]:
    """All loops that begin within the block run with ``PlainProducts``, and without any gradient that is written out,
    as a second derivative needs it."""
    before = _only_plain.set(True)
    try:
        yield
    finally:
        _only_plain.reset(before)


def only_plain() -> bool:
    """Whether all arithmetic must be PyTorch's own: within :func:`plain_products`, and under ``torch.func``'s
    transforms, which a hand-written gradient does not know."""
    return _only_plain.get() or torch._C._are_functorch_transforms_active()


def products_for(
    dtype: Optional[torch.dtype], ready: Optional["ReadyWeights"] = None, steps: int = 0
) -> PlainProducts:
    """Products for one loop, or for one search: plain ones where :func:`only_plain`. For the arguments see
    :class:`SharedProducts`."""
    if only_plain():
        return PlainProducts()
    return SharedProducts(dtype, ready, steps)


class ReadyWeights:
    """Weights as products want them: side by side and cast, made ready once for a batch, for a search, or for a model
    that is no longer trained. A weight that has changed is made ready anew; a change through ``.data`` cannot be seen.
    """

    def __init__(self) -> None:
        self._ready: Dict[tuple, tuple] = {}

    def matrix(self, weights: Sequence[Tensor], dtype: Optional[torch.dtype], transposed: bool = False) -> Tensor:
        """G×K' weights → G×K in ``dtype`` (None = their own); or its transpose K×G, in a memory of its own."""
        key = (dtype, transposed, *map(place, weights))
        state = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]
        known, _, matrix = self._ready.get(key, (None, None, None))
        if known != state:
            matrix = joined([weight.detach() for weight in weights])
            matrix = matrix.to(dtype or matrix.dtype)
            matrix = matrix.t().contiguous() if transposed else matrix
            self._ready[key] = state, list(weights), matrix  # an owner that is kept leaves its id to nobody else
        return matrix


class SharedProducts(PlainProducts):
    """Products of one loop over T steps, or of one search.

    Args:
        dtype: in which products are multiplied; None = of the weights and of the memory.
        ready: weights that are ready beyond this loop; None = nothing is.
        steps: T, for which room is made at once; 0 = unknown.
    """

    def __init__(self, dtype: Optional[torch.dtype] = None, ready: Optional[ReadyWeights] = None, steps: int = 0):
        self.dtype = dtype
        self._steps = steps
        self._ready = ready or ReadyWeights()
        # products, their tokens, and what is told apart by its id: it is kept, so that no other tensor gets the same id
        self._linear: Dict[tuple, Tuple[LinearProduct, Optional[Tensor], Optional[Tensor]]] = {}
        self._memory: Dict[tuple, Tuple[MemoryProduct, Tensor, Tensor]] = {}
        self._tables: Dict[nn.Embedding, Tuple[Lookup, Tensor]] = {}
        self._known: Dict[int, Tuple[Tensor, int, Tensor]] = {}
        self._made: Dict[tuple, tuple] = {}
        self._used: set = set()

    def linear(self, parts: Sequence[Tensor], weights: Sequence[Tensor], bias: Optional[Tensor]) -> Tensor:
        known, step, _ = self._known.get(id(parts[0]), (None, 0, None))
        if known is None and not torch.is_grad_enabled():
            return self._linear_now(parts, weights, bias)
        key = (id(known), bias if bias is None else place(bias), *map(place, weights))
        if key not in self._linear:
            steps = self._steps if torch.is_grad_enabled() else 0
            product = LinearProduct(self._ready.matrix(weights, self.dtype), weights, bias, known, steps)
            token = token_of(product, known, bias, *weights) if torch.is_grad_enabled() else None
            self._linear[key] = product, token, bias
        product, token, _ = self._linear[key]
        parts = parts if known is None else parts[1:]
        if token is None:
            return product.forward(parts, step)[0]
        return LinearStep.apply(product, token, step, *parts)

    def _linear_now(self, parts: Sequence[Tensor], weights: Sequence[Tensor], bias: Optional[Tensor]) -> Tensor:
        """A product that keeps nothing, with the weights in the order that suits it best."""
        matrix = self._ready.matrix(weights, self.dtype, transposed=True)
        return affine(joined(parts).to(matrix.dtype), matrix, bias, parts[0].dtype)

    def multiply(self, inputs: Tensor, memory: Tensor, transposed: bool) -> Tensor:
        if not torch.is_grad_enabled():
            matrix = memory if self.dtype is None else self.once(_to, memory, self.dtype)
            matrix = matrix.mT if transposed else matrix
            return torch.bmm(inputs.to(matrix.dtype), matrix).to(inputs.dtype)
        key = (id(memory), transposed)
        if key not in self._memory:
            product = MemoryProduct(memory, transposed, self.dtype)
            self._memory[key] = product, token_of(product, memory), memory
        product, token, _ = self._memory[key]
        return MemoryStep.apply(product, token, inputs)

    def lookup(self, tokens: Tensor, table: nn.Embedding) -> Tensor:
        if not (torch.is_grad_enabled() and table.weight.requires_grad):
            return table(tokens)
        if table not in self._tables:
            product = Lookup(table)
            self._tables[table] = product, token_of(product, table.weight)
        return LookupStep.apply(*self._tables[table], tokens)

    def once(self, make: Callable[..., Made], *tensors: Any) -> Made:
        key = (make, *(id(part) if isinstance(part, Tensor) else part for part in tensors))
        self._used.add(key)
        if key not in self._made:
            self._made[key] = make(*tensors), tensors  # kept, so that no other tensor gets the same id
        return self._made[key][0]

    def known_steps(self, inputs: Tensor) -> Sequence[Tensor]:
        steps = inputs.unbind(1)
        if len(steps) > 1 or torch.is_grad_enabled():
            self._known.update({id(part): (inputs, t, part) for t, part in enumerate(steps)})
        return steps

    def forget_unused(self) -> None:
        self._made = {key: made for key, made in self._made.items() if key in self._used}
        self._used = set()


def _to(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype)


def place(weight: Tensor) -> tuple:
    """What tells a weight, or a part of one, from others, however often it is cut out anew."""
    return id(weight if weight._base is None else weight._base), weight.storage_offset(), weight.shape
