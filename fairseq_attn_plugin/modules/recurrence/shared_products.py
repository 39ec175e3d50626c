"""What the steps of a loop share: products with the same weights, keys or values, and what is worked out of them once.

A step is ordinary PyTorch under ordinary autograd. What makes a loop of T steps slow is not its arithmetic but the
gradients of what all steps read: T small products and T additions for every weight. The functions of this module,
:func:`linear`, :func:`multiply`, :func:`once` and :func:`known_steps`, compute what their docstrings say wherever they
are called. Within ``with products.active():`` they also know that they are called again and again, and the gradient of
what the calls share is one product after the last step: every call keeps its input, its backward pass keeps the
gradient of its output, and a root node, which each call depends on through a token, multiplies the two when autograd
has come past all of them. A module that calls them is right in any loop, and so is a subclass of it.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Made = TypeVar("Made")
Grads = List[Optional[Tensor]]


def linear(parts: Sequence[Tensor], weights: Sequence[Tensor], bias: Optional[Tensor] = None) -> Tensor:
    """y = [W1 W2 ...] [x1; x2; ...] + b, the matrices and the inputs side by side, however either is cut.

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


def once(make: Callable[..., Made], *tensors: Any) -> Made:
    """``make(*tensors)``, worked out once for all steps that pass the same tensors to the same function.

    Args:
        make: a function or a bound method; one that is made anew at every step is called at every step.
        tensors: its arguments, told apart by identity.
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
    """All loops that begin within the block run with ``PlainProducts``, as a second derivative needs it."""
    before = _only_plain.set(True)
    try:
        yield
    finally:
        _only_plain.reset(before)


def products_for(dtype: Optional[torch.dtype], ready: Optional["ReadyWeights"] = None) -> PlainProducts:
    """Products for one loop, or for one search: plain ones within :func:`plain_products` and under ``torch.func``'s
    transforms."""
    if _only_plain.get() or torch._C._are_functorch_transforms_active():
        return PlainProducts()
    return SharedProducts(dtype, ready)


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
    """

    def __init__(self, dtype: Optional[torch.dtype] = None, ready: Optional[ReadyWeights] = None):
        self.dtype = dtype
        self._ready = ready or ReadyWeights()
        self._linear: Dict[tuple, Tuple[LinearProduct, Optional[Tensor]]] = {}
        self._memory: Dict[tuple, Tuple[MemoryProduct, Tensor]] = {}
        self._known: Dict[int, Tuple[Tensor, int, Tensor]] = {}
        self._made: Dict[tuple, tuple] = {}
        self._used: set = set()

    def linear(self, parts: Sequence[Tensor], weights: Sequence[Tensor], bias: Optional[Tensor]) -> Tensor:
        known, step, _ = self._known.get(id(parts[0]), (None, 0, None))
        if known is None and not torch.is_grad_enabled():
            return self._linear_now(parts, weights, bias)
        key = (id(known), id(bias), *map(place, weights))
        if key not in self._linear:
            product = LinearProduct(self._ready.matrix(weights, self.dtype), weights, bias, known)
            self._linear[key] = product, _token(product, known, bias, *weights) if torch.is_grad_enabled() else None
        product, token = self._linear[key]
        parts = parts if known is None else parts[1:]
        if token is None:
            return product.forward(parts, step)[0]
        return _LinearStep.apply(product, token, step, *parts)

    def _linear_now(self, parts: Sequence[Tensor], weights: Sequence[Tensor], bias: Optional[Tensor]) -> Tensor:
        """A product that keeps nothing, with the weights in the order that suits it best."""
        matrix = self._ready.matrix(weights, self.dtype, transposed=True)
        return _affine(joined(parts).to(matrix.dtype), matrix, bias, parts[0].dtype)

    def multiply(self, inputs: Tensor, memory: Tensor, transposed: bool) -> Tensor:
        if not torch.is_grad_enabled():
            matrix = memory if self.dtype is None else self.once(_to, memory, self.dtype)
            matrix = matrix.mT if transposed else matrix
            return torch.bmm(inputs.to(matrix.dtype), matrix).to(inputs.dtype)
        key = (id(memory), transposed)
        if key not in self._memory:
            product = MemoryProduct(memory, transposed, self.dtype)
            self._memory[key] = product, _token(product, memory)
        product, token = self._memory[key]
        return _MemoryStep.apply(product, token, inputs)

    def once(self, make: Callable[..., Made], *tensors: Any) -> Made:
        key = (make, *map(id, tensors))
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


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Side by side, in the last dimension."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors), dim=-1)


