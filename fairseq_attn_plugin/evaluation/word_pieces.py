"""Attention weights of pieces as weights of words: rows and columns of the pieces of a word become one."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterable, List, Sequence, Tuple

import numpy as np

from ..data.data_folder import BLANK, UNKNOWN, is_tag
from .generation_log import EOS, Hypothesis, Sentence, attention_axes, attention_weights
from .plots import HeatMap

SEGMENTATIONS = ("bpe", "unigram")
"""Those whose pieces are parts of words; characters are drawn as they are."""
JOINER = "@@"
"""Ends a piece of subword-nmt that the next one goes on."""
UNSEEN = "\ue000"
"""Stands for ``<unk>`` in a text that is cut into pieces again: a character for private use, which nobody trains on."""

Span = Tuple[int, int]
Words = Tuple[List[str], List[str], np.ndarray]

WRONG_FOLDER = "is this the folder of the data that was decoded?"


def check_symbols(sentences: Iterable[Sentence], dictionary) -> None:
    """ValueError where a hypothesis has a symbol that the target dictionary, a file of fairseq's, does not."""
    known = {line.rsplit(" ", 1)[0] for line in Path(dictionary).read_text(encoding="utf-8").split("\n")}
    for sentence in sentences:
        for symbol in (symbol for hypothesis in sentence.hypotheses for symbol in hypothesis.tokens):
            if symbol not in known and symbol != UNKNOWN:
                raise ValueError(f"sentence {sentence.id}: {dictionary} lacks {symbol!r} of the output; {WRONG_FOLDER} "
                                 "And without --post-process?")  # fmt: skip


def with_source_pieces(sentence: Sentence, pieces_of: Callable[[str], List[str]]) -> Sentence:
    """The sentence with its source cut into pieces again: where the task has a segmenter, the S line of fairseq's log
    is text, a tag of the target language before it.

    Args:
        pieces_of: text → pieces.
    """
    tags, words = sentence.source[:1], sentence.source[1:]
    if not (tags and is_tag(tags[0])):
        tags, words = [], sentence.source
    pieces = pieces_of(" ".join(words).replace(UNKNOWN, UNSEEN))  # neighbours that are unknown come as one piece
    cut = [[UNKNOWN] * piece.count(UNSEEN) if UNSEEN in piece else [piece] for piece in pieces]
    return replace(sentence, source=tags + [piece for parts in cut for piece in parts])


def spans(pieces: Sequence[str]) -> List[Span]:
    """Beginning and end of every word; ``</s>`` and a tag of the target language (``<2en>``) are words of their own."""
    begins = [
        number
        for number, piece in enumerate(pieces)
        if number == 0 or piece.startswith(BLANK) or piece == EOS or is_tag(pieces[number - 1])
    ]
    return list(zip(begins, [*begins[1:], len(pieces)]))


def word(pieces: Sequence[str]) -> str:
    """Text of the pieces of a word, in which unknown neighbours are one; a blank alone, which text does not have, stays
    as it is."""
    known = [piece for piece, before in zip(pieces, ["", *pieces]) if (piece, before) != (UNKNOWN, UNKNOWN)]
    return "".join(known).replace(BLANK, "") or BLANK


def merge(source: List[str], target: List[str], weights: np.ndarray) -> Words:
    """Words and their weights. The weight of a source word is the sum over its pieces: what the decoder reads of it.
    That of a target word is the mean over its pieces, each of which the decoder writes with weights of its own. Rows
    that sum to one still do.

    Args:
        source, target: S and T pieces.
        weights: T×S.
    """
    return _merged(source, target, weights, spans, word)


def merge_as_marked(source: List[str], target: List[str], weights: np.ndarray) -> Words:
    """:func:`merge` for a log of any segmentation, with :func:`spans_as_marked`."""
    return _merged(source, target, weights, spans_as_marked, word_as_marked)


def _merged(
    source: List[str],
    target: List[str],
    weights: np.ndarray,
    spans_of: Callable[[Sequence[str]], List[Span]],
    word_of: Callable[[Sequence[str]], str],
) -> Words:
    columns, rows = spans_of(source), spans_of(target)
    summed = np.stack([weights[:, begin:end].sum(axis=1) for begin, end in columns], axis=1)
    merged = np.stack([summed[begin:end].mean(axis=0) for begin, end in rows])
    return [word_of(source[slice(*span)]) for span in columns], [word_of(target[slice(*span)]) for span in rows], merged


def spans_as_marked(pieces: Sequence[str]) -> List[Span]:
    """Beginning and end of every word of a log of any segmentation: of sentencepiece or subword-nmt as the pieces show;
    every symbol by itself where they do not show any."""
    if any(piece.startswith(BLANK) for piece in pieces):
        return spans(pieces)
    begins = [number for number in range(len(pieces)) if number == 0 or not pieces[number - 1].endswith(JOINER)]
    return list(zip(begins, [*begins[1:], len(pieces)]))


def word_as_marked(pieces: Sequence[str]) -> str:
    """Text of a word of :func:`spans_as_marked`."""
    return word([*(piece.removesuffix(JOINER) for piece in pieces[:-1]), pieces[-1]])


def heat_map(
    title: str, sentence: Sentence, hypothesis: Hypothesis, pieces_of: Callable[[str], List[str]], words: bool
) -> HeatMap:
    """One hypothesis of a task that has a segmenter as a panel, of words or of pieces.

    Args:
        pieces_of: see :func:`with_source_pieces`.

    Raises:
        ValueError: no weights, or pieces that do not match them; see :func:`attention_axes`.
    """
    sentence = with_source_pieces(sentence, pieces_of)
    pieces, weights = len(sentence.source) + 1, hypothesis.weights
    if weights is not None and weights.shape[1] != pieces:
        raise ValueError(f"sentence {sentence.id}: {pieces} source pieces, </s> among them, for {weights.shape[1]} "
                         f"columns of weights; {WRONG_FOLDER}")  # fmt: skip
    source, target = attention_axes(sentence, hypothesis)
    weights = attention_weights(hypothesis)
    return HeatMap(title, *merge(source, target, weights)) if words else HeatMap(title, source, target, weights)


def readable(
    sentences: Sequence[Sentence], pieces_of: Callable[[str], List[str]], words: bool, count: int = 3
) -> List[HeatMap]:
    """Panels of best hypotheses whose length can be read, from short to long: of the sentences with 5 to 12 source
    words and at most 40 pieces of output (of any length where none has), evenly chosen by length; those without fitting
    weights are left out, and counted on stderr."""
    lengths = [s for s in sentences if 5 <= len(s.source) <= 12 and len(s.hypotheses[0].tokens) <= 40]
    panels, unfit = [], 0
    for sentence in sorted(lengths or sentences, key=lambda sentence: len(sentence.source)):
        try:
            panels.append(heat_map(f"sentence {sentence.id}", sentence, sentence.hypotheses[0], pieces_of, words))
        except ValueError:
            unfit += sentence.hypotheses[0].weights is not None
    if unfit:
        print(f"warning: no heat maps of {unfit} sentences, whose pieces do not fit their weights", file=sys.stderr)
    return [panels[(2 * i + 1) * len(panels) // (2 * count)] for i in range(min(count, len(panels)))]
