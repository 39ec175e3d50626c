"""The reversal data as a fairseq dataset."""

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, data_utils
from fairseq.data.language_pair_dataset import collate

from .reversal_generator import alignment, is_training
from .reversal_problem import ReversalProblem, parse_symbols


class ReversalDataset(FairseqDataset):
    """One split: sources, their reversals and the gold alignments.

    An epoch is drawn at once, by each process that fetches items of it. Workers outlive an epoch and are not told of
    the next one, so the epoch is in memory that they share. With fresh data an item keeps its length and gets new
    symbols, so batches stay right.

    Args:
        problem: alphabet, lengths, sizes, seed.
        split: name of the split; it decides which sentences the split may hold.
        dictionary: has every symbol of the problem; source and target share it.
        left_pad_source: pad sources on the left instead of the right.

    Sizes count ``</s>``, which ends both sides.
    """

    def __init__(self, problem: ReversalProblem, split: str, dictionary: Dictionary, left_pad_source: bool = False):
        self.problem, self.split, self.dictionary = problem, split, dictionary
        self.left_pad_source = left_pad_source
        self.training = is_training(split)
        self._fresh = self.training and problem.train_data == "fresh"
        self._tokens = np.array([dictionary.index(s) for s in parse_symbols(problem.symbols)] + [dictionary.eos()])
        self._gold = [torch.tensor(alignment(length)) for length in range(problem.split(split).longest + 1)]
        self._epoch = torch.ones(1, dtype=torch.long).share_memory_()
        self._draw(1)
        self.sizes = self._sentences.lengths + 1

    def set_epoch(self, epoch: int):
        """Switches to the data of an epoch (from 1), here and in the workers; only fresh training data differ."""
        self._epoch[0] = epoch

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        return True

    def _draw(self, epoch: int):
        self._sentences, self._drawn = self.problem.sentences(self.split, epoch), epoch

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> dict:
        epoch = int(self._epoch)
        if self._fresh and epoch != self._drawn:
            self._draw(epoch)
        length = self._sentences.lengths[index]
        source = np.full(length + 1, -1)  # the last of the tokens is </s>
        target = source.copy()
        source[:length] = self._sentences.symbols[index, :length]
        target[:length] = source[:length][::-1]
        return {
            "id": index,
            "source": torch.from_numpy(self._tokens[source]),
            "target": torch.from_numpy(self._tokens[target]),
            "alignment": self._gold[length],
        }

    def collater(self, samples) -> dict:
        """fairseq's batch, with the ``alignments`` and ``align_weights`` of its criterion with an alignment loss."""
        samples = [{**sample, "alignment": None} for sample in samples]  # fairseq's loop would double the time
        batch = collate(samples, self.dictionary.pad(), self.dictionary.eos(), left_pad_source=self.left_pad_source)
        if batch:
            batch["alignments"] = self._alignments(batch)
            batch["align_weights"] = torch.ones(len(batch["alignments"]))
        return batch

    def _alignments(self, batch: dict) -> torch.Tensor:
        """Gold alignments, N×2: columns of B×S ``src_tokens``, and positions of the flattened B×T ``target``."""
        lengths = batch["net_input"]["src_lengths"] - 1
        rows = torch.arange(len(lengths)).repeat_interleave(lengths)
        positions = torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]
        sources = lengths[rows] - 1 - positions
        if self.left_pad_source:
            sources += batch["net_input"]["src_tokens"].size(1) - 1 - lengths[rows]
        return torch.stack([sources, rows * batch["target"].size(1) + positions], dim=1)

    def size(self, index: int):
        return self.sizes[index], self.sizes[index]

    def num_tokens(self, index: int) -> int:
        return self.sizes[index]

    def num_tokens_vec(self, indices) -> np.ndarray:
        return self.sizes[indices]

    def ordered_indices(self) -> np.ndarray:
        """By length, training sentences of one length in random order (from the seed that fairseq sets)."""
        indices = np.random.permutation(len(self)) if self.training else np.arange(len(self))
        return indices[np.argsort(self.sizes[indices], kind="stable")].astype(np.int64)

    def filter_indices_by_size(self, indices, max_sizes):
        return data_utils.filter_paired_dataset_indices_by_size(self.sizes, self.sizes, indices, max_sizes)
