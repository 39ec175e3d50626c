"""Tables in Markdown."""

from typing import Sequence


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells → the table. The first line is the head; the first column is text, the others are numbers."""
    head, *body = lines
    rule = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *body])
