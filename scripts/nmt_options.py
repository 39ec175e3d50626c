"""What nmt.sh decides, one word or path a line::

    nmt_options.py train DATA UPDATES AVERAGE [WORD ...]   options of fairseq-train; WORD: those of the user
    nmt_options.py splits DATA [SPLITS]                    what is decoded
    nmt_options.py checkpoints FOLDER AVERAGE              what the model is the mean of
    nmt_options.py files DATA SUM                          what a model's folder has of the data folder
    nmt_options.py seal MODEL CHECKPOINT                   nothing: the checksum goes into the model's folder

It imports nothing but the standard library, so that it answers at once."""

import filecmp
import json
import re
import sys
from pathlib import Path
from typing import List, Sequence

from data_folder import DATA_FILE, describe_checkpoint, dictionary_file, measure, model_files, sha256, tests_of

RECIPE = (
    "--optimizer adam --lr 0.002 --lr-scheduler polynomial_decay --clip-norm 1.0 "
    "--label-smoothing 0.1 --max-tokens 500"
).split()
TASK = "attn_translation"
ONLY_FOR = {
    "--label-smoothing": ("--criterion", "label_smoothed.*|chunked_cross_entropy"),
    "--warmup-updates": ("--lr-scheduler", "polynomial_decay|inverse_sqrt|cosine|fixed|reduce_lr_on_plateau"),
    "--total-num-update": ("--lr-scheduler", "polynomial_decay"),
}
"""Options of the recipe that fairseq-train knows with some criteria and schedulers alone, and the names of these."""
OURS = "--arch attn_lstm_multi30k --criterion chunked_cross_entropy".split()
OTHERS = "--criterion label_smoothed_cross_entropy".split()  # with an --arch of fairseq's own
WARM_UP = 400  # updates, or a tenth of a short training
MAXIMIZED = ("bleu", "chrf", "exact_match")  # of other metrics less is better


def value_of(option: str, words: Sequence[str], default: str = "") -> str:
    """What the words say last about an option, as ``--option value`` or ``--option=value``."""
    value = default
    for word, following in zip(words, [*words[1:], ""]):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
    return value


def read_settings(data: str) -> dict:
    """``data.json``, which data-prep has just checked."""
    return json.loads(Path(data, DATA_FILE).read_text(encoding="utf-8"))


def train(data: str, updates: str, average: str, *words: str) -> List[str]:
    """The options of the recipe, as the user's words change it; those follow in the command, and are not among these.

    Args:
        updates: of the training, over which the learning rate falls.
        average: how many epochs the model is the mean of; 0: it is the best checkpoint.
    """
    arch = value_of("--arch", words, OURS[1])
    logs_bleu = value_of("--task", words, TASK) == TASK or "--eval-bleu" in words
    best = measure(read_settings(data)) if value_of("--task", words, TASK) == TASK else "bleu"
    metric = value_of("--best-checkpoint-metric", words, best if logs_bleu else "loss")
    options = ["--task", TASK, *model_options(arch, data), *RECIPE, "--max-update", updates]
    options += "--log-format json --log-interval 200 --save-interval-updates 2000 --keep-interval-updates 1".split()
    options += ["--warmup-updates", str(min(WARM_UP, int(updates) // 10))]
    options += ["--best-checkpoint-metric", metric]
    options += ["--maximize-best-checkpoint-metric"] if metric in MAXIMIZED else []  # cannot be undone by a word
    options += ["--keep-last-epochs", average] if int(average) else ["--no-epoch-checkpoints"]
    options += ["--total-num-update", updates]
    for option, (chooses, names) in ONLY_FOR.items():
        if not re.fullmatch(names, value_of(chooses, [*options, *words])):
            place = options.index(option)
            del options[place : place + 2]
    return options


def model_options(arch: str, data: str) -> List[str]:
    """Options by architecture. The recipe's own model shares every table of embeddings that the dictionaries allow."""
    if arch == OURS[1]:
        settings = read_settings(data)
        source, target = (Path(data, dictionary_file(settings[side])) for side in ("source", "target"))
        same = filecmp.cmp(source, target, shallow=False)
        return [*OURS, "--share-all-embeddings" if same else "--share-decoder-input-output-embed"]
    return OURS if arch.startswith("attn_") or arch == "seq2seq_lstm" else OTHERS


def splits(data: str, chosen: str = "") -> List[str]:
    """The splits that are decoded: those in ``chosen``, else every test set.

    Raises:
        ValueError: the data folder has no split of that name.
    """
    source = read_settings(data)["source"]
    tests = tests_of(data, source)
    for split in chosen.split():
        if split not in ("valid", *tests):
            raise ValueError(f"SPLITS: got '{split}'; choose from valid {' '.join(tests)}")
    return chosen.split() or tests


def checkpoints(folder: str, average: str) -> List[str]:
    """The last epochs, as many as are averaged, the end of a training within an epoch being one; or the best one.

    Raises:
        ValueError: there is none.
    """
    if not int(average):
        return [f"{folder}/checkpoint_best.pt"]
    epochs = [path for path in Path(folder).iterdir() if re.fullmatch(r"checkpoint\d+\.pt", path.name)]
    epochs.sort(key=lambda path: int(path.stem.removeprefix("checkpoint")))
    last = Path(folder, "checkpoint_last.pt")
    if last.exists() and (not epochs or is_further(last, epochs[-1])):
        epochs.append(last)
    if not epochs:
        raise ValueError(f"AVERAGE={average}: {folder} has no checkpoint of an epoch")
    return [str(path) for path in epochs[-int(average) :]]


def is_further(last: Path, epoch: Path) -> bool:
    """Whether a checkpoint was written after the one of an epoch, and is no copy of it."""
    return last.stat().st_mtime_ns > epoch.stat().st_mtime_ns and not filecmp.cmp(last, epoch, shallow=False)


def files(data: str, trained_on: str) -> List[str]:
    """Files of the data folder that decoding needs.

    Args:
        trained_on: checksum of ``data.json`` when the training began.

    Raises:
        ValueError: another run has made the data folder anew since then.
    """
    if sha256(Path(data, DATA_FILE)) != trained_on:
        raise ValueError(f"{data} was made anew with other options while the model was trained; run this script again")
    return [str(Path(data, name)) for name in model_files(read_settings(data))]


def seal(model: str, checkpoint: str) -> List[str]:
    """Notes in a model's folder which checkpoint it was made with."""
    describe_checkpoint(model, checkpoint)
    return []


VERBS = {verb.__name__: verb for verb in (train, splits, checkpoints, files, seal)}


def main() -> None:
    verb, *words = sys.argv[1:]
    try:
        print("\n".join(VERBS[verb](*words)))
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
