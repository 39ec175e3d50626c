"""fairseq's dropout with a faster source of randomness on the CPU."""

import math
from typing import Sequence

import torch
from fairseq.modules import FairseqDropout
from torch import Tensor

LEVELS = 1 << 16


class Dropout(FairseqDropout):
    """Dropout whose masks on the CPU come from 16 random bits a number, where torch's own draw 64 one by one: the rate
    is rounded to a multiple of 2^-16, and the scale is that of the rounded rate."""

    @property
    def is_active(self) -> bool:
        """False where this is the identity."""
        return self.p > 0 and (self.training or self.apply_during_inference)

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x, inplace)
        return x * self.mask(x.shape, x) if self.is_active else x

    def mask(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Random factors, 0 with probability p and else 1/(1-p), in the type and on the device of ``like``."""
        if like.device.type != "cpu":
            return torch.nn.functional.dropout(like.new_ones(shape), self.p)
        dropped = round(self.p * LEVELS)
        if dropped == LEVELS:
            return like.new_zeros(shape)
        size = math.prod(shape)
        words = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        bits = words.view(torch.int16)[:size].view(shape)
        return (bits >= dropped - LEVELS // 2).to(like.dtype).mul_(LEVELS / (LEVELS - dropped))
