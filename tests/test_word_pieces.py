"""Heat maps of words: pieces merge by sums and means worked out by hand, sources are cut again, no label moves."""

import numpy as np
import pytest

from fairseq_attn_plugin.evaluation import word_pieces
from fairseq_attn_plugin.evaluation.generation_log import Hypothesis, Sentence

PIECES = {"Das": ["▁Da", "s"], "Haus": ["▁Haus"], "brennt": ["▁b", "renn", "t"], "\ue000": ["▁", "\ue000"],
          "\ue000\ue000": ["▁", "\ue000\ue000"]}  # fmt: skip


def pieces_of(text):
    return [piece for word in text.split() for piece in PIECES[word]]


def test_weights_of_words_worked_out_by_hand():
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.3, 0.2, 0.0], [0.0, 0.0, 0.25, 0.75]])
    source, target, merged = word_pieces.merge(["▁Da", "s", "▁Haus", "</s>"], ["▁hou", "se", "</s>"], weights)
    assert (source, target) == (["Das", "Haus", "</s>"], ["house", "</s>"])
    assert merged == pytest.approx(np.array([[0.55, 0.25, 0.2], [0.0, 0.25, 0.75]]))


@pytest.mark.parametrize(
    "pieces, words",
    [
        (["</s>"], ["</s>"]),
        (["a", "b", "▁c", "</s>"], ["ab", "c", "</s>"]),  # no blank before the first piece
        (["<2en>", "▁Da", "s", "</s>"], ["<2en>", "Das", "</s>"]),
        (["<2en>", "a", "</s>"], ["<2en>", "a", "</s>"]),
        (["▁", "<unk>", "▁b", "</s>"], ["<unk>", "b", "</s>"]),
        (["▁a", "▁", "▁b"], ["a", "▁", "b"]),
        (["▁a", "<unk>", "<unk>", "b", "<unk>", "</s>"], ["a<unk>b<unk>", "</s>"]),
    ],
)
def test_words_of_pieces(pieces, words):
    uniform = np.full((2, len(pieces)), 1 / len(pieces))
    source, _, merged = word_pieces.merge(pieces, ["▁x", "</s>"], uniform)
    assert source == words and merged.shape == (2, len(words)) and merged.sum(axis=1) == pytest.approx(1)


def sentence(text, columns, target=("▁x",), ident=0):
    weights = np.random.default_rng(ident).dirichlet(np.ones(columns), len(target) + 1)
    return Sentence(ident, text.split(), ["x"], [Hypothesis(-1.0, list(target), weights=weights)])


def test_source_text_is_cut_again():
    tagged = sentence("<2en> Das <unk> Haus", 7)
    words = word_pieces.heat_map("t", tagged, tagged.hypotheses[0], pieces_of, words=True)
    assert words.source == ["<2en>", "Das", "<unk>", "Haus", "</s>"] and words.target == ["x", "</s>"]
    assert words.weights[:, 1] == pytest.approx(tagged.hypotheses[0].weights[:, 1:3].sum(axis=1))
    pieces = word_pieces.heat_map("t", tagged, tagged.hypotheses[0], pieces_of, words=False)
    assert pieces.source == ["<2en>", "▁Da", "s", "▁", "<unk>", "▁Haus", "</s>"]
    assert pieces.weights is tagged.hypotheses[0].weights
    twice = sentence("<unk><unk> Haus", 5)
    pieces = word_pieces.heat_map("t", twice, twice.hypotheses[0], pieces_of, words=False)
    assert pieces.source == ["▁", "<unk>", "<unk>", "▁Haus", "</s>"]


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 9])
def test_pieces_of_another_folder_are_refused(columns):
    other = sentence("Das Haus", columns)
    with pytest.raises(ValueError, match="sentence 0: 4 source pieces, .* the folder of the data that was"):
        word_pieces.heat_map("t", other, other.hypotheses[0], pieces_of, words=True)


def test_output_that_the_dictionary_does_not_know_is_refused(tmp_path):
    (tmp_path / "dict.en.txt").write_text("▁hou 3\nse 2\n#fairseq:overwrite 1\n", encoding="utf-8")
    word_pieces.check_symbols([sentence("Haus", 2, ("▁hou", "<unk>", "se"))], tmp_path / "dict.en.txt")
    with pytest.raises(ValueError, match="sentence 7: .*dict.en.txt lacks '▁house' of the output; is this the folder"):
        word_pieces.check_symbols([sentence("Haus", 2, ("se", "▁house"), ident=7)], tmp_path / "dict.en.txt")


def test_readable_sentences_are_chosen_and_others_left_out(capfd):
    long = [sentence("Haus " * 40, 41, ident=n) for n in range(5)]
    fitting = [sentence("Haus " * (5 + n), 6 + n, ident=10 + n) for n in range(6)]
    damaged = [sentence("Haus " * 5, 9, ident=20 + n) for n in range(9)]
    panels = word_pieces.readable(long + fitting + damaged, pieces_of, words=True)
    assert [len(panel.source) for panel in panels] == [7, 9, 11]
    assert capfd.readouterr().err == "warning: no heat maps of 9 sentences, whose pieces do not fit their weights\n"
    assert len(word_pieces.readable(long, pieces_of, words=True)) == 3
    assert len(word_pieces.readable(fitting[:2], pieces_of, words=True)) == 2
    assert word_pieces.readable(damaged, pieces_of, words=True) == []
