"""Writes the data of the reversal task as text: SPLIT.src and SPLIT.tgt, one sentence a line."""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

logging.disable(logging.INFO)  # fairseq logs while it is imported

from fairseq_attn_plugin.data.reversal_problem import ReversalProblem, flag  # noqa: E402
from fairseq_attn_plugin.evaluation import whole_files  # noqa: E402

SPLITS = ("train", "valid", "test", "test_long")
SIDES = ("src", "tgt")


def main() -> None:
    parser = argparse.ArgumentParser(prog="export_reversal.sh", description=__doc__)
    parser.add_argument("out", metavar="OUT_DIR", type=Path, help="folder for the files; made if it is not there")
    parser.add_argument("--splits", nargs="+", default=SPLITS, metavar="SPLIT", help=f"default: {' '.join(SPLITS)}")
    for field in dataclasses.fields(ReversalProblem):
        kind = str if isinstance(field.default, str) else int
        parser.add_argument(flag(field.name), dest=field.name, type=kind, help=f"default: {field.default}")
    args = parser.parse_args()
    fields = {field.name for field in dataclasses.fields(ReversalProblem)}
    try:
        for split in args.splits:
            whole_files.check_name("--splits", split)
        problem = ReversalProblem(**{k: v for k, v in vars(args).items() if k in fields and v is not None})
        texts = {split: problem.text(split) for split in args.splits}
        args.out.mkdir(parents=True, exist_ok=True)
        for path in (file_of(args.out, split, side) for split in texts for side in SIDES):
            whole_files.check_output(path, streams=False)
        for split, pairs in texts.items():
            write(pairs, split, args.out)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def file_of(folder: Path, split: str, side: str) -> Path:
    return folder / f"{split}.{side}"


def write(pairs: list, split: str, folder: Path) -> None:
    """Writes the (source, target) lines of a split; each file gets its name only when it is complete."""
    for number, side in enumerate(SIDES):
        path = file_of(folder, split, side)
        whole_files.write_text(path, "".join(pair[number] + "\n" for pair in pairs))
        print(f"{path}: {len(pairs):,} sentences", file=sys.stderr)


if __name__ == "__main__":
    main()
