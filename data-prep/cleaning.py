"""Normalises, filters and splits parallel text.

Only training pairs are filtered. The lines of valid and tests stay as they are, all of them.
"""

import hashlib
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence, Set, Tuple

from data_folder import UNKNOWN, normalize, reserved_symbols
from raw_text import RawCorpus

RATIO_SLACK = 10  # characters: short sentences differ more
LARGEST_SPLIT, SHARE_OF_SPLIT = 1000, 20  # valid and test that are split off: 1000 sentences, at most one in 20
REASONS = {
    "empty": "an empty side",
    "too long": "longer than --max-length",
    "ratio": "lengths that differ by more than --max-ratio",
    "reserved symbol": "a symbol that fairseq or a tag needs",
    "in valid or test": "overlap with valid or test (--disjoint)",
}


@dataclass
class CleanCorpus:
    """Normalised text, ready for segmentation.

    lines: {split: (source lines, target lines)}
    targets: {split: [(target language, lines), ...]}, in the order of the lines: which part is of which language
    given: {split: (source lines, target lines)} of valid and tests, as they were given
    shared: what is in two of valid and tests, in words
    """

    lines: Dict[str, Tuple[List[str], List[str]]] = field(default_factory=dict)
    targets: Dict[str, List[Tuple[str, int]]] = field(default_factory=dict)
    given: Dict[str, Tuple[List[str], List[str]]] = field(default_factory=dict)
    statistics: Dict[str, object] = field(default_factory=dict)
    shared: List[str] = field(default_factory=list)


def refused_symbols(settings) -> Set[str]:
    """What ready symbols may not be; text that is yet to be cut may hold anything. ``<unk>`` is any unknown word."""
    source = settings.kinds(settings.source)
    if "none" not in (*source, *settings.kinds(settings.target)):
        return set()
    return reserved_symbols(settings.tagged, len(source)) - {UNKNOWN}


def symbols_of(line: str, language: str, settings) -> List[str]:
    """Those of a line that are ready symbols."""
    columns = zip(line.split("\t"), settings.kinds(language))
    return [symbol for text, kind in columns if kind == "none" for symbol in text.split()]


def verdict(source: str, target: str, settings, refused: Set[str]) -> Optional[str]:
    """Why a training pair is dropped, whatever is in valid and test; None if it is not."""
    shorter, longer = sorted((len(source), len(target)))
    if not target or not all(source.split("\t")):
        return "empty"
    if longer > settings.max_length:
        return "too long"
    if settings.max_ratio is not None and longer > settings.max_ratio * shorter + RATIO_SLACK:
        return "ratio"
    ready = ((source, settings.source), (target, settings.target))
    if refused and any(refused.intersection(symbols_of(*each, settings)) for each in ready):
        return "reserved symbol"
    return None


