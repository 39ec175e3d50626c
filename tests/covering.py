"""Covering arrays: few combinations of the axes in which every two values still meet.

What goes wrong at one value, or only where two values come together, goes wrong in some combination of them. The full
product runs where it is asked for: by ``FULL_PRODUCT=1`` in the environment, as ``scripts/test.sh full`` sets it.
"""

import itertools
import os
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

import pytest

Row = Tuple[str, ...]



def full() -> bool:
    """Whether the environment asks for everything."""
    return bool(os.environ.get("FULL_PRODUCT"))


in_full = pytest.mark.skipif(not full(), reason="takes long and has a twin; scripts/test.sh full runs it")
"""For values of a test that another value of it nearly stands for."""


def product(axes: Sequence[Sequence[str]], allowed: Callable[..., bool] = lambda *row: True) -> List[Row]:
    """Every combination with one value of each axis for which ``allowed(*combination)`` holds."""
    return [row for row in itertools.product(*axes) if allowed(*row)]


def pairs(row: Row) -> Iterator[Tuple[Tuple[int, str], ...]]:
    """Every two values of a combination, each with the number of its axis; the value of a single axis alone."""
    return itertools.combinations(enumerate(row), min(2, len(row)))


def pairwise(rows: Sequence[Row]) -> List[Row]:
    """Combinations out of ``rows`` that hold every pair of values which the rows hold.

    Greedy: next comes the combination with most of the pairs that are still missing, of equals the first. So the
    choice is the same in every process.
    """
    numbers: Dict[tuple, int] = {}  # of the bit that stands for a pair
    held = [sum(1 << numbers.setdefault(pair, len(numbers)) for pair in pairs(row)) for row in rows]
    missing, chosen = (1 << len(numbers)) - 1, []
    while missing:
        best = max(range(len(rows)), key=lambda i: (held[i] & missing).bit_count())
        chosen.append(rows[best])
        missing &= ~held[best]
    return chosen


def combinations(axes: Sequence[Sequence[str]], allowed: Callable[..., bool] = lambda *row: True) -> List[Row]:
    """What a test runs over: every pair of values, or the full product where the environment asks for it."""
    rows = product(axes, allowed)
    return rows if full() else pairwise(rows)


def taking_turns(values: Sequence[str], *axes: Sequence[str]) -> List[Row]:
    """Every value once, the combinations of the other axes taking turns; or the full product."""
    turns = itertools.cycle(itertools.product(*axes))
    return product([values, *axes]) if full() else [(value, *next(turns)) for value in values]
