"""The translation task: data folder and checkpoint, scores of validation, and fairseq's commands on raw text."""

import io
import json
import logging
import re
import shutil
import sys

import pytest
import sacrebleu
import torch
from fairseq import checkpoint_utils
from fairseq.logging import metrics as fairseq_metrics
from fairseq.tasks import FairseqTask
from fairseq_commands import hypotheses, load, save_state
from torch.serialization import get_unsafe_globals_in_checkpoint
from translation_data import SMALL_MODEL, data_folder, read_lines, write_settings

from fairseq_attn_plugin.data.segmenter import Segmenter
from fairseq_attn_plugin.tasks.attn_translation import AttnTranslationConfig, AttnTranslationTask

pytestmark = pytest.mark.slow

SIZES = {"train": 120, "valid": 13, "test": 11}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("translation")


@pytest.fixture
def data(root, command):
    """data(segmentation, targets): a data folder, made once."""

    def make(segmentation="bpe", targets=("en",)):
        folder = root / f"{segmentation}-{'-'.join(targets)}"
        if not folder.exists():
            folder.mkdir()
            data_folder(command, folder, segmentation, targets, SIZES)
        return folder / f"corpus.de-{'+'.join(targets)}"

    return make


def task_of(folder, **options):
    given = dict(
        data=str(folder), translation_save_dir="nowhere", translation_restore_file="checkpoint_last.pt",
        translation_finetune_from_model=None, translation_reset_dataloader=False, translation_best_metric="loss",
        translation_maximize=False, translation_post_process=None,
    )  # fmt: skip
    config = AttnTranslationConfig()
    for name, value in {**given, **options}.items():
        setattr(config, name, value)
    return AttnTranslationTask.setup_task(config)


