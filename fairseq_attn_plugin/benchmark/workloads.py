"""What is measured: sizes of dictionaries, models and batches, and one batch of them."""

from dataclasses import dataclass
from typing import Dict

import torch
from fairseq.data import Dictionary
from fairseq.data.language_pair_dataset import collate
from fairseq.tasks import FairseqTask
from fairseq.utils import move_to_cuda


@dataclass(frozen=True)
class Workload:
    """Sizes. The encoder reads both ways, each half as wide as the decoder, so that M = H."""

    vocabulary: int
    """Entries of either dictionary, fairseq's own four included."""

    embed_dim: int
    hidden_dim: int
    """H."""

    sentences: int
    """B, sentences of a batch."""

    source_length: int
    """S, the longest source of a batch, ``</s>`` included."""

    target_length: int
    """T, likewise; every hypothesis of a search has this length."""

    layers: int = 1
    """Of the encoder and of the decoder."""

    def __str__(self) -> str:
        depth = f", {self.layers} layers" if self.layers > 1 else ""
        return (
            f"{self.vocabulary:,} words, embedding {self.embed_dim}, hidden {self.hidden_dim}{depth}, "
            f"{self.sentences} sentences of {self.source_length} and {self.target_length} tokens"
        )


WORKLOADS: Dict[str, Workload] = {
    "reversal": Workload(12, 64, 128, sentences=128, source_length=15, target_length=15),
    "g2p": Workload(64, 128, 512, sentences=256, source_length=10, target_length=10),
    "nmt15": Workload(8000, 256, 512, sentences=64, source_length=15, target_length=15),
    "nmt30": Workload(8000, 256, 512, sentences=64, source_length=30, target_length=30),
    "nmt-deep": Workload(32000, 512, 1024, sentences=64, source_length=30, target_length=30, layers=2),
}
GROUPS = {"nmt": ("nmt15", "nmt30")}
GPU_ONLY = ("nmt-deep",)
"""Not measured on a CPU unless asked for by name."""


class SyntheticTask(FairseqTask):
    """Two dictionaries of one size and no data."""

    def __init__(self, vocabulary: int):
        super().__init__(None)
        self._dictionary = Dictionary()
        for number in range(vocabulary - len(self._dictionary)):
            self._dictionary.add_symbol(f"w{number}")

    @property
    def source_dictionary(self) -> Dictionary:
        return self._dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        return self._dictionary

    def max_positions(self):
        return 1024, 1024


def random_batch(workload: Workload, task: SyntheticTask, device: str, mixed: bool = False, seed: int = 1) -> dict:
    """A batch of random words as fairseq's translation task makes it: sources padded on the left, longest first.

    Args:
        mixed: lengths between half and all of the workload's; False = all equal, no padding.
    """
    generator = torch.Generator().manual_seed(seed)
    words = task.target_dictionary

    def sentence(longest: int) -> torch.Tensor:
        shortest = max(2, longest // 2) if mixed else longest
        length = int(torch.randint(shortest, longest + 1, (), generator=generator))
        symbols = torch.randint(words.nspecial, len(words), (length - 1,), generator=generator)
        return torch.cat([symbols, torch.tensor([words.eos()])])

    samples = [
        {"id": i, "source": sentence(workload.source_length), "target": sentence(workload.target_length)}
        for i in range(workload.sentences)
    ]
    batch = collate(samples, words.pad(), words.eos(), left_pad_source=True, left_pad_target=False)
    return move_to_cuda(batch) if device == "cuda" else batch
