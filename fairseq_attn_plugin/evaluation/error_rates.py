"""Error rates of lines, with confidence intervals and paired tests: how many lines are wrong, how many symbols.

Bootstrap and tests are those of sacrebleu (``sacrebleu.significance``), number for number: the same resamples of the
same seed (``SACREBLEU_SEED``, 12345 where it is not set, ``none`` for another one each time), half of the 95 %
interval, the p-value of Koehn (2004) as Moses works it out.
"""

import os
import unicodedata
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from . import metrics

RESAMPLES = 1000
UNITS = {"CER": "character", "SER": "symbol"}
"""Error rates and what they count: characters, blanks among them, or symbols, which is what blanks separate."""
RATES = ("WER", *UNITS)
MEANINGS = {
    "WER": "lines that differ from the reference (word error rate)",
    "CER": "edits over characters of the references (character error rate)",
    "SER": "edits over symbols of the references (symbol error rate; of phones: phone error rate)",
}


def plain(line: str, symbols: bool = False, lowercase: bool = False) -> Sequence[str]:
    """What is compared: characters in NFC, white space of any kind one blank; or what blanks separate."""
    line = unicodedata.normalize("NFC", line.lower() if lowercase else line)
    return line.split() if symbols else " ".join(line.split())


def line_counts(rate: str, reference: Sequence[str], lines: Sequence[str], lowercase: bool = False) -> np.ndarray:
    """N×2 int: errors of each line and what they are out of, so that any set of lines has the rate
    100 · Σ errors / Σ lengths.

    Args:
        rate: ``WER``: 1 where the line differs from its one reference, out of 1; ``CER``, ``SER``: edits (Levenshtein),
            out of the characters, or the symbols, of the reference.
        reference, lines: N texts each.

    Raises:
        ValueError: the numbers of lines differ; a rate that there is not.
    """
    if rate not in RATES:
        raise ValueError(f"{rate}: no error rate; choose from {', '.join(RATES)}")
    counts = []
    for right, line in zip(reference, lines, strict=True):
        expected, found = (plain(text, rate == "SER", lowercase) for text in (right, line))
        if rate == "WER":
            counts.append((int(expected != found), 1))
        else:
            counts.append((Levenshtein.distance(expected, found), len(expected)))
    return np.array(counts, dtype=np.int64).reshape(-1, 2)


def compare(counts: Sequence[np.ndarray]) -> List[Dict[str, float]]:
    """Rates of systems on the same N lines, the first the baseline of the tests.

    Args:
        counts: for each system N×2, see :func:`line_counts`, N at least 1. Lines of several languages can stand one
            after the other: that is one test set of all of them.

    Returns:
        For each system ``score``, ``mean`` and ``ci`` (half of the 95 % interval) of the resamples, in percent, and but
        for the baseline ``p_value``.
    """
    seed = _seed()
    drawn = resamples(len(counts[0]), seed)
    found, samples = [], []
    for each in counts:
        samples.append(np.array([metrics.error_rate(*each[row].sum(axis=0).tolist()) for row in drawn]))
        found.append({"score": metrics.error_rate(*each.sum(axis=0).tolist()), **interval(samples[-1])})
    for system, values in zip(found[1:], samples[1:]):
        differences = np.abs(values - samples[0])
        further = differences - differences.mean() > abs(system["score"] - found[0]["score"])
        system["p_value"] = float((further.sum() + 1) / (RESAMPLES + 1))
    return found


def resamples(lines: int, seed: Optional[int]) -> np.ndarray:
    """``RESAMPLES``×N line numbers, drawn with replacement."""
    return np.random.default_rng(seed).choice(lines, size=(RESAMPLES, lines), replace=True)


def interval(values: np.ndarray) -> Dict[str, float]:
    """``mean`` and ``ci``, half of the 95 % interval, of the rates of resamples."""
    ordered = np.sort(values)
    least = len(ordered) // 40
    return {"mean": float(values.mean()), "ci": float(ordered[-1 - least] - ordered[least]) / 2}


def error_rates(
    reference: Sequence[str], systems: Mapping[str, Sequence[str]], rates: Sequence[str], lowercase: bool = False
) -> Tuple[Dict[str, List[Dict[str, float]]], Dict[str, str]]:
    """({rate: what :func:`compare` gives for the systems, in their order}, {rate: signature}).

    Args:
        systems: name → as many lines as the reference has; the first is the baseline.
        rates: of ``RATES``.
    """
    values = {rate: compare([line_counts(rate, reference, lines, lowercase) for lines in systems.values()])
              for rate in rates}  # fmt: skip
    return values, {rate: signature(rate, lowercase) for rate in rates}


def signature(rate: str, lowercase: bool = False) -> str:
    """What the numbers depend on, in the form of sacrebleu's."""
    seed = _seed()
    said = {
        "nrefs": 1, "bs": RESAMPLES, "seed": "none" if seed is None else seed, "case": "lc" if lowercase else "mixed",
        "unit": {"WER": "line", **UNITS}[rate], "norm": "nfc",
    }  # fmt: skip
    return "|".join(f"{name}:{value}" for name, value in said.items())


def _seed() -> Optional[int]:
    seed = os.environ.get("SACREBLEU_SEED", "12345")
    if seed.lower() == "none":
        return None
    if not seed.isdecimal():
        raise ValueError(f"SACREBLEU_SEED: got '{seed}'; give a whole number, or none")
    return int(seed)
