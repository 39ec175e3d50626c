"""What data-prep says to mistakes and failures: one line, and nothing under the final name."""

import gzip
import shutil
import subprocess
import sys

import pytest
from parallel_corpus import DATA_PREP, write_parallel_corpus

sys.path.append(str(DATA_PREP))

import prepare_corpus  # noqa: E402
import prepare_multi30k  # noqa: E402
from settings import make_parser  # noqa: E402


def parse(*options):
    return make_parser("prepare_corpus.sh", "").parse_args([str(option) for option in options])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_parallel_corpus(tmp_path_factory.mktemp("made") / "toy", {"train": 302, "valid": 11, "test": 13})


def damage(name):
    """A change of the corpus, by the name of the file that is changed and how."""
    file, _, how = name.partition(" ")

    def change(folder):
        path = folder / file
        data = path.read_bytes()
        if how == "gone":
            path.unlink()
        elif how == "cut":
            path.with_name(file + ".gz").write_bytes(gzip.compress(data)[:-3])
            path.unlink()
        else:
            path.write_bytes({"longer": data + b"one more\n", "empty": b"", "latin": data + b"\xe4\n"}[how])

    return change


@pytest.mark.parametrize(
    "change, options, error",
    [
        (damage("train.en longer"), [], r"--from: different numbers of lines: .*train.de 302, .*train.en 303; line n"),
        (damage("test.de empty"), [], r"test.de: empty file"),
        (damage("valid.en latin"), [], r"valid.en:12: not UTF-8 \(byte 0xe4\)"),
        (damage("valid.en gone"), [], r"--from: no file for language 'en'; looked for .*valid.en and .*valid.en.gz"),
        (damage("train.de cut"), [], r"train.de.gz: damaged or cut gzip file"),
        (None, ["--target", "de"], r"--target: got 'de' with --source de; the languages must differ"),
        (None, ["--target", "en,fr"], r"--target: got 'en,fr'; several languages need --tag-target"),
        (None, ["--target", "en-"], r"--target: got 'en-'; names are letters, digits, _ and - in between, as in pt-BR"),
        (None, ["--segmentation", "word"], r"--segmentation: got 'word'; choose from none, char, bpe, unigram"),
        (None, ["--vocabulary", "both"], r"--vocabulary: got 'both'; choose from joint, separate"),
        (None, ["--vocab-size", "0"], r"--vocab-size: got 0; 1 is the least"),
        (None, ["--workers", "0"], r"--workers: got 0; 1 is the least"),
        (None, ["--workers", "100000"], r"--workers: got 100000; \d+ are the most here"),
        (None, ["--max-ratio", "nan"], r"--max-ratio: got nan; 1 is the least"),
        (
            None,
            ["--segmentation", "char", "--vocab-size", "9"],
            r"--vocab-size: only with --segmentation bpe or unigram",
        ),
        (None, ["--min-count", "2"], r"--min-count: only with --segmentation none or char, got bpe"),
        (None, ["--vocab-size", "12"], r"--vocab-size: got 12; the text has so many characters that \d\d is the least"),
        (
            None,
            ["--max-length", "2"],
            r"no training pair is left for en; of 302 were dropped: 302 longer",
        ),
        (None, ["--test-size", "5"], r"--test-size: got 5, but test is .*test; leave one out"),
        (None, ["--test", "x"], r"--from: finds valid and test itself"),
        (None, ["--tsv", "x"], r"give the text by exactly one of --from DIR, --train PREFIX, --tsv FILE"),
        (None, ["--columns", "1,1"], r"--columns: only of tables, whose names end in .tsv or .tsv.gz, and with --tsv"),
        (None, ["--set", "../x"], r"--set: got '../x'; use letters"),
        (None, ["--from", "no such"], r"--from: no folder 'no such'"),
        (None, ["--out", "co:lon"], r"--out: got 'co:lon'; fairseq takes ':' for the end of a path; name another"),
        (None, ["--out", "/dev/null/x"], r"--out: cannot make '/dev/null/x/toy.de-en.work': Not a directory"),
    ],
)
def test_mistakes(change, options, error, corpus, tmp_path):
    """One line that says what is wrong and where; nothing under the final name."""
    copy = shutil.copytree(corpus, tmp_path / "toy")
    if change:
        change(copy)
    given = ["--source", "de", "--target", "en", "--from", copy, "--out", tmp_path / "out", *options]
    with pytest.raises(ValueError, match=error) as raised:
        prepare_corpus.prepare(parse(*given))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "toy.de-en").exists()


