"""The reversal task: options and checkpoints, iterators, typed input, validation, scorer, and the commands."""

import re
from argparse import Namespace
from pathlib import Path

import fairseq
import pytest
import torch
from fairseq.logging import metrics as fairseq_metrics
from fairseq.models import MODEL_REGISTRY
from fairseq.scoring import build_scorer
from fairseq.tasks import FairseqTask
from fairseq_commands import save_state

from fairseq_attn_plugin.data.reversal_problem import ReversalProblem
from fairseq_attn_plugin.tasks import reversal
from fairseq_attn_plugin.tasks.reversal import ReversalConfig, ReversalTask
from fairseq_attn_plugin.tasks.reversal_scorer import ReversalScorerConfig

PLUGIN = Path(reversal.__file__).resolve().parent.parent
OLD_FAIRSEQ = fairseq.__version__.startswith("0.12.2")


def task_of(**options):
    config = ReversalConfig()
    for name, value in options.items():
        setattr(config, name if hasattr(config, name) else "reversal_" + name, value)
    return ReversalTask(config)


# Options and checkpoints


def test_unset_options_come_from_the_checkpoint_into_the_same_dictionary():
    trained = task_of(symbols="7", max_length=30, test_size=9, source_padding="left", max_source_positions=50)
    task = task_of(test_max_length=12)
    dictionary = task.source_dictionary
    task.load_state_dict(trained.state_dict())
    assert task.source_dictionary is task.target_dictionary is dictionary
    assert dictionary.symbols == trained.source_dictionary.symbols
    assert task.problem().split("train") == trained.problem().split("train")
    assert task.problem().split("test")[0::3] == (9, 12)  # size from the checkpoint, length from the option
    assert task.max_positions() == (50, 1024) and task.left_pad_source
    assert task.state_dict()["reversal"] == {**trained.state_dict()["reversal"], "test_max_length": 12}


