"""The tables of the reversal experiments and their pictures, from the logs that trainings and decodings left."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from . import metrics, plots
from .generation_log import Hypothesis, Sentence, attention_axes, read_generation_log
from .training_log import TrainingLog, read_training_log


@dataclass
class Run:
    """One training and its decodings. Runs of one label, which differ in the seed, share a row of the table.

    Attributes:
        splits: sentences by the name of the test split.
    """

    label: str
    training: TrainingLog
    splits: Dict[str, List[Sentence]]


@dataclass
class Column:
    """A number per run: title, value (None: does not apply), decimals, how the numbers of several seeds are joined."""

    title: str
    value: Callable[[Run], Optional[float]]
    decimals: int = 0
    join: Callable[[Sequence[float]], float] = mean


def read_run(label: str, folder) -> Run:
    """Reads ``train.jsonl`` and every ``generate-<split>.txt`` of a folder that one training filled.

    Raises:
        ValueError, OSError: a log is damaged or missing.
    """
    folder = Path(folder)
    logs = sorted(folder.glob("generate-*.txt"))
    splits = {path.stem.removeprefix("generate-"): read_generation_log(path) for path in logs}
    return Run(label, read_training_log(folder / "train.jsonl"), splits)


def of_lengths(sentences: List[Sentence], shortest: int = 0, longest: float = float("inf")) -> List[Sentence]:
    """The sentences whose source has so many symbols, both ends included, ``</s>`` not counted."""
    return [sentence for sentence in sentences if shortest <= len(sentence.source) <= longest]


def sentence_accuracy(sentences: List[Sentence]) -> Optional[float]:
    """Best hypotheses that equal the target, in percent; None for no sentences."""
    return _count(sentences).sentence_accuracy if sentences else None


def token_accuracy(sentences: List[Sentence]) -> Optional[float]:
    """Accuracy of the best hypotheses by edit distance, in percent; None for no sentences."""
    return _count(sentences).token_accuracy if sentences else None


def alignment_accuracy(sentences: List[Sentence]) -> Optional[float]:
    """Target positions where the best hypothesis attends most to the mirrored source position, in percent.

    ``</s>`` is left out; None without weights.
    """
    right = positions = 0
    for sentence in sentences:
        best, length = sentence.hypotheses[0], len(sentence.source)
        if best.weights is not None:
            attended = best.weights[: len(best.tokens)].argmax(axis=1)
            right += metrics.aligned(attended, range(length - 1, -1, -1))
            positions += length
    return metrics.alignment_accuracy(right, positions) if positions else None


def _count(sentences: List[Sentence]) -> metrics.Counts:
    return metrics.count([s.target for s in sentences], [s.hypotheses[0].tokens for s in sentences])


def _on(split: str, measure: Callable, *lengths: int) -> Callable[[Run], Optional[float]]:
    return lambda run: measure(of_lengths(run.splits.get(split, []), *lengths))


_TRAINING = [
    Column("parameters", lambda run: run.training.parameters),
    Column("updates", lambda run: run.training.updates),
    Column("training seconds", lambda run: run.training.seconds, 1, median),
]
_TEST = [
    Column("sentence accuracy", _on("test", sentence_accuracy), 2),
    Column("token accuracy", _on("test", token_accuracy), 2),
    Column("alignment accuracy", _on("test", alignment_accuracy), 2),
]
TABLES: Dict[str, List[Column]] = {
    "compare": _TRAINING + _TEST + [
        Column("sentences, lengths 15–20", _on("test", sentence_accuracy, 15, 20), 2),
        Column("sentences, lengths 21–40", _on("test_long", sentence_accuracy, 21, 40), 2),
    ],
    "fifty": _TRAINING + _TEST + [
        Column("sentences, lengths 1–25", _on("test", sentence_accuracy, 1, 25), 2),
        Column("sentences, lengths 26–30", _on("test", sentence_accuracy, 26, 30), 2),
    ],
    "mechanisms": _TRAINING + _TEST,
    "guided": _TRAINING + _TEST,
}  # fmt: skip


def by_label(runs: List[Run]) -> Dict[str, List[Run]]:
    """Runs by label, in the order in which the labels come first."""
    rows: Dict[str, List[Run]] = {}
    for run in runs:
        rows.setdefault(run.label, []).append(run)
    return rows


def rows_of(columns: List[Column], runs: List[Run]) -> List[dict]:
    """One dict per label: ``label``, ``seeds`` (how many), and per column title the joined number or None."""
    rows = []
    for label, group in by_label(runs).items():
        row = {"label": label, "seeds": len(group)}
        for column in columns:
            values = [value for value in map(column.value, group) if value is not None]
            row[column.title] = column.join(values) if values else None
        rows.append(row)
    return rows


def markdown(columns: List[Column], rows: List[dict]) -> str:
    """The table; accuracies in percent, – for a number that a row does not have."""
    lines = [["", *(column.title for column in columns)], ["---", *("---:" for _ in columns)]]
    for row in rows:
        numbers = (row[column.title] for column in columns)
        cells = ("–" if n is None else f"{n:,.{column.decimals}f}" for n, column in zip(numbers, columns))
        lines.append([row["label"], *cells])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    seeds = max(row["seeds"] for row in rows)
    return text + "\nAccuracies in percent" + (f"; mean of {seeds} seeds, seconds: median.\n" if seeds > 1 else ".\n")


def write_report(mode: str, runs: List[Run], out, trained: Tuple[int, int]) -> str:
    """Writes ``report.md``, ``report.json`` and the pictures of a mode into the folder; returns the table.

    Args:
        mode: a key of ``TABLES``.
        trained: shortest and longest source in the training data.
    """
    out, rows = Path(out), rows_of(TABLES[mode], runs)
    table = markdown(TABLES[mode], rows)
    for name, figure in pictures(mode, runs, trained).items():
        plots.save(figure, out / f"{name}.png")
    (out / "report.md").write_text(table, encoding="utf-8")
    (out / "report.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return table


def pictures(mode: str, runs: List[Run], trained: Tuple[int, int]) -> dict:
    """Figures of a mode by file name (without .png); no heat maps if no run has weights that can be drawn."""
    several = mode in ("mechanisms", "guided")
    maps = one_sentence_of_each(runs) if several else some_sentences(runs[0].splits["test"])
    figures = {"attention": plots.attention_heat_maps(maps, columns=4 if several else 3)} if maps else {}
    if not several:
        figures["accuracy_by_length"] = plots.accuracy_by_length(curves_by_length(runs), trained)
    if mode == "compare":
        titles = {"Symbols right": "token_accuracy", "Sentences all right": "sentence_accuracy"}
        curves = {title: curves_per_epoch(runs, name) for title, name in titles.items()}
        figures["accuracy_per_epoch"] = plots.accuracy_per_epoch(curves)
    return figures


def curves_per_epoch(runs: List[Run], statistic: str) -> List[plots.Curve]:
    """A validation statistic over epochs, one curve per label, mean over seeds.

    Raises:
        ValueError: the training log lacks the statistic.
    """
    curves = []
    for label, group in by_label(runs).items():
        values: Dict[int, List[float]] = {}
        for stats in (stats for run in group for stats in run.training.validations):
            if statistic not in stats:
                raise ValueError(f"the training log of {label!r} has no valid_{statistic}")
            values.setdefault(int(stats["epoch"]), []).append(stats[statistic])
        curves.append(plots.Curve(label, sorted(values), [mean(values[epoch]) for epoch in sorted(values)]))
    return curves


def curves_by_length(runs: List[Run]) -> List[plots.Curve]:
    """Sentence accuracy over the source length, all test splits and seeds together, one curve per label."""
    curves = []
    for label, group in by_label(runs).items():
        sentences = [sentence for run in group for split in run.splits.values() for sentence in split]
        lengths = sorted({len(sentence.source) for sentence in sentences})
        accuracies = [sentence_accuracy(of_lengths(sentences, length, length)) for length in lengths]
        curves.append(plots.Curve(label, lengths, accuracies))
    return curves


def heat_map(title: str, sentence: Sentence, hypothesis: Hypothesis) -> plots.HeatMap:
    """One hypothesis as a panel. ValueError: it has no weights, or its symbols were joined."""
    return plots.HeatMap(title, *attention_axes(sentence, hypothesis), hypothesis.weights)


def drawable(sentence: Sentence) -> bool:
    """Whether the best hypothesis has weights, one row and one column per symbol."""
    try:
        return bool(attention_axes(sentence, sentence.hypotheses[0]))
    except ValueError:
        return False


def some_sentences(sentences: List[Sentence], count: int = 3) -> List[plots.HeatMap]:
    """Best hypotheses of a few sentences, from short to long."""
    ordered = sorted(filter(drawable, sentences), key=lambda sentence: len(sentence.source))
    chosen = [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)] if ordered else []
    return [heat_map(f"{len(s.source)} symbols", s, s.hypotheses[0]) for s in chosen]


def one_sentence_of_each(runs: List[Run]) -> List[plots.HeatMap]:
    """The best hypothesis for the first of the longest test sentences, from the first run of every label."""
    first = {label: group[0].splits["test"] for label, group in by_label(runs).items()}
    longest = max(next(iter(first.values())), key=lambda sentence: len(sentence.source)).id
    chosen = {label: s for label, sentences in first.items() for s in sentences if s.id == longest}
    return [heat_map(label, s, s.hypotheses[0]) for label, s in chosen.items() if drawable(s)]
