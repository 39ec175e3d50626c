"""Raw parallel text to a folder that training, decoding and serving need: see prepare_corpus.sh."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Dict, List, Sequence

import sentencepiece
from binarising import count, preprocess
from cleaning import REASONS, clean, refused_symbols
from data_folder import (
    DATA_FILE,
    LEARNT,
    NORMALIZATION,
    TEXT,
    describe,
    dictionary_file,
    reserved_symbols,
    sentencepiece_files,
    sha256,
    tag,
    text_file,
)
from raw_text import RawCorpus, read_corpus
from segmentation import cut_lines, default_size, encode, pieces_in_use, segmentation_model, training_text
from settings import DEFAULT_VOCAB_SIZE, Settings, make_parser, read_settings, set_name
from stages import fingerprint, lock, make_folder, publish, remove, say, stage

MUCH, MOST, HALF = 0.02, 0.3, 0.5  # of symbols that are unknown
NEARLY_ALL = 0.95  # of lines, with MOST: in another script each word is a known ▁ and an unknown rest
DATA_BIN = Path(__file__).resolve().parent.parent / "data-bin"


def write_lines(path: Path, lines: List[str]) -> None:
    path.write_bytes("".join(line + "\n" for line in lines).encode())


def read_lines(path: Path) -> List[str]:
    return path.read_bytes().decode().removesuffix("\n").split("\n")


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


class Preparation:
    """The stages clean, segment, encode and binarise in the work folder, and the finished folder made of them.

    Args:
        corpus: the text
        settings: checked options
        final: the data folder; the work folder lies beside it, and stays
        held: descriptor of the lock on the work folder
    """

    def __init__(self, corpus: RawCorpus, settings: Settings, final: Path, work: Path, held: int) -> None:
        self.corpus, self.settings, self.final, self.work, self.held = corpus, settings, final, work, held
        self.sides = (settings.source, settings.target)
        self.marks = self.fingerprints()

    def fingerprints(self) -> Dict[str, str]:
        """{stage: fingerprint}, each over what the stage reads and what it is made from."""
        of, models, segmentation = self.settings.of, self.model_names(), self.settings.segmentation
        clean_reads = of("source", "targets", "max_length", "max_ratio", "disjoint", "seed", "sizes")
        refused = sorted(refused_symbols(self.settings)) or None
        if self.settings.normalization != NORMALIZATION or ":" in segmentation or "," in segmentation:
            clean_reads.update(of("normalization", "segmentation"))
        like = [self.settings.like.sha256] if self.settings.like else []
        marks = {"clean": fingerprint(1, "clean", self.corpus.sha256, clean_reads, refused)}
        if models:
            segment_reads = of("segmentation", "vocabulary", "vocab_size")
            marks["segment"] = fingerprint("segment", marks["clean"], segment_reads, sentencepiece.__version__, *like)
        cut = () if segmentation == "none" or set(self.sides) == set(models) else (segmentation,)
        marks["encode"] = fingerprint("encode", marks.get("segment", marks["clean"]), of("tag_target"), *cut)
        marks["binarise"] = fingerprint("binarise", marks["encode"], of("vocabulary", "min_count"), *like)
        marks["final"] = fingerprint("final", marks["binarise"], self.settings.stored())
        return marks

    def run(self) -> None:
        """Everything that is not done yet."""
        for leftover in self.work.glob("*.part"):
            remove(leftover)
        if self.is_finished():
            say(f"{self.final} is finished already")
            return
        if self.final.is_symlink():
            raise ValueError(f"{self.final} is a symbolic link, and would be made anew; choose another --set or --out")
        stages = {"clean": self.clean, "segment": self.segment, "encode": self.encode, "binarise": self.binarise}
        for name, build in stages.items():
            if name in self.marks:
                stage(self.work / name, self.marks[name], build)
        if self.final.exists():
            say(f"{self.final} is damaged, or of other text or options: made anew")
        part = self.work / "final.part"
        part.mkdir()
        self.assemble(part)
        publish(part, self.final, self.work / "replaced.part")

    def is_finished(self) -> bool:
        """Whether the final folder is there, made of the same text with the same settings, and whole.

        Raises: ValueError if it is something else than a data folder
        """
        if not self.final.exists():
            return False
        if not (self.final / DATA_FILE).is_file():
            raise ValueError(f"{self.final} is there and is no data folder; remove it or choose another --set")
        try:
            data = read_json(self.final / DATA_FILE)
            whole = data["fingerprint"] == self.marks["final"] and all(
                sha256(self.final / name) == value for name, value in data["sha256"].items()
            )
            names = self.split_files(data["statistics"]["splits"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return whole and all((self.final / name).is_file() for name in names)

    def split_files(self, splits) -> List[str]:
        """Names of the binarised and the plain files of the splits, within the final folder."""
        names = [f"{split}.{self.settings.pair}.{side}.{kind}" for split in splits for side in self.sides
                 for kind in ("bin", "idx")]  # fmt: skip
        return names + [
            text_file(split, side) for split in splits if split != "train" for side in self.text_sides(split)
        ]

    def text_sides(self, split: str) -> List[str]:
        """Endings of the plain text of a split: a test of one of several targets has that language's."""
        return [self.settings.source, split.partition("_")[2] or self.settings.target]

    def clean(self, part: Path) -> None:
        """<split>.<side>: normalised text; :func:`text_file`: as given; clean.json: what is what, and counts."""
        say(f"clean: {len(self.corpus.lines['train'][self.settings.source]):,} lines of training text")
        result = clean(self.corpus, self.settings)
        (part / TEXT).mkdir()
        for split, lines in result.lines.items():
            for side, texts in zip(self.sides, lines):
                write_lines(part / f"{split}.{side}", texts)
        for split, lines in result.given.items():
            for side, texts in zip(self.text_sides(split), lines):
                write_lines(part / text_file(split, side), texts)
        write_json(part / "clean.json", {"targets": result.targets, "statistics": result.statistics})
        for split, number in result.statistics["split off"].items():
            say(f"clean: {number:,} pairs split off for {split}")
        for line in result.shared:
            say(f"clean: warning: {line}")
        dropped = [f"{n:,} {REASONS[why]}" for why, n in result.statistics["dropped"].items() if n]
        say(f"clean: {result.statistics['kept']:,} training pairs kept; dropped: {', '.join(dropped) or 'none'}")

    def segment(self, part: Path) -> None:
        """sentencepiece*.model, and segment.json with their sizes."""
        if self.settings.like:
            folder, sizes = self.settings.like.folder, {}
            for name in {*self.settings.like.models.values()}:
                say(f"segment: {name} is that of {folder}")
                shutil.copy(folder / name, part / name)
                sizes[name] = pieces_in_use((part / name).read_bytes())
            write_json(part / "segment.json", sizes)
            return
        sides = {side: read_lines(self.work / "clean" / f"train.{side}") for side in self.sides}
        asked, sizes, models = self.settings.vocab_size, {}, self.model_names()
        for name, lines in training_text(sides, models).items():
            kind = next(self.settings.kinds(side)[0] for side in self.sides if models.get(side) == name)
            wanted = asked or default_size(lines, kind)
            small = "" if asked or wanted >= DEFAULT_VOCAB_SIZE else ": the text is small"
            say(f"segment: training {name} ({kind}, {self.settings.vocabulary}, {wanted:,} pieces{small})")
            model, sizes[name] = segmentation_model(lines, kind, wanted, self.work / "sentencepiece.log")
            (part / name).write_bytes(model)
            if sizes[name] < wanted:
                say(f"segment: {wanted:,} pieces lowered to the {sizes[name]:,} that the text gives, {name}")
        write_json(part / "segment.json", sizes)

    def model_names(self) -> Dict[str, str]:
        """{side: name of its sentencepiece model}, of the sides that have one: one for both where the vocabulary is
        joint and both are cut in the same way."""
        if self.settings.like:
            return self.settings.like.models
        kinds = {side: self.settings.kinds(side)[0] for side in self.sides}
        joint = self.settings.vocabulary == "joint" and len({*kinds.values()}) == 1
        return sentencepiece_files([side for side in self.sides if kinds[side] in LEARNT], joint)

    def encode(self, part: Path) -> None:
        """<split>.<side>: pieces with blanks between them, the tag before a source sentence that is not empty."""
        say("encode: cutting the text into symbols")
        targets, models = read_json(self.work / "clean" / "clean.json")["targets"], self.model_names()
        for split, parts in targets.items():
            for side in self.sides:
                lines = read_lines(self.work / "clean" / f"{split}.{side}")
                kinds, tagged = self.settings.kinds(side), self.settings.tagged if side == self.settings.source else ()
                reserved = reserved_symbols(tagged, len(kinds))
                if side in models:
                    lines = encode((self.work / "segment" / models[side]).read_bytes(), lines, reserved)
                elif kinds != ["none"]:
                    lines = cut_lines(lines, kinds, reserved)
                if side == self.settings.source and self.settings.tag_target:
                    heads = [tag(language) for language, number in parts for _ in range(number)]
                    lines = [f"{head} {line}" if line else "" for head, line in zip(heads, lines)]
                write_lines(part / f"{split}.{side}", lines)

    def binarise(self, part: Path) -> None:
        """dict.<side>.txt and <split>.<pair>.<side>.{bin,idx}; counts in statistics.json."""
        say("binarise: fairseq-preprocess")
        splits = list(read_json(self.work / "clean" / "clean.json")["targets"])
        preprocess(self.work / "encode", splits, part, self.settings, self.held)
        statistics = count(self.work / "encode", splits, part, self.settings)
        check_known(statistics["splits"], self.settings)
        write_json(part / "statistics.json", statistics)

    def assemble(self, part: Path) -> None:
        """The content of the final folder."""
        binarised = read_json(self.work / "binarise" / "statistics.json")
        statistics = {**read_json(self.work / "clean" / "clean.json")["statistics"], **binarised}
        models = self.model_names()
        if models:
            statistics["pieces"] = read_json(self.work / "segment" / "segment.json")
        (part / TEXT).mkdir()
        for name in self.split_files(binarised["splits"]):
            shutil.copy(self.work / ("clean" if name.startswith(f"{TEXT}/") else "binarise") / name, part / name)
        checked = {dictionary_file(side): "binarise" for side in self.sides}
        checked.update((name, "segment") for name in models.values())
        for name, folder in checked.items():
            shutil.copy(self.work / folder / name, part / name)
        origin = {split: Path(place).name for split, place in self.corpus.origin.items()}
        own = {
            "settings": self.settings.stored(),
            "statistics": statistics,
            "inputs": self.corpus.sha256,
            "origin": origin,
            "fingerprint": self.marks["final"],
        }
        of = self.settings
        described = describe(part, of.source, of.targets, of.tag_target, of.segmentation, models, of.normalization)
        chosen = self.measure()
        write_json(part / DATA_FILE, {**described, **({} if chosen == "bleu" else {"measure": chosen}), **own})
        report(statistics, origin, self.settings)
        if self.settings.vocab_size and any(unknown_share(values) > MUCH for values in statistics["splits"].values()):
            pieces = max(statistics["pieces"].values())
            say(f"much is unknown: with a --vocab-size well below {pieces:,} rare words are cut into letters that the "
                "training text shows alone as well")  # fmt: skip


    def measure(self) -> str:
        """What chooses a checkpoint, see ``data_folder.measure``: exact matches where the target is characters or ready
        symbols and lines are words, that is, fewer than two on average wherever there are characters."""
        kinds = {side: self.settings.kinds(side)[0] for side in self.sides}
        characters = [side for side in self.sides if kinds[side] == "char"]
        if kinds[self.settings.target] in LEARNT or not characters:
            return "bleu"
        for side in characters:
            lines = read_lines(self.work / "clean" / f"train.{side}")
            if sum(len(line.partition("\t")[0].split()) for line in lines) >= 2 * len(lines):
                return "bleu"
        return "exact_match"


