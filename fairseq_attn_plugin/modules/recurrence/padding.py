"""Where a batch is padding, and what its layers want to know of it, worked out once."""

from functools import cached_property
from typing import Optional

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def token_positions(mask: Tensor) -> Tensor:
    """B×T bool mask, True = padding → which real token of its row stands in a column, from 0, B×T int64; on padding
    that of the last real one before it, or 0."""
    return ((~mask).cumsum(dim=1) - 1).clamp(min=0)


def token_columns(mask: Tensor) -> Tensor:
    """B×T bool mask, True = padding → in which column each real token of a row stands, in order, and behind them the
    columns of padding: B×T int64."""
    return torch.argsort(mask.int(), dim=1, stable=True)


class Padding:
    """Padding of a batch, wherever it stands in a row.

    Args:
        mask: B×T bool, True = padding.
    """

    def __init__(self, mask: Tensor):
        self.mask = mask

    @classmethod
    def of(cls, mask: Tensor) -> Optional["Padding"]:
        """None where nothing is padding. Of all that is worked out here, the lengths alone are waited for on a GPU:
        they are what torch packs by."""
        return cls(mask)._or_none()

    def _or_none(self) -> Optional["Padding"]:
        return self if bool((self.lengths < self.mask.size(1)).any()) else None

    @cached_property
    def lengths(self) -> Tensor:
        """B int64 on the CPU, real tokens of each row."""
        return (~self.mask).sum(dim=1).cpu()

    @cached_property
    def edges(self) -> Tensor:
        """B×2 int64, the columns of the last and of the first real token; in a row without any, some columns."""
        real = (~self.mask).int()
        first, behind = real.argmax(dim=1), real.flip(1).argmax(dim=1)
        return torch.stack([self.mask.size(1) - 1 - behind, first], dim=1)

    @cached_property
    def is_outside(self) -> bool:
        """False where there is padding between real tokens."""
        last, first = self.edges.cpu().unbind(1)
        return bool(((last - first + 1 == self.lengths) | (self.lengths == 0)).all())

    @cached_property
    def empty(self) -> Tensor:
        """B×1 bool, True = a row without real tokens."""
        return self.mask.all(dim=1, keepdim=True)

    @cached_property
    def behind(self) -> Tensor:
        """B×T bool, True = behind the real tokens where these stand in the first columns."""
        return self.mask.gather(1, self._order.squeeze(2))

    @cached_property
    def _order(self) -> Tensor:
        """B×T×1, columns with the real tokens first, in order."""
        return token_columns(self.mask).unsqueeze(2)

    @cached_property
    def _back(self) -> Tensor:
        """B×T×1, the inverse of ``_order``."""
        return torch.argsort(self._order, dim=1)

    @cached_property
    def halved(self) -> Optional["Padding"]:
        """That of pairs of neighbours, the first and the second real token, the third and the fourth, ..., in the first
        columns of a row; one token without a neighbour is a pair, too. None where nothing is padding."""
        halved = Padding(self.behind[:, ::2])
        halved.lengths = (self.lengths + 1) // 2
        return halved._or_none()

    def to_front(self, inputs: Tensor) -> Tensor:
        """B×T×I → the same with the real tokens in the first columns, in order, and zeros behind them."""
        return inputs.masked_fill(self.mask.unsqueeze(2), 0.0).gather(1, self._order.expand_as(inputs))

    def from_front(self, outputs: Tensor) -> Tensor:
        """Inverse of ``to_front``: B×T×I → every token in its column, zeros on padding."""
        return outputs.gather(1, self._back.expand_as(outputs)).masked_fill(self.mask.unsqueeze(2), 0.0)

    def pack(self, inputs: Tensor) -> PackedSequence:
        """B×T×I → the real tokens, packed; a row without tokens is packed as one padding token."""
        inputs = inputs.gather(1, self._order.expand_as(inputs))
        return pack_padded_sequence(inputs, self.lengths.clamp(min=1), batch_first=True, enforce_sorted=False)

    def unpack(self, packed: PackedSequence) -> Tensor:
        """Packed → B×T×I, every token in its column."""
        outputs, _ = pad_packed_sequence(packed, batch_first=True, total_length=self.mask.size(1))
        return outputs.gather(1, self._back.expand_as(outputs))
