"""The reversal data: the same everywhere, disjoint, distinct, drawn right; batches as fairseq makes them."""

import hashlib
import itertools
import logging
import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data.language_pair_dataset import collate

from fairseq_attn_plugin.data import reversal_generator as generator
from fairseq_attn_plugin.data.reversal_dataset import ReversalDataset
from fairseq_attn_plugin.data.reversal_problem import ReversalProblem, parse_symbols
from fairseq_attn_plugin.tasks.reversal import ReversalConfig, ReversalTask

ROOT = Path(__file__).resolve().parent.parent
CHECKSUMS = {
    ("train", 1): "bdcc65c587d7d58e",
    ("train", 2): "c4c14351f41c17f1",
    ("valid", 1): "e4f2ae59687fc2fb",
    ("test", 1): "e0a1b4554b628167",
    ("test_long", 1): "1100ff24bb29dfb8",
}
SETTINGS = [
    {},
    {"symbols": "50", "min_length": 1, "max_length": 25, "test_max_length": 30},
    {
        "symbols": "ab",
        "min_length": 15,
        "max_length": 15,
        "test_size": 300,
    },  # long enough to be drawn, few enough to be drawn twice
    {"symbols": "ab", "min_length": 1, "max_length": 10, "valid_size": 20, "test_size": 20, "long_size": 50},
]
SPLITS = ["train", "valid", "test", "test_long", "test2", "valid_long"]


def sources(problem, split, epoch=1):
    return [source for source, _ in problem.text(split, epoch)]


def dataset(split, problem=None, **options):
    task = ReversalTask(ReversalConfig())
    return ReversalDataset(problem or ReversalProblem(), split, task.source_dictionary, **options)


@pytest.mark.parametrize(("split", "epoch"), CHECKSUMS)
def test_the_default_data_are_the_same_on_every_machine(split, epoch):
    text = "\n".join(itertools.chain.from_iterable(ReversalProblem().text(split, epoch)))
    assert hashlib.blake2b(text.encode(), digest_size=8).hexdigest() == CHECKSUMS[split, epoch]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_item_depends_on_nothing_but_seed_split_epoch_and_index(settings):
    problem = ReversalProblem(**settings)
    n, split = len(parse_symbols(problem.symbols)), problem.split("train")
    whole = problem.sentences("train", 3)
    for start, stop in [(0, 1), (17, 18), (5000, 5003), (problem.train_size - 1, problem.train_size)]:
        part = generator.draw(problem.seed, "train", 3, start, stop, n, split.shortest, split.longest)
        assert np.array_equal(part.symbols, whole.symbols[start:stop])
        assert np.array_equal(part.lengths, whole.lengths[start:stop])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_splits_are_disjoint_across_epochs_and_seeds(settings):
    problem, other = ReversalProblem(**settings), ReversalProblem(**settings, seed=2)
    held = {split: set(sources(problem, split)) for split in SPLITS}
    held["train"].update(sources(problem, "train", 2), sources(other, "train"), sources(problem, "train2"))
    held["test"].update(sources(other, "test"))
    names = [
        "train",
        "valid",
        "test",
        "test_long",
    ]  # the other names may share a bucket with each other, not with these
    for one, two in itertools.combinations(SPLITS, 2):
        if one in names or two in names:
            assert held[one].isdisjoint(held[two]), (one, two)


@pytest.mark.parametrize("split", ["valid", "test", "test_long", "test2"])
@pytest.mark.parametrize("letters", ["ab", "abc"])
def test_a_split_can_be_exhausted_and_no_more(letters, split):
    everything = [list(row) for length in range(1, 8) for row in itertools.product(range(len(letters)), repeat=length)]
    symbols = np.array([row + [-1] * (7 - len(row)) for row in everything])
    lengths = np.array([len(row) for row in everything])
    own = np.isin(generator.bucket_of(symbols, lengths), generator.buckets(split))
    expected = {" ".join(letters[s] for s in row) for row, mine in zip(everything, own, strict=True) if mine}
    lengths = {"test_min_length": 1, "test_max_length": 7, "long_min_length": 1, "long_max_length": 7}
    count = len(expected)
    sizes = {"valid_size": count, "test_size": count, "long_size": count}
    problem = ReversalProblem(letters, 1, 7, **lengths, **sizes)
    found = sources(problem, split)
    assert len(found) == count > 0 and set(found) == expected
    with pytest.raises(ValueError, match=f"--reversal-.*size: got {count + 1} .*only {count} distinct.*ask for fewer"):
        ReversalProblem(letters, 1, 7, **lengths, **{name: size + 1 for name, size in sizes.items()}).sentences(split)


