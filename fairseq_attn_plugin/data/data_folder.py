"""The data folder: what ``data-prep/`` writes, and what training, decoding and serving read::

    data.json                                   languages, segmentation, checksums; see describe
    dict.<side>.txt                             a dictionary of fairseq for each side
    sentencepiece.model                         or sentencepiece.<side>.model, one for each side that sentencepiece cuts
    <split>.<source>-<target>.<side>.bin, .idx  binarised text, named by fairseq
    text/<split>.<language>                     valid and tests as they were given

A side is called by its language; the target side of several languages by all of them, with + between them. A model's
folder holds ``checkpoint.pt`` and the first three.

This is the only file that knows these names and forms. It needs nothing but the standard library: ``data-prep/`` and
``scripts/`` have symbolic links to it, so that they read it without importing the package.
"""

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any, Collection, Dict, Final, List, Sequence, Set

DATA_FILE = "data.json"
FORMAT = 2
"""The newest that is read and written; what format 1 can say is written in format 1."""
SEGMENTATIONS = ("none", "char", "bpe", "unigram")
LEARNT = ("bpe", "unigram")
"""Segmentations that a sentencepiece model does; in format 1 ``char`` is one of them."""
FEATURES = "features"
"""Segmentation of a source column: what semicolons separate, each a symbol."""
NORMALIZATIONS = ("NFC", "NFD", "none")
NORMALIZATION: Final = "NFC"
COLUMN = "<tab>"
"""Symbol between the columns of a source, which is TAB in text."""
BLANK = "▁"
"""What sentencepiece puts at the beginning of a word; between characters, a blank."""
UNKNOWN = "<unk>"
RESERVED = {"<s>", "<pad>", "</s>", UNKNOWN}
"""Symbols of fairseq's own, which no text holds once it is prepared."""

KEYS = {
    "source": str, "target": str, "targets": list, "tag_target": bool, "segmentation": str, "sentencepiece": dict,
    "sha256": dict,
}  # fmt: skip
"""What a reader needs of ``data.json``."""

TEXT = "text"
"""The folder, within the data folder, of valid and tests as they were given."""

MAKE = "a data folder is made by data-prep/prepare_corpus.sh"


# Names and forms


def dictionary_file(side: str) -> str:
    """Name of the dictionary of a side."""
    return f"dict.{side}.txt"


def sentencepiece_files(sides: Collection[str], joint: bool) -> Dict[str, str]:
    """{side: name of its sentencepiece model}; both sides have the same one where the vocabulary is joint."""
    return {side: "sentencepiece.model" if joint else f"sentencepiece.{side}.model" for side in sides}


def text_file(split: str, language: str) -> str:
    """Path of the text of a split, within the data folder."""
    return f"{TEXT}/{split}.{language}"


def tests_of(folder, source: str) -> List[str]:
    """Names of the test sets of a data folder."""
    found = Path(folder).glob(text_file("test*", source))
    return sorted(path.name.removesuffix(f".{source}") for path in found)


def reference_file(folder, split: str, source: str) -> Path:
    """The text of a split that is not the source's: its language is the split's own where there are several.

    Raises:
        ValueError: there is none, or more than one.
    """
    found = [path for path in Path(folder).glob(text_file(split, "*")) if path.name != f"{split}.{source}"]
    if len(found) != 1:
        raise ValueError(f"{folder}/{TEXT}: {len(found)} references beside {split}.{source}; there must be one")
    return found[0]


def tag(target: str) -> str:
    """First symbol of a source sentence that is to be translated to ``target``."""
    return f"<2{target}>"


def is_tag(piece: str) -> bool:
    """Whether a piece is the tag of some language."""
    return piece.startswith("<2") and piece.endswith(">")


def reserved_symbols(tagged: Collection[str] = (), columns: int = 1) -> Set[str]:
    """Symbols that no text may hold: fairseq's own, the tags of the languages in ``tagged``, and what stands between
    several columns."""
    return RESERVED | {tag(language) for language in tagged} | ({COLUMN} if columns > 1 else set())


