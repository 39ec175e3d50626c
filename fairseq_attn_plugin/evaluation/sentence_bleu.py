"""BLEU of one sentence, as tutorials print it."""

from collections import Counter
from math import exp
from typing import Sequence


def sentence_bleu(reference: Sequence[str], hypothesis: Sequence[str], longest: int) -> float:
    """exp(min(0, 1 - |reference| / |hypothesis|)) · the product of p(n)^(1/2^n) for n = 1 to ``longest``, from 0 to 1.

    p(n) is the share of the hypothesis's n-grams that are in the reference, each at most as often as there (Zhang et
    al., Dive into Deep Learning, 2023, section 10.7.6). Unlike sacrebleu's, its weights favour long n-grams, and it is
    defined for a sentence as short as ``go .``. A hypothesis shorter than ``longest`` has as many p(n) as it has words;
    an empty one has 0.

    Args:
        longest: k, of the n-grams, at least 1.
    """
    if not hypothesis:
        return 0.0
    score = exp(min(0.0, 1 - len(reference) / len(hypothesis)))
    for n in range(1, min(longest, len(hypothesis)) + 1):
        found, known = (
            Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
            for words in (hypothesis, reference)
        )
        score *= ((found & known).total() / found.total()) ** (0.5**n)
    return score
