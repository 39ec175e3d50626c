"""A small parallel corpus made by a grammar: three languages of one meaning, that differ in word order and endings.

A meaning is (subject, verb, object, adverb or none); subject and object are (noun, adjective or none, plural or not).
The first language puts the verb last and marks the object, the second the object after the verb, the third the adverb
first and adjectives after the noun. Every meaning has one sentence in each language, different from all others.
"""

import random
import subprocess
import sys
from pathlib import Path

DATA_PREP = Path(__file__).resolve().parent.parent / "data-prep"

NOUNS = [
    ("hund", "dog", "chien"),
    ("katze", "cat", "chat"),
    ("vogel", "bird", "oiseau"),
    ("bär", "bear", "ours"),
    ("bäcker", "baker", "boulanger"),
    ("schüler", "student", "élève"),
    ("könig", "king", "roi"),
    ("freund", "friend", "ami"),
]
VERBS = [("seh", "see", "voi"), ("hör", "hear", "entend"), ("such", "seek", "cherch"), ("mal", "paint", "pein")]
ADJECTIVES = [None, None, ("alt", "old", "vieux"), ("groß", "big", "grand"), ("müd", "tired", "fatigué")]
ADVERBS = [None, None, ("heute", "today", "aujourd'hui"), ("oft", "often", "souvent")]


def first_language(subject, verb, obj, adverb):
    def phrase(noun, adjective, plural, article):
        return [article, *([adjective[0] + "en"] if adjective else []), noun[0] + ("en" if plural else "")]

    words = [*phrase(*subject, "der"), *phrase(*obj, "den"), *([adverb[0]] if adverb else [])]
    return [*words, verb[0] + ("en" if subject[2] else "t")]


def second_language(subject, verb, obj, adverb):
    def phrase(noun, adjective, plural):
        return ["the", *([adjective[1]] if adjective else []), noun[1] + ("s" if plural else "")]

    verb = verb[1] + ("" if subject[2] else "s")
    return [*phrase(*subject), verb, *phrase(*obj), *([adverb[1]] if adverb else [])]


def third_language(subject, verb, obj, adverb):
    def phrase(noun, adjective, plural):
        ending = "s" if plural else ""
        return ["les" if plural else "le", noun[2] + ending, *([adjective[2] + ending] if adjective else [])]

    words = [*phrase(*subject), verb[2] + ("ent" if subject[2] else "e"), *phrase(*obj)]
    return [*([adverb[2] + ","] if adverb else []), *words]


GRAMMARS = (first_language, second_language, third_language)


def sentences(number, languages=2, seed=1):
    """``number`` different meanings as tuples of ``languages`` sentences, capital first, full stop last."""
    generator = random.Random(seed)
    found = {}
    while len(found) < number:
        subject, obj = (
            (generator.choice(NOUNS), generator.choice(ADJECTIVES), generator.random() < 0.5) for _ in range(2)
        )
        meaning = (subject, generator.choice(VERBS), obj, generator.choice(ADVERBS))
        lines = (" ".join(grammar(*meaning)) + "." for grammar in GRAMMARS[:languages])
        found[meaning] = tuple(line[0].upper() + line[1:] for line in lines)
    return list(found.values())


def write_parallel_corpus(folder, sizes=None, languages=("de", "en"), seed=1):
    """Writes ``<split>.<language>``, one sentence a line, no sentence in two splits.

    Args:
        folder: where to; made if it is not there
        sizes: {split: number of lines}; None: train 600, valid 40, test 40
        languages: two or three names, in the order of the grammars
    Returns: the folder, as a Path
    """
    sizes = {"train": 600, "valid": 40, "test": 40} if sizes is None else sizes
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rest = iter(sentences(sum(sizes.values()), len(languages), seed))
    for split, size in sizes.items():
        lines = [next(rest) for _ in range(size)]
        for language, texts in zip(languages, zip(*lines)):
            (folder / f"{split}.{language}").write_bytes("".join(text + "\n" for text in texts).encode())
    return folder


def prepare(*options):
    """The data folder that ``prepare_corpus.sh OPTION ...`` makes; needs the Python of the environment only."""
    command = [sys.executable, "-W", "ignore", str(DATA_PREP / "prepare_corpus.py"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.rstrip("\n"))
