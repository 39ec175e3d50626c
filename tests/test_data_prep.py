"""data-prep as a whole: data folders, what is redone, mistakes, and runs that are killed."""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import sentencepiece
from fairseq.data import Dictionary, data_utils
from parallel_corpus import DATA_PREP, prepare, sentences, write_parallel_corpus

from fairseq_attn_plugin.data.segmenter import Segmenter

sys.path.append(str(DATA_PREP))

import binarising  # noqa: E402
import prepare_corpus  # noqa: E402
import stages  # noqa: E402
from raw_text import read_corpus  # noqa: E402
from settings import make_parser, read_settings  # noqa: E402

SIZES = {"train": 300, "valid": 11, "test": 13}


def read(path):
    return path.read_bytes().decode().split("\n")[:-1]


def binarised(folder, split, side):
    """The sentences of a binarised split, as text, read by fairseq."""
    pair = folder.name.partition(".")[2]
    dictionary = Dictionary.load(str(folder / f"dict.{side}.txt"))
    data = data_utils.load_indexed_dataset(str(folder / f"{split}.{pair}.{side}"), dictionary)
    assert all(data[index][-1] == dictionary.eos() for index in range(len(data)))
    return [dictionary.string(data[index]) for index in range(len(data))]


def joined(line):
    return line.replace(" ", "").replace("▁", " ").strip()


def encode(segmenter, dictionary, line):
    """What the plugin makes of raw text, unknown symbols as such."""
    return " ".join(symbol if symbol in dictionary else "<unk>" for symbol in segmenter.encode(line).split())


def checksums(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def parse(*options):
    return make_parser("prepare_corpus.sh", "").parse_args([str(option) for option in options])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = write_parallel_corpus(tmp_path_factory.mktemp("a set") / "toy", SIZES, ("de", "en", "fr"))
    with (folder / "train.de").open("ab") as source, (folder / "train.en").open("ab") as target:
        source.write(b"\nEin hund.\n")
        target.write(b"empty\nA dog.\n")
    shutil.copy(folder / "train.de", folder / "train.fr")
    for language in ("de", "en", "fr"):  # lines that a filter would drop, with characters that training never shows
        with (folder / f"test.{language}").open("ab") as stream:
            stream.write("\r\na\u2028日本  ▁ <s>\n".encode())
    return folder


@pytest.fixture(scope="module")
def prepared(corpus, programs):
    out = corpus.parent / "data, bin"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(programs / "bin" / "python"))
        return prepare("--source", "de", "--target", "en", "--from", corpus, "--out", out, "--vocab-size", 150)


@pytest.mark.slow
def test_a_data_folder_holds_the_text(corpus, prepared):
    """Every sentence, read back by fairseq and put together, is the normalised text; the plain text is as given."""
    assert prepared == corpus.parent / "data, bin" / "toy.de-en"
    data = json.loads((prepared / "data.json").read_text())
    model = sentencepiece.SentencePieceProcessor(model_file=str(prepared / data["sentencepiece"]["en"]))
    side_name = {"de": "source", "en": "target"}
    for side in side_name:
        assert [joined(line) for line in binarised(prepared, "train", side)] == read(corpus / f"train.{side}")[:300] + [
            {"de": "Ein hund.", "en": "A dog."}[side]
        ]
        lines = binarised(prepared, "valid", side)
        assert [joined(line) for line in lines] == read(corpus / f"valid.{side}")
        assert lines == [" ".join(model.encode(line, out_type=str)) for line in read(corpus / f"valid.{side}")]
        test = binarised(prepared, "test", side)
        assert [joined(line) for line in test[:13]] == read(corpus / f"test.{side}")[:13]
        assert test[13] == "" and "<unk>" in test[14].split() and "<s>" not in test[14].split()
        assert read(prepared / "text" / f"test.{side}") == [
            *read(corpus / f"test.{side}")[:13],
            "",
            "a\u2028日本  ▁ <s>",
        ]
        segmenter, known = Segmenter(prepared, side_name[side]), Dictionary.load(str(prepared / f"dict.{side}.txt"))
        assert [encode(segmenter, known, line) for line in read(prepared / "text" / f"test.{side}")] == test
        statistics = data["statistics"]["splits"]["test"]
        assert statistics["lines"] == 15
        assert statistics[side]["tokens"] - statistics[side]["unknown"] == sum(
            token != "<unk>" for line in test for token in line.split()
        )
        size = len(Dictionary.load(str(prepared / f"dict.{side}.txt")))
        assert data["statistics"]["vocabulary"][side] == size <= 150 + 1
    assert (prepared / "dict.de.txt").read_bytes() == (prepared / "dict.en.txt").read_bytes()
    assert data["statistics"]["dropped"]["empty"] == 1
    sums = checksums(prepared)
    assert data["sha256"] == {name: sums[name] for name in ("dict.de.txt", "dict.en.txt", "sentencepiece.model")}
    assert not [name for name in sums if name.endswith((".log", "fingerprint"))]
    assert str(corpus.parent).encode() not in b"".join(path.read_bytes() for path in prepared.rglob("*.*"))


