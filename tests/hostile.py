"""Hostile values of options, and what a program may do with them: end well, or with one line that says what is wrong.

``scripts/test.sh full`` tries many times as many.
"""

import re
from typing import Any, Dict, Mapping, Sequence

from covering import full
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

INTEGERS = (-(2**63), -1, 0, 1, 2, 3, 4, 8, 1_000_001, 2**31, 2**63, 10**30)
REALS = (float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 5e-324, 0.5, 1.0, 1e30, 1e300, -1e300)
TEXTS = ("", " ", ",", "x", "none", "0", "state", "state,state", "é", "\udcff", "a\nb", "x" * 3000, "../x", "{}",
         "<unk>")  # fmt: skip
NUMBERS = ("0", "-1", "1", "2", "010", "1_0", "1e3", "nan", "inf", "-inf", "1e308", "9" * 20, "9" * 5000, "", "x", "٣",
           "0x10", "2.5")  # fmt: skip


def examples(few: int, many: int) -> settings:
    """How many are tried, the same ones each time."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    number = many if full() else few
    return settings(max_examples=number, deadline=None, derandomize=True, suppress_health_check=checks, database=None)


@st.composite
def some_of(draw, table: Mapping[str, Sequence[Any]], most: int = 4) -> Dict[str, Any]:
    """Values of one to ``most`` names of a table of values."""
    names = draw(st.lists(st.sampled_from(sorted(table)), min_size=1, max_size=most, unique=True))
    return {name: draw(st.sampled_from(table[name])) for name in names}


def assert_one_line(error: Any, options: Mapping[str, Any]) -> None:
    """It names one of the options, as typed."""
    message = str(error)
    assert "\n" not in message, message
    flags = "|".join("--" + re.escape(name.replace("_", "-")) for name in options)
    assert re.search(f"({flags})(?![a-z-])", message), f"{message!r} names none of {sorted(options)}"
