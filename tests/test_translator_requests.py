"""Requests to a Translator: side by side in threads, and with arguments that make no sense."""

import random

import numpy as np
import pytest
import torch
from translation_data import model_folder, read_lines, trained_folder
from translator_load import different_answers, requests_for

from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("requests")


@pytest.fixture
def translator(root, command):
    """Of a model for two target languages that has seen a few batches, made once."""
    if not (root / "model").exists():
        options = "--max-source-positions 60 --max-target-positions 101 --max-update 20"
        sizes = {"train": 60, "valid": 2, "test": 2}
        model_folder(*trained_folder(command, root, options, targets=("en", "fr"), sizes=sizes), root / "model")
    return AttnRNNModel.from_pretrained(root / "model")


def test_what_other_threads_ask_for_changes_no_answer(translator, root):
    words = [word for line in read_lines(root / "text" / "train.de") for word in line.split()]
    requests = [{**request, "max_len_a": 0.3} for request in requests_for(translator, words, 10, longest=30)[3:]]
    assert {request["target"] for request in requests} == {"en", "fr"} and any(r["beam"] == 1 for r in requests)
    assert not different_answers(translator, requests, threads=8, rounds=1)


def test_nothing_of_a_request_outlives_it(translator):
    """Neither what was asked for nor the state of any generator of random numbers."""
    (model,) = translator.models

    def state():
        numpy = np.random.get_state()
        return (
            {name: value for name, value in vars(model.decoder).items() if isinstance(value, bool)},
            translator.bpe.target, str(translator.cfg), torch.get_rng_state().tolist(), numpy[1].tolist(), numpy[2:],
            random.getstate(),
        )  # fmt: skip

    before = state()
    asked = dict(beam=2, max_len_b=3, lenpen=0.3)
    first = translator.translate_lines(["Der hund."], target="fr", attention=True, **asked)[0]
    other = translator.translate_lines(["Der hund."], target="en", attention=False, **asked)[0]
    assert first.attention is not None and other.attention is None and state() == before
    assert (first.source[0], other.source[0]) == ("<2fr>", "<2en>")
    with pytest.raises(ValueError, match="--translate-to: not given; choose from en, fr"):
        translator.translate_lines(["Der hund."])
    empty, blank = translator.translate_lines(["", " "], target="fr")
    empty.source.append("x")
    assert blank.source == [] == translator.translate_lines([""], target="fr")[0].source


MISTAKES = {
    "beem: no option of a translation; did you mean beam?": dict(beem=3),
    "quality: no option of a translation; choose from max_len_a, ": dict(quality="high"),
    "print_alignment: no option of a translation; translate_lines returns the attention": dict(print_alignment="hard"),
    "lenpen: got '1'; give a finite number": dict(lenpen="1"),
    "temperature: got nan; give a finite number": dict(temperature=float("nan")),
    "max_len_b: got 2.5; give a whole number": dict(max_len_b=2.5),
    "sampling: got 'yes'; give True or False": dict(sampling="yes"),
    "beam: got 0; give a whole number, at least 1": dict(beam=0),
    "beam: got '5'; give a whole number, at least 1": dict(beam="5"),
    "max_tokens: got nan; give a whole number, at least 1": dict(max_tokens=float("nan")),
    "--translate-to: got 'de'; choose from en, fr": dict(target="de"),
    "lines: got 'Der hund.', which is not a list; give .text., or call translate.text.": dict(lines="Der hund."),
    "lines: got b'Der', which is not a list": dict(lines=b"Der"),
    "lines: number 2 is None; give text": dict(lines=["Der hund.", None]),
    "lines: got None, which is not a list": dict(lines=None),
    "lines: number 1 has half of a surrogate pair": dict(lines=["\ud800"]),
    "beam: got True; give a whole number": dict(beam=True),
    "attention: got 'yes'; give True or False": dict(attention="yes"),
    "temperature: got 0; give a finite number, at least 1e-06": dict(temperature=0),
    "sampling_topk: got -3; give a whole number, at least 1": dict(sampling_topk=-3),
    "sampling_topp: got 5.0; give a finite number, between 1e-06 and 1": dict(sampling_topp=5.0),
    "no_repeat_ngram_size: got -1; give a whole number, at least 0": dict(no_repeat_ngram_size=-1),
    "min_len: got 1000000000; a translation has [0-9]+ pieces at most": dict(min_len=10**9),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_one_line(translator, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}") as raised:
        translator.translate_lines(**{"lines": ["Der hund."], "target": "en", **MISTAKES[message]})
    assert "\n" not in str(raised.value)


def test_what_the_model_was_loaded_with_decides_no_attention(root, translator):
    """print_alignment of from_pretrained is for fairseq's own methods; other options of the search stay."""
    loaded = AttnRNNModel.from_pretrained(root / "model", print_alignment="hard")
    assert loaded.translate("Der hund.", target="fr") == translator.translate("Der hund.", target="fr")
    assert loaded.translate_lines(["Der hund."], target="fr", attention=False)[0].attention is None
    loaded = AttnRNNModel.from_pretrained(root / "model", unkpen=-99.0)
    asked = [found.target for found in translator.translate_lines(["Der hund."] * 2, target="fr", unkpen=-99.0)]
    assert [found.target for found in loaded.translate_lines(["Der hund."] * 2, target="fr")] == asked
    assert asked != [found.target for found in translator.translate_lines(["Der hund."] * 2, target="fr")]