@pytest.fixture
def soon(programs, monkeypatch):
    """Programs start in a moment."""
    monkeypatch.setattr(sys, "executable", str(programs / "bin" / "python"))


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
def test_a_changed_option_redoes_what_depends_on_it(corpus, prepared, tmp_path, capfd):
    """Nothing where nothing changed; a damaged folder is made whole; the older folder is replaced."""
    shutil.copytree(prepared.parent, tmp_path / "out")
    folder = tmp_path / "out" / prepared.name
    options = ["--source", "de", "--target", "en", "--from", corpus, "--out", tmp_path / "out", "--vocab-size"]
    before = checksums(folder)
    prepare_corpus.prepare(parse(*options, 150, "--workers", 2))
    assert capfd.readouterr().err == f"data-prep: {folder} is finished already\n" and checksums(folder) == before

    (folder / "sentencepiece.model").write_bytes(b"another")
    (folder / "valid.de-en.en.idx").unlink()
    prepare_corpus.prepare(parse(*options, 150))
    assert "binarise: done already" in capfd.readouterr().err and checksums(folder) == before

    prepare_corpus.prepare(parse(*options, 100))
    said = capfd.readouterr().err
    assert "clean: done already" in said and said.count("done already") == 1
    after = checksums(folder)
    assert after.keys() == before.keys() and after["sentencepiece.model"] != before["sentencepiece.model"]
    assert after["text/test.de"] == before["text/test.de"]


ALL = {"clean", "segment", "encode", "binarise", "final"}


@pytest.mark.parametrize(
    "options, redone",
    [
        (["--workers", 3, "--max-ratio", 4, "--set", "x"], set()),
        (["--max-length", 99], ALL),
        (["--disjoint", "none"], ALL),
        (["--seed", 2], ALL),
        (["--target", "fr"], ALL),
        (["--vocab-size", 99], ALL - {"clean"}),
        (["--segmentation", "unigram"], ALL - {"clean"}),
        (["--segmentation", "char"], ALL - {"clean", "segment"}),
        (["--vocabulary", "separate"], ALL - {"clean"}),
        (["--tag-target"], ALL - {"clean", "segment"}),
        (["--segmentation", "none"], ALL - {"segment"}),
    ],
)
def test_what_depends_on_an_option(options, redone, corpus, tmp_path):
    def marks(*more):
        args = parse("--source", "de", "--target", "en", "--from", corpus, *more)
        settings = read_settings(args)
        text = read_corpus(args, [settings.source, *settings.targets])
        return prepare_corpus.Preparation(text, settings, tmp_path / "x", tmp_path, 0).marks

    before, after = marks(), marks(*options)
    assert {stage for stage in after if after[stage] != before[stage]} == redone


