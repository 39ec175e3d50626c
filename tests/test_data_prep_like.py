"""``--like``, names of languages and files, and text that a folder does not know."""

import json
import re
import sys

import pytest
from parallel_corpus import DATA_PREP, write_parallel_corpus
from translation_data import SMALL_MODEL

sys.path.append(str(DATA_PREP))

import prepare_corpus  # noqa: E402
import raw_text  # noqa: E402
from settings import make_parser  # noqa: E402

IDENTITY = ("source", "target", "targets", "tag_target", "segmentation", "sentencepiece", "sha256")


def prepared(*options):
    return prepare_corpus.prepare(make_parser("prepare_corpus.sh", "").parse_args([str(option) for option in options]))


@pytest.fixture
def soon(programs, monkeypatch):
    """fairseq-preprocess starts in a moment."""
    monkeypatch.setattr(sys, "executable", str(programs / "bin" / "python"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Folders of text: old, and new, other sentences with a letter and a word that the old ones do not have."""
    root = tmp_path_factory.mktemp("texts")
    languages = ("zh-Hans", "pt-BR", "fr")
    write_parallel_corpus(root / "old", {"train": 200, "valid": 8, "test": 8}, languages)
    write_parallel_corpus(root / "new", {"train": 60, "valid": 8, "test": 8}, languages, seed=2)
    for language in languages:
        with (root / "new" / f"test.{language}").open("a") as stream:
            stream.write("Xylophon ☃.\n")
    return root


# Pieces and dictionaries of another folder


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "options",
    [["--vocab-size", 120, "--target", "pt-BR"], ["--segmentation", "none", "--target", "pt-BR,fr", "--tag-target",
     "--vocabulary", "separate"]],
    ids=["pieces", "symbols"],
)  # fmt: skip
def test_new_text_with_the_pieces_of_an_old_folder(texts, options, command, tmp_path, capfd):
    """The folder is the old one's twin to a checkpoint: a training goes on with it, and decodes it."""
    out = ["--out", tmp_path]
    old = prepared("--source", "zh-Hans", "--from", texts / "old", *out, *options)
    new = prepared("--like", old, "--from", texts / "new", *out)
    theirs, ours = (json.loads((folder / "data.json").read_text()) for folder in (old, new))
    assert old.name.startswith("old.zh-Hans-pt-BR") and new.name == old.name.replace("old", "new")
    assert [ours[name] for name in IDENTITY] == [theirs[name] for name in IDENTITY]
    assert ours["inputs"] != theirs["inputs"]
    test = next(split for split in ours["statistics"]["splits"] if split.startswith("test"))
    assert ours["statistics"]["splits"][test]["zh-Hans"]["unknown"] >= 1
    capfd.readouterr()
    assert prepared("--like", old, "--from", texts / "new", *out) == new
    assert capfd.readouterr().err == f"data-prep: {new} is finished already\n"

    save = f"--max-update 2 --disable-validation --save-dir {tmp_path}"
    command("train", old, SMALL_MODEL, f"{save}/first")
    command("train", new, SMALL_MODEL, f"{save}/second --finetune-from-model {tmp_path}/first/checkpoint_last.pt")
    text = command("generate", f"{new} --task attn_translation --path {tmp_path}/second/checkpoint_last.pt",
                   f"--beam 1 --max-len-b 5 --gen-subset {test}")  # fmt: skip
    assert text.count("\nD-") == 9


@pytest.fixture
def ready(texts, tmp_path, soon):
    return prepared("--source", "zh-Hans", "--target", "pt-BR", "--segmentation", "none", "--from", texts / "old",
                    "--out", tmp_path)  # fmt: skip


@pytest.mark.slow
def test_what_contradicts_the_old_folder_is_an_error(ready, texts, tmp_path):
    given = ["--like", ready, "--from", texts / "new", "--out", tmp_path]
    for options, message in (
        (["--source", "fr"], f"--source: got 'fr', but --like {ready} has zh-Hans; leave the option out"),
        (["--segmentation", "bpe"], f"--segmentation: got 'bpe', but --like {ready} has none; leave"),
        (["--min-count", 2], f"--min-count: --like {ready} has its pieces and dictionaries already; leave"),
        (["--tag-target"], f"--tag-target: --like {ready} has no tags; leave"),
        (["--set", "old"], f"--like: {ready} is what would be made; give the new one another name with --set"),
        (["--like", tmp_path / "no"], f"{tmp_path}/no: no such folder"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            prepared(*given, *options)
    with pytest.raises(ValueError, match="^--source and --target: give both"):
        prepared("--from", texts / "new", "--target", "fr")


# Unknown text


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("case", ["words", "script", "rare"])
def test_a_split_of_which_most_is_unknown_is_an_error(texts, case, tmp_path):
    """With what it may be: words that are one symbol, text in another script, a dictionary that is too small."""
    given = ["--source", "zh-Hans", "--target", "fr", "--out", tmp_path, "--set", "x"]
    if case == "words":
        (tmp_path / "x.tsv").write_text("".join(f"{n:04}\t{' '.join(f'{n:04}')}\n" for n in range(80)))
        given += ["--tsv", tmp_path / "x.tsv", "--segmentation", "none", "--vocabulary", "separate"]
        said = "valid, zh-Hans: 4 of 4 symbols are unknown: --segmentation none takes what stands between blanks"
    elif case == "script":
        for language in ("zh-Hans", "fr"):
            (tmp_path / f"greek.{language}").write_text("Ολα τα σκυλιά\nτρέχουν\n")
        given += ["--train", texts / "old/train", "--test", tmp_path / "greek"]
        said = r"test, zh-Hans: \d+ of \d+ symbols are unknown: is it of the same languages and script as the training"
    else:
        given += ["--from", texts / "old", "--segmentation", "char", "--min-count", 900]
        said = r"train, zh-Hans: [0-9,]+ of [0-9,]+ symbols are unknown: --min-count 900 leaves too few"
    with pytest.raises(ValueError, match=f"^{said}"):
        prepared(*given)
    assert not [*tmp_path.glob("*-fr")]


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
def test_a_split_of_which_much_is_unknown_is_a_warning(tmp_path, capfd):
    (tmp_path / "train.tsv").write_text("".join(f"{a} {b}\tx\n" for a in "abc" for b in "abc"))
    (tmp_path / "test.tsv").write_text("b b b d d\tx\nc c a\tx\na d d\tx\n")
    prepared("--source", "de", "--target", "en", "--out", tmp_path, "--train", tmp_path / "train.tsv", "--test",
             tmp_path / "test.tsv", "--valid-size", 1, "--segmentation", "none")  # fmt: skip
    said = "test, de: 36% of the symbols are unknown: --segmentation none takes what stands between blanks"
    assert re.search(f"^data-prep: warning: {said}", capfd.readouterr().err, re.M)


# Names of files


def folder_of(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        for language in ("de", "en"):
            (folder / f"{name}.{language}").touch()
    return folder


@pytest.mark.parametrize(
    ("names", "valid", "tests"),
    [
        (["train", "validation", "test"], "validation", ["test"]),
        (["train", "tst2012", "tst2013"], None, ["tst2012", "tst2013"]),
        (["train", "dev", "newstest2016", "test_2017"], "dev", ["newstest2016", "test_2017"]),
        (["train"], None, []),
    ],
)
def test_names_of_splits(names, valid, tests, tmp_path):
    folder = folder_of(tmp_path / "text", *names)
    (folder / "notes.fr").touch()  # of a language that nobody asks for
    found = raw_text.prefixes_in(folder, ["de", "en"])
    places = [str(folder / name) for name in tests]
    assert found == (str(folder / "train"), valid and str(folder / valid), places)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train", "newsdev2016", "train.part1"], "has newsdev2016, train.part1 in these languages, and what"),
        (["train", *(f"x{number}" for number in range(9))], "has x0, x1, x2, x3, x4 and 4 more in these languages"),
        (["train", "dev", "valid"], "has dev, valid, and one of them validates; keep one, or name the files by --"),
    ],
)
def test_names_that_are_none_of_a_split_are_an_error(names, message, tmp_path):
    with pytest.raises(ValueError, match=f"^--from: '{tmp_path}' {message}"):
        raw_text.prefixes_in(folder_of(tmp_path, *names), ["de", "en"])


def test_text_with_its_language_amid_the_name_is_an_error(tmp_path):
    """It would be left out, and validation or test split off the training text instead."""
    folder = folder_of(tmp_path, "train")
    for name in ("train.de.valid", "tst2013.de-en.xml", "train.fr.valid", "README.de.md", "train.desk.txt"):
        (folder / name).touch()
    with pytest.raises(ValueError, match="has train.de.valid, tst2013.de-en.xml in these languages, and what"):
        raw_text.prefixes_in(folder, ["de", "en"])