# Options, data folder, checkpoint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_bleu": True}, "--eval-bleu: .*--translation-valid-beam"),
        ({"translation_valid_beam": -1}, "--translation-valid-beam: got -1; give at least 0"),
        ({"translation_valid_max_len_b": 0}, "--translation-valid-max-len-b: got 0; give at least 1"),
        ({"translation_valid_max_len_a": float("nan")}, "--translation-valid-max-len-a: got nan; give a number"),
        ({"translation_valid_max_len_a": 2e9}, "--translation-valid-max-len-a: got 2000000000.0; give a number of"),
        ({"translation_post_process": "sentencepiece"}, "--post-process: got 'sentencepiece', but .*; leave"),
        ({"source_lang": "en", "target_lang": "de"}, "--source-lang: got 'en', but .* is de-en; leave"),
        ({"target_lang": "fr"}, "--target-lang: got 'fr', but .* is de-en; leave"),
        ({"translate_to": "fr"}, "--translate-to: got 'fr'; choose from en$"),
        ({"data": "nowhere"}, "nowhere: no such folder; a data folder is made by data-prep"),
        ({"data": None}, "data: no folder given"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be(data, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        task_of(data(), **options)


@pytest.mark.parametrize(
    ("beam", "metric", "maximize", "message"),
    [
        (1, "bleu", False, "--best-checkpoint-metric bleu: higher is better; add --maximize"),
        (0, "bleu", True, "--best-checkpoint-metric: got 'bleu', which .*; give --translation-valid-beam 1 or more"),
        (1, "ppl", True, "--best-checkpoint-metric ppl: lower is better; leave out --maximize"),
        (1, "exact_match", True, "--best-checkpoint-metric: got 'exact_match', .*; choose from loss, bleu, chrf"),
    ],
)
def test_a_best_metric_that_would_not_be_the_best(data, beam, metric, maximize, message):
    task = task_of(
        data(), translation_valid_beam=beam, translation_best_metric=metric, translation_maximize=maximize
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"^{message}"):
        task.build_model(None)


def test_another_segmenter_is_an_error(data):
    task = task_of(data())
    assert task.build_bpe(None) is task.segmenter and task.build_tokenizer(None) is None
    config = type("Config", (), {"_name": "sentencepiece"})
    for build, option in ((task.build_bpe, "--bpe"), (task.build_tokenizer, "--tokenizer")):
        with pytest.raises(ValueError, match=f"^{option}: got 'sentencepiece', but .*segmented .bpe.; leave"):
            build(config)


DIFFERENCES = {
    "another language": lambda saved: {**saved, "source": "nl"},
    "another segmentation": lambda saved: {**saved, "segmentation": "unigram"},
    "another normal form": lambda saved: {**saved, "normalization": "NFD"},
    "another model": lambda saved: {**saved, "sha256": {**saved["sha256"], "sentencepiece.model": "0" * 64}},
    "another dictionary": lambda saved: {**saved, "sha256": {**saved["sha256"], "dict.de.txt": "0" * 64}},
}
SAID = {
    "another language": "source is 'de', but the checkpoint has 'nl'",
    "another segmentation": "segmentation is 'bpe', but the checkpoint has 'unigram'",
    "another normal form": "normalization is 'NFC', but the checkpoint has 'NFD'",
    "another model": "sha256 is [0-9a-f]{12} of sentencepiece.model, but the checkpoint has 000000000000 of",
    "another dictionary": "sha256 is [0-9a-f]{12} of dict.de.txt, but the checkpoint has 000000000000 of",
}


@pytest.mark.parametrize("when", ["decoding", "resuming", "finetuning"])
@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_checkpoint_of_another_data_folder_is_an_error(data, difference, when, tmp_path, monkeypatch):
    saved = task_of(data()).state_dict()
    other = {"translation": DIFFERENCES[difference](saved["translation"])}
    name = "other.pt" if when == "finetuning" else "checkpoint_last.pt"
    options = {"translation_save_dir": str(tmp_path)}
    if when == "finetuning":
        options["translation_finetune_from_model"] = str(tmp_path / name)
    monkeypatch.setattr(FairseqTask, "build_model", lambda *args: torch.nn.Linear(1, 1))
    monkeypatch.setattr(FairseqTask, "build_generator", lambda *args: None)

    def start(state):
        task = task_of(data(), **options)
        if when == "decoding":
            return task.load_state_dict(state)
        save_state(state, tmp_path / name)
        return task.build_model(None)

    start(saved)
    start({})  # of fairseq's own translation task: it does not say
    old = {key: value for key, value in saved["translation"].items() if key != "normalization"}
    start({"translation": old})  # of 0.2.0
    with pytest.raises(ValueError, match=f"^{data()}: {SAID[difference]}.*; give the data folder"):
        start(other)


# Validation


def validated(task, pairs, monkeypatch, sizes):
    """What ``reduce_metrics`` gets of batches of ``sizes`` of (reference, hypothesis) pairs of encoded text."""
    def tokens(pieces):
        return task.target_dictionary.encode_line(pieces, add_if_not_exist=False).long()

    monkeypatch.setattr(FairseqTask, "valid_step", lambda *args: (0.0, 1, {}))
    logs, rest = [], iter(pairs)
    for size in sizes:
        batch = [next(rest) for _ in range(size)]
        targets = torch.nn.utils.rnn.pad_sequence([tokens(reference) for reference, _ in batch], True, 1)
        found = [[{"tokens": tokens(hypothesis)}] for _, hypothesis in batch]
        monkeypatch.setattr(task, "inference_step", lambda *args, found=found: found)
        task._generator = "one"
        logs.append(task.valid_step({"target": targets}, None, None)[2])
    return logs


def logged(task, groups, monkeypatch):
    """What fairseq would print after ``reduce_metrics`` of each group of logging outputs."""
    monkeypatch.setattr(FairseqTask, "reduce_metrics", lambda *args: None)
    with fairseq_metrics.aggregate() as aggregator:
        for group in groups:
            task.reduce_metrics(group, None)
    return aggregator.get_smoothed_values()


@pytest.mark.parametrize("segmentation", ["none", "char", "bpe", "unigram"])
def test_scores_are_sacrebleus_of_the_text(data, segmentation, monkeypatch, caplog):
    folder = data(segmentation)
    task = task_of(folder)
    encode = Segmenter(folder, "target").encode
    references = read_lines(folder.parent / "text" / "train.en")[:11]
    hypotheses = [" ".join(line.split()[: 2 + i % 4] + line.split()[4:]) for i, line in enumerate(references)]
    hypotheses[3] = ""
    pairs = [(encode(r), encode(h)) for r, h in zip(references, hypotheses)]
    with caplog.at_level(logging.INFO):
        logs = validated(task, pairs, monkeypatch, [5, 1, 4, 1])
    values = logged(task, [logs], monkeypatch)
    assert values["bleu"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score, abs=0.001)
    assert values["chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score, abs=0.001)
    assert 20 < values["bleu"] < values["chrf"] < 95
    signatures = [r.getMessage() for r in caplog.records if "tok:13a" in r.getMessage() or "nc:6" in r.getMessage()]
    assert len(signatures) == 2 and all(f"version:{sacrebleu.__version__}" in line for line in signatures)
    if segmentation in ("none", "char"):
        split = list if segmentation == "char" else str.split
        pairs = [(split(r), split(h)) for r, h in zip(references, hypotheses)]
        assert values["exact_match"] == round(100 * sum(r == h for r, h in pairs) / len(pairs), 3) > 0
        # hypotheses lack something or have it twice: the edit distance is the difference of lengths
        rate = 100 * sum(abs(len(r) - len(h)) for r, h in pairs) / sum(len(r) for r, _ in pairs)
        assert values["error_rate"] == pytest.approx(rate, abs=0.001)
    else:
        assert not {"exact_match", "error_rate"} & set(values)

    summed = {name: torch.tensor(sum(log[name] for log in logs)) for name in logs[0]}
    two = [[{name: torch.tensor(log[name]) for name in log} for log in half] for half in (logs[:1], logs[1:])]
    for parts in ([[summed]], two):  # as fairseq sums over processes, and over calls
        assert logged(task, parts, monkeypatch) == values
    assert logged(task, [[{"loss": 1.0}]], monkeypatch) == {}


@pytest.mark.parametrize("segmentation", ["none", "char"])
def test_an_unknown_token_in_a_reference_matches_nothing(data, segmentation, monkeypatch):
    task = task_of(data(segmentation))
    values = logged(task, [validated(task, [("<unk> <unk>", "<unk> <unk>")], monkeypatch, [1])], monkeypatch)
    assert values == {"bleu": 0, "chrf": 0, "exact_match": 0, "error_rate": 100}


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_no_sentence_is_lost_not_even_an_empty_one(command, split, tmp_path):
    data = data_folder(command, tmp_path, "none", sizes={"train": 13, "valid": 13, "test": 13})
    for language in ("de", "en"):  # the same lines again, one of them empty
        lines = read_lines(tmp_path / f"{split}.{language}")
        (tmp_path / f"again.{language}").write_text("\n".join(["", *lines[1:]]) + "\n")
    command(
        "preprocess", f"-s de -t en --{split}pref {tmp_path / 'again'} --destdir {data}",
        f"--srcdict {data}/dict.de.txt --tgtdict {data}/dict.en.txt",
    )  # fmt: skip
    write_settings(data, "none")
    task = task_of(data, train_subset="train", dataset_impl="mmap", required_seq_len_multiple=1)
    task.load_dataset(split)
    room = 40 if split == "train" else 3  # a long sentence makes larger batches, outside training
    batches = task.get_batch_iterator(
        task.dataset(split), max_tokens=room, required_batch_size_multiple=8, max_positions=(1024, 1024)
    )  # fmt: skip
    seen = [index for batch in batches.next_epoch_itr(shuffle=False) for index in batch["id"].tolist()]
    assert sorted(seen) == list(range(13))


def test_a_colon_in_the_path_of_the_data(data, command, tmp_path):
    """It serves raw text as any other; its binarised text fairseq cannot find."""
    folder = shutil.copytree(data(), tmp_path / "co:lon")
    task = task_of(folder)
    assert task.segmenter.encode("Der hund.")
    message = f"^{folder}: fairseq takes ':' for .* path; give a path without it$"
    with pytest.raises(ValueError, match=message):
        task.load_dataset("test")
    with pytest.raises(ValueError, match=message):
        command("train", folder, SMALL_MODEL, "--max-update 1 --save-dir", tmp_path / "save")


# The commands


def train(command, data, save, *options):
    vars(checkpoint_utils.save_checkpoint).pop("best", None)  # of another training in this process
    command("train", data, SMALL_MODEL, "--max-update 24 --save-dir", save, "--log-format json", *options)
    return save / "checkpoint_best.pt"


@pytest.mark.slow(seconds=10)
def test_the_commands_speak_raw_text(data, command, root, monkeypatch, caplog, tmp_path):
    folder = data("bpe")
    log = tmp_path / "log"
    best = "--best-checkpoint-metric bleu --maximize-best-checkpoint-metric"
    checkpoint = train(command, folder, root / "bpe", best, "--valid-subset valid,test --log-file", log)
    assert get_unsafe_globals_in_checkpoint(checkpoint) == []
    saved = load(checkpoint)
    assert saved["task_state"]["translation"]["segmentation"] == "bpe"
    stats = [json.loads(line) for line in log.read_text().splitlines() if '"valid_bleu"' in line]
    validated = max(stats, key=lambda each: float(each["valid_bleu"]))
    assert saved["extra_state"]["best"] == float(validated["valid_bleu"])

    decode = f"{folder} --task attn_translation --path {checkpoint} --max-tokens 600"
    text = command("generate", decode, "--gen-subset valid --scoring sacrebleu --beam 1 --max-len-a 1.5 --max-len-b 10")
    references = read_lines(folder.parent / "text" / "valid.en")
    sources = read_lines(folder.parent / "text" / "valid.de")
    best_hypotheses = {int(number): line.split("\t")[1] for number, line in hypotheses(text, "D")}
    assert {int(number): line for number, line in hypotheses(text, "T")} == dict(enumerate(references))
    assert {int(number): line for number, line in hypotheses(text, "S")} == dict(enumerate(sources))
    ordered = [best_hypotheses[number] for number in range(len(references))]
    assert not any("▁" in line for line in ordered)
    (printed,) = re.findall(r"^Generate valid with beam=1: BLEU = ([\d.]+)", text, re.M)
    assert float(printed) == round(sacrebleu.corpus_bleu(ordered, [references]).score, 2)
    chrf = sacrebleu.corpus_chrf(ordered, [references]).score
    assert float(validated["valid_chrf"]) == pytest.approx(chrf, abs=0.01) and chrf > 5

    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line.replace(" ", "  ") + "\n" for line in sources)))
    typed = command("interactive", decode, "--beam 1 --max-len-a 1.5 --max-len-b 10 --buffer-size 99")
    assert [line.split("\t")[1] for _, line in hypotheses(typed, "D")] == ordered

    resumed = ["--max-update 25 --disable-validation --restore-file", checkpoint, "--reset-dataloader"]
    train(command, folder, root / "again", *resumed)
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "dict.en.txt").write_text((folder / "dict.en.txt").read_text() + "ß 1\n")
    write_settings(other)
    with pytest.raises(ValueError, match=f"^{other}: sha256 is .* of dict.en.txt, but the checkpoint"):
        train(command, other, root / "another", *resumed)
    with pytest.raises(ValueError, match=f"^{other}: sha256 is .* of dict.en.txt, but the checkpoint"):
        command("generate", decode.replace(str(folder), str(other)))
    with pytest.raises(ValueError, match="^--post-process: got 'sentencepiece', but"):
        command("generate", decode, "--post-process sentencepiece")
    with pytest.raises(ValueError, match="^--bpe: got 'bert', but"):
        command("generate", decode, "--bpe bert")


