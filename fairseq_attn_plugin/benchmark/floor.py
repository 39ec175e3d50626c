"""The floor of a training step: the operations of its matrix products, at the rate that the machine multiplies at."""

from math import prod
from typing import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


def count_operations(run: Callable[[], object]) -> int:
    """Multiplications and additions of all matrix products that ``run`` does, forward and backward."""
    with FlopCounterMode(display=False, custom_mapping={**RECURRENT_KERNELS, **PRODUCTS}) as counter:
        run()
    return counter.get_total_flops()


def _tokens(shape: Sequence[int]) -> int:
    """Of a T×B×I tensor, or of the data of a packed sequence."""
    return prod(shape[:-1])


def _onednn(shape, w_ih, w_hh, *rest, **kwargs) -> int:
    """One layer, one direction: T×B×I inputs, G×I and G×H weights."""
    return 2 * _tokens(shape) * (prod(w_ih) + prod(w_hh))


def _cudnn(shape, weights, *rest, **kwargs) -> int:
    """All layers and directions: their matrices; biases have one axis."""
    return 2 * _tokens(shape) * sum(prod(weight) for weight in weights if len(weight) == 2)


def _vectors(left, right, *rest, **kwargs) -> int:
    """A product that sums over the last axis of its first factor: matrix or vector times vector."""
    return 2 * prod(left)


def _matrices(left, right, *rest, **kwargs) -> int:
    """…×N×K times …×K×M."""
    return 2 * prod(left) * right[-1]


def _added_to(count: Callable[..., int]) -> Callable[..., int]:
    """The same product where the tensor that it is added to comes first."""
    return lambda added, *shapes, **kwargs: count(*shapes, **kwargs)


# torch's counter knows mm, bmm, addmm and baddbmm, but not these; those that write over a tensor are others to it
PRODUCTS = {
    aten.addmm_: _added_to(_matrices),
    aten.baddbmm_: _added_to(_matrices),
    aten.addbmm: _added_to(_matrices),
    aten.addbmm_: _added_to(_matrices),
    aten.mv: _vectors,
    aten.addmv: _added_to(_vectors),
    aten.addmv_: _added_to(_vectors),
    aten.dot: _vectors,
}

# torch's counter knows no recurrent kernel; a backward pass has two products for each one of the forward pass
RECURRENT_KERNELS = {
    aten.mkldnn_rnn_layer: _onednn,
    aten.mkldnn_rnn_layer_backward: lambda *shapes, **kwargs: 2 * _onednn(*shapes),
    aten._cudnn_rnn: _cudnn,
    aten._cudnn_rnn_backward: lambda *shapes, **kwargs: 2 * _cudnn(*shapes),
}
