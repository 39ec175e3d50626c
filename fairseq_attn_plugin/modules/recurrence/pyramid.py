"""Pyramid: layers that read pairs of neighbours, so that a source of S tokens becomes one of half as many positions."""

from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from .padding import Padding, token_positions


class SourceColumns(NamedTuple):
    """How the columns of a source are spread over the positions of its shortened form."""

    positions: Tensor
    """B×S int64: the shortened position that a column belongs to; 0 on padding."""

    shares: Tensor
    """B×S: what a column gets of that position's weight; the columns of a position get 1 in all, padding 0."""


def join_pairs(inputs: Tensor, padding: Optional[Padding]) -> Tensor:
    """B×T×I → B×ceil(T/2)×2I, whose padding is ``padding.halved``: position i is [x(2i); x(2i+1)] (Chan et al., 2016,
    eq. 5), counted over the real tokens, from the first one. An odd last token is completed with zeros."""
    if padding is not None:
        inputs = padding.to_front(inputs)
    if inputs.size(1) % 2:
        inputs = torch.cat([inputs, torch.zeros_like(inputs[:, :1])], dim=1)
    return inputs.unflatten(1, (-1, 2)).flatten(2)


def join_levels(inputs: Tensor, padding: Optional[Padding], levels: int) -> Tuple[Tensor, Optional[Padding]]:
    """``join_pairs`` so many times, and the padding of what comes out."""
    for _ in range(levels):
        inputs, padding = join_pairs(inputs, padding), None if padding is None else padding.halved
    return inputs, padding


def source_columns(is_padding: Tensor, levels: int) -> SourceColumns:
    """Of a B×S bool mask (True = padding) that is joined ``levels`` times: at every level each of a pair gets half of
    the pair's weight, an odd last one the whole."""
    real = ~is_padding
    places, length = token_positions(is_padding), real.sum(dim=1, keepdim=True)
    shares = real.to(torch.float32)
    for _ in range(levels):
        shares = torch.where((places ^ 1) < length, 0.5 * shares, shares)
        places, length = places >> 1, (length + 1) >> 1
    return SourceColumns(places.masked_fill(is_padding, 0), shares)