def test_changed_text_is_prepared_anew(corpus, tmp_path):
    def clean_mark():
        args = parse("--source", "de", "--target", "en", "--train", tmp_path / "train")
        text = read_corpus(args, ["de", "en"])
        return prepare_corpus.Preparation(text, read_settings(args), tmp_path / "x", tmp_path, 0).marks["clean"]

    for language in ("de", "en"):
        shutil.copy(corpus / f"train.{language}", tmp_path)
    before = clean_mark()
    packed = gzip.compress((tmp_path / "train.de").read_bytes())
    (tmp_path / "train.de").unlink()
    (tmp_path / "train.de.gz").write_bytes(packed)
    assert clean_mark() == before
    (tmp_path / "train.de.gz").write_bytes(gzip.compress(gzip.decompress(packed).replace(b"hund", b"HUND", 1)))
    assert clean_mark() != before


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
def test_what_was_asked_for_and_what_came_of_it(corpus, tmp_path, capfd):
    """Which files the splits are from, and how many pieces the text gives where more were asked for."""
    files = {"train": "train", "val": "valid", "test_2016_flickr": "valid", "test_2017_flickr": "test"}
    for name, split in files.items():
        for language in ("de", "en"):
            shutil.copy(corpus / f"{split}.{language}", tmp_path / f"{name}.{language}")
    given = ["--source", "de", "--target", "en", "--from", tmp_path, "--out", tmp_path / "out", "--vocab-size", 600]
    folder = prepare_corpus.prepare(parse(*given))
    said, data = capfd.readouterr().err, json.loads((folder / "data.json").read_text())
    origin = {"train": "train", "valid": "val", "test": "test_2016_flickr", "test1": "test_2017_flickr"}
    assert data["origin"] == origin
    for split, name in origin.items():
        assert f"data-prep: {split} ({name}): {data['statistics']['splits'][split]['lines']:,} lines; " in said
    text = [line for side in ("de", "en") for line in binarised(folder, "train", side)]
    found = {"<unk>", "<s>", "</s>", *"".join(text).replace(" ", ""), *" ".join(text).split()}
    assert data["statistics"]["pieces"] == {"sentencepiece.model": len(found)} and len(found) < 300
    assert f"segment: 600 pieces lowered to the {len(found)} that the text gives, sentencepiece.model\n" in said


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
def test_several_targets_and_tests(corpus, tmp_path):
    """The tag comes first; each test of each language is under its own name, also where fairseq's names cross."""
    for language in ("de", "en", "fr"):
        (tmp_path / f"more.{language}").write_bytes(f"Ein hund. {language}\n".encode())
    folder = prepare(
        *("--source", "de", "--target", "en,fr", "--tag-target", "--train", corpus / "train", "--set", "two"),
        *("--valid", corpus / "valid", "--test", f"{corpus / 'valid'},{tmp_path / 'more'}", "--out", tmp_path),
        *("--segmentation", "none", "--vocabulary", "separate", "--workers", 2),
    )
    assert folder == tmp_path / "two.de-en+fr"
    valid = {language: read(corpus / f"valid.{language}") for language in ("de", "en", "fr")}
    tagged = {language: [f"<2{language}> {line}" for line in valid["de"]] for language in ("en", "fr")}
    known = {
        side: {word for line in binarised(folder, "train", side) for word in line.split()} for side in ("de", "en+fr")
    }

    def with_unknown(side, lines):
        return [" ".join(word if word in known[side] else "<unk>" for word in line.split()) for line in lines]

    assert binarised(folder, "valid", "de") == with_unknown("de", tagged["en"] + tagged["fr"])
    assert binarised(folder, "valid", "en+fr") == with_unknown("en+fr", valid["en"] + valid["fr"])
    for language in ("en", "fr"):
        assert binarised(folder, f"test_{language}", "de") == with_unknown("de", tagged[language])
        assert binarised(folder, f"test_{language}", "en+fr") == with_unknown("en+fr", valid[language])
        served = Segmenter(folder, "source", language)
        dictionary = Dictionary.load(str(folder / "dict.de.txt"))
        assert [encode(served, dictionary, line) for line in valid["de"]] == binarised(folder, f"test_{language}", "de")
        assert binarised(folder, f"test1_{language}", "de") == with_unknown("de", [f"<2{language}> Ein hund. de"])
        assert read(folder / "text" / f"test_{language}.{language}") == valid[language]
    assert read(folder / "text" / "valid.en+fr") == valid["en"] + valid["fr"]
    assert len(list(folder.glob("*.bin"))) == 2 * 6
    assert "<2fr>" in known["de"] and not (known["en+fr"] & {"<2en>", "<2fr>"})