def _to(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype)


def place(weight: Tensor) -> tuple:
    """What tells a weight, or a part of one, from others, however often it is cut out anew."""
    return id(weight if weight._base is None else weight._base), weight.storage_offset(), weight.shape


def _token(product, *shared: Optional[Tensor]) -> Tensor:
    """What every call of a product takes, so that autograd comes to the root after all of them."""
    return _Root.apply(product, *shared)


def _affine(x: Tensor, matrix: Tensor, bias: Optional[Tensor], dtype: torch.dtype) -> Tensor:
    """x N×K and matrix K×G → N×G in ``dtype``, the bias added in its own type."""
    if bias is not None and bias.dtype == dtype == matrix.dtype:
        return torch.addmm(bias, x, matrix)
    output = torch.mm(x, matrix).to(dtype)
    return output if bias is None else output.add_(bias)


class _Kept:
    """Inputs and output gradients of the calls of one product.

    A graph may be differentiated again, and parts of it alone: gradients are by call, and those of one backward pass
    are gone once the root has taken them.
    """

    def __init__(self) -> None:
        self.inputs: List[Tensor] = []
        self._versions: List[int] = []
        self._grads: Dict[int, Tensor] = {}

    def keep(self, inputs: Tensor) -> int:
        """Keeps a call's inputs; returns the call's number."""
        self.inputs.append(inputs)
        self._versions.append(inputs._version)
        return len(self.inputs) - 1

    def keep_grad(self, call: int, grad: Tensor) -> None:
        self._grads[call] = grad

    def take(self, dim: int) -> Tuple[List[int], Optional[Tensor], Optional[Tensor]]:
        """The calls that have come past, their inputs and their gradients, each side by side in ``dim``."""
        grads, self._grads = self._grads, {}
        calls = sorted(grads)
        if not calls:
            return calls, None, None
        for call in calls:
            if self.inputs[call]._version != self._versions[call]:
                raise RuntimeError("an input of a step has been modified by an inplace operation before its gradient")
        return calls, torch.cat([self.inputs[c] for c in calls], dim), torch.cat([grads[c] for c in calls], dim)


class LinearProduct(_Kept):
    """y(t) = W [known(t); x(t)] + b.

    Args:
        matrix: W, G×K, in the type of the products.
        weights: G×K' each, of which it is made.
        bias: b, G.
        known: B×T×E, the first E columns of the input at all steps; None where E = 0.
    """

    def __init__(
        self, matrix: Tensor, weights: Sequence[Tensor], bias: Optional[Tensor], known: Optional[Tensor] = None
    ):
        super().__init__()
        self.matrix, self.weights, self.bias, self.known = matrix, weights, bias, known
        self.known_width = 0 if known is None else known.size(2)
        self.columns = matrix[:, self.known_width :]
        self.columns_t = self.columns.t()
        self.steps: List[int] = []
        if known is not None:
            # a tensor of its own: oneDNN's bfloat16 product of a 3-d slice reads beyond rows of an odd width
            self.known_first = known.detach().transpose(0, 1).to(matrix.dtype).contiguous()
            of_known = torch.matmul(self.known_first, matrix[:, : self.known_width].t())
            self.of_known = (of_known if bias is None else of_known.add_(bias.detach())).unbind(0)

    def forward(self, parts: Sequence[Tensor], step: int) -> Tuple[Tensor, Optional[Tensor]]:
        """N×X tensors, side by side the unknown columns at this step → N×G, and what the gradient needs."""
        if not parts:
            return self.of_known[step].to(self.known.dtype, copy=True), None
        dtype, x = parts[0].dtype, joined(parts).to(self.matrix.dtype)
        if self.known is not None:
            return torch.addmm(self.of_known[step], x, self.columns_t).to(dtype), x
        return _affine(x, self.columns_t, self.bias, dtype), x

    def shared_grads(self, needed: Sequence[bool]) -> Grads:
        """Of known, bias and the weights, as far as they are needed."""
        calls, x, grads = self.take(0)
        if grads is None:
            return [None] * len(needed)
        width = self.known_width
        steps = [self.steps[call] for call in calls]
        of_known = of_bias = None
        if needed[0]:
            of_known = torch.mm(grads, self.matrix[:, :width]).unflatten(0, (len(calls), -1))
            if steps != list(range(len(self.known_first))):
                index = torch.tensor(steps, device=grads.device)
                of_known = torch.zeros_like(self.known_first).index_add_(0, index, of_known)
            of_known = of_known.transpose(0, 1).to(self.known.dtype)
        if needed[1]:
            of_bias = grads.sum(dim=0, dtype=self.bias.dtype)
        first, of_weights = 0, []
        for weight, needs in zip(self.weights, needed[2:]):
            last = first + weight.size(1)
            of_weights.append(self._of_columns(first, last, steps, x, grads).to(weight.dtype) if needs else None)
            first = last
        return [of_known, of_bias, *of_weights]

    def _of_columns(self, first: int, last: int, steps: List[int], x: Tensor, grads: Tensor) -> Tensor:
        """Gradient of some columns of W, of which the first may be known ones."""
        width = self.known_width
        if first >= width:
            return torch.mm(grads.t(), x[:, first - width : last - width])
        known = self.known_first
        if steps != list(range(len(known))):
            known = known[steps]
        if last <= width:
            return torch.mm(grads.t(), known.flatten(0, 1)[:, first:last])
        result = torch.empty(grads.size(1), last - first, dtype=grads.dtype, device=grads.device)
        torch.mm(grads.t(), known.flatten(0, 1)[:, first:], out=result[:, : width - first])
        torch.mm(grads.t(), x[:, : last - width], out=result[:, width - first :])
        return result


