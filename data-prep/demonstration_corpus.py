"""Writes a small English-French corpus of the short lines that tutorials translate: train, valid, test, and
test_demonstration, which has ``go .``, ``i lost .``, ``he's calm .`` and ``i'm home .``. No line of a test is in
training, but all come from one small grammar. Blanks stand between words. The same files every time.

usage: python data-prep/demonstration_corpus.py FOLDER
"""

import itertools
import random
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

Pair = Tuple[str, str]

DEMONSTRATION: List[Pair] = [
    ("go .", "va !"),
    ("i lost .", "j'ai perdu ."),
    ("he's calm .", "il est calme ."),
    ("i'm home .", "je suis chez moi ."),
]
SIZES = {"valid": 100, "test": 200}

# subject, with "be", French: subject, "être", "avoir", after "chez", ending of an adjective
PERSONS = [
    ("i", "i'm", "je", "suis", "ai", "moi", ""),
    ("you", "you're", "tu", "es", "as", "toi", ""),
    ("he", "he's", "il", "est", "a", "lui", ""),
    ("she", "she's", "elle", "est", "a", "elle", "e"),
    ("we", "we're", "nous", "sommes", "avons", "nous", "s"),
    ("they", "they're", "ils", "sont", "ont", "eux", "s"),
]
# in the masculine, to which an "e" or "s" is added
ADJECTIVES = [
    ("calm", "calme"), ("sad", "triste"), ("young", "jeune"), ("free", "libre"), ("rich", "riche"), ("sick", "malade"),
    ("tall", "grand"), ("small", "petit"), ("tired", "fatigué"), ("ready", "prêt"), ("strong", "fort"),
    ("busy", "occupé"), ("alone", "seul"), ("lost", "perdu"),
]  # fmt: skip
PLACES = [
    ("here", "ici"), ("outside", "dehors"), ("in paris", "à paris"), ("at school", "à l'école"), ("in bed", "au lit"),
]  # fmt: skip
# past, present, French participle
VERBS = [
    ("lost", "lose", "perdu"), ("won", "win", "gagné"), ("slept", "sleep", "dormi"), ("ate", "eat", "mangé"),
    ("worked", "work", "travaillé"), ("lied", "lie", "menti"), ("laughed", "laugh", "ri"), ("cried", "cry", "pleuré"),
    ("ran", "run", "couru"), ("sang", "sing", "chanté"), ("forgot", "forget", "oublié"), ("tried", "try", "essayé"),
]  # fmt: skip
ORDERS = [
    ("go", "va"), ("stop", "arrête"), ("wait", "attends"), ("run", "cours"), ("listen", "écoute"), ("eat", "mange"),
    ("sing", "chante"), ("work", "travaille"), ("try", "essaie"), ("look", "regarde"), ("sleep", "dors"),
]  # fmt: skip
WHEN = [("", ""), ("now", "maintenant"), ("today", "aujourd'hui"), ("again", "de nouveau"), ("too", "aussi")]
PAST = [("", ""), ("yesterday", "hier"), ("again", "de nouveau"), ("too", "aussi"), ("there", "là-bas")]
HOW = [
    ("", ""), ("now", "maintenant"), ("again", "de nouveau"), ("with me", "avec moi"), ("here", "ici"),
    ("quickly", "vite"),
]  # fmt: skip


def elided(word: str, after: str) -> str:
    """``je``, ``ne`` before a vowel is one word with what follows."""
    return f"{word[:-1]}'{after}" if word in ("je", "ne") and after[0] in "aeéiou" else f"{word} {after}"


def agreeing(adjective: str, ending: str) -> str:
    """``calme`` stays so in the feminine."""
    return adjective if ending == "e" and adjective.endswith("e") else adjective + ending


def states() -> Iterator[Pair]:
    """``he's not calm today .``: ``il n'est pas calme aujourd'hui .``"""
    for person, (when, quand), denied in itertools.product(PERSONS, WHEN, (False, True)):
        _, be, subject, etre, _, tonic, ending = person
        french = [(english, agreeing(word, ending)) for english, word in ADJECTIVES]
        for english, rest in [*french, *PLACES, ("home", f"chez {tonic}")]:
            verb = f"{subject} {elided('ne', etre)} pas" if denied else f"{subject} {etre}"
            yield f"{be} {'not ' * denied}{english} {when} .", f"{verb} {rest} {quand} ."


def past() -> Iterator[Pair]:
    """``i didn't lose .``: ``je n'ai pas perdu .``"""
    for person, verb, (when, quand), denied in itertools.product(PERSONS, VERBS, PAST, (False, True)):
        (english, _, subject, _, avoir, _, _), (did, do, participle) = person, verb
        if denied:
            yield f"{english} didn't {do} {when} .", f"{subject} {elided('ne', avoir)} pas {participle} {quand} ."
        else:
            yield f"{english} {did} {when} .", f"{elided(subject, avoir)} {participle} {quand} ."


def orders() -> Iterator[Pair]:
    """``don't go now .``: ``ne va pas maintenant !``"""
    for (english, french), (how, comment), denied in itertools.product(ORDERS, HOW, (False, True)):
        if denied:
            yield f"don't {english} {how} .", f"{elided('ne', french)} pas {comment} !"
        else:
            yield f"{english} {how} .", f"{french} {comment} !"


def corpus() -> Dict[str, List[Pair]]:
    """Every split as (English, French) lines; no English line twice, and none of a test in training."""
    pairs = [(" ".join(e.split()), " ".join(f.split())) for e, f in itertools.chain(states(), past(), orders())]
    rest = [pair for pair in pairs if pair not in DEMONSTRATION]
    random.Random(1).shuffle(rest)
    splits = {}
    for name, size in SIZES.items():
        splits[name], rest = rest[:size], rest[size:]
    return {"train": rest, **splits, "test_demonstration": DEMONSTRATION}


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__ if sys.argv[1:] in (["-h"], ["--help"]) else f"error: got {sys.argv[1:]}; give one folder")
    folder = Path(sys.argv[1])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split, pairs in corpus().items():
            for language, lines in zip(("en", "fr"), zip(*pairs)):
                (folder / f"{split}.{language}").write_bytes("".join(line + "\n" for line in lines).encode())
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    print(folder)


if __name__ == "__main__":
    main()
