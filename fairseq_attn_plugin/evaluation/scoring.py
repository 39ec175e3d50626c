"""Scores of translations as text: sacrebleu's BLEU, chrF and TER, and error rates of lines, characters and symbols, all
with confidence intervals and paired tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from . import error_rates, tables

TOKENIZERS = sorted(BLEU.TOKENIZERS)
RESAMPLES = error_rates.RESAMPLES
SACREBLEU = ("BLEU", "chrF2", "TER")
METRICS = {name.lower().rstrip("2"): name for name in (*SACREBLEU, *error_rates.RATES)}
"""What can be scored, by the names of ``score.sh --metric``."""


@dataclass
class Scored:
    """Scores of one or more translations of one text.

    Attributes:
        systems: names, the baseline first.
        sentences: number of lines.
        values: metric → one dict per system with ``score``, ``mean`` and ``ci`` (half of the 95 % interval) over
            bootstrap resamples, ``p_value`` against the baseline (not for the baseline itself).
        signatures: sacrebleu's, and what corresponds to it, by metric.
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
    wanted: Sequence[str] = SACREBLEU,
) -> Scored:
    """Scores every system; the first is the baseline of the paired bootstrap tests (Koehn, 2004).

    Args:
        systems: name → as many lines as the reference has.
        lowercase: without regard to case, in all metrics (TER never regards it).
        tokenize: sacrebleu's tokeniser for BLEU (default: 13a); the others have their own.
        wanted: values of ``METRICS``, in the order in which they are to come.
    """
    made = {
        "BLEU": BLEU(lowercase=lowercase, tokenize=tokenize, force=True),
        "chrF2": CHRF(lowercase=lowercase),
        "TER": TER(),
    }
    theirs = {name: made[name] for name in wanted if name in made}
    values, signatures = error_rates.error_rates(
        reference, systems, [name for name in wanted if name not in theirs], lowercase
    )
    if theirs:
        their_signatures, found = PairedTest(list(systems.items()), theirs, [list(reference)], "bs", RESAMPLES)()
        values.update({name: [_numbers(result) for result in found[name]] for name in theirs})
        signatures.update({name: str(value) for name, value in their_signatures.items()})
    ordered, signed = {name: values[name] for name in wanted}, {name: signatures[name] for name in wanted}
    return Scored(list(systems), len(reference), ordered, signed)


def _numbers(result) -> Dict[str, float]:
    return {name: float(value) for name, value in vars(result).items() if value is not None}


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
            entry[metric]["signature"] = scored.signatures[metric]
        systems.append(entry)
    return {"sentences": scored.sentences, "resamples": RESAMPLES, "systems": systems}
