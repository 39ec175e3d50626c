"""From axes to runs: every combination of what the axes go through, but for those that mean nothing."""

import re
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from ..modules.attention.addressings import ADDRESSINGS
from ..modules.attention.histories import HISTORIES
from ..modules.attention.normalizers import NORMALIZERS
from ..modules.attention.scores import ATTENTION_SCORES
from ..modules.attention.windows import WINDOWS
from ..modules.recurrence.cells import CELLS
from ..modules.registry import Registry
from .experiment import Axes, list_of, nearest, options_of, words_of

TABLES: Dict[str, Registry] = {
    "score": ATTENTION_SCORES, "normalizer": NORMALIZERS, "cell": CELLS, "history": HISTORIES, "window": WINDOWS,
    "addressing": ADDRESSINGS,
}  # fmt: skip
"""Axes with a name of their own, and where their values come from."""
QUERIES = ("previous", "current")
SHORT = {**{axis: table.flag for axis, table in TABLES.items()}, "query": "--attention-query"}
WITHOUT_QUERY = ("--attention-normalizer", "--attention-history", "--attention-window", "--attention-addressing",
                 "--attention-query-inputs", "--copy")  # fmt: skip
"""Options without a meaning where a score does not read the query: its weights are fixed."""
PARTS_OF_A_VALUE = ("name", "train", "decode", "splits", "prepare")


@dataclass(frozen=True)
class Value:
    """One value of an axis.

    Attributes:
        label: what tables call it.
        name: its part of the name of a folder.
        train: options of ``fairseq-train``, as words.
        labelled: whether the file gives it its options, rather than the axis.
        decode, splits, prepare: those of the experiment, where None; ``prepare`` comes after the experiment's.
    """

    label: str
    name: str
    train: List[str]
    labelled: bool = False
    decode: Optional[List[str]] = None
    splits: Optional[List[str]] = None
    prepare: Optional[List[str]] = None


@dataclass(frozen=True)
class Run:
    """One combination of values, for each seed a training.

    Attributes:
        name: of its folder, without the seed.
        facts: by the name of an axis the label of its value.
        own: options of ``fairseq-train`` that make it this run.
        decode, splits: those of the experiment, where None.
        prepare: options of the data that come after the experiment's.
    """

    name: str
    facts: Dict[str, str]
    own: List[str] = field(default_factory=list)
    decode: Optional[List[str]] = None
    splits: Optional[List[str]] = None
    prepare: List[str] = field(default_factory=list)


def values_of(axis: str, given: Any, is_switch: Callable[[str], bool] = lambda option: False) -> List[Value]:
    """What an axis goes through.

    Args:
        axis: a short name (``score``), or an option by its own name (``dropout``).
        given: a list of values, or one text of them with commas between, where ``all`` stands for every choice; or by
            label the options, or what else sets the value apart (``PARTS_OF_A_VALUE``); or a list under ``each`` and
            under ``called`` how its values are called, as ``history {}``.
        is_switch: whether an option takes no value; the axis has ``on`` and ``off`` then.

    Raises:
        ValueError: a value that cannot be; all of them are named.
    """
    if isinstance(given, dict) and "each" in given:
        _check_parts(axis, given, ("each", "called"))
        called = given.get("called", "{}")
        if not isinstance(called, str) or "{}" not in called:
            raise ValueError(f"{axis}: called: got {called!r}; give how a value is called, as {axis} {{}}")
        return [_plain(axis, value, is_switch, called) for value in _chosen(axis, given["each"])]
    if isinstance(given, dict):
        return [_labelled(axis, label, value) for label, value in given.items()]
    return [_plain(axis, value, is_switch) for value in _chosen(axis, given)]


def _chosen(axis: str, given: Any) -> List[str]:
    there = [*(["none"] if axis in TABLES and TABLES[axis].optional else []), *choices(axis)]
    found: List[str] = []
    for value in list_of(axis, given):
        if value != "all":
            found.append(value)
        elif not there:
            raise ValueError(f"{axis}: got all; its values are in no table, so name them")
        else:
            found += [each for each in choices(axis) if each not in found]
    wrong = [value for value in found if there and value not in there]
    if wrong:
        said = f"{axis}: got {', '.join(map(repr, wrong))}"
        raise ValueError(f"{said}{nearest(wrong[0], there)}" if len(wrong) == 1 else
                         f"{said}; choose from {', '.join(there)}")  # fmt: skip
    if not found:
        raise ValueError(f"{axis}: no value; give one or more")
    return found


def choices(axis: str) -> List[str]:
    """Values of an axis with a short name, without ``none``; of others nothing."""
    return list(QUERIES) if axis == "query" else TABLES[axis].names() if axis in TABLES else []