@pytest.mark.parametrize(
    ("trained", "given"),
    [
        ({}, {"symbols": "abcde"}),
        ({"symbols": "5"}, {"symbols": "abcd"}),
        ({}, {"min_length": 4}),
        ({"max_length": 30}, {"max_length": 20}),
        ({}, {"train_size": 19}),
        ({"train_data": "fixed"}, {"train_data": "fresh"}),
        ({}, {"seed": 2}),
        ({}, {"order": "copy"}),
        ({"order": "copy"}, {"order": "reverse"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("when", ["decoding", "resuming"])
def test_an_option_that_contradicts_the_checkpoint_is_an_error(trained, given, when, tmp_path):
    (name, value), saved = next(iter(given.items())), task_of(**trained).state_dict()
    message = f"--reversal-{name.replace('_', '-')}: got {value!r}, but .* {saved['reversal'][name]!r}; leave .* out"
    with pytest.raises(ValueError, match=message):
        if when == "decoding":
            task_of(**given).load_state_dict(saved)
        else:
            save_state(saved, tmp_path / "checkpoint_last.pt")
            task = task_of(**given, save_dir=str(tmp_path), restore_file="checkpoint_last.pt", reset_dataloader=False)
            task.build_model(None)


def test_an_option_that_says_what_the_checkpoint_says_is_none():
    task = task_of(symbols="a,b,c,d", seed=1)
    task.load_state_dict(task_of(symbols="abcd").state_dict())
    assert task.problem().seed == 1


@pytest.mark.parametrize("given", [{}, {"order": "reverse"}, {"order": "copy"}], ids=str)
def test_a_checkpoint_from_before_there_were_orders_reverses(given):
    task, saved = task_of(**given), task_of().state_dict()
    del saved["reversal"]["order"]
    if given == {"order": "copy"}:
        with pytest.raises(ValueError, match="--reversal-order: got 'copy', but .* trained with 'reverse'; leave"):
            task.load_state_dict(saved)
    else:
        task.load_state_dict(saved)
        assert task.problem() == ReversalProblem()
        task.load_state_dict(saved)  # as the second of an ensemble


def test_an_ensemble_may_differ_in_anything_but_alphabet_and_order():
    task = task_of()
    task.load_state_dict(task_of(symbols="abc", seed=3).state_dict())
    task.load_state_dict(task_of(symbols="a,b,c", seed=4).state_dict())
    with pytest.raises(ValueError, match="--path: .*'abc' and 'abx'; give"):
        task.load_state_dict(task_of(symbols="abx").state_dict())
    with pytest.raises(ValueError, match="--path: some .* reverse and some copy; give checkpoints of one --reversal-o"):
        task.load_state_dict(task_of(symbols="abc", order="copy").state_dict())


@pytest.mark.parametrize("way", ["restore_file", "finetune_from_model", "reset_dataloader", "another task", "nothing"])
def test_the_checkpoint_that_training_starts_from(way, tmp_path, monkeypatch):
    saved = {} if way == "another task" else task_of(symbols="abc", max_length=9).state_dict()
    save_state(saved, tmp_path / "other.pt")
    paths = {"save_dir": str(tmp_path / "new"), "restore_file": "checkpoint_last.pt", "reset_dataloader": False}
    if way in ("restore_file", "reset_dataloader", "another task"):
        paths["restore_file"] = str(tmp_path / "other.pt")
    elif way == "finetune_from_model":
        paths[way] = str(tmp_path / "other.pt")
    if way == "reset_dataloader":
        paths[way] = True
    anew = way in ("finetune_from_model", "reset_dataloader")  # the weights go on, with data of their own
    task = task_of(**paths, **({"max_length": 12, "seed": 2} if anew else {}))
    monkeypatch.setattr(FairseqTask, "build_model", lambda *args: Namespace(alignment_loss_error=None))
    monkeypatch.setattr(FairseqTask, "build_generator", lambda *args: None)
    task.build_model(None)
    expected = {"another task": ("abcd", 20), "nothing": ("abcd", 20), "restore_file": ("abc", 9)}.get(way, ("abc", 12))
    assert (task.problem().symbols, task.problem().max_length) == expected
    assert len(task.source_dictionary) == 4 + len(expected[0])
    if anew:
        with pytest.raises(ValueError, match="--reversal-symbols: got 'abcd', but"):
            task_of(**paths, symbols="abcd").build_model(None)


@pytest.mark.parametrize(
    ("options", "split", "message"),
    [
        ({"max_length": 9, "max_source_positions": 9}, "train", "--reversal-max-length: 9 .*--max-source-positions 9 "),
        ({"max_target_positions": 40}, "test_long", "--reversal-long-max-length: 40 .*--max-target-positions 40 "),
        ({"test_max_length": 2000}, "test", "--reversal-test-max-length: 2000 .*--max-source-positions 1024 "),
        ({"eval_beam": 0}, "valid", "--reversal-eval-beam: got 0; give at least 1"),
        ({"eval_max_len_a": float("inf")}, "valid", "--reversal-eval-max-len-a: got inf; give a number of at most"),
        ({"train_size": 10**9}, "train", "--reversal-train-size: got 1000000000 for split 'train', .* most 12500000"),
        ({}, "test,test_long", "--gen-subset: got 'test,test_long'; name one"),
        ({"min_length": 30}, "valid", "--reversal-min-length: 30 is more than --reversal-max-length 20; lower"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_splits_that_cannot_be_loaded(options, split, message):
    with pytest.raises(ValueError, match=message):
        task_of(**options).load_dataset(split)


def test_a_model_that_takes_no_sentence_is_an_error():
    task = task_of(train_size=7, test_size=7)
    for split in ("train", "test"):
        task.load_dataset(split)
        limits = dict(max_positions=(5, 1024), ignore_invalid_inputs=True, max_sentences=2)
        with pytest.raises(ValueError, match=r"^each of 7 sentence pairs has more .*, \(5, 1024\) with </s>; raise"):
            task.get_batch_iterator(task.dataset(split), **limits)


def test_an_alignment_loss_that_the_model_cannot_have_is_an_error(monkeypatch):
    task = task_of()
    said = "--criterion with --attention-normalizer"
    monkeypatch.setattr(FairseqTask, "build_model", lambda *args: Namespace(alignment_loss_error=said))
    monkeypatch.setattr(FairseqTask, "build_generator", lambda *args: None)
    monkeypatch.setattr(FairseqTask, "build_criterion", lambda self, config: "built")
    task.build_model(None)
    assert task.build_criterion(Namespace(_name="cross_entropy")) == "built"
    with pytest.raises(ValueError, match=said):
        task.build_criterion(Namespace(_name="label_smoothed_cross_entropy_with_alignment"))


# Iterators and typed lines


@pytest.mark.parametrize("count", [1, 5, 7, 496, 500])
@pytest.mark.parametrize("limits", [{"max_sentences": 64}, {"max_tokens": 300}], ids=str)
@pytest.mark.parametrize("split", ["valid", "test", "test2"])
def test_evaluation_loses_no_sentence(count, limits, split):
    task = task_of(valid_size=count, test_size=count)
    task.load_dataset(split)
    seen = []
    for shard in range(2):
        batches = task.get_batch_iterator(
            task.dataset(split), **limits, required_batch_size_multiple=8, num_shards=2, shard_id=shard,
            disable_iterator_cache=True, max_positions=(1024, 1024),
        )  # fmt: skip
        seen += [index for batch in batches.next_epoch_itr(shuffle=False) if batch for index in batch["id"].tolist()]
    assert sorted(seen) == list(range(count))


def test_a_training_set_smaller_than_the_batch_size_multiple_is_not_empty():
    task = task_of(train_size=5)
    task.load_dataset("train")
    assert len(task.get_batch_iterator(task.dataset("train"), max_sentences=8, required_batch_size_multiple=8)) == 1


def test_typed_lines_warn_with_their_number_and_the_session_goes_on(capsys):
    task = task_of(max_source_positions=6)
    given = [["a b c d"], ["", "dcba"], ["a x b y x"], ["a b c d a b"], ["<s> <pad>", "a b c d a"]]
    read = []
    for lines in given:
        tokens, lengths = task.get_interactive_tokens_and_lengths(lines, lambda line: line)
        assert lengths == [len(t) for t in tokens]
        batches = task.get_batch_iterator(
            task.build_dataset_for_inference(tokens, lengths), max_sentences=2, max_positions=(6, 1024)
        )
        for batch in batches.next_epoch_itr(shuffle=False):
            for index, source in zip(batch["id"].tolist(), batch["net_input"]["src_tokens"], strict=True):
                read.append((index, task.source_dictionary.string(source[source != 1])))
    assert sorted(read[1:3]) == [(0, ""), (1, "d c b a")]
    assert [read[0], read[3]] == [(0, "a b c d"), (0, "a <unk> b <unk> <unk>")]
    assert read[-1] == (1, "a b c d a") and "a b c d a b" not in dict(read).values()
    lines = capsys.readouterr().err.splitlines()  # fairseq may log in between
    warnings = [line for line in lines if line.startswith("warning")]
    assert [re.match(r"warning: line (\d+) ", warning)[1] for warning in warnings[:3]] == ["2", "4", "5"]
    assert "empty" in warnings[0] and warnings[1].endswith("<unk>: x y") and "--max-source-positions 6" in warnings[2]
    assert not task.dataset_to_epoch_iter  # nothing typed is kept


def test_words_are_not_taken_apart_where_symbols_have_several_characters(capsys):
    tokens, _ = task_of(symbols="12").get_interactive_tokens_and_lengths(["11 1 12"], lambda line: line)
    assert tokens[0].tolist() == [15, 5, 3, 2]
    assert capsys.readouterr().err == "warning: line 1 has unknown symbols, read as <unk>: 12\n"


# Validation and scorer


def hypothesis(tokens, attended=None, width=6):
    weights = torch.empty(0)
    if attended is not None:
        weights = torch.nn.functional.one_hot(torch.tensor(attended), width).T.float()
    return {"tokens": torch.tensor(tokens), "attention": weights}


@pytest.mark.parametrize("side", ["right", "left"])
def test_validation_sums_by_hand(side):
    task = task_of(source_padding=side)
    pad, left = [1] * 3, side == "left"
    short = pad + [4, 5, 2] if left else [4, 5, 2] + pad
    shift = 3 if left else 0
    sample = {
        "net_input": {"src_tokens": torch.tensor([[4, 5, 6, 7, 4, 2], short, short])},
        "target": torch.tensor([[4, 7, 6, 5, 4, 2], [5, 4, 2] + pad, [5, 4, 2] + pad]),
    }
    hypotheses = [
        hypothesis([4, 7, 6, 2], [4, 3, 3, 5]),  # distance 2; 2 of 5 positions right, 2 missing
        hypothesis([5, 4, 2], [shift + 1, shift, shift]),  # all right
        hypothesis([5, 4, 4, 2], [shift + 2, shift, shift, shift]),  # distance 1; </s> attended at the first position
    ]
    assert task._sums(sample, hypotheses) == {
        "sentences": 3, "correct": 1, "distance": 3, "length": 10, "aligned": 5, "alignable": 9,
    }  # fmt: skip
    copies = {**sample, "target": torch.tensor([[4, 5, 6, 7, 4, 2], [4, 5, 2] + pad, [4, 5, 2] + pad])}
    copying = [
        hypothesis([4, 5, 6, 2], [0, 2, 2, 5]),  # distance 2; 2 of 5 positions right, 2 missing
        hypothesis([4, 5, 2], [shift, shift + 1, shift]),  # all right
        hypothesis([4, 5, 4, 2], [shift + 2, shift + 1, shift, shift]),  # distance 1; one position right
    ]
    assert task_of(source_padding=side, order="copy")._sums(copies, copying) == task._sums(sample, hypotheses)
    blind = [hypothesis(h["tokens"].tolist()) for h in hypotheses]
    assert task._sums(sample, blind) == {**task._sums(sample, hypotheses), "aligned": 0, "alignable": 0}
    assert task._sums(sample, [None] * 3)["distance"] == 9


def logged(monkeypatch, *batches):
    """What fairseq logs of batches, each a list with the sums of every process."""
    monkeypatch.setattr(FairseqTask, "reduce_metrics", lambda *args: None)
    with fairseq_metrics.aggregate(new_root=True) as values:
        for batch in batches:
            task_of().reduce_metrics(batch, None)
    return values.get_smoothed_values()


def test_metrics_of_processes_and_batches_are_those_of_the_whole(monkeypatch):
    def sums(*values):
        return dict(zip(["_reversal_" + name for name in reversal.SUMS], map(float, values), strict=True))

    one, two, three = sums(2, 1, 3, 20, 4, 10), sums(1, 1, 0, 5, 5, 5), sums(1, 0, 4, 5, 0, 5)
    values = logged(monkeypatch, [one, two], [three])
    assert values == {"token_accuracy": 76.667, "sentence_accuracy": 50.0, "alignment_accuracy": 45.0}
    assert all(type(value) is float for value in values.values())
    assert logged(monkeypatch, [sums(*(a + b + c for a, b, c in zip(one.values(), two.values(), three.values(),
                                                                    strict=True)))]) == values  # fmt: skip
    assert logged(monkeypatch, [sums(1, 1, 0, 5, 0, 0)]).keys() == {"token_accuracy", "sentence_accuracy"}
    assert logged(monkeypatch, [{"loss": 1.0}]) == {}


def test_the_scorer_reports_one_line_for_all_and_one_for_each_bucket():
    config = ReversalScorerConfig(reversal_bucket_width=3)
    config._name = "reversal"
    scorer = type(build_scorer("reversal", None))(config)
    for reference, hypothesis in [("a b", "a b"), ("a b c d", "a c d"), ("d c b a", "d c b a"), ("a", "")]:
        scorer.add_string(reference, hypothesis)
    assert scorer.score() == 50
    assert scorer.result_string().splitlines() == [
        "length=all sentence_accuracy=50.000 token_accuracy=81.818 sentences=4",
        "length=1-3 sentence_accuracy=50.000 token_accuracy=66.667 sentences=2",
        "length=4-6 sentence_accuracy=50.000 token_accuracy=87.500 sentences=2",
    ]
    with pytest.raises(ValueError, match="--reversal-bucket-width: got 0; give 1"):
        type(scorer)(ReversalScorerConfig(reversal_bucket_width=0))


# The commands


ARCHITECTURES = {
    "lstm": "--encoder-embed-dim 16 --encoder-hidden-size 16 --decoder-embed-dim 16 --decoder-hidden-size 16 "
    "--decoder-out-embed-dim 16",
    "transformer": "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 "
    "--encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 --decoder-attention-heads 2",
}


def train(command, folder, architecture, *options):
    given = f"--task reversal --arch {architecture} {ARCHITECTURES[architecture]} --optimizer adam --lr 0.01"
    given += " --batch-size 16 --no-epoch-checkpoints --log-format simple --reversal-symbols xyz"
    given += " --reversal-train-size 128 --reversal-valid-size 7 --reversal-test-size 7"
    command("train", given, f"--maximize-best-checkpoint-metric --save-dir {folder}", *options)


@pytest.mark.slow
def test_lstm_from_training_to_decoding_by_the_checkpoint_alone(command, tmp_path):
    log = tmp_path / "log"
    train(command, tmp_path, "lstm", f"--max-epoch 1 --best-checkpoint-metric alignment_accuracy --log-file {log}")
    for name in ("token_accuracy", "sentence_accuracy", "alignment_accuracy"):
        assert re.search(rf"valid on 'valid' subset .* {name} [\d.]+ .* bsz 7 ", log.read_text())
    message = "^--reversal-symbols: got 'wxyz', but the checkpoint was trained with 'xyz'; leave"
    with pytest.raises(ValueError, match=message):
        train(command, tmp_path, "lstm", "--max-epoch 2 --reversal-symbols wxyz")

    path = f"--task reversal --path {tmp_path / 'checkpoint_best.pt'}"
    for split, count in {"test": 7, "test_long": 9}.items():
        options = f"--gen-subset {split} --scoring reversal --reversal-long-size 9"
        text = command("generate", path, options, "--batch-size 4 --max-len-a 1 --max-len-b 5")
        assert len(re.findall(r"^H-\d+", text, re.M)) == count
        total = rf"^Generate {split} with beam=5: length=all sentence_accuracy=[\d.]+ .* sentences={count}$"
        assert re.search(total, text, re.M) and re.search(r"^length=\d+-\d+ sentence_accuracy", text, re.M)
    with pytest.raises(ValueError, match="^--reversal-max-length: got 9, but the checkpoint"):
        command("generate", path, "--reversal-max-length 9")

    (tmp_path / "typed").write_text("x y z\n\na x\n")
    text = command("interactive", path, f"--max-len-b 9 --input {tmp_path / 'typed'}")
    assert re.findall(r"^S-(\d)\t(.*)$", text, re.M) == [("0", "x y z"), ("1", ""), ("2", "<unk> x")]
    assert re.findall(r"^warning: line (\d)", command.stderr, re.M) == ["2", "3"]
    text = command("validate", path, "--batch-size 4 --log-format simple")
    assert re.search(r"sentence_accuracy [\d.]+ .* bsz 7$", text + command.stderr, re.M)

    hub = MODEL_REGISTRY["lstm"].from_pretrained(str(tmp_path), "checkpoint_best.pt", ".", user_dir=str(PLUGIN))
    assert set(hub.translate("x y z", beam=2).split()) <= {"x", "y", "z", "<s>", "<unk>"}


@pytest.mark.slow
@pytest.mark.skipif(OLD_FAIRSEQ, reason="this fairseq's transformer does not decode with a recent torch")
def test_transformer_trains_and_decodes(command, tmp_path):
    train(command, tmp_path, "transformer", "--max-update 3 --best-checkpoint-metric sentence_accuracy")
    path = f"--path {tmp_path / 'checkpoint_best.pt'}"
    text = command("generate", "--task reversal", path, "--batch-size 4 --max-len-b 9")
    assert len(re.findall(r"^H-\d+", text, re.M)) == 7
