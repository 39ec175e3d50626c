"""What scripts/transduce.sh decides and prints: the files of a folder, the rule, the table, how far it is."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from fairseq_attn_plugin.evaluation import language_table
from fairseq_attn_plugin.evaluation.language_table import Decoded, Language
from fairseq_attn_plugin.experiments import transduction
from fairseq_attn_plugin.models.presets import PRESETS
from fairseq_attn_plugin.serving.vote import winner

ROOT = Path(__file__).resolve().parents[1]


# The plan


@pytest.mark.parametrize(
    "names, expected",
    [
        (["ady_train.tsv.gz", "ady_dev.tsv.gz", "ady_test.tsv", "README.md", "ady.txt"], "ady"),
        (["a-b-train-high.tsv", "a-b-dev.tsv.gz", "a-b-test.tsv", "a-b-train-low.tsv"], "a-b"),
        (["c_train.tsv", "c_dev.tsv", "c_test.tsv", "d_train.tsv"], "c"),
    ],
)
def test_files_of_a_language(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).touch()
    size = "high" if expected == "a-b" else None
    found = transduction.find_languages(tmp_path, expected, size)
    assert {language: [path.name for path in paths] for language, paths in found.items()} == {expected: [
        next(name for name in names if split in name and "low" not in name and name[0] == expected[0])
        for split in transduction.SPLITS
    ]}  # fmt: skip


@pytest.mark.parametrize(
    "names, wanted, message",
    [
        ([], None, "--from: {} has no files such as LANGUAGE_train.tsv, .* (or .tsv.gz); give the folder that has"),
        (["a_train.tsv", "a_test.tsv"], None, "--from: a has no dev file; LANGUAGES= names those that are complete"),
        (["a_train.tsv", "a_dev.tsv", "a_test.tsv"], "b", "LANGUAGES: got 'b'; choose from a"),
        (["a_train.tsv", "a_dev.tsv", "a_test.tsv"], "a a", "LANGUAGES: got 'a' twice; name each once"),
        (["a-train-low.tsv", "a-train-high.tsv", "a-dev.tsv", "a-test.tsv"], None,
         "--from: a has a-train-high.tsv and a-train-low.tsv; SIZE= chooses from high, low"),
        (["a_train.tsv", "a_dev.tsv", "a_dev.tsv.gz", "a_test.tsv"], None,
         "--from: a has a_dev.tsv and a_dev.tsv.gz; leave one"),
    ],
)  # fmt: skip
def test_files_that_lack_are_one_line(tmp_path, names, wanted, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError) as raised:
        transduction.find_languages(tmp_path, wanted)
    assert re.fullmatch(re.escape(message.format(tmp_path)).replace(r"\.\*", ".*"), str(raised.value))


def test_modes_make_what_there_is():
    for mode in transduction.MODES.values():
        words = transduction.shared_options(mode, 3000)
        assert words[words.index("--arch") + 1] in PRESETS
        assert words[words.index("--save-interval-updates") + 1] == "300"
        assert not any(language_table.JOINT in name or "-seed" in name for name in mode.members)


# The rule and the table


def language(name, wrong, ensembles, words=10):
    """A language of ``words`` words: which of them each single model and each ensemble has wrong, in both splits."""
    right = [f"{name} {number}" for number in range(words)]

    def decoded(numbers):
        return Decoded(["x" if number in numbers else text for number, text in enumerate(right)], [-1.0] * words)

    splits = ("valid", "test")
    singles = {split: {member: {seed: decoded(each) for seed, each in seeds.items()} for member, seeds in wrong.items()}
               for split in splits}  # fmt: skip
    together = {split: {names: decoded(each) for names, each in ensembles.items()} for split in splits}
    return Language(name, dict.fromkeys(splits, right), singles, together)


@pytest.fixture
def languages():
    return [
        language("aa", {"m": {"1": [0, 1], "2": [1, 2]}, "n": {"1": [0], "2": [0]}}, {"n": [0], "n+m": [0, 3]}),
        language("bb", {"m": {"1": [5], "2": [5]}, "n": {"1": [0, 1], "2": [1]}}, {"n": [1, 2], "n+m": [5]}),
    ]


def test_the_rule_takes_one_recipe_for_all_languages(languages):
    assert language_table.order(languages, ["m", "n"]) == ["n", "m"], "12.5 % and 15 %"
    assert language_table.candidates(["n", "m", "o"]) == ["n", "n+m", "n+m+o"]
    assert language_table.choose(languages, ["n", "n+m"]) == "n", "of equal ones the smallest"
    languages[1].ensembles["valid"]["n"].texts[3] = "x"
    assert language_table.choose(languages, ["n", "n+m"]) == "n+m"


def test_the_table(languages):
    languages[1].ensembles["test"]["n+m"].texts[9] = "x"
    languages[1].ensembles["valid"]["n"].texts[3] = "x"
    found = language_table.results(languages, ["m", "n"], winner)
    assert found["ensemble"] == ["n", "m"]
    assert [row["ensemble"]["score"] for row in found["languages"]] == [20, 20]
    assert found["mean"]["ensemble"]["score"] == 20 == found["mean"]["words"]
    assert found["mean"]["members"] == {"m": 15, "n": 12.5}
    assert found["languages"][1]["seeds"]["n"] == {"1": 20, "2": 10}
    # of four models with like scores: word 0 of aa is wrong in three, 1 and 5 of bb in two, and n is first
    assert [row["vote"]["score"] for row in found["languages"]] == [10, 10]
    wrong = np.array([1, 0, 0, 1, *[0] * 6, *[0] * 5, 1, *[0] * 3, 1])
    drawn = np.random.default_rng(12345).choice(20, size=(1000, 20), replace=True)
    rates = np.sort(100 * wrong[drawn].mean(axis=1))
    assert found["mean"]["ensemble"]["ci"] == pytest.approx((rates[974] - rates[25]) / 2)
    text = language_table.markdown(found, ["1", "2"], ["cc"])
    assert text.splitlines()[0] == "| language | words | m | n | vote | ensemble |"
    assert re.search(r"^\| mean \| 20 \| 15.00 \| 12.50 \| 10.00 ± \S+ \| 20.00 ± \S+ \|\n\| cc \| – \| –", text, re.M)
    assert "ensembles: n 20.00, n+m 15.00" in text and "Without cc, where a step failed." in text


def test_how_far_the_trainings_are(tmp_path, capsys):
    progress = runpy.run_path(str(ROOT / "scripts" / "transduce_progress.py"))
    folders = [tmp_path / language / "base-seed1" for language in "abcd"]
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[0] / "train.done").touch()
    end = '{"train_num_updates": "300"}\n' * 1000
    (folders[1] / "train.jsonl").write_text('{"num_updates": "100"}\n{"valid_num_updates": "200"}\n' + end + "loaded\n")
    (folders[3].parent / "failed").touch()
    assert progress["state"](folders, 1000) == (1, 3, 1300)
    assert progress["line"](1, 3, 0.433, 7500) == "1 of 3 trainings, 43 % of the updates, about 2:05 h left"
    assert progress["line"](0, 3, 0, float("inf")).endswith("0 % of the updates, time left is not known yet")
