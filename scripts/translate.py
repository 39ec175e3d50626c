"""Translates raw sentences from stdin, one a line, to stdout, with one model, or with several together: each next piece
has the mean of their probabilities. Lines end at \\n only, in and out; an empty line stays empty, a line that is longer
than the model can take is split, and nothing is left out."""

import argparse
import itertools
import json
import logging
import signal
import sys
from collections import Counter

logging.disable(logging.WARNING)  # fairseq logs while it is imported, and each batch

import torch  # noqa: E402

from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel  # noqa: E402
from fairseq_attn_plugin.serving.vote import Vote  # noqa: E402

BOM = "\ufeff"


def main() -> None:
    parser = argparse.ArgumentParser(prog="translate.sh", description=__doc__)
    parser.add_argument("models", metavar="MODEL_DIR", nargs="+", help="checkpoint.pt and what belongs to it")
    parser.add_argument(
        "--vote", action="store_true",
        help="each model decodes alone, and the text that most of them have is taken; of several the one with the "
        "greatest sum of scores, then that of the first model",
    )  # fmt: skip
    parser.add_argument("--beam", type=positive, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--user-dir", metavar="DIR", help="of a score of your own, which the model was trained with")
    parser.add_argument("--to", metavar="LANGUAGE", help="for a model with several target languages")
    parser.add_argument(
        "--buffer-size", type=positive, metavar="N",
        help="lines that are read before they are translated (default: 500; from a terminal 1)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true",
        help="per line an object with text, score, source, target and attention (a row for each target piece)",
    )  # fmt: skip
    args = parser.parse_intermixed_args()
    for name in ("SIGINT", "SIGPIPE"):  # end without a word, as any filter
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        translator = load(args)
        if torch.cuda.is_available():
            translator.to("cuda")
        translate(translator, args)
    except (OSError, ValueError) as error:
        sys.exit("error: " + str(error).replace("--translate-to:", "--to:"))


def load(args):
    """The models of the command, as one translator."""
    own = {"user_dir": args.user_dir} if args.user_dir else {}
    together = [[folder] for folder in args.models] if args.vote else [args.models]
    loaded = [AttnRNNModel.from_pretrained(folders, **own) for folders in together]
    for translator, (folder, *_) in zip(loaded, together, strict=True):
        if not hasattr(translator, "translate_lines"):
            raise ValueError(f"{folder}: a model of another task; translate.sh takes those of attn_translation")
    return Vote(loaded) if args.vote else loaded[0]


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; give 1 or more")
    return int(text)


def translate(translator, args) -> None:
    """Translates stdin, so many lines at a time, and says on stderr what it met."""
    counts = Counter()
    size = args.buffer_size or (1 if sys.stdin.isatty() else 500)
    numbered = enumerate(sys.stdin.buffer, start=1)
    error = None
    while error is None and (block := list(itertools.islice(numbered, size))):
        lines, error = decoded(block)
        for done in translator.translate_lines(lines, beam=args.beam, target=args.to, attention=args.json):
            sys.stdout.buffer.write((as_json(done, args.vote) if args.json else done.text).encode() + b"\n")
            count(counts, done)
        sys.stdout.buffer.flush()
    told = [f"{counts[what]} {what}" for what in ("empty", "split", "with unknown symbols", "cut") if counts[what]]
    print(", ".join([f"translated {counts['lines']} lines", *told]), file=sys.stderr)
    if error is not None:
        raise ValueError(error)


def decoded(block) -> tuple:
    """(lines up to the first that is not UTF-8, what is wrong with that one or None) of numbered lines of bytes."""
    lines = []
    for number, line in block:
        try:
            text = line.removesuffix(b"\n").decode("utf-8")
        except UnicodeDecodeError as error:
            return lines, f"line {number} of the input: not UTF-8 (byte {error.start + 1}: {error.reason})"
        lines.append(text.removeprefix(BOM) if number == 1 else text)
    return lines, None


def as_json(done, vote: bool) -> str:
    """One translation as an object in one line; six decimals. Votes are counted where there was a vote."""
    weights = None if done.attention is None else [[round(x, 6) for x in row] for row in done.attention.tolist()]
    values = {"text": done.text, "score": round(done.score, 6), "source": done.source, "target": done.target}
    votes = {"votes": done.votes} if vote else {}
    return json.dumps({**values, **votes, "attention": weights}, ensure_ascii=False)


def count(counts: Counter, done) -> None:
    counts["lines"] += 1
    counts["empty"] += done.parts == 0
    counts["split"] += done.parts > 1
    counts["with unknown symbols"] += done.unknown > 0
    counts["cut"] += done.cut > 0


if __name__ == "__main__":
    main()
