"""Checkpoints that are damaged, foreign, cut off or hostile: one line in every command, never other weights."""

import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from covering import in_full
from fairseq.file_io import PathManager
from fairseq_commands import load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from translation_data import write_settings

from fairseq_attn_plugin.checkpoints.files import load_checkpoint
from fairseq_attn_plugin.data.data_folder import DATA_FILE, check_described, describe_checkpoint, read_data_settings
from fairseq_attn_plugin.fairseq_hooks import check_checkpoint, message_for_user
from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel
from fairseq_attn_plugin.tasks.resumed_checkpoint import mend

GOOD = Path(__file__).parent / "fixtures" / "0.1.0" / "attn_lstm.pt"
WHOLE = GOOD.read_bytes()
WEIGHTS = {name: tensor.clone() for name, tensor in load(GOOD)["model"].items()}
with zipfile.ZipFile(GOOD) as _archive:
    RECORDS = _archive.infolist()


def flipped(data, bits):
    """With these bits, counted from the start, the other way round."""
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


anywhere = st.lists(st.integers(0, 8 * len(WHOLE) - 1), min_size=1, max_size=50, unique=True)
within_records = st.sampled_from(RECORDS).flatmap(
    lambda record: st.integers(8 * (record.header_offset + 100), 8 * (record.header_offset + 100 + record.file_size))
)
DAMAGED = st.one_of(
    st.integers(0, len(WHOLE) - 1).map(lambda size: WHOLE[:size]),
    st.integers(0, len(WHOLE) - 1).map(lambda size: WHOLE[:size].ljust(len(WHOLE), b"\0")),  # a disk without power
    st.integers(1, len(WHOLE)).map(lambda size: WHOLE[size:]),
    anywhere.map(lambda bits: flipped(WHOLE, bits)),
    within_records.map(lambda bit: flipped(WHOLE, [bit])),
    st.tuples(st.integers(0, len(WHOLE)), st.binary(min_size=1, max_size=200)).map(
        lambda drawn: WHOLE[: drawn[0]] + drawn[1] + WHOLE[drawn[0] :]
    ),
    st.binary(max_size=200),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "checkpoint.pt"


@settings(max_examples=250, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck))
@given(DAMAGED)
def test_damage_is_one_line_or_harmless(place, data):
    place.write_bytes(data)
    try:
        found = load_checkpoint(str(place))["model"]
    except ValueError as error:
        assert str(error).startswith(f"{place}: ") and "\n" not in str(error)
    else:
        assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