def unknown_shares(values: dict) -> Dict[str, float]:
    """Of the symbols of a split, for each side."""
    return {side: value["unknown"] / max(value["tokens"], 1) for side, value in values.items() if side != "lines"}


def unknown_share(values: dict) -> float:
    """Of the symbols of a split, the larger of both sides."""
    return max(unknown_shares(values).values())


def likely_reason(side: str, settings: Settings) -> str:
    """Why most symbols of a side of a split are unknown."""
    if settings.min_count > 1:
        return f"--min-count {settings.min_count} leaves too few symbols; lower it"
    if settings.kinds(side) == ["none"]:
        return ("--segmentation none takes what stands between blanks for one symbol; put blanks between symbols, or "
                "take --segmentation char or bpe")  # fmt: skip
    other = f"that of --like {settings.like.folder}" if settings.like else "the training text"
    return f"is it of the same languages and script as {other}, source and target not exchanged?"


def check_known(splits: Dict[str, dict], settings: Settings) -> None:
    """Raises: ValueError where the source of a split, or a side of the training text, is unknown for the most part:
    half of its symbols, or many in nearly every line"""
    for split, values in splits.items():
        for side, share in unknown_shares(values).items():
            if side != settings.source and split != "train":
                continue  # it is said, but a model can still be tried on it
            lines = values[side]["lines with unknown"] / max(values["lines"], 1)
            if share > HALF or (share >= MOST and lines >= NEARLY_ALL):
                raise ValueError(
                    f"{split}, {side}: {values[side]['unknown']:,} of {values[side]['tokens']:,} symbols are unknown: "
                    f"{likely_reason(side, settings)}"
                )


