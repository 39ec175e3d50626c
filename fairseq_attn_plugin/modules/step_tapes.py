"""Pieces of a loop over time steps that work their gradients out by hand: see ``FusedLoop``, which drives them.

A tape serves T steps of one pass. ``forward(t, ...)`` does one step, ``backward(t, ...)`` takes the gradient of what
that step gave and returns that of what it was given, and ``shared_grads()``, after the last of them, gives the
gradients of ``shared``, the tensors that all steps have in common. Where those are sums of products over the steps (the
weight of a linear map, the memory that every step attends to) they are one product at the end: inputs and output
gradients of all steps lie for it in buffers T×B×….
"""

from typing import Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

import torch
from torch import Tensor, nn

Grads = List[Optional[Tensor]]
Made = TypeVar("Made")
tanh_backward = torch.ops.aten.tanh_backward.default
tanh_backward_to = torch.ops.aten.tanh_backward.grad_input


class PreparedWeights:
    """Weights as the products of one batch, of one search, or of a model that is no longer trained want them: joined
    and cast once. A weight that has changed is made ready anew; a change through ``.data`` cannot be seen.

    Args:
        dtype: of the products; None = of the weights.
        ready: what is kept beyond this batch or search; None = nothing.
    """

    def __init__(self, dtype: Optional[torch.dtype] = None, ready: Optional[dict] = None):
        self.dtype = dtype
        self._ready = {} if ready is None else ready
        self._of: Dict[str, tuple] = {}

    def joined(self, weights: Sequence[Tensor], transposed: bool = False) -> Tensor:
        """G×K' weights side by side, G×K, or its transpose, K×G, in a memory of its own."""
        owners = [weight if weight._base is None else weight._base for weight in weights]
        places = ((id(owner), weight.storage_offset(), weight.shape) for owner, weight in zip(owners, weights))
        key = (self.dtype, transposed, *places)
        state = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]
        known, _, matrix = self._ready.get(key, (None, None, None))
        if known != state:
            columns = [weight.detach() for weight in weights]
            matrix = columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
            matrix = matrix.to(self.dtype or matrix.dtype)
            matrix = matrix.t().contiguous() if transposed else matrix
            self._ready[key] = state, owners, matrix  # an owner that is kept leaves its id to nobody else
        return matrix

    def once(self, name: str, tensors: Sequence[Optional[Tensor]], make: Callable[[], Made]) -> Made:
        """``make()``, worked out anew only when ``tensors`` are others than the last time."""
        known, value = self._of.get(name, ((), None))
        if len(known) != len(tensors) or any(one is not other for one, other in zip(known, tensors)):
            value = make()
            self._of[name] = tuple(tensors), value
        return value


