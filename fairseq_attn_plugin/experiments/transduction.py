"""What ``scripts/transduce.sh`` trains: the models of each of its modes, and the files of a folder of languages."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence

SPLITS = ("train", "dev", "test")
FILE = re.compile(r"(?P<language>[A-Za-z0-9][\w-]*?)[_-](?P<split>train|dev|test)(?:[_-](?P<size>\w+))?\.tsv(?:\.gz)?")
NAMES = "LANGUAGE_train.tsv, LANGUAGE_dev.tsv and LANGUAGE_test.tsv"
TOGETHER = "together"
"""Stands for a language where one model is of all."""
UPDATES = 2000
"""Of the training for one language."""
VALIDATIONS = 10
"""Of a training: each takes as long as many updates on so few words."""


@dataclass(frozen=True)
class Mode:
    """One kind of transduction.

    Options are words with blanks between them, as on a command line; the user's come after them.

    Attributes:
        preparing: options of ``data-prep/prepare_corpus.sh``.
        training: options of ``fairseq-train`` that all models share, beside those of ``scripts/nmt.sh``.
        members: by name the options of ``fairseq-train`` that set a model apart; they come last.
    """

    preparing: str
    training: str
    members: Dict[str, str]


SPARSE = "--output-normalizer entmax15 --criterion entmax_loss"
MODES = {
    "g2p": Mode(
        "--source letters --target phones --columns 1,2 --source-segmentation char --target-segmentation none "
        "--normalization nfd",
        f"--arch attn_lstm_g2p {SPARSE}",
        {
            "base": "",
            "content": "--attention-addressing none --attention-normalizer entmax15",
            "wide": "--encoder-hidden-size 256 --decoder-hidden-size 512",
        },
    ),
    "inflection": Mode(
        "--source lemma --target form --columns 1+3,2 --source-segmentation char,features --target-segmentation char",
        "--arch attn_lstm_inflection",
        {
            "base": "",
            "monotonic": "--attention-heads 1 --attention-addressing monotonic",
            "copy": "--copy on",
            "wide": "--encoder-hidden-size 256 --decoder-hidden-size 512",
        },
    ),
}


def shared_options(mode: Mode, updates: int) -> List[str]:
    """Options of ``fairseq-train`` for every model of a mode. Between validations no checkpoint is written: an epoch of
    some thousand words lasts seconds, less than it takes to start a process that loads them."""
    interval = str(max(1, updates // VALIDATIONS))
    never = str(10**6)
    options = {"--validate-interval-updates": interval, "--save-interval-updates": interval,
               "--validate-interval": never, "--save-interval": never,
               "--num-workers": "0"}  # fmt: skip
    return [*mode.training.split(), *(word for option in options.items() for word in option)]


def with_a_tag(preparing: str) -> str:
    """Options of ``prepare_corpus.sh`` for tables with one more column before the others: a language, which becomes a
    symbol in front of the source."""
    words = preparing.split()
    columns, segmentation = (words.index(option) + 1 for option in ("--columns", "--source-segmentation"))
    words[columns] = "1+" + re.sub(r"\d+", lambda number: str(int(number[0]) + 1), words[columns])
    words[segmentation] = f"features,{words[segmentation]}"
    return " ".join(words)


def chosen(option: str, names: Optional[str], there: Sequence[str]) -> List[str]:
    """The names that were given, with blanks between them, or all.

    Raises:
        ValueError: a name that there is not, or one twice.
    """
    given = names.split() if names else list(there)
    for name in given:
        if name not in there:
            raise ValueError(f"{option}: got '{name}'; choose from {', '.join(there)}")
        if given.count(name) > 1:
            raise ValueError(f"{option}: got '{name}' twice; name each once")
    return given


def find_languages(folder, names: Optional[str] = None, size: Optional[str] = None) -> Dict[str, List[Path]]:
    """{language: its training, development and test file} of a folder, by name.

    A file is called ``LANGUAGE_SPLIT.tsv``, with ``-`` or ``_``, split ``train``, ``dev`` or ``test``; also with
    ``.gz``. A training file may have a size behind it: ``german-train-high.tsv.gz``.

    Args:
        names: of the languages that are wanted, with blanks between them; None: all.
        size: of the training files, where a language has several.

    Raises:
        ValueError: no folder, no language, one that is not there, lacks a split or has two files for it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"--from: got '{folder}', no such folder; give the one with {NAMES}")
    found: Dict[str, Dict[str, List[Path]]] = {}
    for path in sorted(folder.iterdir()):
        name = FILE.fullmatch(path.name)
        if name and not (size and name["split"] == "train" and name["size"] != size):
            found.setdefault(name["language"], {}).setdefault(name["split"], []).append(path)
    if not found:
        raise ValueError(f"--from: {folder} has no files such as {NAMES} (or .tsv.gz); give the folder that has")
    return {language: [_only(language, split, found[language].get(split, []), size) for split in SPLITS]
            for language in chosen("LANGUAGES", names, list(found))}  # fmt: skip


def _only(language: str, split: str, paths: List[Path], size: Optional[str]) -> Path:
    """The one file of a split."""
    if not paths:
        wanted = f" of size {size}" if size and split == "train" else ""
        raise ValueError(f"--from: {language} has no {split} file{wanted}; LANGUAGES= names those that are complete")
    if len(paths) > 1:
        sizes = [name["size"] for name in (FILE.fullmatch(path.name) for path in paths) if name and name["size"]]
        remedy = f"SIZE= chooses from {', '.join(sizes)}" if split == "train" and sizes else "leave one"
        raise ValueError(f"--from: {language} has {' and '.join(path.name for path in paths)}; {remedy}")
    if "\t" in str(paths[0]) or "\n" in str(paths[0]):
        raise ValueError(f"--from: {str(paths[0])!r} has white space that no list of files can have; rename it")
    return paths[0]
