"""The floor of a training step: the operations of its matrix products, at the rate that the machine multiplies at."""

from math import prod
from typing import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


def count_operations(run: Callable[[], object]) -> int:
    """Multiplications and additions of all matrix products that ``run`` does, forward and backward."""
    with FlopCounterMode(display=False, custom_mapping=RECURRENT_KERNELS) as counter:
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


# torch's counter knows no recurrent kernel; a backward pass has two products for each one of the forward pass
RECURRENT_KERNELS = {
    aten.mkldnn_rnn_layer: _onednn,
    aten.mkldnn_rnn_layer_backward: lambda *shapes, **kwargs: 2 * _onednn(*shapes),
    aten._cudnn_rnn: _cudnn,
    aten._cudnn_rnn_backward: lambda *shapes, **kwargs: 2 * _cudnn(*shapes),
}
