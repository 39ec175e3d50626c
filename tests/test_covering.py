"""Covering arrays: no pair that is allowed is missing, none that is not allowed is there, and they are small."""

import itertools

import pytest
from covering import combinations, product

LETTERS = ["abcdefghi", "jk", "lmn", "opqr", "st"]
CASES = {
    # axes, what is allowed, the least possible number of combinations
    "free": (LETTERS, lambda *row: True, 9 * 4),
    "restricted": (LETTERS, lambda *row: row[0] not in "hi" or row[2] == "l", 9 * 4),
    "two values that never meet": (LETTERS, lambda *row: row[0] != "a" or row[3] != "o", 9 * 4 - 1),
    "a Latin square": (["abc"] * 4, lambda *row: True, 9),
    "one axis": (["abcd"], lambda *row: True, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_every_allowed_pair_is_there_in_few_combinations(case, monkeypatch):
    """The pairs are counted by another way: for each two values, whether some allowed combination has both."""
    monkeypatch.delenv("FULL_PRODUCT", raising=False)
    axes, allowed, least = CASES[case]
    chosen = combinations(axes, allowed)
    everything = [row for row in itertools.product(*axes) if allowed(*row)]
    assert set(chosen) <= set(everything) and len(set(chosen)) == len(chosen)
    for i, j in itertools.combinations([*range(len(axes)), 0], 2):  # the first axis with itself, too
        for one, other in itertools.product(axes[i], axes[j]):
            possible = any(row[i] == one and row[j] == other for row in everything)
            assert any(row[i] == one and row[j] == other for row in chosen) == possible, (one, other)
    assert least <= len(chosen) <= 1.1 * least


def test_the_full_product_is_asked_for_by_the_environment(monkeypatch):
    axes, allowed, _ = CASES["restricted"]
    monkeypatch.setenv("FULL_PRODUCT", "1")
    assert combinations(axes, allowed) == product(axes, allowed)
    assert len(combinations(axes, allowed)) == 7 * 2 * 3 * 4 * 2 + 2 * 2 * 1 * 4 * 2


def test_the_ladder_has_every_pair_of_its_axes(monkeypatch):
    """Of the mechanisms as the tests get them, whatever has been registered."""
    from test_ladder import AXES, PRODUCT, fits

    names = ("attention_score", "attention_query", "attention_normalizer", "cell", "input_feeding")
    rows = [tuple(options[name] for name in names) for options in PRODUCT if options["attention_score"] != "none"]
    everything = product(AXES, fits)
    for i, j in itertools.combinations(range(len(names)), 2):
        assert {(row[i], row[j]) for row in rows} == {(row[i], row[j]) for row in everything}