def _plain(axis: str, value: str, is_switch: Callable[[str], bool], called: str = "") -> Value:
    option = option_of(axis)
    label = (called or ("{}" if axis in SHORT else f"{axis} {{}}")).replace("{}", value)
    if not is_switch(option):
        return Value(label, slug(label), [option, value])
    if value not in ("on", "off"):
        raise ValueError(f"{axis}: got {value!r}; {option} takes no value, so choose from on, off")
    return Value(label, slug(label), [option] * (value == "on"))


def option_of(axis: str) -> str:
    """``score`` → ``--attention-score``, ``dropout`` → ``--dropout``."""
    return SHORT.get(axis, f"--{axis}")


def slug(label: str) -> str:
    """What a folder can be called."""
    return re.sub(r"[^\w.,+=-]+", "-", label).strip("-.")


def _labelled(axis: str, label: str, value: Any) -> Value:
    """A label that begins with ``--`` is its own options."""
    parts = value if isinstance(value, dict) else {"train": value}
    _check_parts(f"{axis}: {label}", parts, PARTS_OF_A_VALUE)
    where = f"{axis}: {label}: "
    words = {key: words_of(where + key, parts[key]) for key in ("train", "decode", "prepare") if key in parts}
    if label.startswith("--") and not words.get("train"):
        words["train"] = words_of(where + "train", label)
    name = parts.get("name", slug(label))
    if not isinstance(name, str) or not name or slug(name) != name:
        raise ValueError(f"{where}name: got {name!r}; give one that a folder can have")
    splits = list_of(where + "splits", parts["splits"]) if "splits" in parts else None
    return Value(label, name, words.get("train", []), True, words.get("decode"), splits, words.get("prepare"))


def _check_parts(where: str, given: Dict[str, Any], there: Sequence[str]) -> None:
    for key in given:
        if key not in there:
            raise ValueError(f"{where}: {key}: no key of a value{nearest(key, list(there))}")


def runs_of(grids: List[Axes], is_switch: Callable[[str], bool] = lambda option: False) -> List[Run]:
    """The runs of all grids, each once.

    Raises:
        ValueError: values that cannot be (all of them, a line each), two runs of one name, or one option that two axes
            set.
    """
    wrong: List[str] = []
    expanded = []
    for axes in grids:
        values = {}
        for axis, given in axes.items():
            try:
                values[axis] = values_of(axis, given, is_switch)
            except ValueError as error:
                wrong.append(str(error))
        expanded.append(values)
    if wrong:
        raise ValueError("\n".join(dict.fromkeys(wrong)))
    runs: Dict[str, Run] = {}
    for values in expanded:
        for run in _combinations(values):
            other = runs.setdefault(run.name, run)
            if other.facts != run.facts:
                both = f"{_said(other)}; {_said(run)}"
                raise ValueError(f"two runs would share the folder {run.name} ({both}); give one of them a name")
    return list(runs.values())


def _said(run: Run) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in run.facts.items())


def _combinations(values: Dict[str, List[Value]]) -> Iterator[Run]:
    for combination in product(*values.values()):
        chosen = dict(zip(values, combination))
        kept = {axis: value for axis, value in chosen.items() if not _is_idle(axis, value, chosen)}
        own: Dict[str, str] = {}
        for axis, value in kept.items():
            for option, _ in options_of(value.train):
                if own.setdefault(option, axis) != axis:
                    raise ValueError(f"{axis}: {own[option]} sets {option} as well; leave one of both axes out")
        yield Run(
            "-".join(value.name for value in kept.values()),
            {axis: value.label for axis, value in kept.items()},
            [word for value in kept.values() for word in value.train],
            next((value.decode for value in kept.values() if value.decode is not None), None),
            next((value.splits for value in kept.values() if value.splits is not None), None),
            [word for value in kept.values() for word in value.prepare or ()],
        )


def _is_idle(axis: str, value: Value, chosen: Dict[str, Value]) -> bool:
    """Whether the other values leave this one without a meaning, so that all values of its axis train the same."""
    others = dict(pair for other in chosen.values() if other is not value for pair in options_of(other.train))
    option = option_of(axis)
    if value.labelled or option == "--attention-score":
        return False
    if option == "--attention-normalizer" and _makes_weights(others):
        return True
    name = others.get("--attention-score")
    if name == "none":
        return option.startswith("--attention-") or option in ("--input-feeding", "--copy")
    score = ATTENTION_SCORES[name] if name is not None else None
    return score is not None and (
        option in WITHOUT_QUERY and not score.reads_query or option == "--attention-history" and not score.reads_keys
    )


def _makes_weights(options: Dict[str, str]) -> bool:
    """Whether an addressing makes weights of scores itself, without a normaliser."""
    addressing = ADDRESSINGS.get(options.get("--attention-addressing", "none"))
    return addressing is not None and addressing.takes_scores
