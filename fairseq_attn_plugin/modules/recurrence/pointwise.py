"""Arithmetic of a step in few calls, with its gradient written out: gates of the LSTM and the GRU, additive scores.

Where ``only_plain``, each is its formula in PyTorch's own calls: the reference, which can be differentiated twice.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .deferred_gradients import GradientRoom
from .shared_products import once, only_plain

sigmoid_backward_to = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward_to = torch.ops.aten.tanh_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.default


def lstm_gates(gates: Tensor, c: Tensor) -> Tuple[Tensor, ...]:
    """i, f, g, o = ``gates``; c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c').

    Args:
        gates: B×4H, before their activations.
        c: B×H.

    Returns:
        h' and c', B×H.
    """
    if only_plain():
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    if gates.device.type == "cuda":
        zeros = once(_zeros, gates.shape, gates.dtype, gates.device)  # it takes the gates as a sum of two
        return _in_their_type(torch.ops.aten._thnn_fused_lstm_cell, gates, zeros, c)[:2]
    return LSTMGates.apply(gates, c)


def gru_gates(of_input: Tensor, of_state: Tensor, h: Tensor) -> Tensor:
    """r, z, n from the shares of the input and of the state: h' = (1 - z) tanh(n_input + r n_state) + z h, with r and z
    the sigmoid of the sum of both shares.

    Args:
        of_input: B×3H.
        of_state: B×3H.
        h: B×H.

    Returns:
        h', B×H.
    """
    if only_plain():
        reset, update, new = of_input.chunk(3, dim=1)
        reset_of_state, update_of_state, new_of_state = of_state.chunk(3, dim=1)
        update = torch.sigmoid(update + update_of_state)
        new = torch.tanh(new + torch.sigmoid(reset + reset_of_state) * new_of_state)
        return (1 - update) * new + update * h
    if of_input.device.type == "cuda":
        return _in_their_type(torch.ops.aten._thnn_fused_gru_cell, of_input, of_state, h)[0]
    return GRUGates.apply(of_input, of_state, h)


def additive_scores(query: Tensor, keys: Tensor, vector: Tensor, dtype: torch.dtype) -> Tensor:
    """e(t, j) = u · tanh(q(t) + k(j)).

    On the CPU tanh(x) is computed as 2 sigmoid(2x) - 1, which is faster there and as exact in the sum.

    Args:
        query: q, B×T×A.
        keys: k, B×S×A, in the type that its gradient is summed in.
        vector: u, A.
        dtype: in which tanh and its product with u are computed.

    Returns:
        B×T×S in the type of ``query``.
    """
    if only_plain():
        hidden = torch.tanh(query.to(dtype).unsqueeze(2) + keys.to(dtype).unsqueeze(1))
        return torch.matmul(hidden, vector.to(dtype)).to(query.dtype)
    if query.device.type != "cpu":
        return AdditiveScores.apply(query, keys, once(_cast, keys, dtype), vector, None)
    total = once(torch.sum, vector)
    return AdditiveScores.apply(query, keys, once(_cast, keys, dtype), once(torch.mul, vector, 2), total)


def _in_their_type(kernel, *tensors: Tensor) -> Tuple[Tensor, ...]:
    """What a kernel makes of tensors in their own type, where autocast would round them, the state among them."""
    if not torch.is_autocast_enabled("cuda"):
        return kernel(*tensors)
    with torch.autocast("cuda", enabled=False):
        return kernel(*tensors)


def _zeros(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype)


class LSTMGates(Function):
    """See :func:`lstm_gates`."""

    @staticmethod
    def forward(ctx, gates: Tensor, c: Tensor) -> Tuple[Tensor, Tensor]:
        size = c.size(1)
        active = torch.sigmoid(gates)
        i, f, g, o = active.split(size, dim=1)
        torch.tanh(gates[:, 2 * size : 3 * size], out=g)
        after = torch.mul(f, c).addcmul_(i, g)
        tanh_after = torch.tanh(after)
        ctx.save_for_backward(active, c, tanh_after)
        ctx.room = GradientRoom(gates)
        ctx.set_materialize_grads(False)
        return o * tanh_after, after

    @staticmethod
    @once_differentiable
    def backward(ctx, of_h, of_c):
        if of_h is None and of_c is None:
            return None, None
        active, c, tanh_after = ctx.saved_tensors
        size = c.size(1)
        i, f, g, o = active.split(size, dim=1)
        of_gates = ctx.room.like(active)
        of_i, of_f, of_g, of_o = of_gates.split(size, dim=1)
        if of_h is None:
            of_o.zero_()
        else:
            torch.mul(of_h, tanh_after, out=of_o)
            through = tanh_backward(of_h * o, tanh_after)
            of_c = through if of_c is None else through.add_(of_c)
        torch.mul(of_c, g, out=of_i)
        torch.mul(of_c, c, out=of_f)
        torch.mul(of_c, i, out=of_g)
        first = of_gates[:, : 2 * size]
        sigmoid_backward_to(first, active[:, : 2 * size], grad_input=first)
        sigmoid_backward_to(of_o, o, grad_input=of_o)
        tanh_backward_to(of_g, g, grad_input=of_g)
        return of_gates, of_c * f


class GRUGates(Function):
    """See :func:`gru_gates`."""

    @staticmethod
    def forward(ctx, of_input: Tensor, of_state: Tensor, h: Tensor) -> Tensor:
        size = h.size(1)
        gates = (of_input[:, : 2 * size] + of_state[:, : 2 * size]).sigmoid_()
        reset, update = gates.split(size, dim=1)
        new_of_state = of_state[:, 2 * size :]
        new = torch.addcmul(of_input[:, 2 * size :], reset, new_of_state).tanh_()
        ctx.save_for_backward(gates, new, new_of_state, h)
        return torch.lerp(new, h, update)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        gates, new, new_of_state, h = ctx.saved_tensors
        size = h.size(1)
        reset, update = gates.split(size, dim=1)
        of_input = grad.new_empty(grad.size(0), 3 * size)
        both, of_new = of_input.split([2 * size, size], dim=1)
        of_reset, of_update = both.split(size, dim=1)
        kept = grad * update
        tanh_backward_to(grad - kept, new, grad_input=of_new)
        torch.mul(of_new, new_of_state, out=of_reset)
        torch.mul(grad, h - new, out=of_update)
        sigmoid_backward_to(both, gates, grad_input=both)
        return of_input, torch.cat([both, of_new * reset], dim=1), kept


class AdditiveScores(Function):
    """See :func:`additive_scores`.

    With ``total``, the sum of u: u comes doubled, and u · tanh(q + k) = 2u · sigmoid(2q + 2k) - total. ``cast`` is
    ``keys`` in the type of the products.
    """

    @staticmethod
    def forward(ctx, query: Tensor, keys: Tensor, cast: Tensor, vector: Tensor, total: Optional[Tensor]) -> Tensor:
        shared, asked = cast.unsqueeze(1), query.to(cast.dtype).unsqueeze(2)
        if total is None:
            hidden = torch.add(shared, asked).tanh_()  # B×T×S×A
        else:
            hidden = torch.add(2 * asked, shared, alpha=2).sigmoid_()
        u = vector.to(cast.dtype)
        scores = torch.matmul(hidden, u).to(query.dtype)
        ctx.save_for_backward(hidden, u, total)
        ctx.dtypes = query.dtype, keys.dtype, vector.dtype
        return scores if total is None else scores.sub_(total)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        hidden, u, total = ctx.saved_tensors
        of_query, of_keys, of_vector = ctx.dtypes
        of_total = None if total is None else grad.sum(dtype=of_vector).neg_()
        grad = grad.to(hidden.dtype)
        of_u = torch.mv(hidden.flatten(0, 2).t(), grad.flatten()).to(of_vector)
        of_hidden = (grad if total is None else grad * 2).unsqueeze(3) * u
        back = tanh_backward_to if total is None else sigmoid_backward_to
        back(of_hidden, hidden, grad_input=of_hidden)
        of_q = of_hidden.sum(dim=2, dtype=of_query)
        of_k = of_hidden.squeeze(1) if of_hidden.size(1) == 1 else of_hidden.sum(dim=1)
        return of_q, of_k.to(of_keys), None, of_u, of_total


CELL_FUNCTIONS = (LSTMGates, GRUGates)
"""What a GPU does in one kernel forwards and one backwards."""