def test_a_flipped_bit_of_any_record_is_seen(place):
    for record in RECORDS:
        content = zipfile.ZipFile(GOOD).read(record)
        start = WHOLE.index(content, record.header_offset)
        place.write_bytes(flipped(WHOLE, [8 * (start + record.file_size // 2)]))
        with pytest.raises(ValueError, match=f"damaged, {record.filename} is not as it was written; get it again"):
            load_checkpoint(str(place))


class Runs:
    """Pickled, a call of ``os.system``."""

    def __reduce__(self):
        return os.system, ("touch it-ran",)


def state(**changes):
    """The good checkpoint with changes: keys with __ between → value, None to remove it, or a function."""
    found = load(GOOD)
    for path, change in changes.items():
        *above, last = path.split("__")
        inner = found
        for name in above:
            inner = inner[name]
        if change is None:
            del inner[last]
        else:
            inner[last] = change(inner[last]) if callable(change) else change
    return found


NAN = {"model__encoder.embed_tokens.weight": lambda tensor: tensor * float("nan")}
FOREIGN = {
    "flipped": (lambda: flipped(WHOLE, range(160000, 163000)), "is not as it was written; get it again"),
    "half": (lambda: WHOLE[: len(WHOLE) // 2], "damaged, its end is missing; get it again"),
    "empty": (lambda: b"", "not a checkpoint of fairseq, torch cannot read it"),
    "text": (lambda: b"text\n" * 100, "not a checkpoint of fairseq, torch cannot read it"),
    "list": (lambda: [1], "not a checkpoint of fairseq, it holds a list"),
    "no model": (lambda: state(model=None), "lacks a model or its options"),
    "no options": (lambda: state(cfg=None), "lacks a model or its options"),
    "no history": (lambda: state(optimizer_history=[]), "lacks the optimizer_history"),
    "no place": (lambda: state(extra_state=None), "lacks the extra_state"),
    "NaN": (lambda: state(**NAN), "the parameter encoder.embed_tokens.weight has NaN or infinite numbers"),
    "hostile": (lambda: {**state(), "more": Runs()}, "dangerous, not loaded: it holds .*system, which could run code"),
    "newer": (lambda: state(cfg__model__attention_turbo=3), "made with --attention-turbo 3, which this version does"),
    "newer task": (lambda: state(cfg__task__reversal_x="y"), "made with --reversal-x y, which this version does not"),
    "other arch": (lambda: state(cfg__model___name="x"), "made with --arch x, which is not known here"),
    "no task state": (lambda: state(task_state=None), "lacks the state of its task, reversal: it is damaged"),
    "part of it": (lambda: state(task_state__reversal__symbols=None), "settings of the task lack --reversal-symbols"),
    "other sizes": (lambda: state(model__x=torch.zeros(2)), r"than this model: \S+ is .* there and .* here; give"),
}
OPTIONS = "--task reversal --reversal-test-size 2 --reversal-valid-size 2 --max-tokens 100"


def write(path, content):
    content = content()
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        content = buffer.getvalue()
    path.write_bytes(content)


def says(call):
    """What the user reads of the error that a call raises."""
    try:
        call()
    except Exception as error:
        message = message_for_user(error)
        assert message, repr(error)
        return message
    raise AssertionError("no error")


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("name", FOREIGN)
def test_every_command_says_what_is_wrong_with_a_checkpoint(command, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path, (content, words) = tmp_path / "checkpoint.pt", FOREIGN[name]
    write(path, content)
    (tmp_path / "typed").write_text("a b\n")
    resumed = f"--arch attn_lstm --optimizer adam --max-tokens 100 --restore-file {path} --save-dir {tmp_path}/save"
    calls = [
        lambda: command("generate", f"{OPTIONS} --path {path}"),
        lambda: command("train", f"--task reversal {resumed}"),
        lambda: command("validate", f"{OPTIONS} --path {path}"),
        lambda: AttnRNNModel.from_pretrained(tmp_path),
        lambda: command("interactive", f"{OPTIONS} --path {path} --input typed"),
    ]
    number = list(FOREIGN).index(name)
    for call in calls if name in ("flipped", "NaN") else (calls[number % 5], calls[(number + 1) % 5]):
        message = says(call)
        assert "\n" not in message
        assert re.search(words, message), message
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.slow
def test_a_checkpoint_that_is_none_is_named(command, tmp_path):
    shutil.copy(GOOD, tmp_path)
    for path, words in ((tmp_path / "none.pt", "none.pt"), (tmp_path, "a folder; give a file, such as ")):
        for name, options in (
            ("generate", f"{OPTIONS} --path"),
            ("validate", f"{OPTIONS} --path"),
            ("train", f"{TRAINING} --save-dir {tmp_path}/save --restore-file"),
            ("train", f"{TRAINING} --save-dir {tmp_path}/save --finetune-from-model"),
        ):
            said = says(lambda given=(name, options, path): command(*given))
            assert words in said and (name != "train" or said.startswith(options.split()[-1]))
    assert not list(tmp_path.rglob("save/*.pt"))


def test_a_checkpoint_is_the_one_that_its_folder_describes(tmp_path):
    path = Path(shutil.copy(GOOD, tmp_path / "checkpoint.pt"))
    (tmp_path / "data.json").write_text('{"format": 1}')
    describe_checkpoint(tmp_path, "checkpoint.pt")
    check_checkpoint(str(path))
    shutil.copy(GOOD.parent / "attn_gru_additive.pt", path)
    with pytest.raises(ValueError, match="checkpoint.pt: not the file that data.json describes"):
        check_checkpoint(str(path))
    (tmp_path / "data.json").write_text("[1]")
    check_checkpoint(str(path))


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A data folder whose files stand for others, and its ``data.json`` as values."""
    folder = tmp_path_factory.mktemp("described")
    for name in ("dict.de.txt", "dict.en.txt", "sentencepiece.model"):
        (folder / name).write_text(name)
    return folder, json.loads((write_settings(folder) / DATA_FILE).read_text())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["de", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["de", "en", "x"]), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_describes_a_folder_is_one_line_or_enough(described, data):
    folder, good = described
    changed = json.loads(json.dumps(good))
    for name in data.draw(st.lists(st.sampled_from(sorted(good)), min_size=1, max_size=2)):
        changed[name] = data.draw(VALUES)
    whole = json.dumps(changed)
    text = data.draw(st.sampled_from([whole, whole[:-9], "[" * 100000, json.dumps(data.draw(VALUES))]))
    (folder / DATA_FILE).write_text(text)
    try:
        found = read_data_settings(folder)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert found["sha256"]["dict.de.txt"] == good["sha256"]["dict.de.txt"] and found["source"] == "de"
    check_described(folder / "dict.de.txt")


# Trainings that were killed


TRAINING = (
    "--task reversal --arch attn_lstm_reversal --encoder-embed-dim 8 --encoder-hidden-size 8 --decoder-embed-dim 16 "
    "--decoder-hidden-size 16 --decoder-out-embed-dim 16 --optimizer adam --lr 0.01 --max-tokens 100 --criterion "
    "cross_entropy --reversal-train-size 40 --reversal-valid-size 4 --reversal-max-length 6 --max-epoch 3 --dropout 0.1"
)


class Killed(BaseException):
    """No handler of errors may see it."""


def last_of(checkpoint):
    return checkpoint["optimizer_history"][-1]


def killed_while_copying(monkeypatch, number):
    """The ``number``-th copy of a checkpoint ends half-way, and so does the process."""
    copies = []

    def copyfile(source, target):
        copies.append(target)
        data = Path(source).read_bytes()
        Path(target).write_bytes(data if len(copies) < number else data[: len(data) // 2])
        if len(copies) == number:
            raise Killed

    monkeypatch.setattr(PathManager, "copy", lambda source, target, overwrite: copyfile(source, target) is None)


@pytest.mark.slow(seconds=15)
@pytest.mark.parametrize(
    "options", ["--no-epoch-checkpoints", pytest.param("--save-interval-updates 3", marks=in_full)]
)
def test_killed_while_copying_a_checkpoint_it_goes_on_exactly(command, tmp_path, monkeypatch, options):
    command("train", f"{TRAINING} {options} --save-dir {tmp_path}/straight")
    for number in (1, 3):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_while_copying(patch, number)
            command("train", f"{TRAINING} {options} --save-dir {folder}")
        half = [path for path in folder.glob("*.pt") if not zipfile.is_zipfile(path)]
        assert len(half) == 1
        log = command("train", f"{TRAINING} {options} --save-dir {folder}") + command.stderr
        for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
            resumed, expected = load(folder / name), load(tmp_path / "straight" / name)
            assert last_of(resumed) == last_of(expected), log
            assert all(torch.equal(resumed["model"][key], value) for key, value in expected["model"].items())
        assert "going on from" in log or half[0].name == "checkpoint_best.pt"
        assert list(folder.glob("*.part")) == []


def saved(path, updates, content=WHOLE):
    """A checkpoint after so many updates, or other content."""
    history = [{"num_updates": updates}]
    write(path, lambda: state(optimizer_history=history) if content is WHOLE else content)
    return path


def test_the_newest_whole_checkpoint_becomes_the_last(tmp_path, caplog):
    last, best = tmp_path / "checkpoint_last.pt", tmp_path / "checkpoint_best.pt"
    mend(tmp_path)
    assert list(tmp_path.iterdir()) == []
    saved(tmp_path / "checkpoint1.pt", 5)
    newest = saved(tmp_path / "checkpoint_1_7.pt", 7)
    saved(tmp_path / "checkpoint2.pt", 9, WHOLE[:9000])
    saved(tmp_path / "averaged.pt", 11)
    saved(best, 0, WHOLE[:9000])
    for content in (None, b"", WHOLE[:9000], b"\0" * 9000):
        if content is not None:
            last.write_bytes(content)
        best.write_bytes(WHOLE[:9000])
        mend(tmp_path)
        assert last.read_bytes() == best.read_bytes() == newest.read_bytes()
        assert f"going on from {newest}, the newest whole checkpoint, after 7 updates" in caplog.messages[-1]
    saved(last, 3)
    before = last.read_bytes()
    mend(tmp_path)
    assert last.read_bytes() == before, "it is whole"
    last.unlink()
    best.unlink()
    mend(tmp_path, str(newest))
    assert load(last)["optimizer_history"][0]["num_updates"] == 5, "what it is fine-tuned from is none of its own"
    for path in tmp_path.glob("checkpoint*"):
        path.write_bytes(WHOLE[:9000])
    with pytest.raises(ValueError, match="^.*checkpoint_last.pt: damaged, its end is missing; .* is whole: train anew"):
        mend(tmp_path)
