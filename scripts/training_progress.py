"""Shows the log of fairseq-train on stdin while it grows: the numbers of each validation in a line; with --updates also
how far the training between them is."""

import argparse
import json
import re
import signal
import sys
from typing import Optional

SHOWN = re.compile(r"valid_(.*(?:loss|accuracy|bleu|chrf|exact_match|error_rate))")
WARNING = re.compile(r"\| WARNING \| fairseq_attn_plugin[\w.]* \| (.*)")
LEFT_OUT = re.compile(r"([\d,]+) samples have invalid sizes and will be skipped, max_positions=(\([^)]*\)|\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("title", help="what each line begins with")
    parser.add_argument("--updates", action="store_true", help="lines between validations, too")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdin.reconfigure(errors="replace")
    last = None
    for line in sys.stdin:
        text = progress(line, args.updates)
        if text not in (None, last):
            print(f"{args.title}  {text}", flush=True)
            last = text


def progress(line: str, updates: bool) -> Optional[str]:
    """What a line of the log says that is worth showing."""
    warning = WARNING.search(line)
    if warning:
        return f"warning: {warning[1]}"
    left_out = LEFT_OUT.search(line)
    if left_out:
        return f"{left_out[1]} sentence pairs are left out: more than {left_out[2]} tokens (--max-tokens or positions)"
    try:
        values = json.loads(line[line.index("{") :])
    except ValueError:
        return None
    if "valid_num_updates" in values:
        found = ((SHOWN.fullmatch(name), value) for name, value in values.items() if "best" not in name)
        return "  ".join([f"epoch {values['epoch']}", *(f"{name[1]} {value}" for name, value in found if name)])
    if updates and "update" in values and "num_updates" in values:
        return f"update {values['num_updates']}  loss {values['loss']}  words a second {values['wps']}"
    return None


if __name__ == "__main__":
    main()
