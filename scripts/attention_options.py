"""Prints the options of fairseq-generate for what a checkpoint's model can print of its attention."""

import logging
import sys

logging.disable(logging.INFO)  # fairseq logs while it is imported

from fairseq_attn_plugin.checkpoints.files import has_attention  # noqa: E402

if __name__ == "__main__":
    print("--print-alignment soft" if has_attention(sys.argv[1]) else "")