def report(statistics: dict, origin: Dict[str, str], settings: Settings) -> None:
    """One line for each split, with the name of the files that it is from, one for each side of which most is unknown,
    and one for the vocabulary."""
    for split, values in statistics["splits"].items():
        sides = [
            f"{side} {value['tokens']:,} symbols of {value['types']:,} types, {value['unknown']:,} unknown"
            for side, value in values.items()
            if side != "lines"
        ]
        name = origin.get(split.partition("_")[0])
        say(f"{split}{f' ({name})' if name else ''}: {values['lines']:,} lines; {'; '.join(sides)}")
        for side, share in unknown_shares(values).items():
            if share >= MOST:
                why = likely_reason(side, settings)
                say(f"warning: {split}, {side}: {share:.0%} of the symbols are unknown: {why}")
        for side, value in values.items():
            if side != "lines" and value.get("unknown features"):
                names = " ".join(value["unknown features"])
                say(f"{split}, {side}: features that the training text lacks, which are unknown: {names}")
    say("vocabulary: " + ", ".join(f"{side} {size:,}" for side, size in statistics["vocabulary"].items()))


def check_places(args, written: Sequence[Path]) -> None:
    """Raises: ValueError if text is read from a folder that is going to be written"""
    tests = args.test.split(",") if args.test else []
    given = [("--from", args.from_), ("--train", args.train), ("--valid", args.valid), ("--tsv", args.tsv)]
    for option, place in (*given, *(("--test", prefix) for prefix in tests)):
        if place is None:
            continue
        real = Path(place).resolve()
        for folder in written:
            if folder.resolve() in (real, *real.parents):
                raise ValueError(f"{option}: '{place}' is in '{folder}', which is written; choose another --set or "
                                 "--out")  # fmt: skip


