"""Experiment files: what is trained, decoded and shown, as YAML."""

import shlex
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import yaml

Axes = Dict[str, Any]
"""By the name of an axis what it goes through, as ``grid.values_of`` reads it."""


@dataclass
class Experiment:
    """One experiment file, with what it takes over from others. Options are words, as on a command line.

    Attributes:
        name: of the file, without ``.yaml``.
        title, about: what a report says of it.
        train: options of ``fairseq-train`` that all runs share.
        more: such options that come after ``train``, which a file may take over from another.
        updates: of each training, over which the learning rate falls; None where ``train`` says so.
        decode: options of ``fairseq-generate``.
        data: data folder, the first word of both commands; None for a task without one.
        prepare: options of ``data-prep/prepare_corpus.sh``, for runs of ``scripts/nmt.sh``; None for others.
        splits: test sets that are decoded.
        seeds: each run is trained once with each; none: once, with fairseq's own seed.
        grids: axes of which all combinations are trained, one grid after the other.
        fixed: options that the user may not give, and why.
        report: what tables and pictures show; see ``evaluation/experiment_report.py``.
    """

    name: str
    title: str = ""
    about: str = ""
    train: List[str] = field(default_factory=list)
    more: List[str] = field(default_factory=list)
    updates: Optional[int] = None
    decode: List[str] = field(default_factory=list)
    data: Optional[str] = None
    prepare: Optional[List[str]] = None
    splits: List[str] = field(default_factory=lambda: ["test"])
    seeds: List[str] = field(default_factory=lambda: ["1"])
    grids: List[Axes] = field(default_factory=list)
    fixed: Dict[str, str] = field(default_factory=dict)
    report: Dict[str, Any] = field(default_factory=dict)


KEYS = [key.name for key in fields(Experiment) if key.name != "name"] + ["extends", "axes"]


def names(folder: Path) -> List[str]:
    """Those of the experiments of a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_experiment(name: str, folder: Path) -> Experiment:
    """Reads an experiment by the path of its file, or by its name in ``folder``.

    Raises:
        ValueError: there is none, or the file is not as it has to be; file, key and remedy.
        OSError: it cannot be read.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"got '{name}'; choose from {', '.join(names(folder))}, or give the path of a file .yaml")
    found = _inherited(path, folder, [])
    try:
        return _experiment(path.stem, found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _inherited(path: Path, folder: Path, before: List[Path]) -> Dict[str, Any]:
    """Keys of a file and, where it lacks them, of the file that it extends, which lies beside it or in ``folder``."""
    if path in before:
        raise ValueError(f"{path}: extends: {before[-1].name} is extended by this file; leave one of both out")
    found = _read(path)
    if "extends" not in found:
        return found
    other = found.pop("extends")
    there = [place / f"{other}.yaml" for place in (path.parent, folder)]
    base = next((place for place in there if place.is_file()), None)
    if not isinstance(other, str) or base is None:
        raise ValueError(f"{path}: extends: got {other!r}; choose from {', '.join(names(folder))}")
    inherited = _inherited(base, folder, [*before, path])
    if {"axes", "grids"} & set(found):
        inherited = {key: value for key, value in inherited.items() if key not in ("axes", "grids")}
    return {**inherited, **found}


class _Text(yaml.BaseLoader):
    """Every value is text, as a command line has it: ``on`` is no truth, ``010`` no number."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(problem=f"key {twice} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Dict[str, Any]:
    """The keys of a file: text, but for those of the report, which has numbers."""
    try:
        text = path.read_text(encoding="utf-8")
        found, typed = yaml.load(text, _Text), yaml.safe_load(text)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not text in UTF-8; save it so") from None
    except yaml.YAMLError as error:
        mark, why = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "not YAML"
        raise ValueError(f"{path}{f':{mark.line + 1}' if mark else ''}: {why}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: got no keys; give some of {', '.join(KEYS)}")
    for key in found:
        if key not in KEYS:
            raise ValueError(f"{path}: {key}: no key of an experiment{nearest(key, KEYS)}")
    return {**found, **({"report": typed["report"]} if "report" in found else {})}


def nearest(word: str, there: List[str]) -> str:
    """The end of a message on a word that is not ``there``: the nearest, or all."""
    close = get_close_matches(word, there, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else f"; choose from {', '.join(there)}"


def _experiment(name: str, found: Dict[str, Any]) -> Experiment:
    values = dict(found)
    if "axes" in values and "grids" in values:
        raise ValueError("axes: it has grids as well; put the axes among them")
    if "axes" in values:
        values["grids"] = [values.pop("axes")]
    for key in ("title", "about", "data"):
        if key in values and not isinstance(values[key], str):
            raise ValueError(f"{key}: got {values[key]!r}; give text")
    for key in ("train", "more", "decode", "prepare"):
        if key in values:
            values[key] = words_of(key, values[key])
    for key in ("splits", "seeds"):
        if key in values:
            values[key] = list_of(key, values[key])
    if "updates" in values:
        values["updates"] = _number("updates", values["updates"])
    for key, shape in (("fixed", dict), ("report", dict), ("grids", list)):
        if not isinstance(values.get(key, shape()), shape):
            raise ValueError(f"{key}: got {values[key]!r}; give {'a list' if shape is list else 'keys and values'}")
    grids = values.get("grids", [])
    for axes in grids:
        if not isinstance(axes, dict) or not axes:
            raise ValueError(f"grids: got {axes!r}; give axes, as score: [general, additive]")
    return Experiment(name, **values)


def words_of(key: str, value: Any) -> List[str]:
    """Options as words: of a text, or of a list of texts one after the other."""
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key}: got {value!r}; give options, as --dropout 0.3")
    try:
        return [word for text in texts for word in shlex.split(text)]
    except ValueError as error:
        raise ValueError(f"{key}: {value!r}: {error}") from None


def list_of(key: str, value: Any) -> List[str]:
    """A list, or words with blanks or commas between them, of which none is there twice."""
    found = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(word, str) and word for word in found):
        raise ValueError(f"{key}: got {value!r}; give a list, as [1, 2]")
    twice = sorted({word for word in found if found.count(word) > 1})
    if twice:
        raise ValueError(f"{key}: got {', '.join(twice)} twice; give each once")
    if key == "seeds":
        return [str(_number(key, word)) for word in found]
    return found


def _number(key: str, value: Any) -> int:
    if not isinstance(value, str) or not value.isdecimal() or len(value) > 9 or not int(value):
        raise ValueError(f"{key}: got {value!r}; give a number, 1 or more")
    return int(value)


def value_of(option: str, words: List[str]) -> Optional[str]:
    """What words say last about an option, as ``--option value`` or ``--option=value``; None where they do not."""
    return dict(options_of(words)).get(option)


def options_of(words: List[str]) -> List[Tuple[str, str]]:
    """(option, values with blanks between them), in order; words before the first option stand under an empty one."""
    found: List[Tuple[str, str]] = []
    for word in words:
        if word.startswith("--"):
            option, _, value = word.partition("=")
            found.append((option, value))
        elif found:
            option, value = found[-1]
            found[-1] = (option, f"{value} {word}".strip())
        else:
            found.append(("", word))
    return found
