"""From raw text to the pieces that a model reads, and back, by what a data folder says."""

from pathlib import Path
from typing import List, Optional

from sentencepiece import SentencePieceProcessor

from .data_folder import BLANK, UNKNOWN, normalize, read_data_settings, reserved_symbols, tag


class Segmenter:
    """Text of one side → pieces, and pieces → text. What fairseq calls a ``bpe``.

    Text is in NFC, white space of any kind is one blank; then it is cut by sentencepiece, or at the blanks where the
    segmentation is ``none``. Characters that the model has never seen are one unknown piece where they stand side by
    side. Symbols of fairseq's own and target-language tags that stand in the text are unknown, too. ``▁`` in the text
    is a blank to sentencepiece.

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
        self.targets: List[str] = settings["targets"]
        self._tagged = settings["tag_target"] and side == "source"
        self._reserved = reserved_symbols(self.targets if self._tagged else ())
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
        """Pieces of a text, without the prefix; of a blank one none."""
        text = normalize(text)
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
        return pieces if self._model is None else "".join(pieces.split(" ")).replace(BLANK, " ").strip()

    def starts_word(self, piece: str) -> bool:
        """Whether a blank, or the beginning of the text, is before ``piece``."""
        return self._model is None or piece.startswith(BLANK)