@pytest.mark.parametrize("split", ["valid", "test", "test_long"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_evaluation_sentences_are_distinct_and_lengths_even(settings, split):
    problem = ReversalProblem(**settings)
    found, spec = sources(problem, split), problem.split(split)
    assert len(set(found)) == len(found) == spec.size
    counts = Counter(len(source.split()) for source in found)
    assert set(counts) <= set(range(spec.shortest, spec.longest + 1))
    plenty = [counts[length] for length in range(max(spec.shortest, 9), spec.longest + 1)]  # short ones may run out
    assert max(plenty) - min(plenty) <= 1


def test_training_lengths_and_symbols_are_uniform():
    problem = ReversalProblem()
    symbols, lengths = problem.sentences("train")
    counts = np.bincount(lengths, minlength=21)[5:]
    mean = problem.train_size / 16
    assert counts.sum() == problem.train_size and np.abs(counts - mean).max() < 5 * mean**0.5
    for column in range(0, 20, 5):
        drawn = symbols[lengths > column, column]
        counts = np.bincount(drawn, minlength=4)
        assert len(counts) == 4 and np.abs(counts - len(drawn) / 4).max() < 5 * (len(drawn) / 4) ** 0.5
    assert (symbols[np.arange(20) >= lengths[:, None]] == -1).all()
    assert len(np.unique(symbols, axis=0)) > 0.99 * (lengths > 7).sum()


def test_fresh_data_change_with_the_epoch_and_fixed_data_do_not():
    fresh, fixed = ReversalProblem(), ReversalProblem(train_data="fixed")
    assert fixed.text("train", 1) == fixed.text("train", 2) == fresh.text("train", 1) != fresh.text("train", 2)
    assert np.array_equal(fresh.sentences("train", 1).lengths, fresh.sentences("train", 2).lengths)
    assert fresh.text("valid", 1) == fresh.text("valid", 2)
    assert fresh.text("test") != ReversalProblem(seed=2).text("test")
    assert all(target.split() == source.split()[::-1] for source, target in fresh.text("train"))


def test_copies_are_the_same_sources_as_they_are():
    reverse, copy = ReversalProblem(), ReversalProblem(order="copy")
    for split in SPLITS:
        assert copy.text(split) == [(source, source) for source, _ in reverse.text(split)]


@pytest.mark.parametrize(
    ("text", "symbols"), [("abz", ["a", "b", "z"]), ("3", ["0", "1", "2"]), ("ab,c", ["ab", "c"]), ("1,2", ["1", "2"])]
)
def test_symbols_are_letters_a_number_or_a_list(text, symbols):
    assert parse_symbols(text) == symbols
    assert len(parse_symbols("300000")) == 300000, "at once: in minutes where each symbol is looked for among all"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"symbols": "-3"}, "--reversal-symbols: got '-3'; a number of symbols is a whole one"),
        ({"symbols": "4.5"}, "--reversal-symbols: got '4.5'; a number of symbols is a whole one"),
        ({"symbols": "aba"}, "--reversal-symbols: got 'aba', with 'a' twice; name"),
        ({"symbols": "a b"}, "--reversal-symbols: got 'a b', with the blank symbol ' '; leave"),
        ({"symbols": "a,,b"}, "--reversal-symbols: got 'a,,b', with the blank symbol ''; leave"),
        ({"symbols": "a,<unk>"}, "--reversal-symbols: got 'a,<unk>', with <unk>, .* rename"),
        ({"symbols": "a"}, "--reversal-symbols: got 'a', which is 1 symbol.* give two"),
        ({"symbols": "1"}, "--reversal-symbols: got '1', which is 1 symbol.* give two"),
        ({"symbols": ""}, "--reversal-symbols: got '', which is 0 symbol.* give two"),
        ({"min_length": 9, "max_length": 8}, "--reversal-min-length: 9 is more than --reversal-max-length 8; lower"),
        ({"min_length": 0}, "--reversal-min-length: got 0; give 1 or more"),
        ({"test_max_length": 4}, "--reversal-test-min-length: 5 is more than --reversal-test-max-length 4; lower"),
        ({"long_min_length": 41}, "--reversal-long-min-length: 41 is more than --reversal-long-max-length 40; lower"),
        ({"test_size": 0}, "--reversal-test-size: got 0; give 1 or more"),
        ({"train_data": "stale"}, "--reversal-train-data: got 'stale'; choose from fresh, fixed"),
        ({"symbols": "1000001"}, "--reversal-symbols: got '1000001'; give at most 1,000,000 symbols"),
        ({"max_length": 2_000_000}, "--reversal-max-length: got 2000000; give at most 1,000,000"),
        ({"order": "sorted"}, "--reversal-order: got 'sorted'; choose from reverse, copy"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_problem_that_cannot_be_names_option_value_and_remedy(settings, message):
    with pytest.raises(ValueError, match=message):
        ReversalProblem(**settings)


@pytest.mark.parametrize("order", ["reverse", "copy"])
@pytest.mark.parametrize("left", [False, True])
def test_a_batch_is_the_one_that_fairseq_collates(left, order):
    data = dataset("train", ReversalProblem(order=order), left_pad_source=left)
    samples = [data[index] for index in range(40)]
    ours, theirs = data.collater(samples), collate(samples, 1, 2, left_pad_source=left)
    assert ours.keys() == theirs.keys() and ours["net_input"].keys() == theirs["net_input"].keys()
    order, other = ours["id"].argsort(), theirs["id"].argsort()  # fairseq's order of equally long sources is not fixed
    for key in ("src_tokens", "src_lengths", "prev_output_tokens"):
        assert torch.equal(ours["net_input"][key][order], theirs["net_input"][key][other])
    assert torch.equal(ours["target"][order], theirs["target"][other])
    assert ours["ntokens"] == theirs["ntokens"] and ours["nsentences"] == theirs["nsentences"]
    assert torch.equal(ours["align_weights"], theirs["align_weights"])
    source = ours["net_input"]["src_tokens"]
    column, position = ours["alignments"].T
    assert len(column) == len(theirs["alignments"]) and len(position.unique()) == len(position)
    assert torch.equal(source[position // ours["target"].size(1), column], ours["target"].view(-1)[position])
    assert (source[position // ours["target"].size(1), column] > 3).all()
    assert data.collater([]) == {}


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kind", ["fresh", "fixed"])
def test_workers_see_the_data_of_each_epoch(kind, workers):
    config = ReversalConfig(reversal_train_size=64, reversal_train_data=kind)
    task = ReversalTask(config)
    task.load_dataset("train", epoch=2)
    for epoch in (2, 3, 4):  # as fairseq's trainer asks for them
        batches = task.get_batch_iterator(task.dataset("train"), max_sentences=16, num_workers=workers, epoch=epoch)
        seen = {}
        for batch in batches.next_epoch_itr(shuffle=True):
            for index, target in zip(batch["id"].tolist(), batch["target"], strict=True):
                seen[index] = task.target_dictionary.string(target[target != task.target_dictionary.pad()])
        assert [seen[index] for index in range(64)] == [target for _, target in task.problem().text("train", epoch)]
    if workers:  # left to the garbage collector they take 5 seconds each
        batches.dataloader._iterator._shutdown_workers()


@pytest.mark.parametrize("kind", ["fresh", "fixed"])
def test_a_training_resumed_in_the_middle_of_an_epoch_has_the_same_batches(kind):
    def batches_of(epoch):
        task = ReversalTask(ReversalConfig(reversal_train_size=200, reversal_train_data=kind))
        task.load_dataset("train", epoch=epoch)
        return task.get_batch_iterator(task.dataset("train"), max_sentences=16, epoch=epoch)

    straight = batches_of(1)
    list(straight.next_epoch_itr())
    second = straight.next_epoch_itr()
    for _ in range(4):
        next(second)
    resumed = batches_of(2)
    resumed.load_state_dict(straight.state_dict())
    left, again = list(second), list(resumed.next_epoch_itr())
    assert len(left) == len(again) == 9
    for one, two in zip(left, again, strict=True):
        assert torch.equal(one["id"], two["id"]) and torch.equal(one["target"], two["target"])


def export(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["export_reversal.py", *map(str, options)])
    monkeypatch.setattr(logging, "disable", lambda level: None)  # the script would silence the other tests
    runpy.run_path(str(ROOT / "scripts" / "export_reversal.py"), run_name="__main__")


@pytest.mark.parametrize("order", ["reverse", "copy"])
def test_export_writes_the_same_splits(tmp_path, monkeypatch, capsys, order):
    options = ("--reversal-symbols", "ab,c", "--reversal-train-size", 9, "--reversal-seed", 5)
    export(monkeypatch, tmp_path, *options, "--reversal-order", order)
    problem = ReversalProblem(symbols="ab,c", train_size=9, seed=5, order=order)
    for split in ("train", "valid", "test", "test_long"):
        for side, suffix in enumerate(("src", "tgt")):
            lines = (tmp_path / f"{split}.{suffix}").read_text().splitlines()
            assert lines == [pair[side] for pair in problem.text(split)]
    assert len(list(tmp_path.iterdir())) == 8 and "train.src: 9 sentences" in capsys.readouterr().err


def test_export_that_cannot_be_writes_nothing(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="^error: --reversal-order: got 'sort'; choose"):
        export(monkeypatch, tmp_path / "out", "--reversal-order", "sort")
    with pytest.raises(SystemExit, match="^error: --reversal-valid-size: got 1000 .*only"):
        export(monkeypatch, tmp_path / "out", "--reversal-min-length", 1, "--reversal-max-length", 4)
    assert not (tmp_path / "out").exists()
