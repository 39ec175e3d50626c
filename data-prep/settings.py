"""The options of data preparation, checked once, before any work."""

import argparse
import dataclasses
import os
import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from data_folder import SEGMENTATIONS, tag
from like import Like, take_over

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
    """

    source: str
    targets: Tuple[str, ...]
    tag_target: bool
    segmentation: str
    vocabulary: str
    vocab_size: Optional[int]
    min_count: int
    max_length: int
    max_ratio: float
    disjoint: str
    seed: int
    sizes: Dict[str, Optional[int]]
    workers: int = 1
    like: Optional[Like] = None

    @property
    def target(self) -> str:
        return "+".join(self.targets)

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
        """All but the number of workers, and the folder whose files these are: ``data.json`` has their checksums."""
        values = dataclasses.asdict(self)
        del values["workers"], values["like"]
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
    add("--train", metavar="PREFIX", help="PREFIX.LANG or PREFIX.LANG.gz hold the training text")
    add("--valid", metavar="PREFIX", help="validation text; unset: split off the training text")
    add("--test", metavar="PREFIX[,PREFIX]", help="test text; unset: split off the training text")
    add("--tsv", type=Path, metavar="FILE", help="training text in a tab-separated file")
    add("--columns", metavar="N,N", help="columns of source and target in --tsv, from 1 (default: 1,2)")
    add("--set", metavar="NAME", help="name of the set (default: after the folder or file)")
    add("--out", type=Path, metavar="DIR", help="where the data folder goes (default: data-bin of this checkout)")
    add("--segmentation", help=f"{', '.join(SEGMENTATIONS)} (default: bpe)")
    add("--vocabulary", help=f"{', '.join(VOCABULARIES)}: for both sides or for each (default: joint)")
    add("--vocab-size", type=int, metavar="N", help=f"bpe, unigram: pieces of a model (default: "
        f"{DEFAULT_VOCAB_SIZE}, of small text one for {CHARACTERS_A_PIECE} characters)")  # fmt: skip
    add("--min-count", type=int, metavar="N", help="none and char: rarer symbols are unknown (default: 1)")
    add("--max-length", type=int, default=1000, metavar="N", help="characters of a training sentence (default: 1000)")
    add("--max-ratio", type=float, default=4.0, metavar="X", help="characters of a training sentence for one of the "
        "other side, + 10 (default: 4)")  # fmt: skip
    add("--valid-size", type=int, metavar="N", help="sentences to split off (default: 1000, at most 5 %%)")
    add("--test-size", type=int, metavar="N", help="likewise")
    add("--seed", type=int, default=1, metavar="N", help="which sentences are split off (default: 1)")
    add("--disjoint", default="either", help="training pairs are dropped whose source or target (either), or source, "
        f"is in valid or test: {', '.join(DISJOINT)} (default: either)")  # fmt: skip
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


def parse_columns(text: Optional[str], number: int) -> List[int]:
    """Numbers of a text such as 1,2, one for each language."""
    words = text.split(",") if text is not None else [str(index + 1) for index in range(number)]
    columns = [int(word) for word in words if word.isdecimal() and int(word) > 0]
    if len(words) != number or len(set(columns)) != number:
        raise ValueError(f"--columns: got '{text}'; give {number} different column numbers, from 1, such as 1,2")
    return columns


def check_inputs(args) -> None:
    """Which text is given; sets ``args.columns`` to numbers."""
    given = [option for option in ("from_", "train", "tsv") if getattr(args, option)]
    if len(given) != 1:
        raise ValueError("give the text by exactly one of --from DIR, --train PREFIX, --tsv FILE")
    if args.from_ and (args.valid or args.test):
        raise ValueError("--from: finds valid and test itself; leave out --valid and --test, or use --train")
    if args.columns and not args.tsv:
        raise ValueError("--columns: only with --tsv")
    args.columns = parse_columns(args.columns, len(args.target.split(",")) + 1)


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
    check_choice("--segmentation", args.segmentation, SEGMENTATIONS)
    check_choice("--vocabulary", args.vocabulary, VOCABULARIES)
    check_choice("--disjoint", args.disjoint, DISJOINT)
    for name in ("vocab_size", "min_count", "max_length", "max_ratio", "valid_size", "test_size"):
        check_least(f"--{name.replace('_', '-')}", getattr(args, name), 1)
    check_workers(args.workers)
    for name, kinds in ONLY_FOR.items():
        if getattr(args, name) is not None and args.segmentation not in kinds:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}: only with --segmentation {' or '.join(kinds)}, got {args.segmentation}")
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
