"""Scores of translations as text: sacrebleu's BLEU, chrF and TER, with confidence intervals and paired tests."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from . import metrics, tables

TOKENIZERS = sorted(BLEU.TOKENIZERS)
RESAMPLES = 1000


@dataclass
class Scored:
    """Scores of one or more translations of one text.

    Attributes:
        systems: names, the baseline first.
        sentences: number of lines.
        values: metric → one dict per system with ``score`` and, for sacrebleu's, ``mean`` and ``ci`` (half of the 95 %
            interval) over bootstrap resamples, ``p_value`` against the baseline (not for the baseline itself).
        signatures: sacrebleu's, by metric.
    """

    systems: List[str]
    sentences: int
    values: Dict[str, List[Dict[str, float]]]
    signatures: Dict[str, str]


def read_lines(path) -> List[str]:
    r"""Lines of a text; only ``\n`` ends one, the last may lack it. A byte order mark is left out.

    Raises:
        ValueError: not UTF-8, with the line.
        OSError: no such file.
    """
    lines = Path(path).read_bytes().split(b"\n")
    if not lines[-1]:
        lines.pop()
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.decode("utf-8").removeprefix("\ufeff" if number == 1 else ""))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file, with iconv") from None
    return texts


def read_system(path, reference: Sequence[str], reference_path) -> List[str]:
    """Lines of a translation. ValueError: their number differs from the reference's, or there are none."""
    lines = read_lines(path)
    if len(lines) != len(reference):
        raise ValueError(
            f"{path}: {len(lines):,} lines, and {reference_path} has {len(reference):,}; "
            "line n of both belongs to sentence n"
        )
    if not lines:
        raise ValueError(f"{path}: empty; there is nothing to score")
    return lines


def score(
    reference: Sequence[str],
    systems: Mapping[str, Sequence[str]],
    lowercase: bool = False,
    tokenize: Optional[str] = None,
    units: Sequence[str] = (),
) -> Scored:
    """Scores every system; the first is the baseline of the paired bootstrap tests (Koehn, 2004).

    Args:
        systems: name → as many lines as the reference has.
        lowercase: without regard to case, in all metrics (TER never regards it).
        tokenize: sacrebleu's tokeniser for BLEU (default: 13a); chrF and TER have their own.
        units: ``character``, ``symbol`` (what blanks separate): exact matches and these error rates as well.
    """
    wanted = {
        "BLEU": BLEU(lowercase=lowercase, tokenize=tokenize, force=True),
        "chrF": CHRF(lowercase=lowercase),
        "TER": TER(),
    }
    signatures, found = PairedTest(list(systems.items()), wanted, [list(reference)], "bs", RESAMPLES)()
    values: Dict[str, List[Dict[str, float]]] = {name: [_numbers(result) for result in results]
                                                 for name, results in found.items() if name != "System"}  # fmt: skip
    for unit in units:
        values.update(_unit_scores(reference, list(systems.values()), lowercase, unit))
    return Scored(list(systems), len(reference), values, {name: str(value) for name, value in signatures.items()})


def _numbers(result) -> Dict[str, float]:
    return {name: float(value) for name, value in vars(result).items() if value is not None}


def _unit_scores(reference, systems, lowercase: bool, unit: str) -> Dict[str, List[Dict[str, float]]]:
    """Over text in NFC, white space as single blanks, which are characters, too."""
    right = [_plain(line, lowercase, unit) for line in reference]
    length, exact, errors = sum(map(len, right)), [], []
    for lines in systems:
        counts = metrics.count(right, [_plain(line, lowercase, unit) for line in lines])
        exact.append({"score": counts.sentence_accuracy})
        errors.append({"score": metrics.error_rate(counts.distance, length)})
    return {"exact match": exact, f"{unit} error rate": errors}


def _plain(line: str, lowercase: bool, unit: str) -> Sequence[str]:
    line = unicodedata.normalize("NFC", line.lower() if lowercase else line)
    return line.split() if unit == "symbol" else " ".join(line.split())


def markdown(scored: Scored) -> str:
    """One row per system, one column per metric; then the signatures. A p-value stands beside what differs from the
    baseline."""
    lines = [["", *scored.values]]
    for number, name in enumerate(scored.systems):
        lines.append([name, *(cell(values[number]) for values in scored.values.values())])
    note = f"{scored.sentences:,} sentences; ± 95 % interval of {RESAMPLES:,} bootstrap resamples"
    note += f"; p: paired bootstrap against {scored.systems[0]}" if len(scored.systems) > 1 else ""
    signatures = "".join(f"{name}: {value}\n" for name, value in scored.signatures.items())
    return f"{tables.markdown(lines)}\n{note}.\n{signatures}"


def cell(value: Dict[str, float]) -> str:
    """Score, interval and p-value as far as there are any."""
    text = f"{value['score']:.2f}"
    if "ci" in value:
        text += f" ± {value['ci']:.2f}"
    if "p_value" in value:
        text += f" (p = {value['p_value']:.3f})"
    return text


def as_json(scored: Scored) -> Dict[str, Any]:
    """The same as plain values: per system its name and, by metric, numbers and signature."""
    systems = []
    for number, name in enumerate(scored.systems):
        entry: Dict[str, Any] = {"name": name}
        for metric, values in scored.values.items():
            entry[metric] = dict(values[number])
            if metric in scored.signatures:
                entry[metric]["signature"] = scored.signatures[metric]
        systems.append(entry)
    return {"sentences": scored.sentences, "resamples": RESAMPLES, "systems": systems}
