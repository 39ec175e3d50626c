"""Raw parallel text: finds the files of each split and reads them, plain or gzipped, as lists of lines."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

VALID_NAMES = ("valid", "val", "dev", "validation")
TEST_NAMES = ("test", "tst", "newstest")  # and what comes after
NO_TEXT = (".md", ".html", ".json", ".pdf", ".sh", ".py")
BOM = b"\xef\xbb\xbf"


@dataclass
class RawCorpus:
    """Lines as they were given, and the checksums of what they were read from.

    lines: {split: {language: [line, ...]}}; splits "train", "valid", "test", "test1", ...; what is to be split off the
        training text is not there
    origin: {split: where it came from, for error messages}
    sha256: {"train.de": hex, ...} over the bytes of each file, after gunzip
    rows: {split: number of each line in its file} of tables, which may have blank lines in between
    """

    lines: Dict[str, Dict[str, List[str]]]
    origin: Dict[str, str]
    sha256: Dict[str, str]
    rows: Dict[str, List[int]] = field(default_factory=dict)

    def place(self, split: str, language: str, index: int) -> str:
        """``file:line`` of a line, counted from 0."""
        if split in self.rows:
            return f"{self.origin[split]}:{self.rows[split][index]}"
        return f"{self.origin[split]}.{language}:{index + 1}"


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where its name ends in .gz.

    Raises: ValueError, one line, if it cannot be read
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                return stream.read()
        return path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged or cut gzip file ({error}); get it again") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def split_lines(data: bytes, path: object) -> List[str]:
    r"""Lines end at \n only; the \r of a \r\n and a byte order mark at the start are no part of them.

    Raises: ValueError for a file without a line or with lines that end in \r alone, or naming file:line for bytes that
        are not UTF-8
    """
    data = data.removeprefix(BOM)
    if not data:
        raise ValueError(f"{path}: empty file")
    if data.count(b"\r") - data.count(b"\r\n") > data.count(b"\n"):
        raise ValueError(f"{path}: its lines end in CR alone, as on old Macs; convert it, e.g. with tr '\\r' '\\n'")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        bad = data[error.start : error.start + 1].hex()
        raise ValueError(f"{path}:{line}: not UTF-8 (byte 0x{bad}); convert the file, e.g. with iconv") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def find_file(prefix: str, language: str, option: str) -> Path:
    """``PREFIX.LANGUAGE`` or ``PREFIX.LANGUAGE.gz``."""
    names = [f"{prefix}.{language}", f"{prefix}.{language}.gz"]
    for name in names:
        if Path(name).is_file():
            return Path(name)
    raise ValueError(f"{option}: no file for language '{language}'; looked for {' and '.join(names)}")


def prefixes_in(folder: Path, languages: Sequence[str]) -> Tuple[str, Optional[str], List[str]]:
    """The prefixes of train, of valid (None if there is none) and of every test of ``--from``.

    A file with a language in the middle of its name, as ``train.de.valid``, is text of it as well.

    Raises: ValueError for text of these languages that is none of them, or more than one valid
    """
    if not folder.is_dir():
        raise ValueError(f"--from: no folder '{folder}'")
    endings = [f".{language}{gz}" for language in languages for gz in ("", ".gz")]
    found = [path.name.removesuffix(end) for end in endings for path in folder.glob(f"[!.]*{end}") if path.is_file()]
    ends = tuple(endings)
    beside = [path.name for path in sorted(folder.glob("[!.]*")) if path.is_file() and not path.name.endswith(ends)]
    hidden = [name for name in beside if {*languages, "-".join(languages)} & {*name.split(".")[1:-1]}]
    names = sorted({*found} - {"train"}) + [name for name in hidden if not name.endswith(NO_TEXT)]
    valid = [name for name in names if name in VALID_NAMES]
    tests = [name for name in names if name.startswith(TEST_NAMES) and name not in hidden]
    other = [name for name in names if name not in (*valid, *tests)]
    by_name = "or name the files by --train, --valid and --test"
    if other:
        known = f"train, {', '.join(VALID_NAMES)}, {', '.join(f'{name}*' for name in TEST_NAMES)}"
        raise ValueError(
            f"--from: '{folder}' has {listed(other)} in these languages, and what these are is not known "
            f"(known are {known}); rename them, {by_name}"
        )
    if len(valid) > 1:
        raise ValueError(f"--from: '{folder}' has {listed(valid)}, and one of them validates; keep one, {by_name}")
    prefixes = {name: str(folder / name) for name in ("train", *names)}
    return prefixes["train"], next(map(prefixes.get, valid), None), [prefixes[name] for name in tests]


def listed(names: Sequence[str]) -> str:
    """Names in one line, the first of many."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def read_split(prefix: str, languages: Sequence[str], option: str) -> Tuple[Dict[str, List[str]], Dict[str, str]]:
    """({language: lines}, {language: sha256}) of one split.

    Raises: ValueError for a missing or damaged file and for files of different numbers of lines
    """
    lines, sums = {}, {}
    for language in languages:
        path = find_file(prefix, language, option)
        data = read_bytes(path)
        lines[language] = split_lines(data, path)
        sums[language] = hashlib.sha256(data).hexdigest()
    counts = {language: len(text) for language, text in lines.items()}
    if len(set(counts.values())) > 1:
        files = ", ".join(f"{prefix}.{language} {count:,}" for language, count in counts.items())
        raise ValueError(f"{option}: different numbers of lines: {files}; line n of each must belong together")
    return lines, sums


