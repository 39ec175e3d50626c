"""What one reversal problem is: alphabet, lengths, sizes and seed, with their defaults and their checks."""

import dataclasses
from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Set, Tuple

from . import reversal_generator

MOST_SYMBOLS = 1_000_000
"""Of an alphabet."""
LONGEST = 1_000_000
"""Symbols of a sentence."""
MOST_DRAWN = 250_000_000
"""Symbols of a split: of so many, drawing takes some gigabytes."""
SPECIAL_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
TRAIN_DATA = ("fresh", "fixed")
ORDERS = ("reverse", "copy")


def flag(field: str) -> str:
    """The command line option of a field of :class:`ReversalProblem`."""
    return "--reversal-" + field.replace("_", "-")


def parse_symbols(text: str) -> List[str]:
    """The alphabet that an option names: digits are a number N, for the symbols 0..N-1; with a comma, the symbols
    between the commas; else every character is one symbol.

    Raises:
        ValueError: fewer than two symbols, or too many, a blank one, one twice, or one that fairseq keeps for itself.
    """
    said = f"{flag('symbols')}: got {text if len(text) <= 200 else text[:200] + '...'!r}"
    if text.isdecimal():
        if len(text) > 9 or int(text) > MOST_SYMBOLS:
            raise ValueError(f"{said}; give at most {MOST_SYMBOLS:,} symbols")
        symbols = [str(number) for number in range(int(text))]
    elif any(character.isdecimal() for character in text) and text.strip("+-.0123456789") == "":
        raise ValueError(f"{said}; a number of symbols is a whole one, and symbols like these need commas: 4,5,.")
    else:
        symbols = text.split(",") if "," in text else list(text)
    seen: Set[str] = set()
    for symbol in symbols:
        if not symbol or any(character.isspace() for character in symbol):
            raise ValueError(f"{said}, with the blank symbol {symbol!r}; leave blanks out, as in abcd or a,b,c")
        if symbol in SPECIAL_SYMBOLS:
            raise ValueError(f"{said}, with {symbol}, which fairseq's dictionary keeps for itself; rename that symbol")
        if symbol in seen:
            raise ValueError(f"{said}, with {symbol!r} twice; name each symbol once")
        seen.add(symbol)
    if len(symbols) < 2:
        raise ValueError(f"{said}, which is {len(symbols)} symbol(s); give two or more, as in abcd, 50 or ab,cd")
    return symbols


class Split(NamedTuple):
    """One split: its size in sentences, its shortest and longest length in symbols, the options that set them."""

    size: int
    size_flag: str
    shortest: int
    longest: int
    longest_flag: str


