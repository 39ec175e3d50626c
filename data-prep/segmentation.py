"""Pieces: trains sentencepiece models and cuts text with them."""

import io
import re
from pathlib import Path
from typing import Collection, Dict, Iterator, List, Sequence, Set, Tuple

import sentencepiece
from data_folder import COLUMN, UNKNOWN, cut
from settings import CHARACTERS_A_PIECE, DEFAULT_VOCAB_SIZE

THREADS = 4  # fixed: with another number the model's scores, and the model, would differ
UNUSED = b"\x18\x05"  # field 3 (type) of a piece is 5 (UNUSED)


def train_model(lines: Sequence[str], kind: str, vocab_size: int, log: Path) -> bytes:
    """A sentencepiece model of ``lines``, without any normalisation of its own.

    Args:
        kind: bpe, unigram or char
        vocab_size: at most this many pieces; fewer where the text gives no more
        log: file for what sentencepiece has to say
    Raises: ValueError if the size is below the number of characters
    """
    model = io.BytesIO()
    longest = max(len(line.encode()) for line in lines)
    try:
        with log.open("a", encoding="utf-8") as stream:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),  # a file's name would become part of the model
                model_writer=model,
                model_type=kind,
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                normalization_rule_name="identity",
                character_coverage=1.0,
                max_sentence_length=max(4192, longest + 1),  # bytes; longer lines are skipped
                num_threads=THREADS,
                logstream=stream,
            )
    except RuntimeError as error:
        least = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        if least:
            raise ValueError(
                f"--vocab-size: got {vocab_size:,}; the text has so many characters that {int(least[1]):,} is the least"
            ) from None
        raise ValueError(f"sentencepiece: {' '.join(str(error).split())} (log: {log})") from None
    return model.getvalue()


def least_size(lines: Sequence[str]) -> int:
    """Pieces of a model that has every character, the word boundary, ``<unk>``, ``<s>`` and ``</s>``."""
    return len({character for line in lines for character in line} - {" "}) + 4


def default_size(lines: Sequence[str], kind: str) -> int:
    """As many pieces as the text gives examples for: with more, nearly every word would be one piece, and the letters
    that other words are made of would be unknown, as the text no longer shows them alone. Of ``char`` the least."""
    wanted = 0 if kind == "char" else min(DEFAULT_VOCAB_SIZE, sum(map(len, lines)) // CHARACTERS_A_PIECE)
    return max(least_size(lines), wanted)


def fields(message: bytes) -> Iterator[Tuple[int, bytes]]:
    """(number, content) of the fields of a protocol buffer message that holds messages only, as a model does."""
    position = 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(message):
        key, size = number(), number()
        yield key >> 3, message[position : position + size]
        position += size


def as_field(number: int, content: bytes) -> bytes:
    """The inverse of ``fields``, for one field."""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def restrict(model: bytes, used: Collection[str]) -> bytes:
    """The model, with every piece of more than one character that is not in ``used`` marked as unused.

    Text is then cut into pieces that the training text shows, so that none of them is unknown to the dictionary. This
    is what SetVocabulary of sentencepiece's C++ interface does, but it stays with the model.
    """
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    changed, index = [], 0
    for number, content in fields(model):
        if number == 1:
            piece = pieces.id_to_piece(index)
            meta = pieces.is_control(index) or pieces.is_unknown(index)
            if not meta and len(piece) > 1 and piece not in used:
                content += UNUSED
            index += 1
        changed.append(as_field(number, content))
    return b"".join(changed)


def pieces_in_use(model: bytes) -> int:
    """Pieces that are not marked as unused: with every character, and sentencepiece's ``<unk>``, ``<s>``, ``</s>``."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    return sum(not pieces.is_unused(index) for index in range(pieces.get_piece_size()))


def encode(model: bytes, lines: List[str], reserved: Set[str]) -> List[str]:
    """Lines as pieces with blanks between them. A piece that is spelt like a reserved symbol becomes ``<unk>``."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [
        " ".join(UNKNOWN if piece in reserved else piece for piece in line)
        for line in pieces.encode(lines, out_type=str)
    ]


def cut_lines(lines: List[str], kinds: Sequence[str], reserved: Set[str]) -> List[str]:
    """Lines of columns with TABs between them as symbols with blanks between them; reserved ones become ``<unk>``."""
    found = []
    for line in lines:
        parts = [cut(text, kind) for text, kind in zip(line.split("\t"), kinds)] if line.strip() else []
        known = [[UNKNOWN if symbol in reserved else symbol for symbol in symbols] for symbols in parts]
        found.append(f" {COLUMN} ".join(" ".join(symbols) for symbols in known))
    return found


def training_text(sides: Dict[str, List[str]], models: Dict[str, str]) -> Dict[str, List[str]]:
    """{file name of a model: lines to train it on}.

    Args:
        sides: {side: training lines}, the source first
        models: {side: name of its model}, one for both where the vocabulary is joint
    """
    texts: Dict[str, List[str]] = {}
    for side, name in models.items():
        texts.setdefault(name, []).extend(sides[side])
    return texts


def segmentation_model(lines: List[str], kind: str, vocab_size: int, log: Path) -> Tuple[bytes, int]:
    """A model, restricted to what its training text shows, and the number of its pieces; see ``train_model``."""
    model = train_model(lines, kind, vocab_size, log)
    if kind != "char":
        model = restrict(model, {piece for line in encode(model, lines, set()) for piece in line.split()})
    return model, pieces_in_use(model)
