"""From raw text to the pieces that a model reads, and back, by what a data folder says."""

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any, Dict, List, Optional

from sentencepiece import SentencePieceProcessor

DATA_FILE = "data.json"
FORMAT = 1
SEGMENTATIONS = ("none", "char", "bpe", "unigram")
UNKNOWN = "<unk>"
RESERVED = {"<s>", "<pad>", "</s>", UNKNOWN}
KEYS = {
    "source": str, "target": str, "targets": list, "tag_target": bool, "segmentation": str, "sentencepiece": dict,
    "sha256": dict,
}  # fmt: skip
MAKE = "a data folder is made by data-prep/prepare_corpus.sh"


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
        damaged = [key for key, kind in KEYS.items() if not isinstance(settings[key], kind)] if found == FORMAT else []
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged ({type(error).__name__}: {error}); {MAKE}") from None
    if found != FORMAT:
        raise ValueError(f"{path}: format {found!r}, and this version reads {FORMAT}; {MAKE}")
    if damaged or settings["segmentation"] not in SEGMENTATIONS:
        name = damaged[0] if damaged else "segmentation"
        raise ValueError(f"{path}: damaged ({name} is {settings[name]!r}); {MAKE}")
    needed = {f"dict.{settings[side]}.txt" for side in ("source", "target")}
    if settings["segmentation"] != "none":
        needed |= {settings["sentencepiece"].get(settings[side]) for side in ("source", "target")}
    for name in sorted(needed, key=str):
        _check_file(folder, name, settings["sha256"].get(name))
    return settings


def _check_file(folder: Path, name: Optional[str], sha256: Optional[str]) -> None:
    """Raises a ValueError where a file is not the one that ``data.json`` describes."""
    if name is None or sha256 is None:
        raise ValueError(f"{folder / DATA_FILE}: damaged (no sha256 of {name or 'a sentencepiece model'}); {MAKE}")
    if not (folder / name).is_file():
        raise ValueError(f"{folder}: no {name}, which its {DATA_FILE} names; copy the whole folder, or make it again")
    if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
        raise ValueError(
            f"{folder / name}: not the file that {DATA_FILE} describes (its sha256 differs); "
            "put the right one back, or make the folder again"
        )


class Segmenter:
    """Text of one side → pieces, and pieces → text. What fairseq calls a ``bpe``.

    Text is in NFC, white space of any kind is one blank; then it is cut by sentencepiece, or at the blanks where the
    segmentation is ``none``. Characters that the model has never seen are one unknown piece where they stand side by
    side. Symbols of fairseq's own and target-language tags that stand in the text are unknown, too. ``▁`` in the text
    is a blank to sentencepiece.

    Args:
        folder: data folder or model's folder, see :func:`read_data_settings`.
        side: ``source`` or ``target``.
        target: language to translate to, for a source whose lines begin with a tag; None: the only one there is.

    Raises:
        ValueError: the folder's files are not those of its ``data.json``; a target that it does not have.
    """

    def __init__(self, folder, side: str, target: Optional[str] = None):
        if side not in ("source", "target"):
            raise ValueError(f"side: got {side!r}; choose from source, target")
        settings = read_data_settings(folder)
        self.segmentation: str = settings["segmentation"]
        self.targets: List[str] = settings["targets"]
        self._tagged = settings["tag_target"] and side == "source"
        self._reserved = RESERVED | ({tag(name) for name in self.targets} if self._tagged else set())
        self._model = None
        if self.segmentation != "none":
            path = Path(folder) / settings["sentencepiece"][settings[side]]
            self._model = SentencePieceProcessor(model_proto=path.read_bytes())
        self.target = target

    @property
    def target(self) -> Optional[str]:
        """Language to translate to; None where several could be meant."""
        return self._target

    @target.setter
    def target(self, target: Optional[str]) -> None:
        if target is not None and target not in self.targets:
            raise ValueError(f"--translate-to: got {target!r}; choose from {', '.join(self.targets)}")
        self._target = self.targets[0] if target is None and len(self.targets) == 1 else target

    def prefix(self) -> List[str]:
        """What comes before the pieces of a line: the tag of the target language, or nothing."""
        if not self._tagged:
            return []
        if self._target is None:
            raise ValueError(f"--translate-to: not given; choose from {', '.join(self.targets)}")
        return [tag(self._target)]

    def pieces(self, text: str) -> List[str]:
        """Pieces of a text, without the prefix; of a blank one none."""
        text = " ".join(unicodedata.normalize("NFC", text).split())
        if self._model is None:
            pieces = text.split()
        else:
            pieces = self._model.encode(text, out_type=str)
        return [UNKNOWN if piece in self._reserved else piece for piece in pieces]

    def encode(self, text: str) -> str:
        """Prefix and pieces with blanks between them; of a blank text nothing."""
        pieces = self.pieces(text)
        return " ".join(self.prefix() + pieces) if pieces else ""

    def decode(self, pieces: str) -> str:
        """Text of pieces with blanks between them."""
        return pieces if self._model is None else "".join(pieces.split(" ")).replace("▁", " ").strip()

    def starts_word(self, piece: str) -> bool:
        """Whether a blank, or the beginning of the text, is before ``piece``."""
        return self._model is None or piece.startswith("▁")


def tag(target: str) -> str:
    """First token of a source that is to be translated to ``target``."""
    return f"<2{target}>"
