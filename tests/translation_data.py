"""Data folders and small models of the translation task, made here: the tests of the task need no other program."""

import hashlib
import json
import shutil
import unicodedata
from pathlib import Path

import sentencepiece
from parallel_corpus import write_parallel_corpus

SMALL_MODEL = (
    "--task attn_translation --arch attn_lstm --encoder-embed-dim 32 --encoder-hidden-size 48 --decoder-embed-dim 32 "
    "--decoder-hidden-size 48 --bridge linear --encoder-direction bi --dropout 0 --optimizer adam --lr 0.01 "
    "--max-tokens 600 --no-epoch-checkpoints"
)


def data_folder(command, folder, segmentation="bpe", targets=("en",), sizes=None, pair=("de", "en"), vocabulary=90):
    """A data folder as data-prep makes it, with a joint sentencepiece model; ``targets`` more than one: with tags."""
    text = write_parallel_corpus(folder / "text", sizes, (pair[0], *targets) if len(targets) > 1 else pair)
    source, target = pair[0], "+".join(targets) if len(targets) > 1 else pair[1]
    tagged = len(targets) > 1
    encode, models = str, {}
    out = folder / f"corpus.{source}-{target}"
    languages = [source, *(targets if tagged else [target])]
    if segmentation != "none":
        encode, models = train_sentencepiece(folder, text, languages, segmentation, vocabulary), {}
        models = {language: "sentencepiece.model" for language in (source, target)}
    for path in sorted(text.glob("*.*")):
        split, language = path.name.split(".")
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        for name in (targets if tagged else [target]) if language == source else [language]:
            prefix = f"<2{name}> " if tagged and language == source else ""
            side = source if language == source else target
            with open(folder / f"{split}.{side}", "a", encoding="utf-8") as file:
                file.writelines(f"{prefix if line.strip() else ''}{encode(line)}\n" for line in lines)
    splits = " ".join(f"--{name}pref {folder / name}" for name in ("train", "valid", "test"))
    joined = "--joined-dictionary" if models else ""
    command("preprocess", f"-s {source} -t {target} {splits} --padding-factor 1 --destdir {out} {joined}")
    if models:
        shutil.copy(folder / "sentencepiece.model", out)
    hashed = [f"dict.{source}.txt", f"dict.{target}.txt", *sorted(set(models.values()))]
    settings = {
        "format": 1, "source": source, "target": target, "targets": list(targets) if tagged else [target],
        "tag_target": tagged, "segmentation": segmentation, "normalization": "NFC", "sentencepiece": models,
        "sha256": {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in hashed},
    }  # fmt: skip
    (out / "data.json").write_text(json.dumps(settings))
    return out


def train_sentencepiece(folder, text, languages, segmentation, vocabulary):
    """Trains ``sentencepiece.model``; returns the function that encodes a line with it."""
    lines = [line for language in languages for line in (text / f"train.{language}").read_text("utf-8").split("\n")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "sentencepiece"), model_type=segmentation,
        vocab_size=vocabulary, hard_vocab_limit=False, character_coverage=1.0, normalization_rule_name="identity",
        minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
    return lambda line: " ".join(model.encode(" ".join(unicodedata.normalize("NFC", line).split()), out_type=str))


def model_folder(data, checkpoint, folder):
    """What decoding needs, in one folder that moves freely."""
    folder.mkdir(parents=True)
    for path in [*data.glob("dict.*.txt"), *data.glob("sentencepiece*.model"), data / "data.json"]:
        shutil.copy(path, folder)
    shutil.copy(checkpoint, folder / "checkpoint.pt")
    return Path(folder)
