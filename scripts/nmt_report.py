"""Scores the translations of a training, or prints the table of several."""

import argparse
import logging
import sys

logging.disable(logging.INFO)  # fairseq logs while it is imported, matplotlib while it looks for fonts

from fairseq_attn_plugin.data.segmenter import Segmenter  # noqa: E402
from fairseq_attn_plugin.evaluation import translation_report, whole_files  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="scores one training")
    run.add_argument("out", help="folder of the training")
    run.add_argument("data", help="data folder")
    run.add_argument("splits", nargs="+", metavar="SPLIT")
    compare = verbs.add_parser("compare", help="the table of several")
    compare.add_argument("out", help="folder for report.md and report.json")
    compare.add_argument("runs", nargs="+", metavar="LABEL=FOLDER", help="the first is the baseline of the tests")
    args = parser.parse_args()
    try:
        print(report_run(args) if args.verb == "run" else report_comparison(args), end="")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"error: {error}")


def report_run(args) -> str:
    pieces_of = Segmenter(args.data, "source").logged_pieces
    return translation_report.report_run(args.out, args.data, args.splits, pieces_of)


def report_comparison(args) -> str:
    reports = [f"{run.partition('=')[2]}/report.json" for run in args.runs]
    for name in ("report.md", "report.json"):
        whole_files.check_output(f"{args.out}/{name}", *reports)
    runs = [translation_report.read_run(*run.split("=", 1)) for run in args.runs]
    table = translation_report.table(runs) + "\n"
    table += translation_report.measures(runs[0].report, "the first row of the same test set") + "\n"
    whole_files.write_text(f"{args.out}/report.md", table)
    whole_files.write_json(f"{args.out}/report.json", {run.label: run.report for run in runs})
    return table


if __name__ == "__main__":
    main()
