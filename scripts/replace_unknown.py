"""Replaces <unk> in the best hypotheses of a generation log by the source words that they attend to, or by the words
that a dictionary has for these. Line n of the output is sentence n-1 of the log."""

import argparse
import logging
import sys

logging.disable(logging.INFO)  # fairseq logs while it is imported

from fairseq_attn_plugin.evaluation import unknown_words, whole_files  # noqa: E402
from fairseq_attn_plugin.evaluation.generation_log import read_generation_log  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="replace_unknown.sh", description=__doc__)
    parser.add_argument("log", help="stdout of fairseq-generate --print-alignment soft or hard, or generate-SPLIT.txt")
    parser.add_argument("out", help="text file to write, one hypothesis a line; - for stdout")
    parser.add_argument("--dictionary", metavar="FILE", help="a source word, a TAB or blank and a target word per line")
    parser.add_argument("--source", metavar="FILE", help="tokenised source; the log has <unk> for its unknown words")
    parser.add_argument("--unk", default=unknown_words.UNKNOWN, metavar="SYMBOL", help="default: %(default)s")
    args = parser.parse_args()
    try:
        lines, notes = replaced(args)
        write(lines, args.out)
    except UnicodeDecodeError as error:
        sys.exit(f"error: {args.log}: not UTF-8 ({error.reason})")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print("\n".join(notes), file=sys.stderr)


def replaced(args) -> tuple:
    """The lines that the options ask for, and what there is to say about them."""
    if args.out != "-":
        whole_files.check_output(args.out, *filter(None, (args.log, args.dictionary, args.source)))
    dictionary = unknown_words.read_dictionary(args.dictionary) if args.dictionary else {}
    source = unknown_words.read_source_text(args.source) if args.source else []
    sentences = read_generation_log(args.log)
    if args.source:
        sentences = unknown_words.with_source_text(sentences, source, args.source, args.unk)
    lines, counts, missing = unknown_words.best_lines(sentences, dictionary, args.unk, len(source))
    notes = [str(counts)]
    if counts.lost and not args.source:
        notes.append(f"the log does not say which words {args.unk} stands for in the source: give them with --source")
    if missing:
        notes.append(f"{len(missing)} empty lines: the log lacks these sentences, the first with id {missing[0]}")
    return lines, notes


def write(lines: list, out: str) -> None:
    """Writes the lines; the file gets its name only when it is complete."""
    text = "".join(line + "\n" for line in lines)
    if out != "-":
        whole_files.write_text(out, text)
        return
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
