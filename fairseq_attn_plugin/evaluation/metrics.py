"""Accuracies of decoded sentences (sequences of symbols or of token numbers, without ``</s>``), BLEU and chrF; what
attention weights are like."""

from dataclasses import dataclass
from typing import Dict, Hashable, List, Optional, Sequence, Tuple

import numpy as np
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.base import Metric

Sentence = Sequence[Hashable]


@dataclass
class Counts:
    """Sums over sentences, from which the accuracies follow; sums of parts add up to the sums of the whole.

    Attributes:
        sentences: number of sentences.
        correct: number of hypotheses that equal their reference.
        distance: edit distances (Levenshtein).
        length: lengths of the longer of reference and hypothesis.
    """

    sentences: int = 0
    correct: int = 0
    distance: int = 0
    length: int = 0

    def add(self, reference: Sentence, hypothesis: Sentence) -> None:
        """Counts one sentence."""
        distance = Levenshtein.distance(reference, hypothesis)
        self.sentences += 1
        self.correct += distance == 0
        self.distance += distance
        self.length += max(len(reference), len(hypothesis))

    @property
    def sentence_accuracy(self) -> float:
        return sentence_accuracy(self.correct, self.sentences)

    @property
    def token_accuracy(self) -> float:
        return token_accuracy(self.distance, self.length)


def sentence_accuracy(correct: float, sentences: float) -> float:
    """Hypotheses that equal their reference, in percent; of no sentence at all, 0."""
    return 100.0 * correct / sentences if sentences else 0.0


def token_accuracy(distance: float, length: float) -> float:
    """100 (1 - sum of edit distances / sum of the longer lengths), in percent; of nothing but empty sentences, 100."""
    return 100.0 * (1 - distance / length) if length else 100.0


def count(references: Sequence[Sentence], hypotheses: Sequence[Sentence]) -> Counts:
    """Counts over pairs of one reference and one hypothesis each.

    Raises:
        ValueError: the numbers of references and hypotheses differ.
    """
    counts = Counts()
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        counts.add(reference, hypothesis)
    return counts


def count_by_length(
    references: Sequence[Sentence], hypotheses: Sequence[Sentence], width: int = 5
) -> Dict[Tuple[int, int], Counts]:
    """Counts by length of the reference, in buckets 1..width, width+1..2 width, ...; ascending, empty ones left out.

    An empty reference is in the bucket 0..0. Keys are (shortest, longest) in symbols.

    Raises:
        ValueError: ``width`` below 1, or the numbers of references and hypotheses differ.
    """
    if width < 1:
        raise ValueError(f"the width of a length bucket is {width}; give 1 or more")
    buckets: Dict[Tuple[int, int], Counts] = {}
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        last = -(-len(reference) // width) * width
        buckets.setdefault((last - width + 1 if last else 0, last), Counts()).add(reference, hypothesis)
    return dict(sorted(buckets.items()))


def aligned(attended: Sequence[int], gold: Sequence[int]) -> int:
    """How many target positions attend most to their gold source position.

    Args:
        attended: for each position of the hypothesis, the source position with the largest weight.
        gold: for each position of the reference, its source position. Positions that the hypothesis lacks are wrong;
            positions beyond the reference do not count.

    The alignment accuracy is the sum of this over the sum of the reference lengths.
    """
    return sum(position == right for position, right in zip(attended, gold, strict=False))


def alignment_accuracy(right: float, positions: float) -> float:
    """Target positions that attend most to their gold source position, in percent; of no position, 0."""
    return 100.0 * right / positions if positions else 0.0


def error_rate(distance: float, length: float) -> float:
    """Edit distance over the length of the references, in percent (a character or a word error rate); it can be more
    than 100. Of references without any symbol, 0 where nothing was said, else 100."""
    return 100.0 * distance / length if length else 100.0 * bool(distance)


class CorpusScore:
    """A score of sacrebleu's, from statistics that add up: sums over parts of a corpus give the score of the whole.

    Attributes:
        name: ``bleu`` (13a, cased) or ``chrf`` (chrF2).
        size: how many numbers its statistics are.
    """

    def __init__(self, name: str):
        self.name = name
        self._metric: Metric = BLEU(force=True) if name == "bleu" else CHRF()
        self.size = len(self.statistics([""], [""]))

    def statistics(self, references: Sequence[str], hypotheses: Sequence[str]) -> List[int]:
        """Sums over pairs of one reference and one hypothesis each, of which there is at least one."""
        return [sum(column) for column in zip(*self._metric._extract_corpus_statistics(hypotheses, [references]))]

    def score(self, *statistics: float) -> float:
        """The score of a corpus, 0 to 100."""
        return self._metric._compute_score_from_stats(list(statistics)).score

    @property
    def signature(self) -> str:
        """sacrebleu's, its version included."""
        return str(self._metric.get_signature())


# Attention


@dataclass
class AttentionSums:
    """Sums over a batch of attention weights, from which metrics follow; sums of parts add up to those of the whole.

    Attributes:
        entropy: of the weights of each target word, in nats.
        words: target words, ``</s>`` included.
        covered: for each source word the sum of its weights over the target words, at most 1.
        sources: source words, ``</s>`` left out.
        forward: steps from one target word to the next whose largest weight is not before that of the word before.
        steps: such steps.
        right: target words whose largest weight is on a source position that they are aligned to.
        aligned: target words that are aligned.
    """

    entropy: float = 0.0
    words: float = 0.0
    covered: float = 0.0
    sources: float = 0.0
    forward: float = 0.0
    steps: float = 0.0
    right: float = 0.0
    aligned: float = 0.0


def attention_sums(
    weights: np.ndarray, is_source: np.ndarray, is_word: np.ndarray, alignments: Optional[np.ndarray] = None
) -> AttentionSums:
    """
    Args:
        weights: B×T×S, zero on source padding.
        is_source: B×S bool, the source words that are to be covered.
        is_word: B×T bool, the target words.
        alignments: N×2, columns of the source and positions of the flattened B×T targets; None where none are known.
    """
    weights = weights.astype(np.float64) * is_word[:, :, None]
    attended = weights.argmax(axis=2)
    steps = is_word[:, 1:] & is_word[:, :-1]
    logarithms = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    sums = AttentionSums(
        entropy=float(-(weights * logarithms).sum()),
        words=float(is_word.sum()),
        covered=float(np.minimum(weights.sum(axis=1), 1.0)[is_source].sum()),
        sources=float(is_source.sum()),
        forward=float((attended[:, 1:] >= attended[:, :-1])[steps].sum()),
        steps=float(steps.sum()),
    )
    if alignments is not None:
        columns, positions = alignments.reshape(-1, 2).T
        right = positions[attended.reshape(-1)[positions] == columns]
        sums.right, sums.aligned = float(len(np.unique(right))), float(len(np.unique(positions)))
    return sums


def attention_entropy(entropy: float, words: float) -> float:
    """Mean entropy of the weights of a target word, in nats; of no word, 0."""
    return entropy / words if words else 0.0


def share(part: float, whole: float) -> float:
    """In percent; of nothing, 0."""
    return 100.0 * part / whole if whole else 0.0
