"""Prints the experiments of a mode of reversal.sh, one a line: name, splits, shared options, own options and options of
the decoding, with | between them."""

import argparse
import logging

logging.disable(logging.INFO)  # fairseq logs while it is imported

from fairseq_attn_plugin.experiments.reversal import MODES  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=MODES)
    for experiment in MODES[parser.parse_args().mode]():
        print(experiment.line)


if __name__ == "__main__":
    main()
