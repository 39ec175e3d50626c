"""Data folders and small models of the translation task, made here: the tests of the task need no other program."""

import json
import shutil
from pathlib import Path

import sentencepiece
from parallel_corpus import write_parallel_corpus

from fairseq_attn_plugin.data.data_folder import (
    DATA_FILE,
    describe,
    model_files,
    normalize,
    read_data_settings,
    sentencepiece_files,
    tag,
)

SMALL_MODEL = (
    "--task attn_translation --arch attn_lstm --encoder-embed-dim 32 --encoder-hidden-size 48 --decoder-embed-dim 32 "
    "--decoder-hidden-size 48 --bridge linear --encoder-direction bi --dropout 0 --optimizer adam --lr 0.01 "
    "--max-tokens 600 --no-epoch-checkpoints"
)


def data_folder(command, folder, segmentation="bpe", targets=("en",), sizes=None, vocabulary=120):
    """A data folder as data-prep makes it, of German and ``targets``, several of which get tags."""
    text = write_parallel_corpus(folder / "text", sizes, ("de", *targets))
    target, tagged = "+".join(targets), len(targets) > 1
    encode = str
    if segmentation != "none":
        encode = train_sentencepiece(folder, text, ["de", *targets], segmentation, vocabulary)
    for split in {path.stem for path in text.iterdir()}:
        lines = {"de": [], target: []}
        for name in targets:
            prefix = f"{tag(name)} " if tagged else ""
            lines["de"] += [prefix + encode(line) if line else "" for line in read_lines(text / f"{split}.de")]
            lines[target] += [encode(line) for line in read_lines(text / f"{split}.{name}")]
        for language in lines:
            (folder / f"{split}.{language}").write_text("".join(line + "\n" for line in lines[language]))
    out = folder / f"corpus.de-{target}"
    splits = " ".join(f"--{name}pref {folder / name}" for name in ("train", "valid", "test"))
    joined = "" if segmentation == "none" else "--joined-dictionary"
    command("preprocess", f"-s de -t {target} {splits} --padding-factor 1 --destdir {out} {joined}")
    if segmentation != "none":
        shutil.copy(folder / "sentencepiece.model", out)
    return write_settings(out, segmentation, targets)


def trained_folder(command, folder, *options, **made):
    """A data folder (of ``data_folder``'s arguments ``made``) and the checkpoint of a small model that has seen it."""
    data = data_folder(command, folder, **made)
    command("train", data, SMALL_MODEL, *options, "--disable-validation --save-dir", folder / "save")
    return data, folder / "save" / "checkpoint_last.pt"


def write_settings(folder, segmentation="bpe", targets=("en",), tagged=None):
    """Writes ``data.json`` for the dictionaries, and the sentencepiece model, that are there; returns the folder."""
    tagged = len(targets) > 1 if tagged is None else tagged
    models = {} if segmentation == "none" else sentencepiece_files(["de", "+".join(targets)], joint=True)
    settings = describe(folder, "de", targets, tagged, segmentation, models)
    (folder / DATA_FILE).write_text(json.dumps(settings))
    return folder


def read_lines(path):
    """Lines that end at \\n only."""
    return path.read_bytes().decode("utf-8").split("\n")[:-1]


def train_sentencepiece(folder, text, languages, segmentation, vocabulary):
    """Trains ``sentencepiece.model``; returns the function that encodes a line with it."""
    lines = [line for language in languages for line in read_lines(text / f"train.{language}")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "sentencepiece"), model_type=segmentation,
        vocab_size=vocabulary, hard_vocab_limit=False, character_coverage=1.0, normalization_rule_name="identity",
        minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
    return lambda line: " ".join(model.encode(normalize(line), out_type=str))


def model_folder(data, checkpoint, folder):
    """What decoding needs, in one folder that moves freely."""
    folder.mkdir(parents=True)
    for name in model_files(read_data_settings(data)):
        shutil.copy(data / name, folder)
    shutil.copy(checkpoint, folder / "checkpoint.pt")
    return Path(folder)
