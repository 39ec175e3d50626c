"""The ``report:`` of an experiment file: which measures, tables and pictures its report has."""

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple


@dataclass(frozen=True)
class Measure:
    """What a column shows: its title, decimals, whether seeds are joined by their median, not their mean, and whether
    there is a number only if every seed has one."""

    title: str
    decimals: int = 2
    median: bool = False
    of_all: bool = False


TRAINING = {
    "parameters": Measure("parameters", 0),
    "updates": Measure("updates", 0),
    "seconds": Measure("training seconds", 1, median=True),
    "tokens_per_second": Measure("tokens/s", 0, median=True),
    "updates_to_99": Measure("updates to 99 %", 0, of_all=True),
    "seconds_to_99": Measure("seconds to 99 %", 1, median=True, of_all=True),
}
"""Measures of a training, by their names in ``measures.jsonl``."""
TEST = {
    "sentence_accuracy": Measure("sentence accuracy"),
    "token_accuracy": Measure("token accuracy"),
    "alignment_accuracy": Measure("alignment accuracy"),
    "bleu": Measure("BLEU"),
    "chrf": Measure("chrF2"),
    "exact_match": Measure("exact match"),
    "entropy": Measure("attention entropy, nats", 3),
    "coverage": Measure("attention coverage", 1),
    "monotonicity": Measure("attention monotonicity", 1),
}
"""Measures of a test split."""
MEASURES = {**TRAINING, **TEST}
BY_LENGTH = ("sentence_accuracy", "token_accuracy")
"""Measures that are known for each length of the source."""
ACCURACIES = ("sentence_accuracy", "token_accuracy", "alignment_accuracy")
TEXT_SCORES = ("bleu", "chrf", "exact_match")
LEARNT = ("updates_to_99", "seconds_to_99")
DEFAULT_COLUMNS = {
    "reversal": ("parameters", "updates", "seconds", *LEARNT, "tokens_per_second", *ACCURACIES),
    "text": ("parameters", "updates", "seconds", "tokens_per_second", *TEXT_SCORES),
}
DEFAULT_LEARNING = {"reversal": ("sentence_accuracy", "token_accuracy"), "text": ("bleu", "loss")}


@dataclass(frozen=True)
class Pivot:
    """Columns that become a table of their own each: a line per value of one fact, a cell per value of the others."""

    line: str
    columns: Tuple[str, ...]


@dataclass(frozen=True)
class Maps:
    """Sentences whose attention is drawn.

    Attributes:
        split: the test split that they are from; None: the one of the columns.
        rows: whether the picture has ``one`` row of the table, with three sentences, or ``all``, with one. The page has
            every sentence of every row.
        sentences: how many the page has.
        longest: sources of more symbols are not drawn.
    """

    split: Optional[str] = None
    rows: str = "one"
    sentences: int = 6
    longest: int = 60


@dataclass(frozen=True)
class ReportKeys:
    """The keys, checked.

    Attributes:
        columns: of the table, names of ``MEASURES``.
        lengths: shortest and longest source; each is a column with the sentence accuracy over all test splits.
        test: the split of which the columns are; None: ``test``, or the first that there is.
        deviation: whether the table has the standard deviation over seeds.
        pivot: see there; None: the table has a line per row.
        maps: see there; None: no attention is drawn.
        by_length: the measure that is drawn over the length of the source; None: it is not.
        learning: statistics of the validation that are drawn over the updates.
    """

    columns: Tuple[str, ...]
    lengths: Tuple[Tuple[int, int], ...] = ()
    test: Optional[str] = None
    deviation: bool = True
    pivot: Optional[Pivot] = None
    maps: Optional[Maps] = field(default_factory=Maps)
    by_length: Optional[str] = "sentence_accuracy"
    learning: Tuple[str, ...] = ()


