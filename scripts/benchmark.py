"""Measures this plugin's models beside fairseq's own lstm and prints a table."""

import logging

logging.disable(logging.INFO)  # fairseq logs while it is imported, matplotlib while it looks for fonts

from fairseq_attn_plugin.benchmark.command import main  # noqa: E402

if __name__ == "__main__":  # processes that measure memory import this file
    main()
