"""The reversal data as a fairseq dataset."""

from typing import Dict

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, data_utils
from torch.nn.utils.rnn import pad_sequence

from .reversal_generator import alignment, is_training
from .reversal_problem import ReversalProblem, parse_symbols


class ReversalDataset(FairseqDataset):
    """One split: sources, targets (reversals, or copies) and the gold alignments.

    An epoch is drawn at once, by each process that fetches items of it. Workers outlive an epoch and are not told of
    the next one, so the epoch is in memory that they share. With fresh data an item keeps its length and gets new
    symbols, so batches stay right.

    Args:
        problem: alphabet, lengths, sizes, seed, order.
        split: name of the split; it decides which sentences the split may hold.
        dictionary: has every symbol of the problem; source and target share it.
        left_pad_source: pad sources on the left instead of the right.

    Sizes count ``</s>``, which ends both sides.
    """

    def __init__(self, problem: ReversalProblem, split: str, dictionary: Dictionary, left_pad_source: bool = False):
        self.problem, self.split, self.dictionary = problem, split, dictionary
        self.left_pad_source = left_pad_source
        self.training = is_training(split)
        self._copies = problem.order == "copy"
        self._fresh = self.training and problem.train_data == "fresh"
        self._tokens = np.array([dictionary.index(s) for s in parse_symbols(problem.symbols)] + [dictionary.eos()])
        self._gold: Dict[int, torch.Tensor] = {}  # by length, for those that occur
        self._epoch = torch.ones(1, dtype=torch.long).share_memory_()
        self._draw(1)
        self.sizes = self._lengths + 1

    def set_epoch(self, epoch: int):
        """Switches to the data of an epoch (from 1), here and in the workers; only fresh training data differ."""
        self._epoch[0] = epoch

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        return True

    def _draw(self, epoch: int):
        symbols, self._lengths = self.problem.sentences(self.split, epoch)
        self._rows = np.pad(symbols, ((0, 0), (1, 1)), constant_values=-1)  # -1 on either side stands for </s>
        self._drawn = epoch

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> dict:
        epoch = int(self._epoch)
        if self._fresh and epoch != self._drawn:
            self._draw(epoch)
        row, length = self._rows[index], self._lengths[index]
        source = row[1 : length + 2]
        if length not in self._gold:
            self._gold[length] = torch.tensor(alignment(length, self.problem.order))
        return {
            "id": index,
            "source": torch.from_numpy(self._tokens[source]),
            "target": torch.from_numpy(self._tokens[source if self._copies else row[length::-1]]),
            "alignment": self._gold[length],
        }

    def collater(self, samples) -> dict:
        """The batch that fairseq's ``collate`` makes of such samples, several times faster: longest source first,
        with ``alignments`` and ``align_weights`` for the criterion with an alignment loss; ``{}`` of no sample."""
        if not samples:
            return {}
        pad, eos = self.dictionary.pad(), self.dictionary.eos()
        samples = sorted(samples, key=lambda sample: -len(sample["source"]))
        lengths = torch.tensor([len(sample["source"]) for sample in samples])
        side = "left" if self.left_pad_source else "right"
        source = pad_sequence([sample["source"] for sample in samples], True, pad, side)
        target = pad_sequence([sample["target"] for sample in samples], True, pad)
        previous = torch.full_like(target, eos)
        previous[:, 1:] = target[:, :-1].masked_fill(target[:, :-1] == eos, pad)
        alignments = self._alignments(source, target, lengths - 1)
        return {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "nsentences": len(samples),
            "ntokens": int(lengths.sum()),
            "net_input": {"src_tokens": source, "src_lengths": lengths, "prev_output_tokens": previous},
            "target": target,
            "alignments": alignments,
            "align_weights": torch.ones(len(alignments)),
        }

    def _alignments(self, source: torch.Tensor, target: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Gold alignments, N×2: columns of ``source`` (B×S) and positions of the flattened ``target`` (B×T)."""
        rows = torch.arange(len(lengths)).repeat_interleave(lengths)
        positions = torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]
        columns = positions if self._copies else lengths[rows] - 1 - positions
        if self.left_pad_source:
            columns = columns + source.size(1) - 1 - lengths[rows]
        return torch.stack([columns, rows * target.size(1) + positions], dim=1)

    def size(self, index: int):
        return self.sizes[index], self.sizes[index]

    def num_tokens(self, index: int) -> int:
        return self.sizes[index]

    def num_tokens_vec(self, indices) -> np.ndarray:
        return self.sizes[indices]

    def ordered_indices(self) -> np.ndarray:
        """By length; nothing random, so that a training resumed in the middle of an epoch has the same batches."""
        return np.argsort(self.sizes, kind="stable")

    def filter_indices_by_size(self, indices, max_sizes):
        return data_utils.filter_paired_dataset_indices_by_size(self.sizes, self.sizes, indices, max_sizes)
