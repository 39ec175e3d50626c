"""Turns a checkpoint of fairseq's own lstm into one of attn_rnn that computes the same."""

import argparse
import logging
import sys

logging.disable(logging.INFO)  # fairseq logs while it is imported

from fairseq_attn_plugin.checkpoints.conversion import convert_checkpoint  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="convert_fairseq_lstm.sh", description=__doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="of --arch lstm or a preset of it")
    parser.add_argument("out", metavar="OUT", help="file to write; must not be there")
    args = parser.parse_args()
    try:
        print(convert_checkpoint(args.checkpoint, args.out))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
