"""Averages the parameters of checkpoints of one training; of one checkpoint it leaves out the optimiser's state."""

import argparse
import logging
import sys

logging.disable(logging.INFO)  # fairseq logs while it is imported

from fairseq_attn_plugin.checkpoints.averaging import average_checkpoints  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="average_checkpoints.sh", description=__doc__)
    parser.add_argument("out", metavar="OUT", help="checkpoint to write")
    parser.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+", help="the last one's options are kept")
    args = parser.parse_args()
    try:
        print(average_checkpoints(args.checkpoints, args.out))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