@dataclass(frozen=True)
class ReversalProblem:
    """Settings of the reversal task; the only place where their defaults are written.

    The target is the source back to front (``order`` ``reverse``) or as it is (``copy``); the splits hold the same
    sources either way. ``None`` lengths follow the others: tests are as long as the training sentences, ``_long``
    splits go from one more than the longest training length to twice that length. A split whose name ends in a number,
    such as ``test_200``, has sentences of so many symbols.

    Raises:
        ValueError: a setting that cannot be, with option, value and remedy.
    """

    symbols: str = "abcd"
    min_length: int = 5
    max_length: int = 20
    train_size: int = 20000
    train_data: str = "fresh"
    valid_size: int = 1000
    test_size: int = 1000
    test_min_length: Optional[int] = None
    test_max_length: Optional[int] = None
    long_size: int = 1000
    long_min_length: Optional[int] = None
    long_max_length: Optional[int] = None
    exact_size: int = 100
    seed: int = 1
    order: str = "reverse"

    def __post_init__(self):
        parse_symbols(self.symbols)
        for name, choices in (("train_data", TRAIN_DATA), ("order", ORDERS)):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{flag(name)}: got {value!r}; choose from {', '.join(choices)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("length", "size")) and value is not None and value < 1:
                raise ValueError(f"{flag(field.name)}: got {value}; give 1 or more")
            if field.name.endswith("length") and value is not None and value > LONGEST:
                raise ValueError(f"{flag(field.name)}: got {value}; give at most {LONGEST:,}")
        self._check_order("min_length", self.min_length, "max_length", self.max_length)
        for name, prefix in (("test", "test_"), ("test_long", "long_")):
            split = self.split(name)
            self._check_order(prefix + "min_length", split.shortest, prefix + "max_length", split.longest)

    @staticmethod
    def _check_order(low: str, shortest: int, high: str, longest: int):
        if shortest > longest:
            raise ValueError(
                f"{flag(low)}: {shortest} is more than {flag(high)} {longest}; lower the one or raise the other"
            )

    def split(self, name: str) -> Split:
        """Size and lengths of a split of any name.

        Names that begin with ``train`` have the training size and lengths, those with ``valid`` the validation size and
        the training lengths, all others the test size and lengths; names that end in ``_long`` have the long ones,
        in ``_N`` just the length N.

        Raises:
            ValueError: no sentence has that length.
        """
        number = name.rpartition("_")[2]
        if number.isdecimal() and not name.startswith(("train", "valid")):
            if len(number) > 9 or not 1 <= int(number) <= LONGEST:
                raise ValueError(f"--gen-subset: got {name[:50]!r}; a sentence has 1 to {LONGEST:,} symbols")
            return Split(self.exact_size, flag("exact_size"), int(number), int(number), "--gen-subset")
        if name.endswith("_long"):
            shortest = self.max_length + 1 if self.long_min_length is None else self.long_min_length
            longest = 2 * self.max_length if self.long_max_length is None else self.long_max_length
            return Split(self.long_size, flag("long_size"), shortest, longest, flag("long_max_length"))
        if name.startswith(("train", "valid")):
            size = "train_size" if name.startswith("train") else "valid_size"
            return Split(getattr(self, size), flag(size), self.min_length, self.max_length, flag("max_length"))
        shortest = self.min_length if self.test_min_length is None else self.test_min_length
        longest = self.max_length if self.test_max_length is None else self.test_max_length
        return Split(self.test_size, flag("test_size"), shortest, longest, flag("test_max_length"))

    def sentences(self, name: str, epoch: int = 1) -> reversal_generator.Sentences:
        """All sentences of a split as symbol numbers; ``epoch`` (from 1) counts for fresh training data only.

        Raises:
            ValueError: more distinct sentences are asked for than exist, or more symbols than are drawn.
        """
        split, n = self.split(name), len(parse_symbols(self.symbols))
        if split.size * split.longest > MOST_DRAWN:
            raise ValueError(
                f"{split.size_flag}: got {split.size} for split {name!r}, whose sentences have up to {split.longest} "
                f"symbols; give at most {max(1, MOST_DRAWN // split.longest)}, or lower {split.longest_flag}"
            )
        try:
            if reversal_generator.is_training(name):
                epoch = epoch if self.train_data == "fresh" else 1
                items = (self.seed, name, epoch, 0, split.size)
                return reversal_generator.draw(*items, n, split.shortest, split.longest)
            return reversal_generator.distinct(self.seed, name, split.size, n, split.shortest, split.longest)
        except reversal_generator.TooFewSentences as error:
            raise ValueError(
                f"{split.size_flag}: got {split.size} for split {name!r}, which has only {error.available} distinct "
                f"sentences of {split.shortest} to {split.longest} out of {n} symbols; ask for fewer, "
                f"raise {split.longest_flag} or add symbols"
            ) from None

    def text(self, name: str, epoch: int = 1) -> List[Tuple[str, str]]:
        """A split as (source, target) lines of symbols with blanks between them; raises what :meth:`sentences` does."""
        symbols, sentences = parse_symbols(self.symbols), self.sentences(name, epoch)
        rows = zip(sentences.symbols, sentences.lengths, strict=True)
        sources = [[symbols[number] for number in row[:length]] for row, length in rows]
        gold = [reversal_generator.gold_positions(len(source), self.order) for source in sources]
        return [(" ".join(s), " ".join(s[position] for position in g)) for s, g in zip(sources, gold, strict=True)]
