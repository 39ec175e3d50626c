"""Tapes of the attention: see ``step_tapes``. n is 1 where gradients are wanted; in search it is the beam size."""

from typing import Dict, List, Optional

import torch
from torch import Tensor

from .step_tapes import Grads, StepGrads, tanh_backward_to


class MemoryTape:
    """Products of every step with one B×S×A tensor.

    Args:
        memory: B×S×A.
        transposed: True: B×n×A → B×n×S (scores); False: B×n×S → B×n×A (contexts). n = 1 where gradients are wanted.
        steps: T.
        dtype: of the products; None = of the memory.
        scale: a factor of the product.
    """

    def __init__(
        self, memory: Tensor, transposed: bool, steps: int, dtype: Optional[torch.dtype] = None, scale: float = 1.0
    ):
        self.shared = [memory]
        self.steps, self.transposed, self.scale = steps, transposed, scale
        memory = memory.detach().to(dtype or memory.dtype)
        self.matrix, self.matrix_t = (memory.mT, memory) if transposed else (memory, memory.mT)
        self.keeps = torch.is_grad_enabled()
        self.inputs = None
        self.grads = StepGrads(steps)

    def forward(self, t: int, inputs: Tensor) -> Tensor:
        if self.scale != 1.0:
            inputs = inputs * self.scale
        if not self.keeps:
            return torch.bmm(inputs.to(self.matrix.dtype), self.matrix).to(inputs.dtype)
        if self.inputs is None:
            self.inputs = inputs.new_empty(self.steps, *inputs.shape, dtype=self.matrix.dtype)
            self._inputs = self.inputs.unbind(0)
        return torch.bmm(self._inputs[t].copy_(inputs), self.matrix).to(inputs.dtype)

    def backward(self, t: int, grad: Tensor) -> Tensor:
        slot = self.grads.slot(t, grad, self.matrix.dtype)
        product = torch.bmm(slot.copy_(grad), self.matrix_t).to(grad.dtype)
        return product if self.scale == 1.0 else product.mul_(self.scale)

    def shared_grads(self) -> Grads:
        grads = self.grads.take()
        if grads is None:
            return [None]
        rows, columns = (grads, self.inputs) if self.transposed else (self.inputs, grads)
        return [torch.bmm(rows.squeeze(2).permute(1, 2, 0), columns.squeeze(2).transpose(0, 1))]


class AdditiveTape:
    """e(t, j) = u · tanh(q(t) + k(j) + b).

    Args:
        keys: B×S×A.
        vector: u, A.
        bias: b, A.
    """

    def __init__(self, keys: Tensor, vector: Tensor, bias: Optional[Tensor]):
        self.shared = [keys, vector, bias]
        self.keys, self.vector, self.bias = keys, vector.to(keys.dtype), bias
        self.keeps = torch.is_grad_enabled()
        self.hidden: Dict[int, Tensor] = {}
        self.of_keys = self.of_vector = None

    def forward(self, t: int, query: Tensor) -> Tensor:
        """B×n×A → B×n×S, n = 1 where gradients are wanted."""
        query = (query if self.bias is None else query + self.bias).to(self.keys.dtype)
        if not self.keeps:
            return torch.matmul((query.unsqueeze(2) + self.keys.unsqueeze(1)).tanh_(), self.vector)
        self.hidden[t] = torch.add(self.keys, query).tanh_()
        return torch.matmul(self.hidden[t], self.vector).unsqueeze(1)

    def backward(self, t: int, grad: Tensor) -> Tensor:
        """B×1×S → B×1×A."""
        hidden, grad = self.hidden[t], grad.to(self.keys.dtype)
        of_vector = torch.mv(hidden.flatten(0, 1).t(), grad.flatten()).to(self.shared[1].dtype)
        of_hidden = torch.mul(grad.transpose(1, 2), self.vector)
        of_hidden = tanh_backward_to(of_hidden, hidden, grad_input=of_hidden)
        if self.of_keys is None:  # sums in the types of the parameters, whatever that of the products is
            self.of_keys, self.of_vector = of_hidden.to(of_vector.dtype, copy=True), of_vector
        else:
            self.of_keys.add_(of_hidden)
            self.of_vector.add_(of_vector)
        return of_hidden.sum(dim=1, keepdim=True)

    def shared_grads(self) -> Grads:
        of_bias = self.of_keys
        if self.bias is not None and of_bias is not None:
            of_bias = of_bias.sum(dim=(0, 1), dtype=self.bias.dtype)
        grads = [self.of_keys, self.of_vector, None if self.bias is None else of_bias]
        self.of_keys = self.of_vector = None
        return grads


class LinearThen:
    """A linear map of the query, then a tape: B×n×Q → what the tape gives."""

    def __init__(self, linear, tape):
        self.linear, self.tape = linear, tape

    @property
    def shared(self) -> List[Optional[Tensor]]:
        return [*self.linear.shared, *self.tape.shared]

    def forward(self, t: int, query: Tensor) -> Tensor:
        mapped = self.linear.forward(t, [query.flatten(0, 1)], query.dtype)
        return self.tape.forward(t, mapped.view(*query.shape[:2], -1))

    def backward(self, t: int, grad: Tensor) -> Tensor:
        return self.linear.backward(t, self.tape.backward(t, grad).squeeze(1)).unsqueeze(1)

    def shared_grads(self) -> Grads:
        return [*self.linear.shared_grads(), *self.tape.shared_grads()]


class SoftmaxTape:
    """Softmax over the source positions that are not padding, in float32 at least.

    Args:
        padding_mask: B×S bool, True = padding; None = no padding.
    """

    shared = ()

    def __init__(self, padding_mask: Optional[Tensor]):
        self.mask = self.masked = None
        if padding_mask is not None:
            self.mask = padding_mask.unsqueeze(1)
            self.masked = self.mask & ~self.mask.all(dim=2, keepdim=True)  # a row of padding alone comes to no NaN
        self.keeps = torch.is_grad_enabled()
        self.weights: Dict[int, Tensor] = {}

    def forward(self, t: int, scores: Tensor) -> Tensor:
        scores = scores if scores.dtype == torch.float64 else scores.float()
        if self.mask is None:
            weights = torch.softmax(scores, dim=-1)
        else:
            weights = torch.softmax(scores.masked_fill(self.masked, float("-inf")), dim=-1).masked_fill_(self.mask, 0.0)
        if self.keeps:
            self.weights[t] = weights
        return weights

    def backward(self, t: int, grad: Tensor) -> Tensor:
        weights = self.weights[t]
        return torch._softmax_backward_data(grad.type_as(weights), weights, -1, weights.dtype)

    def shared_grads(self) -> Grads:
        return []
