"""Batches that lose no sentence."""

from typing import Optional

import numpy as np
from fairseq.tasks import FairseqTask


class EverySentence(FairseqTask):
    """To be inherited before a fairseq task: ``get_batch_iterator`` hands out every sentence.

    fairseq-fixed leaves the last batch out, the longest sentences, where their number is no multiple of
    ``--required-batch-size-multiple``; and validation would end at a sentence that is longer than ``--max-tokens``.
    """

    def may_lose_sentences(self, dataset) -> bool:
        """Whether fairseq's way is good enough for ``dataset``."""
        return False

    def is_split(self, dataset) -> bool:
        """Whether ``dataset`` is one of the task's splits, not lines that someone typed."""
        return any(dataset is loaded for loaded in self.datasets.values())

    def filter_indices_by_size(self, indices, dataset, max_positions=None, ignore_invalid_inputs=False):
        """fairseq's; a ValueError where it leaves nothing of a split, of which fairseq would make no batch."""
        kept = super().filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)
        if len(indices) and not len(kept) and self.is_split(dataset):
            raise ValueError(
                f"each of {len(indices)} sentence pairs has more tokens than the model takes, {max_positions} with "
                "</s>; raise --max-source-positions and --max-target-positions, or --attention-location-positions"
            )
        return kept

    def get_batch_iterator(
        self,
        dataset,
        max_tokens: Optional[int] = None,
        *args,
        required_batch_size_multiple: int = 1,
        disable_iterator_cache: bool = False,
        **kwargs,
    ):
        """fairseq's, but no sentence is dropped, and no iterator over typed lines is kept. Outside training a sentence
        that is longer than ``max_tokens`` makes every batch so large."""
        if not self.may_lose_sentences(dataset) or len(dataset) < required_batch_size_multiple:
            required_batch_size_multiple = 1
        training = self.datasets.get(getattr(self.cfg, "train_subset", "train"))
        if max_tokens is not None and len(dataset) and dataset is not training:
            max_tokens = max(max_tokens, int(dataset.num_tokens_vec(np.arange(len(dataset))).max()))
        return super().get_batch_iterator(
            dataset,
            max_tokens,
            *args,
            required_batch_size_multiple=required_batch_size_multiple,
            disable_iterator_cache=disable_iterator_cache or not self.is_split(dataset),
            **kwargs,
        )
