"""The tables of an experiment, from the measures of its runs: rows of the same facts, joined over seeds."""

from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any, Callable, Dict, List, Optional, Sequence

from . import measures, tables
from .measures import Line
from .report_keys import MEASURES, TRAINING, Pivot, ReportKeys


@dataclass
class Column:
    """A number per run: title, value (None: does not apply), decimals, how the numbers of several seeds are joined, and
    whether there is one only if every seed has it: of those that came to 99 % the others would be forgotten."""

    title: str
    value: Callable[[Line], Optional[float]]
    decimals: int = 0
    join: Callable[[Sequence[float]], float] = mean
    of_all: bool = False


def columns_of(keys: ReportKeys) -> List[Column]:
    """Those of the measures, then those of the lengths."""
    return [column_of(name, keys.test) for name in keys.columns] + [_of_lengths(*each) for each in keys.lengths]


def other_columns(keys: ReportKeys, lines: Sequence[Line]) -> List[Column]:
    """Those of the measures that some run has and the table lacks."""
    found = [column_of(name, keys.test) for name in MEASURES if name not in keys.columns]
    return [column for column in found if any(column.value(line) is not None for line in lines)]


def column_of(name: str, test: Optional[str] = None) -> Column:
    """The column of a measure; those of a test are of that split, None: ``test``, or the first that there is."""
    measure = MEASURES[name]

    def value(line: Line) -> Optional[float]:
        if name in TRAINING:
            return line.get(name)
        return test_of(line, test).get(name)

    return Column(measure.title, value, measure.decimals, median if measure.median else mean, measure.of_all)


def test_of(line: Line, test: Optional[str] = None) -> Line:
    """The measures of a split; nothing where the run has none."""
    tests = line.get("tests", {})
    return tests.get(test or ("test" if "test" in tests else next(iter(tests), None)), {})


def _of_lengths(shortest: int, longest: int) -> Column:
    title = f"sentences, lengths {shortest}–{longest}" if shortest < longest else f"sentences, length {longest}"
    return Column(title, lambda line: accuracy_of_lengths(line, shortest, longest), 2)


def accuracy_of_lengths(line: Line, shortest: int, longest: int) -> Optional[float]:
    """Sentence accuracy over all test splits of the sources that have so many symbols, both ends included."""
    parts = [counts for length, counts in lengths_of(line) if shortest <= length <= longest]
    return measures.total(parts).sentence_accuracy if parts else None


def lengths_of(line: Line) -> List[tuple]:
    """Lengths of the source and their counts, of all test splits."""
    tests = line.get("tests", {}).values()
    return [(int(length), measures.from_plain(each)) for test in tests for length, each in test["by_length"].items()]


def label_of(facts: Dict[str, str]) -> str:
    """The values of facts, in their order."""
    return ", ".join(facts.values())


def groups(lines: Sequence[Line]) -> List[List[Line]]:
    """Runs of the same facts together, in the order in which these come first."""
    found: Dict[tuple, List[Line]] = {}
    for line in lines:
        found.setdefault(tuple(line["facts"].items()), []).append(line)
    return list(found.values())


def finished(lines: Sequence[Line]) -> List[Line]:
    """Those that have numbers."""
    return [line for line in lines if line["failed"] is None]


def rows_of(columns: Sequence[Column], lines: Sequence[Line]) -> List[dict]:
    """One dict per group: ``label``, the ``facts`` that it is made of, ``seeds`` (how many have numbers), ``failed``
    (how many have not), per column title the joined number or None, and in ``deviation`` the standard deviation over
    seeds (of one, None)."""
    rows = []
    for group in groups(lines):
        whole = finished(group)
        row: Dict[str, Any] = {"label": label_of(group[0]["facts"]), "facts": group[0]["facts"], "seeds": len(whole)}
        row["failed"], row["deviation"] = len(group) - len(whole), {}
        for column in columns:
            values = [value for value in map(column.value, whole) if value is not None]
            if column.of_all and len(values) < len(whole):
                values = []
            row[column.title] = column.join(values) if values else None
            row["deviation"][column.title] = stdev(values) if len(values) > 1 else None
        rows.append(row)
    return rows


