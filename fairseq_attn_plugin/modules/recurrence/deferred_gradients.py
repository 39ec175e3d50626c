"""Gradients of what many calls share, worked out once, after the last of them.

Every call of a product keeps its input, and its backward pass the gradient of its output. A root node, which each call
depends on through a token, has autograd come to it after all of them, and multiplies the two.
"""

from typing import Any, ClassVar, Dict, Iterable, List, Optional, Sequence, Set, Tuple, Type

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Grads = List[Optional[Tensor]]


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Side by side, in the last dimension."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors), dim=-1)


def token_of(product, *shared: Optional[Tensor]) -> Tensor:
    """What every call of a product takes, so that autograd comes to the root after all of them."""
    return _Root.apply(product, *shared)


def affine(x: Tensor, matrix: Tensor, bias: Optional[Tensor], dtype: torch.dtype) -> Tensor:
    """x N×K and matrix K×G → N×G in ``dtype``, the bias added in its own type."""
    if bias is not None and bias.dtype == dtype == matrix.dtype:
        return torch.addmm(bias, x, matrix)
    output = torch.mm(x, matrix).to(dtype)
    return output if bias is None else output.add_(bias)


class Calls:
    """One tensor for each call of a product, to be read side by side after the last one.

    Those that are written into a slot of ``room`` lie so already; others are copied.

    Args:
        foreseen: calls that there is room for.
    """

    def __init__(self, foreseen: int):
        self._foreseen = foreseen
        self._room: Optional[Tensor] = None
        self._tensors: Dict[int, Tensor] = {}

    def __getitem__(self, call: int) -> Tensor:
        return self._tensors[call]

    def calls(self) -> Iterable[int]:
        """Numbers of the calls whose tensors are kept."""
        return self._tensors

    def slot(self, call: int, shape: Sequence[int], like: Tensor) -> Optional[Tensor]:
        """Where the tensor of a call may be written; None where there is no room for it."""
        if call >= self._foreseen:
            return None
        if self._room is None:
            self._room = like.new_empty(self._foreseen, *shape)
        slot = self._room[call]
        return slot if slot.shape == torch.Size(shape) and slot.dtype == like.dtype else None

    def put(self, call: int, tensor: Tensor) -> None:
        """Keeps the tensor of a call."""
        self._tensors[call] = tensor

    def side_by_side(self, calls: Sequence[int], dim: int) -> Tensor:
        """Those of some calls, in ``dim``."""
        tensors, room = [self._tensors[call] for call in calls], self._room
        if room is not None and dim == 0 and calls == list(range(len(room))):
            if all(tensor.data_ptr() == slot.data_ptr() for tensor, slot in zip(tensors, room.unbind())):
                return room.flatten(0, 1)
        return torch.cat(tensors, dim)

    def forget(self) -> None:
        """Lets all tensors go."""
        self._tensors, self._room = {}, None


class _Kept:
    """Inputs and output gradients of the calls of one product.

    A graph may be differentiated again, and parts of it alone: gradients are by call, and those of one backward pass
    are gone once the root has taken them. What is kept is detached: the graph leads to the root and so to the product,
    and a product that led back to the graph would never be freed.

    Args:
        foreseen: calls, if they are known.
    """

    def __init__(self, foreseen: int = 0):
        self.inputs, self.grads = Calls(foreseen), Calls(foreseen)
        self._versions: List[int] = []
        self._with_room: Set[int] = set()

    def keep(self, inputs: Tensor) -> int:
        """Keeps a call's inputs; returns the call's number."""
        call = len(self._versions)
        self.inputs.put(call, inputs.detach())
        self._versions.append(inputs._version)
        return call

    def offers_room(self, call: int) -> bool:
        """True to the first that asks whether it may write the gradient of the call's output into its slot."""
        first = call not in self._with_room
        self._with_room.add(call)
        return first

    def take(self, dim: int) -> Tuple[List[int], Optional[Tensor], Optional[Tensor]]:
        """The calls that have come past, their inputs and their gradients, each side by side in ``dim``."""
        calls = sorted(self.grads.calls())
        if not calls:
            return calls, None, None
        for call in calls:
            if self.inputs[call]._version != self._versions[call]:
                raise RuntimeError("an input of a step has been modified by an inplace operation before its gradient")
        inputs, grads = self.inputs.side_by_side(calls, dim), self.grads.side_by_side(calls, dim)
        self.grads.forget()
        return calls, inputs, grads


