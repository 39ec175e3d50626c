"""``--report-attention`` against loops over the definitions, in any batch, on either side of the padding."""

import dataclasses
import json
import math
from argparse import Namespace

import numpy as np
import pytest
import torch
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.data import indexed_dataset
from fairseq.logging import metrics as fairseq_metrics
from fairseq.tasks import FairseqTask
from fairseq_commands import SMALL
from model_factory import build
from test_attn_translation import task_of as translation_task
from translation_data import data_folder

from fairseq_attn_plugin.criterions.chunked_cross_entropy import ChunkedCrossEntropyCriterion
from fairseq_attn_plugin.evaluation import metrics
from fairseq_attn_plugin.tasks import attention_report
from fairseq_attn_plugin.tasks.reversal import ReversalConfig, ReversalTask

SOURCES, TARGETS = (5, 1, 3, 0), (4, 2, 6, 1)  # words of each sentence; beside the source ones one </s>


def sentences(seed=0):
    """Of each sentence weights T×(S+1), the last column that of ``</s>``, and aligned (source, target) positions."""
    generator = np.random.default_rng(seed)
    found = []
    for source, target in zip(SOURCES, TARGETS, strict=True):
        weights = generator.random((target, source + 1)) ** 4
        weights[generator.random(weights.shape) < 0.3] = 0.0
        weights[:, -1] += 0.01
        pairs = [(int(generator.integers(source)), t) for t in (0, 0, target - 1)] if source else []
        found.append((weights / weights.sum(1, keepdims=True), sorted(set(pairs))))
    return found


def by_loops(weights, pairs):
    """The definitions, for one sentence."""
    sums, before = dict.fromkeys((f.name for f in dataclasses.fields(metrics.AttentionSums)), 0.0), None
    for t, row in enumerate(weights):
        sums["words"] += 1
        sums["entropy"] -= sum(a * math.log(a) for a in row if a > 0)
        largest = list(row).index(max(row))
        if before is not None:
            sums["steps"] += 1
            sums["forward"] += largest >= before
        before = largest
        gold = [source for source, target in pairs if target == t]
        sums["aligned"] += bool(gold)
        sums["right"] += largest in gold
    for j in range(weights.shape[1] - 1):
        sums["sources"] += 1
        sums["covered"] += min(1.0, sum(row[j] for row in weights))
    return sums


def batched(chosen, left):
    """Weights, sources, words and alignments of a padded batch, as ``metrics.attention_sums`` wants them."""
    rows, steps, width = len(chosen), max(len(w) for w, _ in chosen), max(w.shape[1] for w, _ in chosen)
    weights = np.zeros((rows, steps, width), dtype=np.float32)
    is_source, is_word, pairs = np.zeros((rows, width), bool), np.zeros((rows, steps), bool), []
    for row, (each, aligned) in enumerate(chosen):
        target, source = each.shape
        start = width - source if left else 0
        weights[row, :target, start : start + source] = each
        weights[row, target:, start] = 1.0  # the decoder attends after the end, too
        is_source[row, start : start + source - 1], is_word[row, :target] = True, True
        pairs += [(start + s, row * steps + t) for s, t in aligned]
    return weights, is_source, is_word, np.array(pairs, dtype=np.int64)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_batch_has_the_sums_of_its_sentences_by_their_definitions(seed, left):
    every = sentences(seed)
    found = dataclasses.asdict(metrics.attention_sums(*batched(every, left)))
    alone = [dataclasses.asdict(metrics.attention_sums(*batched([each], left))) for each in every]
    loops = [by_loops(*each) for each in every]
    for name, value in found.items():
        assert value == pytest.approx(sum(each[name] for each in loops), abs=1e-5), name
        assert value == pytest.approx(sum(each[name] for each in alone), abs=1e-9), name
    assert found["right"] > 0 or found["aligned"] > 0


