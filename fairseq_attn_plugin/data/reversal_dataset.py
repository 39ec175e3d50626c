"""The reversal data as a fairseq dataset."""

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, data_utils
from fairseq.data.language_pair_dataset import collate

from .reversal_generator import alignment, is_training
from .reversal_problem import ReversalProblem, parse_symbols


class ReversalDataset(FairseqDataset):
    """One split: sources, their reversals and the gold alignments.

    A whole epoch is drawn at once, in the process that builds the batches. With fresh data fairseq asks for new batches
    and starts new workers for each epoch (``can_reuse_epoch_itr_across_epochs`` is false), so workers see the new data.

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
        self.fresh = self.training and problem.train_data == "fresh"
        self._tokens = np.array([dictionary.index(s) for s in parse_symbols(problem.symbols)] + [dictionary.eos()])
        longest = problem.split(split).longest
        self._alignments = [torch.tensor(alignment(length)).long().view(-1, 2) for length in range(longest + 1)]
        self._epoch = None
        self.set_epoch(1)

    def set_epoch(self, epoch: int):
        """Draws the data of an epoch, counted from 1; only fresh training data differ between epochs."""
        if self._epoch is None or (self.fresh and epoch != self._epoch):
            self._sentences = self.problem.sentences(self.split, epoch)
            self.sizes = self._sentences.lengths + 1
            self._epoch = epoch

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        return not self.fresh

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> dict:
        length = self._sentences.lengths[index]
        source = np.full(length + 1, -1)  # the last of the tokens is </s>
        target = source.copy()
        source[:length] = self._sentences.symbols[index, :length]
        target[:length] = source[:length][::-1]
        return {
            "id": index,
            "source": torch.from_numpy(self._tokens[source]),
            "target": torch.from_numpy(self._tokens[target]),
            "alignment": self._alignments[length],
        }

    def collater(self, samples) -> dict:
        return collate(samples, self.dictionary.pad(), self.dictionary.eos(), left_pad_source=self.left_pad_source)

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
