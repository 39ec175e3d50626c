"""BLEU of single sentences, as tutorials print it."""

from collections import Counter
from math import exp
from typing import Mapping, Sequence

from . import tables


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


def markdown(reference: Sequence[str], systems: Mapping[str, Sequence[str]], longest: int) -> str:
    """A row for each line of the reference, with the line of every system and its BLEU; the last has the means.

    Args:
        systems: by name as many lines as the reference has; blanks separate the words.
    """
    scores = {
        name: [sentence_bleu(right.split(), line.split(), longest) for right, line in zip(reference, lines)]
        for name, lines in systems.items()
    }
    rows = [["reference", *(name for each in systems for name in (each, f"BLEU, k = {longest}"))]]
    for number, right in enumerate(reference):
        cells = ((lines[number], f"{scores[name][number]:.3f}") for name, lines in systems.items())
        rows.append([right, *(cell for pair in cells for cell in pair)])
    means = (cell for found in scores.values() for cell in ("", f"{sum(found) / len(found):.3f}"))
    return tables.markdown([*rows, ["mean", *means]])
