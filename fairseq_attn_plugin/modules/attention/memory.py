"""What the decoder attends to: a batch of encoded sentences, shared by all hypotheses of each sentence."""

from dataclasses import dataclass, replace
from typing import Optional, Tuple

import torch
from torch import Tensor

from ..recurrence.shared_products import once


@dataclass(frozen=True)
class AttentionMemory:
    """Encoded sentences, and which of them each row of the decoder reads.

    In search a sentence has K hypotheses. They read one copy of the values and keys: reordering changes ``row_index``
    alone, and the memory shrinks only when a sentence has ended.

    Args:
        values: B×S×M encoder outputs.
        keys: B×S×A key half of the score, computed once a sentence.
        padding_mask: B×S bool, True = padding; None where no sentence is padded.
        row_index: R int64, decoder row → sentence; None where row i reads sentence i.
    """

    values: Tensor
    keys: Tensor
    padding_mask: Optional[Tensor] = None
    row_index: Optional[Tensor] = None

    @property
    def rows(self) -> int:
        """R, the number of decoder rows."""
        return self.values.size(0) if self.row_index is None else self.row_index.numel()

    def select(self, index: Tensor) -> "AttentionMemory":
        """The sentences of ``index`` (int64), copied; row i of the result reads sentence ``index[i]``."""
        mask = self.padding_mask
        keys = self.keys.index_select(0, index)
        return AttentionMemory(
            values=keys if self.keys is self.values else self.values.index_select(0, index),
            keys=keys,
            padding_mask=None if mask is None else mask.index_select(0, index),
        )

    def reorder(self, new_order: Tensor) -> "AttentionMemory":
        """Row i of the result reads what row ``new_order[i]`` (R' int64) read before."""
        rows = new_order if self.row_index is None else self.row_index.index_select(0, new_order)
        if self.row_index is not None and torch.equal(rows, self.row_index):
            return self
        sentences, row_index, counts = torch.unique_consecutive(rows, return_inverse=True, return_counts=True)
        whole_beams = bool((counts == counts[0]).all()) if counts.numel() else False
        if whole_beams and sentences.numel() < self.values.size(0):
            return replace(self.select(sentences), row_index=row_index)
        return replace(self, row_index=rows)

    def mean(self) -> Tensor:
        """Mean of each row's values, padding left out: R×M; zero where all is padding."""
        if self.padding_mask is None:
            means = self.values.mean(dim=1)
        else:
            real = (~self.padding_mask).unsqueeze(2).type_as(self.values)
            means = (self.values * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return means if self.row_index is None else means.index_select(0, self.row_index)

    def by_sentence(self) -> Tuple["AttentionMemory", int]:
        """This memory and K, where each sentence is read by K rows in a row; else one that has a copy of its sentence
        for every row, and 1."""
        if self.row_index is None:
            return self, 1
        values, keys, mask, beam = once(_by_sentence, self.values, self.keys, self.padding_mask, self.row_index)
        return (self, beam) if values is self.values else (AttentionMemory(values, keys, mask), 1)

    def beam_size(self) -> Optional[int]:
        """K where rows K·b to K·b+K-1 read sentence b for every b; None for any other pattern."""
        return 1 if self.row_index is None else _beam_size(self.values.size(0), self.row_index)


def _by_sentence(values: Tensor, keys: Tensor, mask: Optional[Tensor], row_index: Tensor):
    """Parts of the memory that ``by_sentence`` gives, and K."""
    beam = _beam_size(values.size(0), row_index)
    if beam is not None:
        return values, keys, mask, beam
    copy = AttentionMemory(values, keys, mask).select(row_index)
    return copy.values, copy.keys, copy.padding_mask, 1


def _beam_size(batch: int, row_index: Tensor) -> Optional[int]:
    if batch == 0 or row_index.numel() % batch:
        return None
    beam = row_index.numel() // batch
    grid = row_index.view(batch, beam)
    sentences = torch.arange(batch, device=grid.device).unsqueeze(1)
    return beam if torch.equal(grid, sentences.expand_as(grid)) else None
