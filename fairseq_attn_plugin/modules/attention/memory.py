"""What the decoder attends to: a batch of encoded sentences, shared by all hypotheses of each sentence."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from ..carry import tree_map
from ..copying import Copies
from ..recurrence.padding import token_columns, token_positions
from ..recurrence.pyramid import SourceColumns
from ..recurrence.shared_products import once


class Places(NamedTuple):
    """Where the real tokens of each sentence are, counted from the first one, whichever side is padded. int64."""

    positions: Tensor
    """B×S: which token of its sentence stands in a column; on padding that of the last real one before it, or 0."""

    lengths: Tensor
    """B×1: number of real tokens."""

    columns: Tensor
    """B×S: in which column a token stands; behind the last token, columns of padding."""


@dataclass(frozen=True)
class AttentionMemory:
    """Encoded sentences, each read by ``beam`` rows of the decoder in a row: row i reads sentence i // beam.

    In search the hypotheses of a sentence read one copy of its values and keys: reordering copies nothing as long as
    the sentences stay, and shrinks the memory when some have ended.

    Args:
        values: B×S×M encoder outputs.
        keys: B×S×A key half of the score, computed once a sentence.
        padding_mask: B×S bool, True = padding; None where no sentence is padded.
        beam: K, decoder rows for each sentence.
        language: B×E embedding of the tag that says which language is wanted; None = nothing reads it.
        source_columns: where the S positions are fewer than the columns of the source, which columns each stands for;
            None = the positions are those columns.
        copies: what the columns of the source have to copy; None = nothing is copied.
    """

    values: Tensor
    keys: Tensor
    padding_mask: Optional[Tensor] = None
    beam: int = 1
    language: Optional[Tensor] = None
    source_columns: Optional[SourceColumns] = None
    copies: Optional[Copies] = None

    @property
    def places(self) -> Places:
        """Worked out once a search, or once a batch, for all heads."""
        return once(_places, self.padding_mask, self.values.shape[:2], self.values.device)

    def select(self, index: Tensor) -> "AttentionMemory":
        """The sentences of ``index`` (int64), copied."""
        mask = self.padding_mask
        keys = self.keys.index_select(0, index)
        return replace(
            self,
            values=keys if self.keys is self.values else self.values.index_select(0, index),
            keys=keys,
            padding_mask=None if mask is None else mask.index_select(0, index),
            language=None if self.language is None else self.language.index_select(0, index),
            source_columns=tree_map(lambda part: part.index_select(0, index), self.source_columns),
            copies=tree_map(lambda part: part.index_select(0, index), self.copies),
        )

    def reorder(self, new_order: Tensor) -> "AttentionMemory":
        """Row i of the result reads what row ``new_order[i]`` (R' int64) read before.

        fairseq's searches first repeat every row, then move hypotheses within their sentence and drop whole sentences.
        The number of rows says which of these it is, so that a GPU is not waited for; any other order gives every row
        a copy of its sentence.

        Raises:
            RuntimeError: on a GPU, where the assertion comes with a later call: the number of rows is one that fairseq
                has in its searches, and the order is another.
        """
        batch, rows = self.values.size(0), new_order.numel()
        sentences = new_order.div(self.beam, rounding_mode="floor")
        beam = rows // batch if self.beam == 1 and rows >= batch > 0 else self.beam
        if rows and rows % beam == 0 and rows <= batch * beam:
            grid = sentences.view(-1, beam)
            stays = len(grid) == batch
            first = torch.arange(batch, device=grid.device).unsqueeze(1) if stays else grid[:, :1]
            if _holds((grid == first).all()):
                return replace(self if stays else self.select(grid[:, 0]), beam=beam)
        return replace(self.select(sentences), beam=1)

    def each_row(self, by_sentence: Tensor) -> Tensor:
        """B×… → R×…, that of the sentence which each row of the decoder reads."""
        return by_sentence if self.beam == 1 else by_sentence.repeat_interleave(self.beam, dim=0)

    def language_for(self, state: Tensor) -> Optional[Tensor]:
        """The language of each row, R×E beside a ``state`` R×H; of all steps, R×T×E beside R×T×H. None where it is not
        known."""
        if self.language is None:
            return None
        language = self.each_row(self.language)
        return language if state.dim() == 2 else language.unsqueeze(1).expand(-1, state.size(1), -1)

    def in_source_columns(self, weights: Tensor) -> Tensor:
        """R×T×S weights over the positions → over the columns of the source, zero on its padding."""
        if self.source_columns is None:
            return weights
        positions, shares = (self.each_row(part).unsqueeze(1) for part in self.source_columns)
        return weights.gather(2, positions.expand(-1, weights.size(1), -1)) * shares.type_as(weights)

    def copies_of_rows(self) -> Optional[Copies]:
        """What each row of the decoder can copy, R×S."""
        return tree_map(self.each_row, self.copies)

    def mean(self) -> Tensor:
        """Mean of each row's values, padding left out: R×M; zero where all is padding."""
        if self.padding_mask is None:
            return self.each_row(self.values.mean(dim=1))
        real = (~self.padding_mask).unsqueeze(2).type_as(self.values)
        return self.each_row((self.values * real).sum(dim=1) / real.sum(dim=1).clamp(min=1))


def _places(padding_mask: Optional[Tensor], shape: torch.Size, device: torch.device) -> Places:
    mask = torch.zeros(shape, dtype=torch.bool, device=device) if padding_mask is None else padding_mask
    return Places(token_positions(mask), (~mask).sum(dim=1, keepdim=True), token_columns(mask))


def _holds(condition: Tensor) -> bool:
    """On a GPU, which is not waited for: True, and an assertion there."""
    if condition.device.type == "cpu":
        return bool(condition)
    torch._assert_async(condition, "the rows of a sentence do not stay together; reorder on the CPU, or whole beams")
    return True
