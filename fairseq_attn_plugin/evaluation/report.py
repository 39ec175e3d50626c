"""The tables of the reversal experiments and their pictures, from the logs that trainings and decodings left."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from . import metrics, plots, tables, whole_files
from .generation_log import Hypothesis, Sentence, attention_axes, attention_weights, read_generation_log, target_of
from .training_log import TrainingLog, read_training_log


@dataclass
class Run:
    """One training and its decodings. Runs of the same facts, which differ in the seed, share a row of the table.

    Attributes:
        facts: what sets the training apart from others, by the name of the fact, such as {"score": "dot"}.
        splits: sentences by the name of the test split.
    """

    facts: Dict[str, str]
    training: TrainingLog
    splits: Dict[str, List[Sentence]]

    @property
    def label(self) -> str:
        """What a row or a curve is called."""
        return label_of(self.facts)

    @property
    def order(self) -> str:
        """``reverse`` or ``copy``, as ``--reversal-order`` says."""
        return "copy" if self.training.options.get("reversal_order") == "copy" else "reverse"

    @property
    def sentences(self) -> List[Sentence]:
        """Those of all splits."""
        return [sentence for split in self.splits.values() for sentence in split]


@dataclass
class Column:
    """A number per run: title, value (None: does not apply), decimals, how the numbers of several seeds are joined."""

    title: str
    value: Callable[[Run], Optional[float]]
    decimals: int = 0
    join: Callable[[Sequence[float]], float] = mean


def label_of(facts: Dict[str, str]) -> str:
    """The values of facts, in their order."""
    return ", ".join(facts.values())


def read_run(facts: Dict[str, str], folder) -> Run:
    """Reads ``train.jsonl`` and every ``generate-<split>.txt`` of a folder that one training filled.

    Raises:
        ValueError, OSError: a log is damaged or missing, or has no references.
    """
    folder, splits = Path(folder), {}
    for path in sorted(folder.glob("generate-*.txt")):
        sentences = splits[path.stem.removeprefix("generate-")] = read_generation_log(path)
        for sentence in sentences:
            if sentence.target is None:
                raise ValueError(f"{path}: sentence {sentence.id} has no T line; is it the output of fairseq-generate?")
    return Run(facts, read_training_log(folder / "train.jsonl"), splits)


def of_lengths(sentences: List[Sentence], shortest: int = 0, longest: float = float("inf")) -> List[Sentence]:
    """The sentences whose source has so many symbols, both ends included, ``</s>`` not counted."""
    return [sentence for sentence in sentences if shortest <= len(sentence.source) <= longest]


def sentence_accuracy(sentences: List[Sentence]) -> Optional[float]:
    """Best hypotheses that equal the target, in percent; None for no sentences."""
    return _count(sentences).sentence_accuracy if sentences else None


def token_accuracy(sentences: List[Sentence]) -> Optional[float]:
    """Accuracy of the best hypotheses by edit distance, in percent; None for no sentences."""
    return _count(sentences).token_accuracy if sentences else None


def alignment_accuracy(sentences: List[Sentence], order: str = "reverse") -> Optional[float]:
    """Target positions where the best hypothesis attends most to the source position that they are a copy of, in
    percent: the mirrored one, or with ``order`` ``copy`` the same.

    ``</s>`` is left out; None without weights.
    """
    right = positions = 0
    for sentence in sentences:
        best, length = sentence.hypotheses[0], len(sentence.source)
        if best.weights is not None:
            attended = best.weights[: len(best.tokens)].argmax(axis=1)
            right += metrics.aligned(attended, range(length) if order == "copy" else range(length - 1, -1, -1))
            positions += length
    return metrics.alignment_accuracy(right, positions) if positions else None


def _count(sentences: List[Sentence]) -> metrics.Counts:
    return metrics.count([target_of(s) for s in sentences], [s.hypotheses[0].tokens for s in sentences])


def _on_test(measure: Callable) -> Callable[[Run], Optional[float]]:
    return lambda run: measure(run.splits.get("test", []))


def _sentences(shortest: int, longest: int) -> Column:
    title = f"sentences, lengths {shortest}–{longest}" if shortest < longest else f"sentences, length {longest}"
    return Column(title, lambda run: sentence_accuracy(of_lengths(run.sentences, shortest, longest)), 2)


_SIZE = [
    Column("parameters", lambda run: run.training.parameters),
    Column("updates", lambda run: run.training.updates),
]
_SECONDS = [Column("training seconds", lambda run: run.training.seconds, 1, median)]
_TEST = [
    Column("sentence accuracy", _on_test(sentence_accuracy), 2),
    Column("token accuracy", _on_test(token_accuracy), 2),
    Column("alignment accuracy", lambda run: alignment_accuracy(run.splits.get("test", []), run.order), 2),
]
_ALL = _SIZE + _SECONDS + _TEST
FAR = (50, 100, 200, 400, 1000, 2000)
"""Lengths that ``extrapolation`` tests at."""
_LENGTHS = ((5, 10), (11, 15), (16, 20), (21, 25), (26, 30), (31, 35), (36, 40))
TABLES: Dict[str, List[Column]] = {
    "compare": _ALL + [_sentences(15, 20), _sentences(21, 40), _sentences(200, 200)],
    "fifty": _ALL + [_sentences(1, 25), _sentences(26, 30)],
    "mechanisms": _ALL,
    "normalizers": _ALL,
    "lengths": _SECONDS + [_sentences(*lengths) for lengths in _LENGTHS],
    "parts": _SIZE[:1] + _SECONDS + _TEST[2:] + [_sentences(*lengths) for lengths in _LENGTHS],
    "extrapolation": _SIZE + _SECONDS + [_sentences(length, length) for length in FAR],
    "ten_symbols": _ALL + [_sentences(50, 50), _sentences(100, 100)],
    "guided": _ALL,
    "sampling": _ALL + [_sentences(1, 25), _sentences(26, 30), _sentences(31, 40), _sentences(41, 50)],
}
PIVOTS = {mode: ("sentence accuracy", "alignment accuracy") for mode in ("mechanisms", "normalizers")}
"""Modes of many rows: each of these columns is printed as a table of its own; report.json has the others, too."""
LINE = "score"
"""The fact that names a line of such a table; the others name its column."""
ONE_SENTENCE = {
    **dict.fromkeys(("mechanisms", "normalizers", "guided"), "test"),
    **dict.fromkeys(("lengths", "parts"), "test_long"),
}
"""Modes whose heat maps show the same sentence once per group of runs, and its split; the others show those of the
first group."""
WITHOUT_MAPS = ("extrapolation",)
"""Modes whose sentences are too long to be drawn."""
BY_LENGTH = ("compare", "fifty", "lengths", "extrapolation", "sampling")


def groups(runs: List[Run]) -> List[List[Run]]:
    """Runs of the same facts together, in the order in which these come first."""
    found: Dict[tuple, List[Run]] = {}
    for run in runs:
        found.setdefault(tuple(run.facts.items()), []).append(run)
    return list(found.values())


def rows_of(columns: List[Column], runs: List[Run]) -> List[dict]:
    """One dict per group: ``label``, the ``facts`` that it is made of, ``seeds`` (how many), and per column title the
    joined number or None."""
    rows = []
    for group in groups(runs):
        row = {"label": group[0].label, "facts": group[0].facts, "seeds": len(group)}
        for column in columns:
            values = [value for value in map(column.value, group) if value is not None]
            row[column.title] = column.join(values) if values else None
        rows.append(row)
    return rows


def markdown(columns: List[Column], rows: List[dict]) -> str:
    """The table; accuracies in percent, – for a number that a row does not have."""
    lines = [["", *(column.title for column in columns)]]
    lines += [[row["label"], *(_text(row[column.title], column) for column in columns)] for row in rows]
    return tables.markdown(lines) + "\n" + _note(rows)


def pivots(columns: List[Column], rows: List[dict]) -> str:
    """One table per column, and a line on the cost of the trainings. See :func:`pivot`."""
    seconds = [row["training seconds"] for row in rows if row["training seconds"] is not None]
    cost = f"Updates: {max(row['updates'] for row in rows):,}."
    cost += f" Slowest training: {max(seconds):,.1f} seconds.\n" if seconds else "\n"
    return "\n".join([*(tables.markdown(pivot(column, rows)) for column in columns), _note(rows), cost])


def pivot(column: Column, rows: List[dict]) -> List[List[str]]:
    """One column as lines of cells: a line per score, and a cell for each way in which the other facts come together.

    A row that has fewer facts (without attention there is no query) stands in every cell that agrees with those.
    """
    titles = pivot_titles([row["facts"] for row in rows])
    lines = [[column.title, *map(label_of, titles)]]
    for score in dict.fromkeys(row["facts"][LINE] for row in rows):
        own = [(_others(row["facts"]), row[column.title]) for row in rows if row["facts"][LINE] == score]
        fitting = ([value for facts, value in own if facts.items() <= title.items()] for title in titles)
        lines.append([score, *(_text(values[0] if values else None, column) for values in fitting)])
    return lines


def pivot_titles(facts: Sequence[Dict[str, str]]) -> List[Dict[str, str]]:
    """The facts beside the score, each combination once, of those that have most facts."""
    most = max(map(len, facts))
    titles: List[Dict[str, str]] = []
    for each in facts:
        if len(each) == most and _others(each) not in titles:
            titles.append(_others(each))
    return titles


def _others(facts: Dict[str, str]) -> Dict[str, str]:
    """Facts without the one that names a line of a pivot."""
    return {name: value for name, value in facts.items() if name != LINE}


def _text(number: Optional[float], column: Column) -> str:
    return "–" if number is None else f"{number:,.{column.decimals}f}"


def _note(rows: List[dict]) -> str:
    seeds = max(row["seeds"] for row in rows)
    return "Accuracies in percent" + (f"; mean of {seeds} seeds, seconds: median.\n" if seeds > 1 else ".\n")


def write_report(mode: str, runs: List[Run], out, trained: Tuple[int, int]) -> str:
    """Writes ``report.md``, ``report.json`` and the pictures of a mode into the folder; returns the table.

    Args:
        mode: a key of ``TABLES``.
        trained: shortest and longest source in the training data.
    """
    out, rows = Path(out), rows_of(TABLES[mode], runs)
    if mode in PIVOTS:
        table = pivots([column for column in TABLES[mode] if column.title in PIVOTS[mode]], rows)
    else:
        table = markdown(TABLES[mode], rows)
    for name, figure in pictures(mode, runs, trained).items():
        plots.save(figure, out / f"{name}.png")
    whole_files.write_text(out / "report.md", table)
    whole_files.write_json(out / "report.json", rows)
    return table


def pictures(mode: str, runs: List[Run], trained: Tuple[int, int]) -> dict:
    """Figures of a mode by file name (without .png); no heat maps if no run has weights that can be drawn."""
    test = ONE_SENTENCE.get(mode)
    maps = []
    if mode not in WITHOUT_MAPS:
        maps = one_sentence_of_each(runs, test) if test else some_sentences(runs[0].splits["test"])
    columns = len(pivot_titles([run.facts for run in runs])) if mode in PIVOTS else 4 if test else 3
    figures = {"attention": plots.attention_heat_maps(maps, columns)} if maps else {}
    if mode in BY_LENGTH:
        figures["accuracy_by_length"] = plots.accuracy_by_length(curves_by_length(runs), trained)
    if mode == "compare":
        titles = {"Symbols right": "token_accuracy", "Sentences all right": "sentence_accuracy"}
        curves = {title: curves_per_epoch(runs, name) for title, name in titles.items()}
        figures["accuracy_per_epoch"] = plots.accuracy_per_epoch(curves)
    return figures


def curves_per_epoch(runs: List[Run], statistic: str) -> List[plots.Curve]:
    """A validation statistic over epochs, one curve per group, mean over seeds.

    Raises:
        ValueError: the training log lacks the statistic.
    """
    curves = []
    for group in groups(runs):
        label = group[0].label
        values: Dict[int, List[float]] = {}
        for stats in (stats for run in group for stats in run.training.validations):
            if statistic not in stats:
                raise ValueError(f"the training log of {label!r} has no valid_{statistic}")
            values.setdefault(int(stats["epoch"]), []).append(stats[statistic])
        curves.append(plots.Curve(label, sorted(values), [mean(values[epoch]) for epoch in sorted(values)]))
    return curves


def curves_by_length(runs: List[Run]) -> List[plots.Curve]:
    """Sentence accuracy over the source length, all test splits and seeds together, one curve per group."""
    curves = []
    for group in groups(runs):
        sentences = [sentence for run in group for sentence in run.sentences]
        lengths = sorted({len(sentence.source) for sentence in sentences})
        accuracies = [_count(of_lengths(sentences, length, length)).sentence_accuracy for length in lengths]
        curves.append(plots.Curve(group[0].label, lengths, accuracies))
    return curves


def heat_map(title: str, sentence: Sentence, hypothesis: Hypothesis) -> plots.HeatMap:
    """One hypothesis as a panel. ValueError: it has no weights, or its symbols were joined."""
    return plots.HeatMap(title, *attention_axes(sentence, hypothesis), attention_weights(hypothesis))


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


def one_sentence_of_each(runs: List[Run], split: str) -> List[plots.HeatMap]:
    """The best hypothesis for the first of the longest sentences of a split, from the first run of every group."""
    first = [group[0] for group in groups(runs)]
    longest = max(first[0].splits[split], key=lambda sentence: len(sentence.source)).id
    chosen = [(run.facts, sentence) for run in first for sentence in run.splits[split] if sentence.id == longest]
    return [heat_map(_title(facts), s, s.hypotheses[0]) for facts, s in chosen if drawable(s)]


def _title(facts: Dict[str, str]) -> str:
    """The label, whose first fact has a line of its own."""
    first, *rest = facts.values()
    return "\n".join([first, ", ".join(rest)]) if rest else first