def is_table(name: object) -> bool:
    """Whether what --train, --valid or --test name is a table."""
    return str(name).endswith((".tsv", ".tsv.gz"))


def read_table(
    path: Path, columns: Sequence[Sequence[int]], languages: Sequence[str], strict: bool = False
) -> Tuple[Dict[str, List[str]], List[int], str]:
    """({language: lines}, their line numbers, sha256) of the columns, counted from 1, of a tab-separated file; several
    columns of a language have TABs between them.

    Args:
        strict: blank lines are left out, and every other has the same number of columns and something in those that
            are asked for; else a blank line is a row of empty columns.

    Raises: ValueError naming file, line and remedy
    """
    data = read_bytes(path)
    rows = [(number, line.split("\t")) for number, line in enumerate(split_lines(data, path), start=1)]
    if strict:
        rows = [(number, row) for number, row in rows if "".join(row).strip()]
        if not rows:
            raise ValueError(f"{path}: blank; give a table with a row for each pair")
    last = max(column for each in columns for column in each)
    for number, row in rows:
        if len(row) < last and row != [""]:
            raise ValueError(f"{path}:{number}: {len(row)} columns by tabs; --columns asks for column {last}")
        if strict:
            check_row(f"{path}:{number}", row, len(rows[0][1]), columns)
    lines = {
        language: ["\t".join(row[column - 1] for column in each) if row != [""] else "\t" * (len(each) - 1)
                   for _, row in rows]
        for language, each in zip(languages, columns)
    }  # fmt: skip
    return lines, [number for number, _ in rows], hashlib.sha256(data).hexdigest()


def check_row(place: str, row: List[str], width: int, columns: Sequence[Sequence[int]]) -> None:
    """Raises: ValueError for a row of a table with another number of columns than ``width``, or a blank cell"""
    if len(row) != width:
        raise ValueError(f"{place}: {len(row)} columns by tabs, and {width} in the first row; give each row as many")
    blank = [column for each in columns for column in each if not row[column - 1].strip()]
    if blank:
        raise ValueError(f"{place}: column {blank[0]} is blank; fill it in or take the row out")


def read_corpus(args, languages: Sequence[str]) -> RawCorpus:
    """All that --from, --train, --valid, --test or --tsv name."""
    corpus = RawCorpus({}, {}, {})
    train, valid, tests = args.train, args.valid, args.test.split(",") if args.test else []
    if args.from_:
        train, valid, tests = prefixes_in(args.from_, languages)
    given = {"train": train, "valid": valid}
    given.update((f"test{number or ''}", prefix) for number, prefix in enumerate(tests))
    usual = [[number + 1] for number in range(len(languages))]
    of = ":" + ",".join("+".join(map(str, each)) for each in args.columns) if args.columns not in (None, usual) else ""
    if args.tsv:
        corpus.lines["train"], _, corpus.sha256[f"tsv{of}"] = read_table(args.tsv, args.columns, languages)
        corpus.origin["train"] = str(args.tsv)
    for split, prefix in given.items():
        if not prefix:
            continue
        option = "--from" if args.from_ else f"--{split.rstrip('0123456789')}"
        if is_table(prefix):
            read = read_table(Path(prefix), args.columns, languages, strict=True)
            corpus.lines[split], corpus.rows[split], corpus.sha256[f"{split}.tsv{of}"] = read
            corpus.origin[split] = prefix
            continue
        corpus.lines[split], sums = read_split(prefix, languages, option)
        corpus.sha256.update((f"{split}.{language}", value) for language, value in sums.items())
        corpus.origin[split] = prefix
    return corpus
