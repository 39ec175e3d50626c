"""Random sentences over an alphabet of n symbols, the same on every machine, Python and numpy.

Everything is integer arithmetic on the raw bits of PCG64, the only stream that numpy promises to keep; the seed of a
stream is a hash of what the stream is for. A sentence is a row of symbol numbers 0..n-1, filled up with -1.

The hash of a sentence, not a draw, decides which split may hold it, so splits stay disjoint however often the training
data are drawn anew, whatever the seeds and whatever the other options are.
"""

import hashlib
import itertools
import math
import zlib
from typing import Dict, Iterator, List, NamedTuple, Tuple

import numpy as np

BUCKETS = 64
FIXED_BUCKETS = {"valid": range(40, 48), "test": range(48, 56), "test_long": range(56, 57)}
TRAIN_BUCKETS, OTHER_BUCKETS = range(0, 40), range(57, 64)
ENUMERABLE = 4096  # lengths with at most so many sentences are listed rather than drawn
CHUNK = 1 << 16
FILL = -1


class TooFewSentences(ValueError):
    """More distinct sentences were asked for than exist; ``available`` is how many there are."""

    def __init__(self, available: int):
        super().__init__(f"only {available} distinct sentences exist")
        self.available = available


class Sentences(NamedTuple):
    """N sentences.

    Attributes:
        symbols: N×L int32, symbol numbers, -1 after the end; L is the longest length of the split.
        lengths: N int64, in symbols.
    """

    symbols: np.ndarray
    lengths: np.ndarray


def is_training(split: str) -> bool:
    """Whether a split holds training data: the names that begin with ``train``."""
    return split.startswith("train")


def buckets(split: str) -> range:
    """The hash buckets, out of 64, whose sentences a split may hold.

    Names that begin with ``train`` share 40 of them, ``valid`` and ``test`` have 8 each and ``test_long`` has one, so
    these four are disjoint. Any other name has one of the 7 that are left, chosen by the CRC of the name: it shares
    nothing with those four, but two such names may meet in one bucket and then have sentences in common.
    """
    if is_training(split):
        return TRAIN_BUCKETS
    if split in FIXED_BUCKETS:
        return FIXED_BUCKETS[split]
    first = OTHER_BUCKETS[zlib.crc32(split.encode()) % len(OTHER_BUCKETS)]
    return range(first, first + 1)