def test_metrics_by_hand():
    weights = np.array([[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])
    sources, words = np.array([[True, True, False]]), np.array([[True, True, True]])
    sums = metrics.attention_sums(weights, sources, words, np.array([[0, 0], [1, 0], [1, 2]]))
    assert sums == metrics.AttentionSums(math.log(2), 3.0, 2.0, 2.0, 1.0, 2.0, 1.0, 2.0)
    assert metrics.attention_entropy(sums.entropy, sums.words) == pytest.approx(math.log(2) / 3)
    assert metrics.share(sums.forward, sums.steps) == 50 and metrics.share(0.0, 0.0) == 0
    assert metrics.attention_entropy(0.0, 0.0) == 0
    blind = metrics.attention_sums(np.zeros((1, 2, 3)), sources, np.ones((1, 2), bool))
    assert (blind.entropy, blind.covered, blind.aligned) == (0, 0, 0)


# The tasks


def reversal(**options):
    config = ReversalConfig(report_attention=True, reversal_valid_size=24, reversal_max_length=6)
    for name, value in options.items():
        setattr(config, name, value)
    task = ReversalTask(config)
    task.load_dataset("valid")
    return task


def validated(task, model, criterion, parts):
    """What fairseq logs after batches, each a list with the output of every process."""
    task._generator, task.inference_step = None, lambda generator, models, sample: [[]] * len(sample["target"])
    data = task.dataset("valid")
    with fairseq_metrics.aggregate(new_root=True) as values:
        for batch in parts:
            outputs = [task.valid_step(data.collater([data[i] for i in ids]), model, criterion)[2] for ids in batch]
            task.reduce_metrics(outputs, criterion)
    assert not model.decoder._forward_hooks
    return {name: value for name, value in values.get_smoothed_values().items() if name.startswith("attention")}


def test_any_criterion_batch_process_and_side_gives_the_same():
    task = reversal()
    model = build(task)
    whole = validated(task, model, CrossEntropyCriterion(task, False), [[range(24)]])
    assert whole.keys() == {name for name, *_ in attention_report.LOGGED}
    assert all(type(value) is float for value in whole.values())
    parts = [[range(0, 3), range(3, 10)], [range(10, 11), range(11, 24)]]
    chunked = validated(task, model, ChunkedCrossEntropyCriterion(task, False, 0.1), parts)
    other_side = reversal(reversal_source_padding="left")
    left = validated(other_side, model, CrossEntropyCriterion(other_side, False), [[range(24)]])
    for found in (chunked, left):
        assert found == pytest.approx(whole, abs=0.002)
    assert 0 < whole["attention_coverage"] < 100 and 0 < whole["attention_monotonicity"] < 100


@pytest.mark.parametrize("order", ["reverse", "copy"])
def test_the_gold_position_and_the_direction_of_the_reversal_task(order):
    """Weights that know the answer: the share on the gold position is that of all, whatever the side."""
    for side in ("right", "left"):
        task = reversal(reversal_order=order, reversal_source_padding=side)
        data = task.dataset("valid")
        sample = data.collater([data[i] for i in range(24)])
        source, target = sample["net_input"]["src_tokens"], sample["target"]
        weights = torch.zeros(*target.shape, source.size(1))
        for row in range(24):
            columns = source[row].ne(1).nonzero().flatten()
            ends = len(columns) - 1
            for t in range(ends):
                weights[row, t, columns[t if order == "copy" else ends - 1 - t]] = 1.0
            weights[row, ends, columns[ends]] = 1.0
        watch = attention_report.Watch()
        watch(None, None, (None, {"attn": [weights]}))
        sums = attention_report.attention_sums(watch, sample, task.source_dictionary, task.target_dictionary)
        assert sums["_attention_right"] == sums["_attention_aligned"] == sums["_attention_sources"]
        assert sums["_attention_covered"] == sums["_attention_sources"] and sums["_attention_entropy"] == 0
        going_on = sums["_attention_steps"] if order == "copy" else 24  # to </s>
        assert sums["_attention_forward"] == going_on


@pytest.mark.parametrize("left", [False, True])
def test_alignments_that_fairseq_loads(command, tmp_path, left):
    """``--load-alignments`` of the translation task; a target word may have several source words, or none."""
    folder = data_folder(command, tmp_path, "none", sizes={"train": 20, "valid": 9, "test": 3})
    pairs = [[] if row % 3 == 2 else [(0, 0), (1, 0), (0, 1)] for row in range(9)]
    builder = indexed_dataset.make_builder(str(folder / "valid.align.de-en.bin"), "mmap", vocab_size=100)
    for each in pairs:
        builder.add_item(torch.tensor(each, dtype=torch.int32).flatten())
    builder.finalize(str(folder / "valid.align.de-en.idx"))
    task = translation_task(
        folder,
        report_attention=True,
        load_alignments=True,
        left_pad_source=left,
        translation_valid_beam=0,
        dataset_impl="mmap",
        required_seq_len_multiple=1,
    )
    task.load_dataset("valid")
    model = build(task)
    found = validated(task, model, CrossEntropyCriterion(task, False), [[range(4)], [range(4, 9)]])
    right = aligned = 0
    for row, each in enumerate(pairs):
        sample = task.dataset("valid").collater([task.dataset("valid")[row]])
        attended = model(**sample["net_input"])[1]["attn"][0][0].argmax(-1).tolist()
        length, target = int(sample["net_input"]["src_lengths"]), int(sample["ntokens"])
        if each and length > 2 and target > 2:  # fairseq leaves out alignments beyond a sentence
            aligned += 2
            right += (attended[0] in (0, 1)) + (attended[1] == 0)
    assert aligned and found["attention_on_gold"] == pytest.approx(100 * right / aligned, abs=0.001)


def test_nothing_is_logged_where_nothing_was_asked_for():
    task = reversal(report_attention=False)
    model = build(task)
    assert validated(task, model, CrossEntropyCriterion(task, False), [[range(24)]]) == {}


def test_a_model_without_attention_is_an_error(monkeypatch):
    message = "^--report-attention: this model returns no attention .*; leave it out, or use another --attention-score$"
    task = reversal()
    model = build(task, attention_score="none", input_feeding="off")
    monkeypatch.setattr(FairseqTask, "build_model", lambda *args: model)
    with pytest.raises(ValueError, match=message):
        task.build_model(Namespace())
    with pytest.raises(ValueError, match=message):
        validated(task, model, CrossEntropyCriterion(task, False), [[range(24)]])
    assert not model.decoder._forward_hooks


@pytest.mark.slow
def test_training_logs_it_and_validation_of_a_checkpoint_the_same(command, tmp_path):
    task = "--task reversal --reversal-max-length 6 --reversal-train-size 64 --reversal-valid-size 24 --log-format json"
    options = f"--arch attn_lstm_reversal {SMALL} --criterion cross_entropy --max-epoch 1 --report-attention"
    command("train", task, options, f"--save-dir {tmp_path} --log-file {tmp_path}/log")

    def last(text):
        found = [json.loads(line[line.index("{") :]) for line in text.splitlines() if '"valid_loss"' in line][-1]
        return {name: float(found[f"valid_{name}"]) for name, *_ in attention_report.LOGGED}

    trained = last((tmp_path / "log").read_text())
    path = f"--path {tmp_path}/checkpoint_last.pt --batch-size 5 --required-batch-size-multiple 1 --report-attention"
    assert last(command("validate", task, path)) == pytest.approx(trained, abs=0.002)
    assert 0 < trained["attention_entropy"] < math.log(7)
