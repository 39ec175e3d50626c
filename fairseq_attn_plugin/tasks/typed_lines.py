"""What fairseq-interactive reads: lines, and behind tabs the constraints of their translations."""

from typing import Any, List

from fairseq.tasks import FairseqTask

from ..data.data_folder import kinds
from ..data.segmenter import Segmenter


class TypedLines(FairseqTask):
    """To be inherited before a fairseq task: it knows what its generator was built for, and refuses what
    fairseq-interactive cannot write."""

    _soft_alignment = False
    _constrained = False

    def build_generator(self, models, args, *others, **kwargs):
        """fairseq's. What a command asks of its only search is kept; other searches ask for neither of these."""
        alignment, constraints = (getattr(args, name, None) for name in ("print_alignment", "constraints"))
        if alignment or constraints:
            self._soft_alignment = alignment == "soft"
            self._constrained = bool(constraints)
        return super().build_generator(models, args, *others, **kwargs)

    def get_interactive_tokens_and_lengths(self, lines: List[str], encode_fn: Any):
        """fairseq's: token numbers of each line, and how many.

        Raises:
            ValueError: fairseq-interactive is to print soft alignments.
        """
        self.refuse_soft_alignment()
        return super().get_interactive_tokens_and_lengths(lines, encode_fn)

    def refuse_soft_alignment(self) -> None:
        """ValueError where fairseq-interactive would end for want of pairs after its first line."""
        if self._soft_alignment:
            raise ValueError(
                "--print-alignment soft: fairseq-interactive prints pairs alone; give --print-alignment hard, or take "
                "fairseq-generate, or translate.sh --json"
            )


class ConstraintSegmenter(Segmenter):
    """Of the target side: what a translation has to contain, in pieces that the dictionary knows.

    Args:
        folder: see :class:`Segmenter`.
        dictionary: of the target side.
    """

    def __init__(self, folder, dictionary):
        super().__init__(folder, "target")
        self._dictionary = dictionary
        if len(kinds(self.segmentation, "source")) > 1:
            raise ValueError("--constraints: TAB separates them from the source, and its columns; leave the option out")

    def encode(self, text: str) -> str:
        """Pieces with blanks between them.

        Raises:
            ValueError: there are none, or the dictionary does not know one.
        """
        pieces = self.pieces(text)
        if not pieces:
            raise ValueError("--constraints: one of a line is empty; leave the second of two tabs out")
        unknown = [piece for piece in pieces if self._dictionary.index(piece) == self._dictionary.unk()]
        if unknown:
            raise ValueError(f"--constraints: got {text!r}, and no translation of the model has {unknown[0]!r}; "
                             "leave the constraint out")  # fmt: skip
        return " ".join(pieces)