@pytest.mark.parametrize(
    "text, columns, error",
    [
        ("a\tb\nc\n", None, r"x.tsv:2: 1 columns by tabs; --columns asks for column 2"),
        ("a\tb\n", "0,1", r"--columns: got '0,1'; give 2 different column numbers"),
        ("a\tb\n\n", None, r"too few different source sentences \(1\) to split off 1 for valid and 1 for test"),
    ],
)
def test_mistakes_in_tables(text, columns, error, tmp_path):
    (tmp_path / "x.tsv").write_text(text)
    more = ["--columns", columns] if columns else []
    with pytest.raises(ValueError, match=error):
        prepare_corpus.prepare(
            parse("--source", "de", "--target", "en", "--tsv", tmp_path / "x.tsv", "--out", tmp_path, *more)
        )


@pytest.mark.parametrize("place", ["toy.de-en/text/train", "toy.de-en.work/clean/train"])
def test_text_is_not_read_from_where_it_is_written(place, corpus, tmp_path):
    prefix = tmp_path / place
    prefix.parent.mkdir(parents=True)
    for language in ("de", "en"):
        shutil.copy(corpus / f"train.{language}", prefix.with_suffix(f".{language}"))
    (tmp_path / "link").symlink_to(prefix.parent)
    for given in (prefix, tmp_path / "link" / "train"):
        with pytest.raises(ValueError, match="^--train: '.*train' is in '.*', which is written; choose another --set"):
            options = ("--train", given, "--set", "toy", "--out", tmp_path)
            prepare_corpus.prepare(parse("--source", "de", "--target", "en", *options))
    assert prefix.with_suffix(".de").read_bytes() == (corpus / "train.de").read_bytes()


def test_a_link_in_place_of_the_data_folder_stays(corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.json").write_text("{}")
    (tmp_path / "toy.de-en").symlink_to("mine")
    with pytest.raises(ValueError, match="toy.de-en is a symbolic link, and would be made anew; choose another --set"):
        prepare_corpus.prepare(parse("--source", "de", "--target", "en", "--from", corpus, "--out", tmp_path))
    assert [path.name for path in (tmp_path / "toy.de-en").iterdir()] == ["data.json"]


def test_the_command_says_one_line(corpus, tmp_path):
    command = [sys.executable, str(DATA_PREP / "prepare_corpus.py"), "--source", "de", "--target", "en"]
    for options, status, error in (
        (["--tsv", tmp_path / "none"], 1, f"error: {tmp_path / 'none'}: cannot be read: No such file or directory\n"),
        (["--seed", "x"], 2, "error: argument --seed: invalid int value: 'x'\n"),
    ):
        done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (status, "", error)


def test_fairseq_preprocess_fails(corpus, tmp_path, monkeypatch):
    (tmp_path / "fairseq_cli").mkdir()
    (tmp_path / "fairseq_cli/__init__.py").touch()
    (tmp_path / "fairseq_cli/preprocess.py").write_text("open('dict.de.txt', 'w')\nraise OSError('disk full')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match="^fairseq-preprocess failed: OSError: disk full .log: .*-preprocess.log.$"):
        prepare_corpus.prepare(parse("--source", "de", "--target", "en", "--from", corpus, "--out", tmp_path))
    assert not (tmp_path / "toy.de-en").exists()


def test_a_folder_of_another_kind_is_left_alone(corpus, tmp_path):
    (tmp_path / "toy.de-en").mkdir()
    (tmp_path / "toy.de-en" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="toy.de-en is there and is no data folder; remove it or choose another --set"):
        prepare_corpus.prepare(parse("--source", "de", "--target", "en", "--from", corpus, "--out", tmp_path))
    assert (tmp_path / "toy.de-en" / "thesis.txt").read_text() == "precious"


def test_multi30k_options(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prepare_multi30k.py", "--source", "de", "--target", "cs"])
    with pytest.raises(ValueError, match="got 'cs'; Multi30k is here in de, en, fr"):
        prepare_multi30k.main()
