"""The options of data preparation, checked once, before any work."""

import argparse
import dataclasses
import os
import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from data_folder import FEATURES, NORMALIZATION, NORMALIZATIONS, SEGMENTATIONS, kinds, tag
from like import Like, take_over
from raw_text import is_table

VOCABULARIES = ("joint", "separate")
DISJOINT = ("either", "source", "none")
DEFAULT_VOCAB_SIZE = 5000
CHARACTERS_A_PIECE = 100  # at least, by default: with fewer nearly every word of the text becomes one piece
MOST_WORKERS = 16  # or as many as there are cores
LANGUAGE = re.compile(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)*")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# options that matter to some segmentations only
ONLY_FOR = {"vocab_size": ("bpe", "unigram"), "min_count": ("none", "char")}


class OneLineParser(argparse.ArgumentParser):
    """Mistakes are one line, without the usage text."""

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message}\n")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the content of a data folder depends on, beside the text; ``workers`` changes the speed alone.

    like: the folder whose pieces and dictionaries are taken; None: the text makes its own
    target: the target side's name: the language, or all of them joined by +
    vocab_size: None where the text decides, or nothing is trained
    sizes: {split: sentences to split off where the split is not given, None for the default}
    segmentation: of both sides, see ``data_folder.join_kinds``
    max_ratio: None: no limit
    """

    source: str
    targets: Tuple[str, ...]
    tag_target: bool
    segmentation: str
    vocabulary: str
    vocab_size: Optional[int]
    min_count: int
    max_length: int
    max_ratio: Optional[float]
    disjoint: str
    seed: int
    sizes: Dict[str, Optional[int]]
    workers: int = 1
    like: Optional[Like] = None
    normalization: str = NORMALIZATION

    @property
    def target(self) -> str:
        return "+".join(self.targets)

    def kinds(self, language: str) -> List[str]:
        """What each column of the text of a language, or of the target side, is cut into."""
        return kinds(self.segmentation, "source" if language == self.source else "target")

    @property
    def tagged(self) -> Tuple[str, ...]:
        """Languages whose tags stand before source sentences."""
        return self.targets if self.tag_target else ()

    @property
    def pair(self) -> str:
        return f"{self.source}-{self.target}"

    def of(self, *names: str) -> Dict[str, object]:
        """The settings of these names, for a fingerprint."""
        return {name: getattr(self, name) for name in names}

    def stored(self) -> Dict[str, object]:
        """All but the number of workers, the folder whose files these are, whose checksums ``data.json`` has, and
        what it says itself."""
        values = dataclasses.asdict(self)
        del values["workers"], values["like"]
        if self.normalization == NORMALIZATION:
            del values["normalization"]
        return {**values, "targets": list(self.targets)}


def make_parser(prog: str, description: str) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=prog, description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--source", metavar="LANG", help="source language: the ending of its files")
    add("--target", metavar="LANG[,LANG]", help="target language; several with --tag-target")
    add("--like", type=Path, metavar="DATA", help="languages, pieces and dictionaries are those of this data folder or "
        "model's folder: for --finetune-from-model")  # fmt: skip
    add("--from", dest="from_", type=Path, metavar="DIR", help="folder with train, valid (val, dev, validation) and "
        "test*, tst*, newstest* files")  # fmt: skip
    add("--train", metavar="PREFIX", help="PREFIX.LANG or PREFIX.LANG.gz hold the training text; a name that ends in "
        ".tsv or .tsv.gz is a table, of which each row has as many columns, none of them blank")  # fmt: skip
    add("--valid", metavar="PREFIX", help="validation text; unset: split off the training text")
    add("--test", metavar="PREFIX[,PREFIX]", help="test text; unset: split off the training text")
    add("--tsv", type=Path, metavar="FILE", help="training text in a tab-separated file, in which cells may be blank")
    add("--columns", metavar="N,N", help="columns of source and target in tables, from 1 (default: 1,2); several of "
        "the source by +: 1+3,2")  # fmt: skip
    add("--set", metavar="NAME", help="name of the set (default: after the folder or file)")
    add("--out", type=Path, metavar="DIR", help="where the data folder goes (default: data-bin of this checkout)")
    add("--segmentation", help=f"{', '.join(SEGMENTATIONS)} (default: bpe)")
    add("--source-segmentation", metavar="KIND[,KIND]", help="of the source, for each of its columns: one of these, or "
        f"{FEATURES}, which semicolons separate")  # fmt: skip
    add("--target-segmentation", metavar="KIND", help="of the target")
    add("--normalization", help=f"{', '.join(NORMALIZATIONS).lower()}: Unicode's, of both sides; what is translated is "
        "composed again (default: nfc)")  # fmt: skip
    add("--vocabulary", help=f"{', '.join(VOCABULARIES)}: for both sides or for each (default: joint; separate where "
        "they are cut in different ways)")  # fmt: skip
    add("--vocab-size", type=int, metavar="N", help=f"bpe, unigram: pieces of a model (default: "
        f"{DEFAULT_VOCAB_SIZE}, of small text one for {CHARACTERS_A_PIECE} characters)")  # fmt: skip
    add("--min-count", type=int, metavar="N", help="none and char: rarer symbols are unknown (default: 1)")
    add("--max-length", type=int, default=1000, metavar="N", help="characters of a training sentence (default: 1000)")
    add("--max-ratio", type=float, metavar="X", help="characters of a training sentence for one of the other side, + "
        "10 (default: 4, of tables no limit)")  # fmt: skip
    add("--valid-size", type=int, metavar="N", help="sentences to split off (default: 1000, at most 5 %%)")
    add("--test-size", type=int, metavar="N", help="likewise")
    add("--seed", type=int, default=1, metavar="N", help="which sentences are split off (default: 1)")
    add("--disjoint", help="training pairs are dropped whose source or target (either), or source, is in valid or "
        f"test: {', '.join(DISJOINT)} (default: either, of tables source)")  # fmt: skip
    add("--tag-target", action="store_true", help=f"{tag('LANG')} as first source symbol says which language is wanted")
    add("--workers", type=int, default=1, metavar="N", help="processes of fairseq-preprocess (default: 1)")
    return parser


def check_choice(option: str, value: str, choices: Tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{option}: got '{value}'; choose from {', '.join(choices)}")


def check_workers(workers: int) -> None:
    """Each is a process that imports fairseq."""
    most = max(MOST_WORKERS, os.cpu_count() or 1)
    check_least("--workers", workers, 1)
    if workers > most:
        raise ValueError(f"--workers: got {workers}; {most} are the most here")


def check_least(option: str, value: Optional[float], least: int) -> None:
    if value is not None and not value >= least:  # not (nan >= 1)
        raise ValueError(f"{option}: got {value}; {least} is the least")


def parse_columns(text: Optional[str], number: int) -> List[List[int]]:
    """Numbers of a text such as 1,2 or 1+3,2, a list for each language."""
    words = text.split(",") if text is not None else [str(index + 1) for index in range(number)]
    columns = [[int(each) for each in word.split("+") if each.isdecimal() and int(each) > 0] for word in words]
    flat = [each for column in columns for each in column]
    asked = len(words) + sum(word.count("+") for word in words)
    if len(words) != number or not len({*flat}) == len(flat) == asked:
        raise ValueError(f"--columns: got '{text}'; give {number} different column numbers, from 1, such as 1,2, or "
                         "1+3,2 for a source of two columns")  # fmt: skip
    if any(len(column) > 1 for column in columns[1:]):
        raise ValueError(f"--columns: got '{text}'; only the source, which comes first, has several columns")
    return columns


def check_inputs(args) -> None:
    """Which text is given; sets ``args.columns`` to numbers."""
    given = [option for option in ("from_", "train", "tsv") if getattr(args, option)]
    if len(given) != 1:
        raise ValueError("give the text by exactly one of --from DIR, --train PREFIX, --tsv FILE")
    if args.from_ and (args.valid or args.test):
        raise ValueError("--from: finds valid and test itself; leave out --valid and --test, or use --train")
    splits = {"tsv": args.tsv, "train": args.train, "valid": args.valid, "test": args.test}
    places = {name: place.split(",") for name, place in splits.items() if place and name != "tsv"}
    tables = [name for name, parts in places.items() if all(map(is_table, parts))]
    if args.columns and not args.tsv and not tables:
        raise ValueError("--columns: only of tables, whose names end in .tsv or .tsv.gz, and with --tsv")
    args.columns = parse_columns(args.columns, len(args.target.split(",")) + 1)
    plain = next((name for name in places if name not in tables), None) or ("from" if args.from_ else None)
    if len(args.columns[0]) > 1 and plain:
        raise ValueError(f"--{plain}: a source of several columns comes from tables alone, whose names end in .tsv or "
                         ".tsv.gz")  # fmt: skip
    of_table = bool(args.train and "train" in tables)
    args.max_ratio = args.max_ratio if args.max_ratio is not None or of_table else 4.0
    args.disjoint = args.disjoint or ("source" if of_table else "either")


def check_segmentation(args) -> None:
    """That what is asked for is there, and fits the columns."""
    source, (target, *_) = (kinds(args.segmentation, side) for side in ("source", "target"))
    option = "--segmentation" if args.source_segmentation is None else "--source-segmentation"
    if len(source) != len(args.columns[0]):
        numbers = "+".join(map(str, args.columns[0]))
        if args.like:
            raise ValueError(f"--columns: got {numbers} for the source, which has {len(source)} of them in --like "
                             f"{args.like} ({','.join(source)}); give as many, such as 1+3,2")  # fmt: skip
        raise ValueError(f"{option}: got '{','.join(source)}'; --columns has {numbers} for the source: give a "
                         "segmentation for each of them, such as char,features")  # fmt: skip
    for kind in source:
        check_choice(option, kind, (*SEGMENTATIONS, *([FEATURES] if args.source_segmentation or args.like else [])))
        if len(source) > 1 and kind in ("bpe", "unigram"):
            raise ValueError(f"{option}: got '{kind}' for one of several columns; choose from none, char, {FEATURES}")
    option = "--segmentation" if args.target_segmentation is None else "--target-segmentation"
    check_choice(option, target, SEGMENTATIONS)


def read_settings(args) -> Settings:
    """Checked settings of parsed options.

    Raises: ValueError naming option, value and choices
    """
    like = take_over(args)
    targets = tuple(args.target.split(","))
    for option, language in [("--source", args.source), *(("--target", target) for target in targets)]:
        if not LANGUAGE.fullmatch(language):
            raise ValueError(f"{option}: got '{language}'; names are letters, digits, _ and - in between, as in pt-BR")
    if len({args.source, *targets}) != len(targets) + 1:
        raise ValueError(f"--target: got '{args.target}' with --source {args.source}; the languages must differ")
    if len(targets) > 1 and not args.tag_target:
        raise ValueError(f"--target: got '{args.target}'; several languages need --tag-target")
    check_inputs(args)
    check_segmentation(args)
    check_choice("--normalization", args.normalization, tuple(NORMALIZATIONS))
    check_choice("--vocabulary", args.vocabulary, VOCABULARIES)
    check_choice("--disjoint", args.disjoint, DISJOINT)
    for name in ("vocab_size", "min_count", "max_length", "max_ratio", "valid_size", "test_size"):
        check_least(f"--{name.replace('_', '-')}", getattr(args, name), 1)
    check_workers(args.workers)
    there = {kind for side in ("source", "target") for kind in kinds(args.segmentation, side)}
    for name, fitting in ONLY_FOR.items():
        if getattr(args, name) is not None and there.isdisjoint(fitting):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}: only with --segmentation {' or '.join(fitting)}, got {args.segmentation}")
    return Settings(
        source=args.source,
        targets=targets,
        tag_target=args.tag_target,
        segmentation=args.segmentation,
        vocabulary=args.vocabulary,
        vocab_size=args.vocab_size,
        min_count=args.min_count or 1,
        max_length=args.max_length,
        max_ratio=args.max_ratio,
        disjoint=args.disjoint,
        seed=args.seed,
        sizes={"valid": args.valid_size, "test": args.test_size},
        workers=args.workers,
        like=like,
        normalization=args.normalization,
    )


def set_name(args) -> str:
    """--set, or a name after the folder or file that the text is from."""
    if args.set is not None:
        if not NAME.fullmatch(args.set):
            raise ValueError(f"--set: got '{args.set}'; use letters, digits, _, - and . (not first)")
        return args.set
    if args.from_:
        name = args.from_.resolve().name
    else:
        path = Path(args.tsv or args.train).resolve()
        name = path.parent.name if path.name == "train" else path.name.removesuffix(".gz").partition(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]", "_", name).lstrip("-")
    return name or "corpus"
