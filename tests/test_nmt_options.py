"""scripts/nmt_options.py: what nmt.sh trains, averages, takes along and decodes."""

import json
import os
import sys
from pathlib import Path

import pytest
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY
from translation_data import write_settings

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import nmt_options  # noqa: E402


@pytest.fixture
def data(tmp_path):
    """A data folder with all that is looked at."""
    folder = tmp_path / "set.de-en"
    (folder / "text").mkdir(parents=True)
    for name in ("dict.de.txt", "dict.en.txt", "sentencepiece.model", "train.de-en.de.bin"):
        (folder / name).touch()
    for name in ("valid.de", "valid.en", "test.de", "test.en", "test10.de", "test2.de"):
        (folder / "text" / name).touch()
    return write_settings(folder)


@pytest.mark.parametrize("arch", [name for name, model in ARCH_MODEL_NAME_REGISTRY.items() if model == "attn_rnn"])
def test_every_preset_gets_the_criterion_of_the_recipe(data, arch):
    options = nmt_options.train(data, "9", "0", "--arch", "x", f"--arch={arch}")
    assert nmt_options.value_of("--criterion", options) == "chunked_cross_entropy"
    assert [word for word in options if word.startswith("--share")] == ["--share-all-embeddings"] * (
        arch == "attn_lstm_multi30k"
    )


def test_models_of_fairseq_get_options_that_they_have(data):
    options = nmt_options.train(data, "9", "0", "--arch", "lstm")
    assert nmt_options.value_of("--criterion", options) == "label_smoothed_cross_entropy"
    assert not {"--arch", "attn_lstm_multi30k", "--share-all-embeddings"} & set(options)


@pytest.mark.parametrize(
    "chooses, registry, options",
    [
        ("--criterion", CRITERION_DATACLASS_REGISTRY, ["--label-smoothing"]),
        ("--lr-scheduler", LR_SCHEDULER_DATACLASS_REGISTRY, ["--warmup-updates", "--total-num-update"]),
    ],
)
def test_criteria_and_schedulers_get_options_that_they_have(data, chooses, registry, options):
    """The recipe's own get every one."""
    assert set(options) <= set(nmt_options.train(data, "9", "0"))
    for name, config in registry.items():
        has = {"--" + field.replace("_", "-") for field in getattr(config, "__dataclass_fields__", ())}
        given = nmt_options.train(data, "9", "0", f"{chooses}={name}")
        assert set(options) & set(given) <= has, f"{chooses} {name}"


def test_the_metric_is_one_that_the_task_logs(data):
    def metric(*words):
        return nmt_options.value_of("--best-checkpoint-metric", nmt_options.train(data, "9", "0", *words))

    assert [metric(), metric("--task", "translation"), metric("--task=translation", "--eval-bleu")] == [
        "bleu", "loss", "bleu",
    ]  # fmt: skip
    said = json.loads((data / "data.json").read_text())
    (data / "data.json").write_text(json.dumps({**said, "measure": "exact_match"}))
    assert [metric(), metric("--task", "translation"), metric("--best-checkpoint-metric=loss")] == [
        "exact_match", "loss", "loss",
    ]  # fmt: skip
    assert "--maximize-best-checkpoint-metric" in nmt_options.train(data, "9", "0")


def test_embeddings_are_shared_as_far_as_the_dictionaries_are(data):
    (data / "dict.en.txt").write_text("a 1\n")
    options = nmt_options.train(data, "9", "0")
    assert "--share-decoder-input-output-embed" in options and "--share-all-embeddings" not in options


@pytest.mark.parametrize("metric, maximized", [(None, True), ("chrf", True), ("loss", False), ("error_rate", False)])
def test_the_best_checkpoint_is_not_the_one_with_the_highest_loss(data, metric, maximized):
    options = nmt_options.train(data, "9", "0", *(["--best-checkpoint-metric", metric] if metric else []))
    assert nmt_options.value_of("--best-checkpoint-metric", options) == (metric or "bleu")
    assert ("--maximize-best-checkpoint-metric" in options) == maximized


def test_updates_and_averages_have_their_options(data):
    options = nmt_options.train(data, "77", "3")
    values = [nmt_options.value_of(f"--{name}", options) for name in ("max-update", "total-num-update")]
    assert values == ["77", "77"] and nmt_options.value_of("--keep-last-epochs", options) == "3"
    for updates, rising in (("77", "7"), ("3990", "399"), ("6000", "400")):
        assert nmt_options.value_of("--warmup-updates", nmt_options.train(data, updates, "0")) == rising
    options = nmt_options.train(data, "77", "00", "--lr-scheduler", "fixed")
    assert "--no-epoch-checkpoints" in options and "--keep-last-epochs" not in options
    assert "--total-num-update" not in options, "only the recipe's own schedule knows it"


def test_what_is_decoded(data):
    assert nmt_options.splits(data) == nmt_options.splits(data, " ") == ["test", "test10", "test2"]
    assert nmt_options.splits(data, "valid  test2") == ["valid", "test2"]
    with pytest.raises(ValueError, match="^SPLITS: got 'nope'; choose from valid test test10 test2$"):
        nmt_options.splits(data, "test nope")


def test_what_decoding_needs_of_the_data_folder(data):
    trained_on = nmt_options.sha256(data / "data.json")
    names = [Path(path).name for path in nmt_options.files(data, trained_on)]
    assert names == ["data.json", "dict.de.txt", "dict.en.txt", "sentencepiece.model"]
    write_settings(data, tagged=True)
    with pytest.raises(ValueError, match="set.de-en was made anew with other options while the model was trained"):
        nmt_options.files(data, trained_on)


def written(folder, *names):
    """Checkpoints, each with its name as content, one second after the other."""
    for second, name in enumerate(names):
        path = folder / f"checkpoint{name}.pt"
        path.write_text(name)
        os.utime(path, (second, second))


def chosen(folder, average):
    return [Path(path).stem.removeprefix("checkpoint") for path in nmt_options.checkpoints(folder, average)]


def test_which_checkpoints_are_averaged(tmp_path):
    with pytest.raises(ValueError, match=f"^AVERAGE=2: {tmp_path} has no checkpoint of an epoch$"):
        chosen(tmp_path, "2")
    written(tmp_path, "_best", "_2_500", "8", "9", "10", "_last")
    assert chosen(tmp_path, "0") == ["_best"]
    assert chosen(tmp_path, "2") == ["10", "_last"], "a training that ended within an epoch"
    assert chosen(tmp_path, "99") == ["8", "9", "10", "_last"]
    (tmp_path / "checkpoint_last.pt").write_text("10")
    assert chosen(tmp_path, "2") == ["9", "10"], "a copy of the last epoch"
    written(tmp_path, "_last", "8", "9", "10")
    assert chosen(tmp_path, "2") == ["9", "10"], "older than the last epoch"
    for name in ("8", "9", "10"):
        (tmp_path / f"checkpoint{name}.pt").unlink()
    assert chosen(tmp_path, "2") == ["_last"]