def normalize(line: str, form: str = NORMALIZATION) -> str:
    """The form of all text: one blank for white space of any kind, none at the ends, and one of ``NORMALIZATIONS``."""
    if form in ("NFC", "NFD"):
        line = unicodedata.normalize("NFD" if form == "NFD" else "NFC", line)
    return " ".join(line.split())


# Segmentation: "bpe", or what each column of the source, and the target, is cut into: "char,features:none"


def join_kinds(source: Collection[str], target: str) -> str:
    """The segmentation of a source with these columns, and of the target."""
    text = ",".join(source)
    return text if text == target else f"{text}:{target}"


def kinds(segmentation: str, side: str) -> List[str]:
    """What each column of a side, ``source`` or ``target``, is cut into."""
    source, _, target = segmentation.partition(":")
    return source.split(",") if side == "source" or not target else [target]


def reads_back(segmentation: str) -> bool:
    """Whether source pieces become text as target pieces do. Where they do not, logs of fairseq show source pieces."""
    return ":" not in segmentation


def cut(text: str, kind: str) -> List[str]:
    """Symbols of normalised text of one column, where no sentencepiece model cuts it; :func:`put_together` inverts it.

    Args:
        kind: ``char``: every character (code point) is a symbol, a blank ``▁`` and what is ``▁`` in the text ``▁▁``;
            ``features``: what semicolons separate, in brackets: ``N;PL`` gives ``[N]``, ``[PL]``, which no character
            is; ``none``: what blanks separate.
    """
    if kind == "char":
        return [_CHARACTERS.get(character, character) for character in text]
    if kind == FEATURES:
        return [f"[{'▁'.join(feature.split())}]" for feature in text.split(";") if feature.strip()]
    return text.split()


def put_together(symbols: Sequence[str], kind: str) -> str:
    """Text of the symbols of one column, see :func:`cut`."""
    if kind == "char":
        return "".join(_SYMBOLS.get(symbol, symbol) for symbol in symbols)
    if kind == FEATURES:
        return ";".join(symbol.removeprefix("[").removesuffix("]").replace(BLANK, " ") for symbol in symbols)
    return " ".join(symbols)


_CHARACTERS = {" ": BLANK, BLANK: BLANK * 2}
_SYMBOLS = {symbol: character for character, symbol in _CHARACTERS.items()}


def is_segmentation(text: str) -> bool:
    """Whether a text is a segmentation."""
    source, target = kinds(text, "source"), kinds(text, "target")
    several = len(source) > 1
    return (
        all(kind in (*SEGMENTATIONS, FEATURES) and not (several and kind in LEARNT) for kind in source)
        and target[0] in SEGMENTATIONS and len(target) == 1
    )  # fmt: skip


def measure(settings: Dict[str, Any]) -> str:
    """The measure that chooses a checkpoint, by what ``data.json`` says: ``bleu``, or of words ``exact_match``."""
    return settings.get("measure", "bleu")


# data.json


def describe(
    folder: Path,
    source: str,
    targets: Collection[str],
    tag_target: bool,
    segmentation: str,
    models: Dict[str, str],
    normalization: str = NORMALIZATION,
) -> Dict[str, Any]:
    """``data.json`` of a folder that has its dictionaries and sentencepiece models already, as far as readers need it.

    Args:
        source: source language.
        targets: target languages.
        tag_target: whether source sentences begin with the tag of the target language.
        segmentation: one of ``SEGMENTATIONS``, or see :func:`join_kinds`.
        models: see :func:`sentencepiece_files`; of a side that no sentencepiece model cuts there is none.
        normalization: one of ``NORMALIZATIONS``.
    """
    target = "+".join(targets)
    names = sorted({dictionary_file(source), dictionary_file(target), *models.values()})
    return {
        "format": 1 if normalization == NORMALIZATION and _as_in_format_1(segmentation, models) else FORMAT,
        "source": source,
        "target": target,
        "targets": list(targets),
        "tag_target": tag_target,
        "segmentation": segmentation,
        "normalization": normalization,
        "sentencepiece": models,
        "sha256": {name: sha256(Path(folder, name)) for name in names},
    }