def test_one_model_for_two_target_languages(data, command, root, monkeypatch):
    folder = data("char", ("en", "fr"))
    checkpoint = train(command, folder, root / "two", "--best-checkpoint-metric error_rate")
    decode = f"{folder} --task attn_translation --path {checkpoint} --beam 1 --max-len-b 5"
    text = command("generate", decode, "--scoring sacrebleu")
    tags = [line.split()[0] for _, line in hypotheses(text, "S")]
    assert sorted(tags) == ["<2en>"] * 11 + ["<2fr>"] * 11
    for language in ("en", "fr"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("Der hund.\n"))
        typed = command("interactive", decode, f"--translate-to {language}")
        assert hypotheses(typed, "S") == [("0", f"<2{language}> ▁ D e r ▁ h u n d .")]


@pytest.mark.slow
def test_a_query_that_reads_the_language(data, command, root, monkeypatch):
    """Through training, its validation, and typed lines, of which an empty one has no tag."""
    folder = data("char", ("en", "fr"))
    options = ("--attention-query-inputs state,language", "--best-checkpoint-metric error_rate")
    checkpoint = train(command, folder, root / "language", *options)
    decode = f"{folder} --task attn_translation --path {checkpoint} --beam 3 --max-len-b 5"
    assert len(hypotheses(command("generate", decode))) == 22
    monkeypatch.setattr(sys, "stdin", io.StringIO("Der hund.\n\n"))
    assert len(hypotheses(command("interactive", decode, "--translate-to fr --buffer-size 2"))) == 2
    with pytest.raises(ValueError, match="^--attention-query-inputs state,language: the source dictionary has no tag"):
        train(command, data("char"), root / "untagged", *options)


def test_a_training_that_is_stopped_within_an_epoch_goes_on_exactly(data, command, root):
    weights = []
    for name, stops in (("straight", [29]), ("stopped", [7, 18, 29])):  # four updates an epoch
        for stop in stops:
            train(command, data(), root / name, f"--max-update {stop} --dropout 0.2 --disable-validation")
        saved = load(root / name / "checkpoint_last.pt")
        weights.append(saved["model"])
    assert saved["optimizer_history"][-1]["num_updates"] == 29
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
