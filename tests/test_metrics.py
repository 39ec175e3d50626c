"""Accuracies against a textbook edit distance, properties, and values worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_attn_plugin.evaluation import metrics

SENTENCE = st.lists(st.integers(0, 3), max_size=8)
PAIRS = st.lists(st.tuples(SENTENCE, SENTENCE), max_size=6)


def naive_distance(left, right):
    """Levenshtein's distance by its recurrence, row after row."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        above, row = row, [i]
        for j, b in enumerate(right, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


@given(PAIRS)
def test_counts_equal_the_textbook_and_add_up(pairs):
    counts = metrics.count([r for r, _ in pairs], [h for _, h in pairs])
    assert counts.sentences == len(pairs)
    assert counts.correct == sum(r == h for r, h in pairs)
    assert counts.distance == sum(naive_distance(r, h) for r, h in pairs)
    assert counts.length == sum(max(len(r), len(h)) for r, h in pairs)
    assert 0 <= counts.token_accuracy <= 100 and 0 <= counts.sentence_accuracy <= 100
    assert (counts.token_accuracy == 100) == all(r == h for r, h in pairs)


@given(PAIRS, st.integers(1, 4))
def test_length_buckets_divide_the_whole(pairs, width):
    references, hypotheses = [r for r, _ in pairs], [h for _, h in pairs]
    buckets = metrics.count_by_length(references, hypotheses, width)
    assert list(buckets) == sorted(buckets)
    for (low, high), counts in buckets.items():
        inside = [(r, h) for r, h in pairs if low <= len(r) <= high]
        assert counts == metrics.count([r for r, _ in inside], [h for _, h in inside])
    assert sum(counts.sentences for counts in buckets.values()) == len(pairs)


def test_accuracies_by_hand():
    counts = metrics.count(["abcd", "ab", "a"], ["abd", "ab", "bbb"])  # distances 1, 0, 3; longer lengths 4, 2, 3
    assert counts.token_accuracy == pytest.approx(100 * (1 - 4 / 9))
    assert counts.sentence_accuracy == pytest.approx(100 / 3)
    buckets = metrics.count_by_length(["abcd", "ab", "a", ""], ["abd", "ab", "bbb", ""], width=2)
    assert {key: (c.sentences, c.correct) for key, c in buckets.items()} == {
        (0, 0): (1, 1),
        (1, 2): (2, 1),
        (3, 4): (1, 0),
    }


@pytest.mark.parametrize(
    ("attended", "right"),
    [([3, 2, 1, 0], 4), ([3, 2], 2), ([3, 2, 1, 0, 4], 4), ([4, 3, 2, 1], 0), ([0, 2, 0, 0], 2), ([], 0)],
)
def test_alignment_counts_missing_positions_as_wrong_and_ignores_further_ones(attended, right):
    gold = [3, 2, 1, 0]
    assert metrics.aligned(attended, gold) == right
    assert metrics.alignment_accuracy(right, len(gold)) == 25.0 * right


def test_what_does_not_fit_is_an_error():
    with pytest.raises(ValueError):
        metrics.count(["ab"], [])
    with pytest.raises(ValueError):
        metrics.count_by_length(["ab"], ["ab", "c"])
    with pytest.raises(ValueError, match="width.* 0; give 1"):
        metrics.count_by_length([], [], 0)