class StepGrads:
    """Output gradients of T steps in one buffer."""

    def __init__(self, steps: int):
        self.steps = steps
        self.buffer: Optional[Tensor] = None
        self._done: List[bool] = [False] * steps

    def slot(self, t: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        """Where that of step t goes."""
        if self.buffer is None:
            self.buffer = like.new_empty(self.steps, *like.shape, dtype=dtype)
            self._slots = self.buffer.unbind(0)
        self._done[t] = True
        return self._slots[t]

    def take(self) -> Optional[Tensor]:
        """T×…, zero where a step had none; None where no step had one."""
        if not any(self._done):
            return None
        for t, done in enumerate(self._done):
            if not done:
                self._slots[t].zero_()
        self._done = [False] * self.steps
        return self.buffer


class LinearTape:
    """y(t) = W x(t) + b, where the first E of the K columns of x are known for all steps at the start.

    Args:
        prepared: of this pass.
        weights: G×K' each, side by side.
        bias: G.
        known: B×T×E; None = E is 0.
        steps: T.
    """

    def __init__(
        self,
        prepared: PreparedWeights,
        weights: Sequence[Tensor],
        bias: Optional[Tensor] = None,
        known: Optional[Tensor] = None,
        steps: int = 1,
    ):
        self.shared = [known, bias, *weights]
        self.steps, self.known, self.bias = steps, known, bias
        self.known_width = 0 if known is None else known.size(2)
        self.matrix = prepared.joined(weights)
        self.columns = self.matrix[:, self.known_width :]
        self.columns_t = self.columns.t()
        self.inputs = self.outputs = None
        self.grads = StepGrads(steps)

    def _start(self, parts: Sequence[Tensor]) -> None:
        rows = self.known.size(0) if self.known is not None else parts[0].size(0)
        self.inputs = self.matrix.new_empty(self.steps, rows, self.matrix.size(1))
        known, unknown = self.inputs.split([self.known_width, self.columns.size(1)], dim=2)
        slots = [part.unbind(0) for part in unknown.split([part.size(1) for part in parts], dim=2)] if parts else []
        self._slots = list(zip(*slots)) or [()] * self.steps
        self._rows = unknown.unbind(0)
        if self.known is not None:
            # not read from the buffer: oneDNN's bfloat16 product of a 3-d slice reads beyond rows of an odd width
            of_steps = self.known.transpose(0, 1).to(known.dtype).contiguous()
            known.copy_(of_steps)
            outputs = torch.matmul(of_steps, self.matrix[:, : self.known_width].t())
            self.outputs = (outputs if self.bias is None else outputs.add_(self.bias)).unbind(0)

    def forward(self, t: int, parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """B×X tensors, side by side the columns that become known at step t → B×G in ``dtype``, a buffer that the
        caller may change."""
        if self.inputs is None:
            self._start(parts)
        for slot, part in zip(self._slots[t], parts):
            slot.copy_(part)
        if self.outputs is None:
            if self.bias is not None and self.bias.dtype == dtype == self.matrix.dtype:
                return torch.addmm(self.bias, self._rows[t], self.columns_t)
            output = torch.mm(self._rows[t], self.columns_t).to(dtype)
            return output if self.bias is None else output.add_(self.bias)
        return self.outputs[t].addmm_(self._rows[t], self.columns_t).to(dtype)

    def grad_room(self, t: int, output: Tensor) -> Tensor:
        """A tensor like step t's output, for its gradient; the best place for it."""
        slot = self.grads.slot(t, output, self.matrix.dtype)
        return slot if output.dtype == slot.dtype else torch.empty_like(output)

    def backward(self, t: int, grad: Tensor) -> Tensor:
        """B×G gradient of step t's output → that of ``parts``, side by side, in the same type."""
        slot = self.grads.slot(t, grad, self.matrix.dtype)
        if slot is not grad:
            slot.copy_(grad)
        return torch.mm(slot, self.columns).to(grad.dtype)

    def shared_grads(self) -> Grads:
        """Of known, bias and the weights."""
        known, bias, *weights = self.shared
        grads = self.grads.take()
        if grads is None:
            return [None] * len(self.shared)
        grads, inputs = grads.flatten(0, 1), self.inputs.flatten(0, 1)
        of_known = of_bias = None
        if known is not None:
            of_known = torch.mm(grads, self.matrix[:, : self.known_width])
            of_known = of_known.unflatten(0, (self.steps, -1)).transpose(0, 1)
        if bias is not None:
            of_bias = grads.sum(dim=0, dtype=bias.dtype)
        columns = inputs.split([weight.size(1) for weight in weights], dim=1)
        return [of_known, of_bias, *(torch.mm(grads.t(), x) for x in columns)]


class LinearNow:
    """``LinearTape`` for one step without gradients: all columns in one product."""

    shared = ()

    def __init__(self, prepared: PreparedWeights, weights, bias: Optional[Tensor], known: Optional[Tensor]):
        self.matrix, self.bias = prepared.joined(weights, transposed=True), bias
        self.known = [] if known is None else [known[:, 0]]

    def forward(self, t: int, parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        columns = [part.to(self.matrix.dtype) for part in (*self.known, *parts)]
        columns = columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
        if self.bias is not None and self.bias.dtype == dtype == self.matrix.dtype:
            return torch.addmm(self.bias, columns, self.matrix)
        output = torch.mm(columns, self.matrix).to(dtype)
        return output if self.bias is None else output.add_(self.bias)


def linear_tape(
    prepared: PreparedWeights,
    weights: Sequence[Tensor],
    bias: Optional[Tensor] = None,
    known: Optional[Tensor] = None,
    steps: int = 1,
):
    """``LinearTape``, or ``LinearNow`` where that does."""
    if steps == 1 and not torch.is_grad_enabled():
        return LinearNow(prepared, weights, bias, known)
    return LinearTape(prepared, weights, bias, known, steps)


class TanhTape:
    """tanh, in place."""

    def __init__(self):
        self.outputs: Dict[int, Tensor] = {}

    def forward(self, t: int, x: Tensor) -> Tensor:
        self.outputs[t] = x.tanh_()
        return x

    def backward(self, t: int, grad: Tensor) -> Tensor:
        return tanh_backward(grad, self.outputs[t])


class DropoutTape:
    """Multiplies by random masks, drawn for all T steps at once.

    Args:
        module: has ``is_active`` and ``mask(shape, like)``.
    """

    def __init__(self, module: nn.Module, steps: int):
        self.module, self.steps = module, steps
        self.masks: Sequence[Tensor] = ()

    def forward(self, t: int, x: Tensor) -> Tensor:
        if not self.masks:
            self.masks = self.module.mask((self.steps, *x.shape), x).unbind(0)
        return x * self.masks[t]

    def backward(self, t: int, grad: Tensor) -> Tensor:
        return grad * self.masks[t]


def dropout_tape(module: nn.Module, steps: int) -> Optional[DropoutTape]:
    """None where the module does nothing."""
    return DropoutTape(module, steps) if getattr(module, "is_active", False) else None


class FunctionTape:
    """Any function of one tensor, differentiated by autograd, step by step.

    Args:
        function: (x, *tensors) → y.
        tensors: what it takes beside x.
        module: whose parameters it reads; None = none.
    """

    def __init__(self, function: Callable, tensors: Sequence[Tensor] = (), module: Optional[nn.Module] = None):
        parameters = [] if module is None else [p for p in module.parameters() if p.requires_grad]
        self.shared = [*tensors, *parameters]
        self.function = function
        self.keeps = torch.is_grad_enabled()
        self.tensors = [tensor.detach().requires_grad_(self.keeps and tensor.is_floating_point()) for tensor in tensors]
        self._leaves = [*self.tensors, *parameters]
        self._kept: Dict[int, Tuple[Tensor, Tensor]] = {}
        self._sums: Grads = [None] * len(self.shared)

    def forward(self, t: int, x: Tensor) -> Tensor:
        if not self.keeps:
            return self.function(x, *self.tensors)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = self.function(x, *self.tensors)
        self._kept[t] = x, y
        return y.detach()

    def backward(self, t: int, grad: Tensor) -> Optional[Tensor]:
        """None where the function does not depend on x."""
        x, y = self._kept[t]
        if not y.requires_grad:
            return None
        wanted = [i for i, leaf in enumerate(self._leaves) if leaf.requires_grad]
        leaves = [self._leaves[i] for i in wanted]
        of_x, *grads = torch.autograd.grad(y, [x, *leaves], grad.to(y.dtype), retain_graph=True, allow_unused=True)
        for i, more in zip(wanted, grads):
            self._sums[i] = add(self._sums[i], more)
        return of_x

    def shared_grads(self) -> Grads:
        sums, self._sums = self._sums, [None] * len(self.shared)
        return sums


def add(one: Optional[Tensor], other: Optional[Tensor]) -> Optional[Tensor]:
    """The sum, where None is zero."""
    if one is None or other is None:
        return other if one is None else one
    return one + other