def cells(columns: Sequence[Column], rows: Sequence[dict], deviation: bool) -> List[List[str]]:
    """The head and a line per row; – for a number that a row does not have."""
    lines = [["", *(column.title for column in columns)]]
    return lines + [[row["label"], *(_text(row, column, deviation) for column in columns)] for row in rows]


def _text(row: dict, column: Column, deviation: bool = False) -> str:
    number, spread = row[column.title], row["deviation"][column.title]
    if number is None:
        return "–"
    text = f"{number:,.{column.decimals}f}"
    varies = spread is not None and f"{spread:.{column.decimals}f}" != f"{0:.{column.decimals}f}"
    return f"{text} ± {spread:,.{column.decimals}f}" if deviation and varies else text


def report_text(keys: ReportKeys, lines: Sequence[Line]) -> str:
    """The tables in Markdown, what their numbers are, and the runs that have none."""
    columns, rows = columns_of(keys), rows_of(columns_of(keys), lines)
    deviation = keys.deviation and any(row["seeds"] > 1 for row in rows)
    if keys.pivot is None or not has_line(keys.pivot, rows):
        text = tables.markdown(cells(columns, rows, deviation)) + "\n" + note(rows, deviation)
    else:
        text = pivots(keys.pivot, columns, rows, deviation)
    return text + "".join(f"\n{sentence}\n" for sentence in failures(lines))


def note(rows: Sequence[dict], deviation: bool = False) -> str:
    """What the numbers are."""
    seeds = max(row["seeds"] for row in rows)
    joined = f"; mean of {seeds} seeds, seconds: median" if seeds > 1 else ""
    return f"Accuracies in percent{joined}{'; ± standard deviation' if deviation else ''}.\n"


def failures(lines: Sequence[Line]) -> List[str]:
    """One sentence per run without numbers."""
    return [f"No numbers of {line['run']}: {line['failed']}" for line in lines if line["failed"] is not None]


def pivots(chosen: Pivot, columns: Sequence[Column], rows: Sequence[dict], deviation: bool = False) -> str:
    """One table per column, and a line on the cost of the trainings. See :func:`pivot`."""
    titles = [MEASURES[name].title for name in chosen.columns]
    drawn = [column for column in columns if column.title in titles]
    texts = [tables.markdown(pivot(chosen.line, column, rows, deviation)) for column in drawn]
    return "\n".join([*texts, note(rows, deviation), *cost(rows)])


def cost(rows: Sequence[dict]) -> List[str]:
    """A line on updates and seconds, as far as the rows have them; else none."""
    updates = [row["updates"] for row in rows if row.get("updates") is not None]
    seconds = [row["training seconds"] for row in rows if row.get("training seconds") is not None]
    text = f"Updates: {max(updates):,}." if updates else ""
    text += f" Slowest training: {max(seconds):,.1f} seconds." if seconds else ""
    return [text.strip() + "\n"] if text else []


def has_line(chosen: Pivot, rows: Sequence[dict]) -> bool:
    """Whether every row has the fact that names a line."""
    return all(chosen.line in row["facts"] for row in rows)


def pivot(line: str, column: Column, rows: Sequence[dict], deviation: bool = False) -> List[List[str]]:
    """One column as lines of cells: a line per value of a fact, and a cell for each way in which the other facts come
    together.

    A row that has fewer facts (without attention there is no query) stands in every cell that agrees with those.
    """
    titles = pivot_titles(line, [row["facts"] for row in rows])
    lines = [[column.title, *map(label_of, titles)]]
    for value in dict.fromkeys(row["facts"][line] for row in rows):
        own = [(_others(line, row["facts"]), row) for row in rows if row["facts"][line] == value]
        fitting = ([row for facts, row in own if facts.items() <= title.items()] for title in titles)
        lines.append([value, *(_text(found[0], column, deviation) if found else "–" for found in fitting)])
    return lines


def pivot_titles(line: str, facts: Sequence[Dict[str, str]]) -> List[Dict[str, str]]:
    """The facts beside that of the lines, each combination once, of those that have most facts."""
    most = max(map(len, facts))
    titles: List[Dict[str, str]] = []
    for each in facts:
        if len(each) == most and _others(line, each) not in titles:
            titles.append(_others(line, each))
    return titles


def _others(line: str, facts: Dict[str, str]) -> Dict[str, str]:
    """Facts without the one that names a line of a pivot."""
    return {name: value for name, value in facts.items() if name != line}