def read_report_keys(
    given: Dict[str, Any], task: str, splits: Sequence[str] = (), facts: Sequence[str] = ()
) -> ReportKeys:
    """Checks what an experiment file says under ``report:``, before anything trains.

    Args:
        given: the keys as YAML or JSON has them.
        task: fairseq's; all but ``reversal`` are scored as text.
        splits: test splits that are decoded; empty: not known.
        facts: names of what sets runs apart; empty: not known.

    Raises:
        ValueError: an unknown key or value, with what could have been meant.
    """
    kind = "reversal" if task == "reversal" else "text"
    check_names("report", given, [each.name for each in dataclasses.fields(ReportKeys)])
    keys: Dict[str, Any] = {"columns": DEFAULT_COLUMNS[kind], "learning": DEFAULT_LEARNING[kind]}
    if kind == "text":
        keys["by_length"] = "token_accuracy"
    readers = {
        "columns": lambda value: names("columns", value, MEASURES),
        "lengths": lambda value: tuple(length_range(each) for each in a_list("lengths", value)),
        "test": lambda value: split_of("test", value, splits),
        "deviation": lambda value: one_of("deviation", value, (True, False)),
        "pivot": lambda value: read_pivot(value, facts),
        "maps": lambda value: read_maps(value, splits),
        "by_length": lambda value: one_of("by_length", value, BY_LENGTH) if value else None,
        "learning": lambda value: tuple(str(each) for each in a_list("learning", value)) if value else (),
    }
    keys.update((name, readers[name](value)) for name, value in given.items())
    read = ReportKeys(**keys)
    if read.pivot is not None:
        check_among("pivot: columns", read.pivot.columns, read.columns)
    return read


def read_pivot(given: Any, facts: Sequence[str]) -> Optional[Pivot]:
    """None for nothing. ValueError: not as :class:`Pivot` has it."""
    if not given:
        return None
    check_names("report: pivot", given, ["line", "columns"])
    if set(given) != {"line", "columns"}:
        raise ValueError(f"report: pivot: got {', '.join(given)}; give line (a fact) and columns (measures)")
    line = one_of("pivot: line", given["line"], facts) if facts else str(given["line"])
    return Pivot(line, names("pivot: columns", given["columns"], MEASURES))


def read_maps(given: Any, splits: Sequence[str]) -> Optional[Maps]:
    """None for ``false``. ValueError: not as :class:`Maps` has it."""
    if given is False or given is None:
        return None
    check_names("report: maps", given, [each.name for each in dataclasses.fields(Maps)])
    keys = dict(given)
    if "split" in keys:
        split_of("maps: split", keys["split"], splits)
    if "rows" in keys:
        one_of("maps: rows", keys["rows"], ("one", "all"))
    for name in ("sentences", "longest"):
        if name in keys and (type(keys[name]) is not int or keys[name] < 1):
            raise ValueError(f"report: maps: {name}: got {keys[name]!r}; give a number from 1 on")
    return Maps(**keys)


def length_range(given: Any) -> Tuple[int, int]:
    """``15-20`` or ``200``. ValueError: another text, or the longer one first."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", str(given))
    if not found or int(found[1]) > int(found[2] or found[1]):
        raise ValueError(f"report: lengths: got {given!r}; give one length (200) or shortest and longest (15-20)")
    return int(found[1]), int(found[2] or found[1])


def split_of(key: str, value: Any, splits: Sequence[str]) -> str:
    """ValueError: no such split is decoded."""
    return one_of(key, value, splits) if splits else str(value)


def a_list(key: str, value: Any) -> List[Any]:
    """ValueError: it is none."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"report: {key}: got {value!r}; give a list, as in [{value}]")
    return list(value)


def names(key: str, value: Any, known: Iterable[str]) -> Tuple[str, ...]:
    """ValueError: no list, or something that is not known."""
    check_among(key, a_list(key, value), known)
    return tuple(value)


def one_of(key: str, value: Any, known: Iterable[Any]) -> Any:
    """ValueError: it is not known."""
    check_among(key, [value], known)
    return value


def check_among(key: str, values: Iterable[Any], known: Iterable[Any]) -> None:
    """ValueError: one is not known."""
    known = list(known)
    for value in values:
        if value not in known:
            choices = ", ".join(str(each).lower() if isinstance(each, bool) else str(each) for each in known)
            raise ValueError(f"report: {key}: got {value!r}{_nearest(value, known)}; choose from {choices}")


def check_names(where: str, given: Any, known: Sequence[str]) -> None:
    """ValueError: no keys with values, or an unknown key."""
    if not isinstance(given, dict):
        raise ValueError(f"{where}: got {given!r}; give keys with values ({', '.join(known)})")
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: unknown key {name!r}{_nearest(name, known)}; there are {', '.join(known)}")


def _nearest(value: Any, known: Iterable[Any]) -> str:
    near = difflib.get_close_matches(str(value), [str(each) for each in known], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
