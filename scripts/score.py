"""Scores translations: BLEU, chrF and TER of sacrebleu, error rates of lines, characters and symbols, with 95 %
intervals and signatures; of two and more, every one is tested against the first (paired bootstrap, 1,000 resamples,
seed 12345).

The measure of tutorials on Multi30k (case and tokenisation left out of account) is --lowercase: reference and
translation are lower-cased, then BLEU cuts both by --tokenize (13a where nothing is given; none: text that is tokenised
already). Tutorials cut with spaCy, so this is theirs but for single tokens."""

import argparse
import logging
import sys

logging.disable(logging.INFO)  # fairseq logs while it is imported

from fairseq_attn_plugin.evaluation import scoring, sentence_bleu, whole_files  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="score.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reference", metavar="REFERENCE", help="text, one sentence a line")
    parser.add_argument(
        "hypotheses", metavar="HYPOTHESES", nargs="+", help="translations of it, as text; the first is the baseline"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the systems (default: the files' paths)")
    parser.add_argument("--lowercase", action="store_true", help="without regard to case (TER never regards it)")
    parser.add_argument(
        "--tokenize", choices=scoring.TOKENIZERS, metavar="NAME", help=f"of BLEU: {', '.join(scoring.TOKENIZERS)}"
    )
    parser.add_argument(
        "--metric", metavar="NAME[,NAME]", default="bleu,chrf,ter",
        help=f"what is scored, in this order: {', '.join(scoring.METRICS)} (default: bleu,chrf,ter). wer: lines that "
        "differ from the reference; cer, ser: edits over its characters, over its symbols, which blanks separate",
    )  # fmt: skip
    parser.add_argument("--characters", action="store_true", help="wer and cer as well")
    parser.add_argument("--symbols", action="store_true", help="wer and ser as well")
    parser.add_argument(
        "--sentences", type=int, metavar="K",
        help="instead, a row for each sentence: its BLEU with n-grams of up to K words, from 0 to 1, as Dive into Deep "
        "Learning has it",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="writes the numbers there, too")
    args = parser.parse_args()
    try:
        if args.json:
            whole_files.check_output(args.json, args.reference, *args.hypotheses)
        if args.sentences is not None:
            print(each_sentence(args), end="")
            return
        scored = read_and_score(args)
        print(scoring.markdown(scored), end="")
        if args.json:
            whole_files.write_json(args.json, scoring.as_json(scored))
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"error: {error}")


def read(args) -> tuple:
    """Lines of the reference, and by name those of the systems."""
    names = args.names or args.hypotheses
    if len(names) != len(args.hypotheses) or len(set(names)) != len(names):
        raise ValueError(f"--names: got {' '.join(names)!r} for {len(args.hypotheses)} systems; give each its own name")
    reference = scoring.read_lines(args.reference)
    return reference, {
        name: scoring.read_system(path, reference, args.reference) for name, path in zip(names, args.hypotheses)
    }


def each_sentence(args) -> str:
    """The table of ``--sentences``."""
    if args.sentences < 1:
        raise ValueError(f"--sentences: got {args.sentences}; give the words of the longest n-gram, 1 or more")
    if args.json:
        raise ValueError("--json: --sentences prints a table only; leave one of both out")
    return sentence_bleu.markdown(*read(args), args.sentences)


def read_and_score(args) -> scoring.Scored:
    wanted, (reference, systems) = metrics_of(args), read(args)
    return scoring.score(reference, systems, args.lowercase, args.tokenize, wanted)


def metrics_of(args) -> list:
    """Names of the metrics, each once."""
    words = args.metric.split(",") + ["wer", "cer"] * args.characters + ["wer", "ser"] * args.symbols
    for word in words:
        if word not in scoring.METRICS:
            raise ValueError(f"--metric: got '{word}'; choose from {', '.join(scoring.METRICS)}")
    return [scoring.METRICS[word] for word in dict.fromkeys(words)]


if __name__ == "__main__":
    main()