class MemoryProduct(_Kept):
    """See :func:`multiply`."""

    def __init__(self, memory: Tensor, transposed: bool, dtype: Optional[torch.dtype] = None):
        super().__init__()
        self.memory, self.transposed = memory, transposed
        matrix = memory.detach().to(dtype or memory.dtype)
        self.matrix, self.matrix_t = (matrix.mT, matrix) if transposed else (matrix, matrix.mT)

    def forward(self, inputs: Tensor) -> Tuple[Tensor, Tensor]:
        """The product, and what its gradient needs."""
        x = inputs.to(self.matrix.dtype)
        return torch.bmm(x, self.matrix).to(inputs.dtype), x

    def shared_grads(self, needed: Sequence[bool]) -> Grads:
        """Of the memory."""
        _, x, grads = self.take(1)
        if grads is None or not needed[0]:
            return [None]
        left, right = (grads, x) if self.transposed else (x, grads)
        return [torch.bmm(left.mT, right).to(self.memory.dtype)]


class _Root(Function):
    """What all calls of a product share → a token that each of them takes."""

    @staticmethod
    def forward(ctx, product, *shared: Optional[Tensor]) -> Tensor:
        ctx.product = product
        ctx.save_for_backward(*shared)  # so that autograd notices when one is changed before the backward pass
        ctx.set_materialize_grads(False)
        return product.matrix.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx, _: Optional[Tensor]):
        ctx.saved_tensors  # noqa: B018
        return None, *ctx.product.shared_grads(ctx.needs_input_grad[1:])


class _LinearStep(Function):
    """One call of a ``LinearProduct``."""

    @staticmethod
    def forward(ctx, product: LinearProduct, token: Tensor, step: int, *parts: Tensor) -> Tensor:
        output, x = product.forward(parts, step)
        ctx.product, ctx.sizes = product, [part.size(1) for part in parts]
        ctx.call = product.keep(output.new_empty(output.size(0), 0) if x is None else x)
        product.steps.append(step)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Optional[Tensor]):
        product = ctx.product
        if grad is None:
            return (None,) * (3 + len(ctx.sizes))
        cast = grad.to(product.matrix.dtype)
        if ctx.needs_input_grad[1]:
            product.keep_grad(ctx.call, cast)
        if not any(ctx.needs_input_grad[3:]):
            return (None,) * (3 + len(ctx.sizes))
        of_parts = torch.mm(cast, product.columns).to(grad.dtype)
        return None, None, None, *(of_parts.split(ctx.sizes, dim=1) if len(ctx.sizes) > 1 else [of_parts])


class _MemoryStep(Function):
    """One call of a ``MemoryProduct``."""

    @staticmethod
    def forward(ctx, product: MemoryProduct, token: Tensor, inputs: Tensor) -> Tensor:
        output, x = product.forward(inputs)
        ctx.product, ctx.call = product, product.keep(x)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Optional[Tensor]):
        if grad is None:
            return None, None, None
        product = ctx.product
        cast = grad.to(product.matrix.dtype)
        if ctx.needs_input_grad[1]:
            product.keep_grad(ctx.call, cast)
        return None, None, torch.bmm(cast, product.matrix_t).to(grad.dtype) if ctx.needs_input_grad[2] else None