def bucket_of(symbols: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The bucket of each sentence, N int64 in 0..63, from N×L ``symbols`` and N ``lengths``; the filling is ignored."""
    state = lengths.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for column in range(symbols.shape[1]):
        inside = column < lengths
        mixed = (state ^ (symbols[:, column].astype(np.uint64) + np.uint64(1))) * np.uint64(0xBF58476D1CE4E5B9)
        state = np.where(inside, mixed ^ (mixed >> np.uint64(29)), state)
    state = state * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(32))) % np.uint64(BUCKETS)).astype(np.int64)


def _in_split(split: str, symbols: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    own = buckets(split)
    bucket = bucket_of(symbols, lengths)
    return (bucket >= own.start) & (bucket < own.stop)


def _stream(*purpose) -> np.random.PCG64:
    digest = hashlib.blake2b("\0".join(map(str, purpose)).encode(), digest_size=16).digest()
    return np.random.PCG64(int.from_bytes(digest, "little"))


def _below(words: np.ndarray, bound: int) -> np.ndarray:
    """Numbers 0..bound-1 from raw 64-bit words; the bias is below bound / 2**64."""
    return (words % np.uint64(bound)).astype(np.int64)


def number_of(n: int, length: int) -> int:
    """Of sentences of ``length`` out of n symbols; of more than 2**64, that number."""
    return n**length if length * math.log2(n) <= 64 else 2**64


def _listed(split: str, n: int, length: int) -> np.ndarray:
    """Every sentence of one length that the split may hold, in counting order: K×length int32."""
    kept = []
    for start in range(0, n**length, CHUNK):
        codes = np.arange(start, min(start + CHUNK, n**length), dtype=np.int64)
        digits = [codes // n**place % n for place in range(length - 1, -1, -1)]
        symbols = np.stack(digits, axis=1).astype(np.int32)
        kept.append(symbols[_in_split(split, symbols, np.full(len(codes), length))])
    return np.concatenate(kept)


def draw_lengths(seed: int, split: str, start: int, stop: int, n: int, shortest: int, longest: int) -> np.ndarray:
    """Lengths of the training items ``start`` to ``stop`` (exclusive), the same in every epoch: int64.

    They are uniform over the lengths at which the split has sentences.

    Raises:
        TooFewSentences: the split has no sentence at all.
    """
    possible = range(shortest, longest + 1)
    occurring = [length for length in possible if number_of(n, length) > ENUMERABLE or len(_listed(split, n, length))]
    if not occurring:
        raise TooFewSentences(0)
    bits = _stream("length", seed, split)
    bits.advance(start)
    return np.array(occurring, dtype=np.int64)[_below(bits.random_raw(stop - start), len(occurring))]


def draw(seed: int, split: str, epoch: int, start: int, stop: int, n: int, shortest: int, longest: int) -> Sentences:
    """The training items ``start`` to ``stop`` (exclusive) of an epoch, drawn independently: some may be equal.

    Symbols are uniform over the split's sentences of a length. An item depends on (seed, split, epoch, index), alphabet
    and lengths only, never on ``start`` or ``stop``: its words have a fixed place in the stream of each round, and a
    sentence of another split is drawn again in the next round.

    Raises:
        TooFewSentences: the split has no sentence at all.
    """
    lengths = draw_lengths(seed, split, start, stop, n, shortest, longest)
    symbols = np.full((stop - start, longest), FILL, dtype=np.int32)
    pending, attempt = np.arange(stop - start), 0
    while len(pending):
        first, rows = int(pending[0]), int(pending[-1] - pending[0] + 1)
        bits = _stream("symbols", seed, split, epoch, attempt)
        bits.advance((start + first) * longest)
        words = bits.random_raw(rows * longest).reshape(rows, longest)[pending - first]
        inside = np.arange(longest) < lengths[pending, None]
        drawn = np.where(inside, _below(words, n), FILL).astype(np.int32)
        right = _in_split(split, drawn, lengths[pending])
        symbols[pending[right]] = drawn[right]
        pending, attempt = pending[~right], attempt + 1
    return Sentences(symbols, lengths)


def _distinct_of_length(seed: int, split: str, n: int, length: int) -> Iterator[np.ndarray]:
    """Rows of distinct sentences of one length, without end, for lengths that have far more than will be taken."""
    bits, seen = _stream("distinct", seed, split, length), set()
    while True:
        symbols = _below(bits.random_raw(1024 * length), n).astype(np.int32).reshape(1024, length)
        for row in symbols[_in_split(split, symbols, np.full(1024, length))]:
            if row.tobytes() not in seen:
                seen.add(row.tobytes())
                yield row


def _shuffled(rows: np.ndarray, *purpose) -> np.ndarray:
    return rows[np.argsort(_stream(*purpose).random_raw(len(rows)), kind="stable")]


def _shares(capacity: Dict[int, int], count: int) -> Dict[int, int]:
    """Divides ``count`` over the lengths as evenly as the number of sentences of each length allows."""
    shares: Dict[int, int] = {}
    for length in sorted(capacity, key=lambda length: (capacity[length], length)):
        shares[length] = min(capacity[length], count // (len(capacity) - len(shares)))
        count -= shares[length]
    return shares


def distinct(seed: int, split: str, count: int, n: int, shortest: int, longest: int) -> Sentences:
    """``count`` distinct sentences of a split, every length equally often as far as there are sentences enough.

    Raises:
        TooFewSentences: fewer than ``count`` sentences exist.
    """
    fraction = len(buckets(split)) / BUCKETS
    listed, capacity = {}, {}
    for length in range(shortest, longest + 1):
        if number_of(n, length) <= max(ENUMERABLE, 4 * count / fraction):
            listed[length] = _shuffled(_listed(split, n, length), "listed", seed, split, length)
        capacity[length] = len(listed[length]) if length in listed else number_of(n, length)
    if sum(capacity.values()) < count:
        raise TooFewSentences(sum(capacity.values()))
    symbols = np.full((count, longest), FILL, dtype=np.int32)
    lengths, row = np.zeros(count, dtype=np.int64), 0
    for length, share in sorted(_shares(capacity, count).items()):
        source = iter(listed[length]) if length in listed else _distinct_of_length(seed, split, n, length)
        for sentence in itertools.islice(source, share):
            symbols[row, :length], lengths[row], row = sentence, length, row + 1
    order = np.argsort(_stream("order", seed, split).random_raw(count), kind="stable")
    return Sentences(symbols[order], lengths[order])


def gold_positions(length: int, order: str) -> range:
    """For each target position the source position that it is a copy of, both from 0, ``</s>`` left out.

    Args:
        order: ``reverse`` or ``copy``.
    """
    return range(length) if order == "copy" else range(length - 1, -1, -1)


def alignment(length: int, order: str) -> List[Tuple[int, int]]:
    """Gold alignment of a sentence: (source, target) positions, see :func:`gold_positions`."""
    return [(source, target) for target, source in enumerate(gold_positions(length, order))]