@pytest.fixture
def scripts(tmp_path, programs):
    """The scripts in another place, with a stand-in for setup.sh; returns a function that runs one of them."""
    root = tmp_path / "a checkout"
    shutil.copytree(DATA_PREP, root / "data-prep", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "scripts").mkdir()
    (root / "scripts/setup.sh").write_text("echo 'setup: nothing to do'\n")
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").write_text(f"#!/bin/sh\nexec '{programs}/bin/python' \"$@\"\n")
    (root / ".venv/bin/python").chmod(0o755)

    def run(script, *options, **environment):
        command = ["bash", str(root / "data-prep" / script), *map(str, options)]
        keep = {key: value for key, value in os.environ.items() if key not in ("VENV", "PYTHON", "MULTI30K_URL")}
        return subprocess.run(command, env={**keep, **environment}, cwd=tmp_path, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_a_table_is_split_by_the_script(scripts, tmp_path):
    """The form that Tatoeba has; characters as symbols; the path of the folder is all that goes to stdout."""
    rows = [f"{target}\t{source}\tCC-BY 2.0 # {number}" for number, (source, target) in enumerate(sentences(100))]
    (tmp_path / "deu.txt.gz").write_bytes(gzip.compress("\r\n".join(rows).encode() + b"\r\n"))
    done = scripts(
        "prepare_corpus.sh", *("--source", "de", "--target", "en", "--tsv", "deu.txt.gz", "--columns", "2,1"),
        *("--segmentation", "char", "--test-size", "20", "--disjoint", "source"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "a checkout/data-bin/deu.de-en"
    assert done.stdout == f"{folder}\n"
    found = {}
    for split in ("train", "valid", "test"):
        lines = [[joined(line) for line in binarised(folder, split, side)] for side in ("de", "en")]
        found[split] = list(zip(*lines))
    assert [len(pairs) for pairs in found.values()] == [75, 5, 20]
    assert sorted(sum(found.values(), [])) == sorted(sentences(100))
    assert binarised(folder, "test", "en")[0][:5] == "T h e"
    assert read(folder / "text/test.de") == [source for source, _ in found["test"]]


@pytest.mark.slow
def test_multi30k_by_the_script(scripts, corpus, tmp_path):
    """Other text than Multi30k's is refused, from a folder and from elsewhere, before anything is made of it."""
    served = tmp_path / "served"
    served.mkdir()
    for language in ("de", "en"):
        (served / f"train.{language}.gz").write_bytes(gzip.compress((corpus / f"train.{language}").read_bytes()))
    for options, place in ((["--from", served], served), ([], served.as_uri())):
        done = scripts(
            "prepare_multi30k.sh", "--source", "de", "--target", "en", *options, MULTI30K_URL=served.as_uri()
        )
        assert done.returncode == 1 and not done.stdout
        assert f"error: {place}/train.de.gz: SHA-256 of the text is" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("multi30k.de-en*"))


@pytest.mark.slow
def test_binarised_sentences_are_counted(corpus, prepared, tmp_path):
    """A sentence that the binary form lacks, or a word, does not go unseen."""
    settings = read_settings(parse("--source", "de", "--target", "en", "--from", corpus, "--vocab-size", 150))
    encoded = shutil.copytree(prepared.with_name("toy.de-en.work") / "encode", tmp_path / "encode")
    binarising.count(encoded, ["train", "valid", "test"], prepared, settings)
    text = (encoded / "valid.en").read_bytes()
    for changed in (text + b"\n", text + b"one more\n", text.replace(b" ", b" x ", 1)):
        (encoded / "valid.en").write_bytes(changed)
        with pytest.raises(ValueError, match="valid.de-en.en.idx: 11 sentences of"):
            binarising.count(encoded, ["train", "valid", "test"], prepared, settings)


def test_a_stage_that_fails_is_not_finished(tmp_path):
    """The older result of other settings goes only when the new one is whole."""

    def build(part):
        (part / "half").write_text("x")
        if fail:
            raise ValueError("stop")

    fail = False
    stages.stage(tmp_path / "clean", "old", build)
    fail = True
    with pytest.raises(ValueError):
        stages.stage(tmp_path / "clean", "new", build)
    assert (tmp_path / "clean" / "fingerprint").read_text() == "old"
    fail = False
    stages.stage(tmp_path / "clean", "new", build)
    assert (tmp_path / "clean" / "fingerprint").read_text() == "new"


@pytest.mark.slow(seconds=20)
def test_killed_anywhere_it_ends_the_same(corpus, prepared, tmp_path):
    """SIGKILL while each stage is at work, over an older folder; then again, which ends with the same files.

    In the last stage only the script is killed: fairseq-preprocess, which lives on, must not spoil the next run.
    """
    shutil.copytree(prepared, tmp_path / "out" / prepared.name)
    command = [sys.executable, str(DATA_PREP / "prepare_corpus.py"), "--source", "de", "--target", "en"]
    command += ["--from", str(corpus), "--out", str(tmp_path / "out"), "--vocab-size", "120"]
    work, final = tmp_path / "out" / "toy.de-en.work", tmp_path / "out" / "toy.de-en"
    old = checksums(final)
    undisturbed = prepare(*command[2:-4], "--out", tmp_path / "other", "--vocab-size", "120")
    for stage in ("clean", "encode", "binarise", "binarise"):
        for _ in range(20):  # a stage of some milliseconds may be over before it is seen
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
            while process.poll() is None and not ((work / f"{stage}.part").exists() or (work / stage).exists()):
                pass
            if stage == "binarise":
                time.sleep(0.5)
                process.kill()
            else:
                with contextlib.suppress(ProcessLookupError):  # it came to its end
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not (work / stage).exists():
                break
            shutil.rmtree(work / stage)
        assert not (work / stage).exists() and checksums(final) == old
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "waiting for another run" in done.stderr and "encode: done already" in done.stderr
    assert done.stdout == f"{final}\n"
    assert checksums(final) == checksums(undisturbed) != old
    assert sorted(path.name for path in final.parent.iterdir()) == ["toy.de-en", "toy.de-en.work"]
    assert not list(work.glob("*.part"))
