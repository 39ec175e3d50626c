"""data-prep's parts, in this process: reading, filtering, splitting, cutting into pieces, downloading."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import random
import sys
import threading

import pytest
import sentencepiece
from parallel_corpus import DATA_PREP, sentences

sys.path.append(str(DATA_PREP))

import cleaning  # noqa: E402
import data_folder  # noqa: E402
import prepare_multi30k  # noqa: E402
import raw_text  # noqa: E402
import segmentation  # noqa: E402
from settings import Settings  # noqa: E402


def settings(**changes):
    values = {
        "source": "de", "targets": ("en",), "tag_target": False, "segmentation": "bpe", "vocabulary": "joint",
        "vocab_size": 100, "min_count": 1, "max_length": 40, "max_ratio": 2.0, "disjoint": "either", "seed": 1,
        "sizes": {"valid": None, "test": None},
    }  # fmt: skip
    return Settings(**{**values, **changes})


def corpus(**splits):
    """A raw corpus of {split: [(source, target), ...]}; with three columns the third is French."""
    lines = {
        split: dict(zip(("de", "en", "fr"), ([*column] for column in zip(*pairs)))) for split, pairs in splits.items()
    }
    return raw_text.RawCorpus(lines, {split: f"dir/{split}" for split in splits}, {})


def kept(result, split="train"):
    return list(zip(*result.lines[split]))


@pytest.mark.parametrize(
    "data, lines",
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"\xef\xbb\xbfa\r\nb\r\n", ["a", "b"]),
        (b"a\n\n", ["a", ""]),
        (b"\n", [""]),
        ("a\u2028b\x85c\x0bd\re\n\ufefff\n".encode(), ["a\u2028b\x85c\x0bd\re", "\ufefff"]),
    ],
)
def test_lines_end_at_newlines_only(data, lines):
    assert raw_text.split_lines(data, "file") == lines


@pytest.mark.parametrize(
    "data, error",
    [
        (b"", "x.de: empty file"),
        (b"a\n\xc3\xa4\nb\xff\n", "x.de:3: not UTF-8 .byte 0xff"),
        (b"a\rb\r", r"x.de: its lines end in CR alone, as on old Macs; convert it, e.g. with tr '\\r' '\\n'"),
        (b"a\rb\rc\n", "x.de: its lines end in CR alone"),
    ],
)
def test_text_that_is_none(data, error):
    with pytest.raises(ValueError, match=error):
        raw_text.split_lines(data, "x.de")


def test_a_cut_gzip_file_is_named(tmp_path):
    path = tmp_path / "x.de.gz"
    path.write_bytes(gzip.compress(b"a line\n" * 100)[:-9])
    with pytest.raises(ValueError, match=rf"^{path}: damaged or cut gzip file"):
        raw_text.read_bytes(path)


@pytest.mark.parametrize(
    "line, expected",
    [("a\u0308  b\t\u2028c\x85 ", "ä b c"), ("\u3000", ""), ("x\u200by ▁ <s>", "x\u200by ▁ <s>"), ("ﬁ", "ﬁ")],
)
def test_normalization(line, expected):
    assert data_folder.normalize(line) == expected


REASONED = [
    ("ein hund", "a dog", None),
    ("", "a dog", "empty"),
    ("ein hund", " \u2028", "empty"),
    ("x" * 41, "y" * 41, "too long"),
    ("x" * 40, "y" * 40, None),
    ("x", "y" * 13, "ratio"),
    ("x", "y" * 12, None),
    ("ein vogel", "a bird", "in valid or test"),
    ("EIN VOGEL", "a  bird", "in valid or test"),
    ("eine  katze", "the cat", "in valid or test"),
    ("ein hund", "a dog", None),
]


def test_training_pairs_are_filtered_with_a_reason():
    """Pairs of each kind, at the very limit and one beyond it; duplicates within the training text stay."""
    evaluation = {"valid": [("ein vogel", "a bird"), ("", "long " * 99)], "test": [(" eine katze", "a cat <s>")]}
    result = cleaning.clean(corpus(train=[pair[:2] for pair in REASONED], **evaluation), settings())
    assert kept(result) == [pair[:2] for pair in REASONED if pair[2] is None]
    reasons = [pair[2] for pair in REASONED]
    assert result.statistics["dropped"] == {reason: reasons.count(reason) for reason in cleaning.REASONS}
    assert {split: list(zip(*result.given[split])) for split in evaluation} == evaluation
    assert kept(result, "valid") == [("ein vogel", "a bird"), ("", ("long " * 99).strip())]


@pytest.mark.parametrize("disjoint, expected", [("either", "d"), ("source", "bd"), ("none", "abcd")])
def test_disjoint(disjoint, expected):
    train = [("s1 a", "t a"), ("x b", "t1 b"), ("s2 c", "t c"), ("x d", "t d")]
    evaluation = {"valid": [("s1 a", "?")], "test": [("?", "t1 b")], "test1": [("s2 c", "?")]}
    result = cleaning.clean(corpus(train=train, **evaluation), settings(disjoint=disjoint))
    assert "".join(source[-1] for source, _ in kept(result)) == expected


@pytest.mark.parametrize("symbol", ["<s>", "<pad>", "</s>", "<2en>"])
def test_reserved_symbols_where_symbols_are_words(symbol):
    """A training pair goes; a line of a test is an error that says where."""
    none = settings(segmentation="none", tag_target=True)
    train, good = [("a b", "c"), (f"a {symbol}", "c"), ("a", f"{symbol} c")], [("x", "y")]
    assert kept(cleaning.clean(corpus(train=train, valid=good, test=good), none)) == [("a b", "c")]
    with pytest.raises(ValueError, match=f"^dir/test.en:2: the symbol {symbol} is reserved"):
        cleaning.clean(corpus(train=train, valid=good, test=[*good, ("x", f"{symbol} y")]), none)


def test_ready_text_may_say_that_a_word_is_unknown():
    none, pairs = settings(segmentation="none"), [("a <unk>", "<unk> c"), ("b", "d")]
    result = cleaning.clean(corpus(train=pairs, valid=[("<unk>", "x")], test=[("y", "<unk>")]), none)
    assert kept(result) == pairs and kept(result, "valid") == [("<unk>", "x")]


def test_nothing_left_is_an_error():
    with pytest.raises(
        ValueError, match=r"no training pair is left for en; of 2 were dropped: 1 an empty side, 1 longer"
    ):
        cleaning.clean(
            corpus(train=[("", "a"), ("b" * 99, "c" * 99)], valid=[("x", "y")], test=[("x", "y")]), settings()
        )


def test_the_split_depends_on_the_text_and_the_seed_alone():
    """The same sentences in another order give the same splits; a source sentence lies in one split only."""
    pairs = sentences(200) + [(source, target + "!") for source, target in sentences(200)]
    free = settings(max_length=999, disjoint="none", sizes={"valid": 30, "test": None})
    results = []
    for seed in (1, 2):
        results.append(cleaning.clean(corpus(train=pairs), dataclasses.replace(free, seed=seed)))
        random.Random(seed).shuffle(pairs)
    results.insert(1, cleaning.clean(corpus(train=pairs), free))
    for result in results:
        assert [len(kept(result, split)) for split in ("valid", "test", "train")] == [30, 10, 320]
        sources = [{source for source, _ in kept(result, split)} for split in ("valid", "test", "train")]
        assert len(set.union(*sources)) == sum(map(len, sources)) == 200
        assert result.statistics["dropped"]["in valid or test"] == 40 and result.statistics["kept"] == 320
        assert result.statistics["split off"] == {"valid": 30, "test": 10}
    one, shuffled, other = results
    assert kept(one, "valid") == kept(shuffled, "valid") and kept(one, "test") == kept(shuffled, "test")
    assert sorted(kept(one)) == sorted(kept(shuffled))
    assert set(kept(one, "valid")) != set(kept(other, "valid"))


def test_too_little_text_to_split():
    with pytest.raises(
        ValueError, match=r"too few different source sentences \(2\) to split off 1 for valid and 1 for"
    ):
        cleaning.clean(corpus(train=[("a", "b"), ("a", "c"), ("d", "e")]), settings())


def test_several_targets():
    """Training and validation text of the languages one after the other, a test for each."""
    train = [("d1", "e1", "f1"), ("d2", "", "f2"), ("d3", "ev", "f3"), ("dv", "e4", "f4")]
    both = settings(targets=("en", "fr"), tag_target=True)
    result = cleaning.clean(corpus(train=train, valid=[("dv", "ev", "fv")], test=[("dt", "et", "ft")]), both)
    assert kept(result) == [("d1", "e1"), ("d1", "f1"), ("d2", "f2"), ("d3", "f3")]
    assert kept(result, "valid") == [("dv", "ev"), ("dv", "fv")]
    assert kept(result, "test_en") == [("dt", "et")] and kept(result, "test_fr") == [("dt", "ft")]
    assert result.targets["train"] == [("en", 1), ("fr", 3)]


@pytest.fixture(scope="module")
def text():
    return [line for pair in sentences(300) for line in pair]


@pytest.mark.parametrize("kind, size", [("bpe", 160), ("unigram", 60)])
def test_no_piece_is_new(kind, size, text, tmp_path):
    """Words cut apart and put together anew: every piece of two characters or more is one that training text shows;
    bare sentencepiece does not hold to that. Nothing is lost, and training again gives the same bytes."""
    model = segmentation.train_model(text, kind, size, tmp_path / "log")
    used = {piece for line in segmentation.encode(model, text, set()) for piece in line.split()}
    words = [word for line in text for word in line.split()]
    generator = random.Random(1)
    new = [
        "".join(word[: generator.randint(1, 5)] for word in generator.sample(words, 3))
        + " "
        + generator.choice(words)[1:]
        for _ in range(2000)
    ]
    lines = {name: segmentation.encode(m, new, set()) for name, m in (
        ("free", model), ("restricted", segmentation.restrict(model, used)))}  # fmt: skip
    unknown = {name: {p for line in found for p in line.split() if len(p) > 1} - used for name, found in lines.items()}
    assert kind == "unigram" or unknown["free"]
    assert not unknown["restricted"]
    assert ["".join(line.split()).replace("▁", " ").strip() for line in lines["restricted"]] == new
    assert segmentation.encode(segmentation.restrict(model, used), text, set()) == segmentation.encode(
        model, text, set()
    )
    assert segmentation.train_model(text, kind, size, tmp_path / "log2") == model


def test_a_long_sentence_counts(text, tmp_path):
    """sentencepiece alone skips lines beyond 4,192 bytes."""
    model = segmentation.train_model([*text, "ω " * 3000], "bpe", 100, tmp_path / "log")
    assert any("ω" in piece for piece in pieces(model))


def pieces(model):
    loaded = sentencepiece.SentencePieceProcessor(model_proto=model)
    return {loaded.id_to_piece(index) for index in range(loaded.get_piece_size())}


def test_vocabulary_size(text, tmp_path):
    """One below the least is an error that names the least, which works; one above what there is, is lowered."""
    with pytest.raises(ValueError, match=r"^--vocab-size: got 9; .* that (\d+) is the least") as error:
        segmentation.train_model(text, "bpe", 9, tmp_path / "log")
    least = int(str(error.value).split()[-4])
    assert len(pieces(segmentation.train_model(text, "bpe", least, tmp_path / "log"))) == least
    assert least < len(pieces(segmentation.train_model(text, "bpe", 8000, tmp_path / "log"))) < 1000
    characters = {character for line in text for character in line} - {" "}
    assert pieces(segmentation.train_model(text, "char", segmentation.least_size(text), tmp_path / "log")) == (
        characters | {"▁", "<unk>", "<s>", "</s>"}
    )


def test_pieces_that_the_text_has_examples_for():
    """One for 100 characters, 5,000 at most, every character at least."""
    assert segmentation.default_size(["abcd " * 200] * 40, "bpe") == 400
    assert segmentation.default_size(["abcd " * 200] * 600, "unigram") == 5000
    for lines, kind in ((["abcd"], "bpe"), (["abcd"] * 1000, "char")):
        assert segmentation.default_size(lines, kind) == segmentation.least_size(lines) == 8


def test_a_piece_like_a_reserved_symbol_is_unknown(tmp_path):
    """Characters that the model does not know come as one piece, however they are spelt."""
    model = segmentation.train_model(["12 34", "1 2 3"], "bpe", 30, tmp_path / "log")
    assert segmentation.encode(model, ["1<s>"], set()) == ["▁1 <s>"]
    assert segmentation.encode(model, ["1<s>"], {"<s>"}) == ["▁1 <unk>"]


@pytest.fixture
def server(tmp_path):
    """A folder that is served, its address and the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_):
            asked.append(self.path)

        def log_message(self, *_):
            pass

    (tmp_path / "served").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{running.server_port}/", asked
        running.shutdown()