def prepare(args) -> Path:
    """The data folder that these parsed options ask for.

    Raises: ValueError, OSError: one line about what is wrong
    """
    settings = read_settings(args)
    corpus = read_corpus(args, [settings.source, *settings.targets])
    for split, size in settings.sizes.items():
        if size is not None and split in corpus.lines:
            raise ValueError(f"--{split}-size: got {size}, but {split} is {corpus.origin[split]}; leave one out")
    out = args.out or DATA_BIN
    if os.pathsep in str(out):
        raise ValueError(f"--out: got '{out}'; fairseq takes '{os.pathsep}' for the end of a path; name another folder")
    final = out / f"{set_name(args)}.{settings.pair}"
    if settings.like and final.resolve() == settings.like.folder.resolve():
        raise ValueError(f"--like: {final} is what would be made; give the new one another name with --set")
    work = final.with_name(final.name + ".work")
    check_places(args, (final, work))
    make_folder(work, "--out")
    try:
        with lock(work) as held:
            Preparation(corpus, settings, final, work, held).run()
    except OSError as error:
        place = error.filename or work
        raise ValueError(f"--out: cannot write '{place}': {error.strerror}; make room or name another folder") from None
    return final


def run(main) -> None:
    """Runs ``main``; mistakes and failures end it with one line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, also within sentencepiece: nothing needs cleaning up
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def main() -> None:
    parser = make_parser("prepare_corpus.sh", "Makes a data folder of raw parallel text; its path is the only output.")
    print(prepare(parser.parse_args()))


if __name__ == "__main__":
    run(main)