def split_off(sources: Sequence[str], keys: Sequence[str], sizes: Dict[str, Optional[int]], seed: int) -> Dict:
    """Chooses sentences for the splits that were not given, by a hash of the source sentence.

    Neither the order of the lines nor Python's own hash matters. Of the lines with one source sentence, the one with
    the smallest hash of all of its text is taken.

    Args:
        sources: normalised source sentences
        keys: the whole text of each line
        sizes: {split: number of sentences, None for the default}
    Returns: {split: [index, ...]}
    Raises: ValueError if there are too few different source sentences
    """

    def order(text: str) -> bytes:
        return hashlib.sha256(f"{seed}\t{text}".encode()).digest()

    groups: Dict[str, List[int]] = {}
    for index, source in enumerate(sources):
        groups.setdefault(source, []).append(index)
    default = max(1, min(LARGEST_SPLIT, len(groups) // SHARE_OF_SPLIT))
    numbers = {split: default if size is None else size for split, size in sizes.items()}
    if len(groups) <= sum(numbers.values()):
        wanted = " and ".join(f"{number:,} for {split}" for split, number in numbers.items())
        raise ValueError(
            f"too few different source sentences ({len(groups):,}) to split off {wanted}; "
            "give more text, files of their own, or smaller sizes"
        )
    chosen = iter(sorted(groups, key=order))
    return {
        split: [min(groups[next(chosen)], key=lambda index: order(keys[index])) for _ in range(number)]
        for split, number in numbers.items()
    }


def check_symbols(corpus: RawCorpus, split: str, lines: Dict[str, List[str]], refused: Set[str], settings) -> None:
    """Lines of valid and tests are never dropped: one with a reserved symbol is an error."""
    for language, texts in lines.items():
        for index, text in enumerate(texts):
            found = refused.intersection(symbols_of(text, language, settings))
            if found:
                raise ValueError(
                    f"{corpus.place(split, language, index)}: the symbol {min(found)} is reserved; "
                    "replace it or choose another --segmentation"
                )


def normalized(texts: List[str], settings, several: bool) -> List[str]:
    """Each column of each line by itself."""
    form = settings.normalization
    if not several:
        return [normalize(text, form) for text in texts]
    return ["\t".join(normalize(column, form) for column in text.split("\t")) for text in texts]


def clean(corpus: RawCorpus, settings) -> CleanCorpus:
    """Raw text to normalised text, filtered and split.

    Raises: ValueError if nothing is left for training
    """
    refused = refused_symbols(settings)
    lines = {
        split: {language: normalized(texts, settings, len(settings.kinds(language)) > 1)
                for language, texts in sides.items()}
        for split, sides in corpus.lines.items()
    }
    given = {split: sides for split, sides in corpus.lines.items() if split != "train"}
    if refused:
        for split in given:
            check_symbols(corpus, split, lines[split], refused, settings)
    train, raw = lines["train"], corpus.lines["train"]
    sources = train[settings.source]
    verdicts = {
        language: [verdict(*pair, settings, refused) for pair in zip(sources, train[language])]
        for language in settings.targets
    }
    missing = {split: size for split, size in settings.sizes.items() if split not in given}
    taken: Set[str] = set()
    if missing:
        good = [index for index, reasons in enumerate(zip(*verdicts.values())) if not any(reasons)]
        keys = ["\t".join(raw[language][index] for language in raw) for index in good]
        picked = split_off([sources[index] for index in good], keys, missing, settings.seed)
        for split, places in picked.items():
            chosen = [good[place] for place in places]
            given[split] = {language: [texts[index] for index in chosen] for language, texts in raw.items()}
            lines[split] = {language: [texts[index] for index in chosen] for language, texts in train.items()}
            taken.update(sources[index] for index in chosen)
    result = CleanCorpus()
    take_training(result, train, verdicts, overlap(lines, settings, taken), settings)
    for split in sorted(given, key=lambda name: (name != "valid", len(name), name)):
        take_evaluation(result, split, lines[split], given[split], settings)
    result.shared = shared_sources({split: lines[split] for split in corpus.rows if split != "train"}, settings)
    moved = {split: len(lines[split][settings.source]) * len(settings.targets) for split in missing}
    result.statistics["split off"] = moved
    result.statistics["dropped"]["in valid or test"] -= sum(moved.values())
    return result


def shared_sources(lines: Dict[str, Dict[str, List[str]]], settings) -> List[str]:
    """A line for every two of valid and tests that share sources: how many, and how many of them with other targets
    alone. Models are chosen by the one and measured by the other; nothing is dropped."""
    pairs: Dict[str, Dict[str, Set[Tuple[str, ...]]]] = {}
    for split, sides in lines.items():
        held = pairs.setdefault(split, {})
        for source, *targets in zip(sides[settings.source], *(sides[name] for name in settings.targets)):
            held.setdefault(source, set()).add(tuple(targets))
    found = []
    for one, two in itertools.combinations(pairs, 2):
        both = pairs[one].keys() & pairs[two].keys()
        other = sum(pairs[one][source].isdisjoint(pairs[two][source]) for source in both)
        if both:
            found.append(f"{len(both):,} sources of {one} are in {two} as well, {other:,} of them with another target; "
                         "take them out of one")  # fmt: skip
    return found


def overlap(lines: Dict[str, Dict[str, List[str]]], settings, taken: Set[str]) -> Dict[str, Set[str]]:
    """{language: sentences that no training pair may hold}; ``taken`` went from the training text to another split."""
    languages = {"either": [settings.source, *settings.targets], "source": [settings.source], "none": []}
    held = {
        language: {line for split, sides in lines.items() if split != "train" for line in sides[language]}
        for language in languages[settings.disjoint]
    }
    held[settings.source] = held.get(settings.source, set()) | taken
    return held


def take_training(result: CleanCorpus, train, verdicts, held: Dict[str, Set[str]], settings) -> None:
    """Fills in the training text, one target language after the other, and the counts of what was dropped."""
    kept: List[Tuple[str, str]] = []
    dropped: Counter = Counter()
    parts = []
    for language in settings.targets:
        before = len(kept)
        for source, target, reason in zip(train[settings.source], train[language], verdicts[language]):
            if not reason and (source in held[settings.source] or target in held.get(language, ())):
                reason = "in valid or test"
            if reason:
                dropped[reason] += 1
            else:
                kept.append((source, target))
        parts.append((language, len(kept) - before))
    number = len(kept) + sum(dropped.values())
    empty = [language for language, count in parts if not count]
    if empty:
        reasons = ", ".join(f"{count:,} {REASONS[reason]}" for reason, count in sorted(dropped.items()))
        raise ValueError(f"no training pair is left for {', '.join(empty)}; of {number:,} were dropped: {reasons}")
    result.lines["train"] = ([pair[0] for pair in kept], [pair[1] for pair in kept])
    result.targets["train"] = parts
    result.statistics.update(
        {"training pairs": number, "kept": len(kept), "dropped": {reason: dropped[reason] for reason in REASONS}}
    )


def take_evaluation(result: CleanCorpus, split: str, lines, given, settings) -> None:
    """Fills in valid (all target languages in one split) or a test (a split for each, if there are several)."""
    several = len(settings.targets) > 1
    groups = [settings.targets] if split == "valid" or not several else [[language] for language in settings.targets]
    for languages in groups:
        name = f"{split}_{languages[0]}" if len(languages) < len(settings.targets) else split
        for sides, texts in ((result.lines, lines), (result.given, given)):
            sides[name] = (
                texts[settings.source] * len(languages),
                [line for language in languages for line in texts[language]],
            )
        result.targets[name] = [(language, len(lines[language])) for language in languages]
