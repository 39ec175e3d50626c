"""Prints the table of a reversal experiment and writes it, with the pictures, into a folder."""

import argparse
import logging
import sys

logging.disable(logging.INFO)  # fairseq logs while it is imported, matplotlib while it looks for fonts

from fairseq_attn_plugin.data.reversal_problem import ReversalProblem  # noqa: E402
from fairseq_attn_plugin.evaluation import report  # noqa: E402
from fairseq_attn_plugin.experiments.reversal import MODES  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=sorted(report.TABLES))
    parser.add_argument("out", help="folder with those of the trainings, for report.md, report.json and the pictures")
    parser.add_argument("seeds", nargs="+", metavar="SEED", help="each experiment was trained with these")
    args = parser.parse_args()
    try:
        trained = [(experiment, seed) for experiment in MODES[args.mode]() for seed in args.seeds]
        runs = [report.read_run(each.facts, f"{args.out}/{each.name}-seed{seed}") for each, seed in trained]
        print(report.write_report(args.mode, runs, args.out, trained_lengths(runs[0])), end="")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def trained_lengths(run: report.Run) -> tuple:
    """Shortest and longest training sentence, in symbols."""
    options, defaults = run.training.options, ReversalProblem()
    given = (options.get("reversal_min_length", ""), options.get("reversal_max_length", ""))
    both = zip(given, (defaults.min_length, defaults.max_length))
    return tuple(int(value) if value.isdecimal() else default for value, default in both)


if __name__ == "__main__":
    main()