class LinearProduct(_Kept):
    """y(t) = W [known(t); x(t)] + b.

    Args:
        matrix: W, G×K, in the type of the products.
        weights: G×K' each, of which it is made.
        bias: b, G.
        known: B×T×E, the first E columns of the input at all steps; None where E = 0.
        foreseen: calls, if they are known.
    """

    def __init__(
        self,
        matrix: Tensor,
        weights: Sequence[Tensor],
        bias: Optional[Tensor],
        known: Optional[Tensor] = None,
        foreseen: int = 0,
    ):
        super().__init__(foreseen)
        self.matrix = matrix
        self.bias = bias = None if bias is None else bias.detach()
        self.weights = [weight.detach() for weight in weights]
        self.known = known = None if known is None else known.detach()
        self.known_width = 0 if known is None else known.size(2)
        self.columns = matrix[:, self.known_width :]
        self.columns_t = self.columns.t()
        self.steps: List[int] = []
        if known is not None:
            # a tensor of its own: oneDNN's bfloat16 product of a 3-d slice reads beyond rows of an odd width
            self.known_dtype = known.dtype
            self.known_first = known.transpose(0, 1).to(matrix.dtype).contiguous()
            self.of_known: List[Optional[Tensor]] = [*self._product_of(self.known_first)]

    def forward(self, parts: Sequence[Tensor], step: int) -> Tuple[Tensor, Optional[Tensor]]:
        """N×X tensors, side by side the unknown columns at this step → N×G, and what the gradient needs."""
        if not parts:
            return self._added(step, self.known_first.new_empty(self.known_first.size(1), 0)).to(self.known_dtype), None
        dtype, x = parts[0].dtype, self._side_by_side(parts)
        if self.known is not None:
            return self._added(step, x).to(dtype), x
        return affine(x, self.columns_t, self.bias, dtype), x

    def _product_of(self, known: Tensor) -> Tensor:
        """Known columns of one step, or of all → their product, with b: …×E → …×G."""
        product = torch.matmul(known, self.matrix[:, : self.known_width].t())
        return product if self.bias is None else product.add_(self.bias)

    def _added(self, step: int, x: Tensor) -> Tensor:
        """Product of the unknown columns, added to that of the known ones; in its place, as long as that is unused."""
        of_known, self.of_known[step] = self.of_known[step], None
        if of_known is None:
            of_known = self._product_of(self.known_first[step])
        return of_known.addmm_(x, self.columns_t).data  # with a version of its own, not that of all steps

    def _side_by_side(self, parts: Sequence[Tensor]) -> Tensor:
        """The input of a call, written where the gradient of W will read it."""
        if len(parts) == 1 and parts[0].dtype == self.matrix.dtype:
            return parts[0]
        shape = len(parts[0]), self.matrix.size(1) - self.known_width
        slot = self.inputs.slot(len(self.steps), shape, self.matrix)
        if slot is None:
            return joined(parts).to(self.matrix.dtype)
        return torch.cat(tuple(parts), dim=1, out=slot).data  # with a version of its own, not that of the whole room

    def shared_grads(self, needed: Sequence[bool]) -> Grads:
        """Of known, bias and the weights, as far as they are needed."""
        calls, x, grads = self.take(0)
        if x is None or grads is None:
            return [None] * len(needed)
        width = self.known_width
        steps = [self.steps[call] for call in calls]
        of_known = of_bias = None
        if needed[0]:
            of_known = torch.mm(grads, self.matrix[:, :width]).unflatten(0, (len(calls), -1))
            if steps != list(range(len(self.known_first))):
                index = torch.tensor(steps, device=grads.device)
                of_known = torch.zeros_like(self.known_first).index_add_(0, index, of_known)
            of_known = of_known.transpose(0, 1).to(self.known_dtype)
        if needed[1] and self.bias is not None:
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
        self.memory, self.transposed = memory.detach(), transposed
        matrix = self.memory.to(dtype or memory.dtype)
        self.matrix, self.matrix_t = (matrix.mT, matrix) if transposed else (matrix, matrix.mT)

    def forward(self, inputs: Tensor) -> Tuple[Tensor, Tensor]:
        """The product, and what its gradient needs."""
        x = inputs.to(self.matrix.dtype)
        return torch.bmm(x, self.matrix).to(inputs.dtype), x

    def shared_grads(self, needed: Sequence[bool]) -> Grads:
        """Of the memory."""
        _, x, grads = self.take(1)
        if x is None or grads is None or not needed[0]:
            return [None]
        left, right = (grads, x) if self.transposed else (x, grads)
        return [torch.bmm(left.mT, right).to(self.memory.dtype)]