def _as_in_format_1(segmentation: str, models: Dict[str, str]) -> bool:
    """Whether both sides are cut in the same way, ``char`` by sentencepiece."""
    return segmentation in SEGMENTATIONS and (segmentation == "none" or bool(models))


def read_data_settings(folder) -> Dict[str, Any]:
    """``data.json`` of a data folder or of a model's folder, once its dictionaries and sentencepiece models are those
    that it describes.

    Raises:
        ValueError: the folder, the file or one of the files that it names is missing, damaged or another one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; {MAKE}")
    path = folder / DATA_FILE
    if not path.is_file():
        raise ValueError(f"{folder}: no {DATA_FILE}; {MAKE}, and a model's folder has the data folder's {DATA_FILE}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        found = settings["format"]
        known = type(found) is int and 1 <= found <= FORMAT
        damaged = [key for key, kind in KEYS.items() if not isinstance(settings[key], kind)] if known else []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({type(error).__name__}: {error}); {MAKE}") from None
    if not known:
        raise ValueError(f"{path}: format {found!r}, and this version reads {FORMAT}; {MAKE}")
    if not damaged:
        damaged = [] if is_segmentation(settings["segmentation"]) else ["segmentation"]
        damaged += [] if settings.get("normalization", NORMALIZATION) in NORMALIZATIONS else ["normalization"]
    if damaged:
        raise ValueError(f"{path}: damaged ({damaged[0]} is {settings[damaged[0]]!r}); {MAKE}")
    needed = [dictionary_file(settings[side]) for side in ("source", "target")]
    learnt = LEARNT if found > 1 else (*LEARNT, "char")
    for side in ("source", "target"):
        if kinds(settings["segmentation"], side)[0] in learnt:
            needed.append(settings["sentencepiece"].get(settings[side]))
    for name in sorted(needed, key=str):
        _check_file(folder, name, settings["sha256"])
    return settings


def _check_file(folder: Path, name: Any, sums: Dict[str, Any]) -> None:
    """Raises a ValueError where a file is not the one that ``data.json`` describes."""
    expected = sums.get(name) if isinstance(name, str) else None
    if expected is None:
        what = " ".join(str(name or "a sentencepiece model").split())
        raise ValueError(f"{folder / DATA_FILE}: damaged (no sha256 of {what}); {MAKE}")
    if not (folder / name).is_file():
        raise ValueError(f"{folder}: no {name}, which its {DATA_FILE} names; copy the whole folder, or make it again")
    if sha256(folder / name) != expected:
        raise ValueError(
            f"{folder / name}: not the file that {DATA_FILE} describes (its sha256 differs); "
            "put the right one back, or make the folder again"
        )


def sha256(path: Path) -> str:
    """Of the content of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


CHECKPOINTS = "checkpoints"
"""Of ``data.json`` in a model's folder: the checksums of checkpoints that lie beside it, by name."""


def describe_checkpoint(folder, name: str) -> None:
    """Notes the checksum of a checkpoint in the ``data.json`` of a model's folder."""
    path = Path(folder, DATA_FILE)
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings[CHECKPOINTS] = {**settings.get(CHECKPOINTS, {}), name: sha256(Path(folder, name))}
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def what_is_said(folder) -> Dict[str, Any]:
    """What ``data.json`` says, unchecked; nothing where the folder has none that can be read."""
    try:
        said = json.loads(Path(folder, DATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # no folder of ours, or reported elsewhere
        return {}
    return said if isinstance(said, dict) else {}


def check_described(path) -> None:
    """Raises a ValueError where a checkpoint is not the one that the ``data.json`` beside it describes, if it does."""
    path = Path(path)
    sums = what_is_said(path.parent).get(CHECKPOINTS)
    if path.is_file() and isinstance(sums, dict) and path.name in sums:
        _check_file(path.parent, path.name, sums)


def model_files(settings: Dict[str, Any]) -> List[str]:
    """Names of the files of a data folder that a model's folder takes over."""
    return [DATA_FILE, *settings["sha256"]]