def test_download(server, tmp_path):
    """What is there and right is not fetched again; what is there and damaged, is."""
    served, url, asked = server
    texts = {"a.de": b"eins\n", "a.en": b"one\n"}
    for name, text in texts.items():
        (served / f"{name}.gz").write_bytes(gzip.compress(text))
    sums = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    folder = tmp_path / "here"
    folder.mkdir()
    prepare_multi30k.download(url, ["a.de", "a.en"], sums, folder)
    assert asked == ["/a.de.gz", "/a.en.gz"]
    assert {path.name: gzip.decompress(path.read_bytes()) for path in folder.iterdir()} == {
        f"{name}.gz": text for name, text in texts.items()
    }
    (folder / "a.en.gz").write_bytes(b"damaged")
    prepare_multi30k.download(url, ["a.de", "a.en"], sums, folder)
    assert asked[2:] == ["/a.en.gz"]


@pytest.mark.parametrize(
    "content, error",
    [
        (None, "cannot be downloaded: HTTP Error 404: File not found"),
        (gzip.compress(b"one\n" * 9, mtime=0)[:-9], "cannot be downloaded: Compressed file ended"),
        (b"<html>", "cannot be downloaded: Not a gzipped file"),
        (gzip.compress(b"two\n", mtime=0), "SHA-256 of the text is"),
    ],
)
def test_a_download_that_fails_leaves_nothing(content, error, server, tmp_path):
    served, url, _ = server
    if content is not None:
        (served / "a.en.gz").write_bytes(content)
    folder = tmp_path / "here"
    folder.mkdir()
    with pytest.raises(ValueError, match=f"^{url}a.en.gz: {error}") as raised:
        prepare_multi30k.download(url, ["a.en"], {"a.en": "0" * 64}, folder)
    assert "\n" not in str(raised.value)
    assert not list(folder.iterdir())
