"""Options of model, tasks and criterion with hostile values: a right result, or one line that names the option."""

import dataclasses
import math

import pytest
import torch
from fairseq.data import Dictionary
from hostile import INTEGERS, REALS, TEXTS, assert_one_line, examples, some_of
from hypothesis import given
from hypothesis import strategies as st
from model_factory import batch, config, toy_task
from translation_data import write_settings

from fairseq_attn_plugin.criterions.chunked_cross_entropy import ChunkedCrossEntropyCriterion
from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel
from fairseq_attn_plugin.models.config import REGISTRIES, all_options, option_of
from fairseq_attn_plugin.tasks.attn_translation import AttnTranslationConfig, AttnTranslationTask
from fairseq_attn_plugin.tasks.reversal import ReversalConfig, ReversalTask

OF_TYPE = {int: INTEGERS, float: REALS, str: TEXTS, bool: (True,)}
MODEL = {option.name: option.choices or OF_TYPE[option.type] for option in all_options()}
MODEL.update({option_of(registry): (*registry.names(), "none", "", "x") for registry in REGISTRIES})
MODEL.update(attention_past_score=("additive", "dot", "location", "none", "x"), encoder_embed_path=(".", "none", "\0"))


def build(options):
    """A model; None where the options are refused, as they should be."""
    torch.manual_seed(1)
    try:
        return AttnRNNModel.build_model(config(**options), toy_task())
    except ValueError as error:
        assert_one_line(error, options)
        return None


@examples(50, 2000)
@given(some_of(MODEL))
def test_a_model_is_built_and_learns_or_an_option_is_named(options):
    model = build(options)
    if model is None:
        return
    source, lengths, previous = batch(toy_task())
    logits, _ = model.train()(source, lengths, previous)
    logits.logsumexp(dim=2).sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


LENGTHS = (-1, 0, 1, 2, 3, 7, 2000, 10**9, 2**63)
SIZES = (-1, 0, 1, 5, 30, 10**12, 2**63)
REVERSAL = {field.name: INTEGERS for field in dataclasses.fields(ReversalConfig) if field.type in (int, "int")}
REVERSAL.update({
    "reversal_symbols": ("", "a", "ab", "3", "20000", "-3", "1.5", "9" * 30, "9" * 5000, "a,,b", "<unk>,a", "a a", "aé",
                         "\udcffa", "٣", "ab" * 2000, ","),
    "reversal_train_data": ("fresh", "fixed"), "reversal_order": ("reverse", "copy"),
    "reversal_seed": INTEGERS, "reversal_eval_max_len_a": REALS,
    **{f"reversal_{name}_length": LENGTHS for name in
       ("min", "max", "test_min", "test_max", "long_min", "long_max")},
    **{f"reversal_{name}_size": SIZES for name in ("train", "valid", "test", "long", "exact")},
})  # fmt: skip
SMALL = {f"reversal_{name}_size": 5 for name in ("train", "valid", "test", "long", "exact")}
SPLITS = ("train", "valid", "test", "test_long", "test_3", "test_0", "test_9999999999", "a,b", "", "_long", "x/../y")


@examples(60, 1500)
@given(some_of(REVERSAL), st.sampled_from(SPLITS))
def test_reversal_data_are_right_or_an_option_is_named(options, split):
    try:
        task = ReversalTask.setup_task(ReversalConfig(**{**SMALL, **options}))
        task.load_dataset(split)
    except ValueError as error:
        assert_one_line(error, {**options, "gen_subset": split})
        return
    dataset, problem = task.datasets[split], task.problem()
    spec = problem.split(split)
    assert len(dataset) == spec.size and math.isfinite(task._search.max_len_a * 1e6 + task._search.max_len_b)
    for index in range(min(5, len(dataset))):
        source, target = (dataset[index][side].tolist()[:-1] for side in ("source", "target"))
        assert target == (source if problem.order == "copy" else source[::-1])
        assert spec.shortest <= len(source) <= spec.longest


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder without text."""
    folder = tmp_path_factory.mktemp("data") / "set.de-en"
    folder.mkdir()
    for side in ("de", "en"):
        (folder / f"dict.{side}.txt").write_text("a 2\nb 1\n")
    return str(write_settings(folder, "none"))


TRANSLATION = {
    "translation_valid_beam": INTEGERS, "translation_valid_max_len_a": REALS, "translation_valid_max_len_b": INTEGERS,
    "translate_to": TEXTS, "source_lang": ("de", *TEXTS), "target_lang": ("en", *TEXTS), "eval_bleu": (True, False),
    "data": ("", ".", "x", "\0", "a:b", ":", "/dev/null", "\udcff"),
}  # fmt: skip


@examples(60, 1500)
@given(options=some_of(TRANSLATION))
def test_a_translation_task_is_set_up_or_an_option_is_named(options, data):
    try:
        config = AttnTranslationConfig(**{"data": data, **options})
        config.translation_post_process = None  # what another config would say
        task = AttnTranslationTask.setup_task(config)
    except ValueError as error:
        if "data" not in options:  # a folder is named by itself
            assert_one_line(error, options)
        assert "\n" not in str(error)
        return
    assert isinstance(task.source_dictionary, Dictionary) and len(task.source_dictionary) == 6
    assert math.isfinite(task._search.max_len_a * 1e6 + task._search.max_len_b)


CRITERION = {"label_smoothing": REALS, "coverage_loss": REALS}


@pytest.fixture(scope="module")
def model():
    return build({})


@examples(40, 500)
@given(options=some_of(CRITERION))
def test_a_loss_is_finite_or_an_option_is_named(options, model):
    task = toy_task()
    try:
        criterion = ChunkedCrossEntropyCriterion(task, False, **{"label_smoothing": 0.1, **options})
    except ValueError as error:
        assert_one_line(error, options)
        return
    source, lengths, previous = batch(task)
    net_input = {"src_tokens": source, "src_lengths": lengths, "prev_output_tokens": previous}
    sample = {"net_input": net_input, "target": previous.roll(-1, dims=1), "ntokens": 14, "nsentences": len(source)}
    assert criterion(model, sample)[0].isfinite()


VECTORS = b"3 5\ns1 1 2 3 4 5\nat a@b.c 1 1 1 1 1\ns3 0 0 0 0 1\n"


@examples(40, 2000)
@given(cut=st.integers(0, len(VECTORS)), end=st.integers(0, len(VECTORS)), more=st.binary(max_size=6))
def test_an_embedding_file_is_read_or_named(cut, end, more, tmp_path):
    path = tmp_path / "source.vec"
    path.write_bytes(VECTORS[:cut] + more + VECTORS[max(cut, end) :])
    model = build({"encoder_embed_path": str(path)})
    assert model is None or model.encoder.embed_tokens.weight.isfinite().all()