class Lookup(_Kept):
    """See :func:`lookup`."""

    def __init__(self, table: nn.Embedding):
        super().__init__()
        self.matrix, self.padding_idx = table.weight.detach(), table.padding_idx

    def shared_grads(self, needed: Sequence[bool]) -> Grads:
        """Of the table."""
        _, tokens, grads = self.take(0)
        if grads is None:
            return [None]
        nothing = -1 if self.padding_idx is None else self.padding_idx
        return [torch.ops.aten.embedding_dense_backward(grads, tokens, self.matrix.size(0), nothing, False)]


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


class LinearStep(Function):
    """One call of a ``LinearProduct``."""

    _backward_cls: ClassVar[Type[Any]]  # of torch: its instances have what ``forward`` puts into ``ctx``

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
            product.grads.put(ctx.call, cast)
        if not any(ctx.needs_input_grad[3:]):
            return (None,) * (3 + len(ctx.sizes))
        of_parts = torch.mm(cast, product.columns).to(grad.dtype)
        return None, None, None, *(of_parts.split(ctx.sizes, dim=1) if len(ctx.sizes) > 1 else [of_parts])


class MemoryStep(Function):
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
            product.grads.put(ctx.call, cast)
        return None, None, torch.bmm(cast, product.matrix_t).to(grad.dtype) if ctx.needs_input_grad[2] else None


class LookupStep(Function):
    """One call of a ``Lookup``."""

    @staticmethod
    def forward(ctx, product: Lookup, token: Tensor, tokens: Tensor) -> Tensor:
        ctx.product, ctx.call = product, product.keep(tokens)
        ctx.set_materialize_grads(False)
        return product.matrix.index_select(0, tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Optional[Tensor]):
        if grad is not None:
            ctx.product.grads.put(ctx.call, grad)
        return None, None, None


class GradientRoom:
    """Where a function may write the gradient of its input, if that is a product's output: then no copy is made.

    Args:
        output: the function's input, in its forward pass.
    """

    _product: Optional[LinearProduct]
    _call: int

    def __init__(self, output: Tensor):
        node: Any = output.grad_fn
        offered = isinstance(node, LinearStep._backward_cls) and node.product.offers_room(node.call)
        self._product, self._call = (node.product, node.call) if offered else (None, 0)

    def like(self, tensor: Tensor) -> Tensor:
        """Uninitialised numbers of the tensor's shape and type."""
        slot = None if self._product is None else self._product.grads.slot(self._call, tensor.shape, tensor)
        return torch.empty_like(tensor) if slot is None else slot
