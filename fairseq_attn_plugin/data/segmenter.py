"""From raw text to the pieces that a model reads, and back, by what a data folder says."""

import unicodedata
from pathlib import Path
from typing import List, Optional

from sentencepiece import SentencePieceProcessor

from .data_folder import (
    BLANK,
    COLUMN,
    NORMALIZATION,
    UNKNOWN,
    cut,
    kinds,
    normalize,
    put_together,
    read_data_settings,
    reads_back,
    reserved_symbols,
    tag,
)


class Segmenter:
    """Text of one side → pieces, and pieces → text. What fairseq calls a ``bpe``.

    Text is in NFC, or as the folder says, white space of any kind is one blank; then it is cut by sentencepiece, or as
    :func:`.data_folder.cut` says. What sentencepiece has never seen is one unknown piece where it stands side by side.
    Symbols of fairseq's own and target-language tags that stand in ready symbols are unknown, too. ``▁`` in the text is
    a blank to sentencepiece. A source of several columns has a TAB between them in the text, and ``<tab>`` in the
    pieces. Text of pieces is in NFC, unless the folder's is as it was given.

    Args:
        folder: data folder or model's folder, see :func:`.data_folder.read_data_settings`.
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
        self.kinds = kinds(self.segmentation, side)
        self.normalization: str = settings.get("normalization", NORMALIZATION)
        self.targets: List[str] = settings["targets"]
        self._tagged = settings["tag_target"] and side == "source"
        self._reserved = reserved_symbols(self.targets if self._tagged else (), len(self.kinds))
        name = settings["sentencepiece"].get(settings[side])
        self._model = SentencePieceProcessor(model_proto=Path(folder, name).read_bytes()) if name else None
        self.target = target

    @property
    def target(self) -> Optional[str]:
        """Language to translate to; None where several could be meant."""
        return self._target

    @target.setter
    def target(self, target: Optional[str]) -> None:
        self._check(target)
        self._target = self.targets[0] if target is None and len(self.targets) == 1 else target

    def _check(self, target: Optional[str]) -> None:
        if target is not None and target not in self.targets:
            raise ValueError(f"--translate-to: got {target!r}; choose from {', '.join(self.targets)}")

    def prefix(self, target: Optional[str] = None) -> List[str]:
        """What comes before the pieces of a line: the tag of the target language, or nothing.

        Args:
            target: language to translate to; None = that of the segmenter.

        Raises:
            ValueError: a language that there is not, or none where several could be meant.
        """
        self._check(target)
        if not self._tagged:
            return []
        target = self._target if target is None else target
        if target is None:
            raise ValueError(f"--translate-to: not given; choose from {', '.join(self.targets)}")
        return [tag(target)]

    def pieces(self, text: str) -> List[str]:
        """Pieces of a text, without the prefix; of a blank one none.

        Raises:
            ValueError: the text has another number of columns than the source.
        """
        if not text.strip():
            return []
        columns = text.split("\t") if len(self.kinds) > 1 else [text]
        if len(columns) != len(self.kinds):
            raise ValueError(
                f"{text!r}: {len(columns)} columns by tabs, and the source has {len(self.kinds)} "
                f"({', '.join(self.kinds)}); give each line as many"
            )
        pieces: List[str] = []
        for number, (column, kind) in enumerate(zip(columns, self.kinds)):
            pieces += [COLUMN] * (number > 0) + self._column(normalize(column, self.normalization), kind)
        return pieces

    def _column(self, text: str, kind: str) -> List[str]:
        pieces = cut(text, kind) if self._model is None else self._model.encode(text, out_type=str)
        return [UNKNOWN if piece in self._reserved else piece for piece in pieces]

    def logged_pieces(self, source: str) -> List[str]:
        """Pieces of a source as a log of fairseq-generate shows it, see :class:`RawText`."""
        return self.pieces(source) if reads_back(self.segmentation) else source.split()

    def encode(self, text: str) -> str:
        """Prefix and pieces with blanks between them; of a blank text nothing."""
        pieces = self.pieces(text)
        return " ".join(self.prefix() + pieces) if pieces else ""

    def decode(self, pieces: str) -> str:
        """Text of pieces with blanks between them."""
        if self._model is not None:
            text = "".join(pieces.split(" ")).replace(BLANK, " ").strip()
        else:
            columns = pieces.split(f" {COLUMN} ") if len(self.kinds) > 1 else [pieces]
            texts = [put_together(column.split(" "), kind) for column, kind in zip(columns, self.kinds)]
            text = "\t".join(texts).strip()
        return text if self.normalization != "NFD" else unicodedata.normalize("NFC", text)

    def starts_word(self, piece: str) -> bool:
        """Whether a blank, or the beginning of the text, is before ``piece``, or in it where it is a character."""
        if self._model is None:
            return self.kinds[0] != "char" or piece == BLANK
        return piece.startswith(BLANK)


class SourcePieces(str):
    """Source pieces with blanks between them, as a source dictionary puts them together for a log."""


class RawText(Segmenter):
    """Source text → pieces, and pieces of either side → text: source pieces are known by their type. Where they are cut
    in another way than the target they stay pieces, so that a log can be read back."""

    def __init__(self, folder, target: Optional[str] = None):
        super().__init__(folder, "source", target)
        self._target_side = Segmenter(folder, "target")

    def decode(self, pieces: str) -> str:
        if isinstance(pieces, SourcePieces):
            return super().decode(pieces) if reads_back(self.segmentation) else str(pieces)
        return self._target_side.decode(pieces)
