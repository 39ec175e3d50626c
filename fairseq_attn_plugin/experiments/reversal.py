"""The experiments of ``scripts/reversal.sh``, one list for each of its modes."""

from dataclasses import dataclass
from itertools import product
from typing import Any, Callable, Dict, List

from ..modules.attention.addressings import ADDRESSINGS
from ..modules.attention.histories import HISTORIES
from ..modules.attention.normalizers import NORMALIZERS
from ..modules.attention.scores import ATTENTION_SCORES
from ..modules.attention.windows import WINDOWS
from ..modules.recurrence.cells import CELLS

COMMON = (
    "--task reversal --arch attn_lstm_reversal --criterion cross_entropy "
    "--optimizer adam --lr 0.005 --lr-scheduler polynomial_decay --end-learning-rate 0.0001 --clip-norm 1.0 "
    "--max-tokens 2000 --no-epoch-checkpoints --log-format json"
)
FIFTY_SYMBOLS = (
    "--reversal-symbols 50 --reversal-min-length 1 --reversal-max-length 25 --reversal-test-max-length 30 "
    "--reversal-train-size 50000 --reversal-train-data fixed --max-epoch 6 --input-feeding on --lr 0.004"
)
SIX_PASSES = 2190  # updates, over FIFTY_SYMBOLS
UPDATES = 660

TO_THE_END = "--max-len-a 1 --max-len-b 10"
GREEDY = "--beam 1 --scoring reversal --max-tokens 8000"
BEAM = "--beam 5 --scoring reversal --max-tokens 8000"
GREEDY_FAR = f"--beam 1 --scoring reversal --max-tokens 200000 {TO_THE_END}"
WEIGHTS = "--print-alignment soft"
WITHOUT_ATTENTION = "--attention-score none"

REMEMBERS = "--arch attn_lstm_shift"
FAR = (50, 100, 200, 400, 1000, 2000)
"""Lengths that ``extrapolation`` tests at."""

FLAGS = {
    "score": "--attention-score",
    "query": "--attention-query",
    "normalizer": "--attention-normalizer",
    "cell": "--cell",
}
QUERIES = ("previous", "current")


def recipe(*options: str, updates: int = UPDATES) -> str:
    """Options that all trainings of a mode share. The learning rate falls all the way to the last update: at a constant
    one accuracy goes up and down to the end."""
    return " ".join([COMMON, *options, f"--max-update {updates} --total-num-update {updates}"])


@dataclass(frozen=True)
class Experiment:
    """One training of the reversal task, for each seed, and the decodings of its model.

    Options are words with blanks between them, as on a command line.

    Attributes:
        name: of its folder, to which the script adds the seed.
        facts: what sets it apart from the others of its mode, such as {"score": "dot", "cell": "gru"}.
        own: options of ``fairseq-train`` that make it this experiment; they come after the user's.
        shared: options of ``fairseq-train`` that the user may replace; they come before the user's.
        search: options of ``fairseq-generate`` that say how it searches.
        splits: names of the test splits that are decoded.
        drawn: whether the attention weights are printed, where there are any.
    """

    name: str
    facts: Dict[str, str]
    own: str = ""
    shared: str = recipe()
    search: str = BEAM
    splits: str = "test"
    drawn: bool = True

    @property
    def decoding(self) -> str:
        """Options of ``fairseq-generate``."""
        return f"{self.search} {WEIGHTS}" if self.drawn and WITHOUT_ATTENTION not in self.own else self.search

    @property
    def line(self) -> str:
        """What ``scripts/reversal.sh`` reads. No option has a | in it."""
        return "|".join([self.name, self.splits, self.shared, self.own, self.decoding])


def of_facts(facts: Dict[str, str], **settings: Any) -> Experiment:
    """The experiment whose folder and options say no more than its facts."""
    own = " ".join(f"{FLAGS[name]} {value}" for name, value in facts.items())
    return Experiment("-".join(facts.values()), facts, own, **settings)


def compare() -> List[Experiment]:
    """Without attention, with attention, with attention that remembers."""
    settings: Dict[str, Any] = {"splits": "test test_long test_200", "search": f"{GREEDY} {TO_THE_END}"}
    return [
        Experiment("attention", {"model": "with attention"}, **settings),
        Experiment("no_attention", {"model": "without attention"}, WITHOUT_ATTENTION, **settings),
        Experiment("remembers", {"model": "attention that remembers"}, REMEMBERS, **settings),
    ]


def fifty() -> List[Experiment]:
    """Many symbols, longer sentences."""
    return [Experiment("fifty", {"model": "50 symbols"}, shared=recipe(FIFTY_SYMBOLS, updates=SIX_PASSES))]


def short_sentences() -> Dict[str, Any]:
    """Settings of a mode with many trainings."""
    return {"shared": recipe("--reversal-min-length 5 --reversal-max-length 10", updates=400), "search": GREEDY}


def mechanisms() -> List[Experiment]:
    """Every score, query and cell; without attention every cell."""
    settings = short_sentences()
    found = [
        Experiment(f"none-{cell}", {"score": "none", "cell": cell}, f"--cell {cell} {WITHOUT_ATTENTION}", **settings)
        for cell in CELLS.names()
    ]
    for score, query, cell in product(ATTENTION_SCORES.names(), QUERIES, CELLS.names()):
        found.append(of_facts({"score": score, "query": query, "cell": cell}, **settings))
    return found


def normalizers() -> List[Experiment]:
    """Every score, query and normaliser; of a score that has weights of its own no normaliser changes them."""
    settings = short_sentences()
    found = [of_facts({"score": "none"}, **settings)]
    for score, query in product(ATTENTION_SCORES.names(), QUERIES):
        facts = {"score": score, "query": query}
        if ATTENTION_SCORES[score].reads_query:
            found += [of_facts({**facts, "normalizer": name}, **settings) for name in NORMALIZERS.names()]
        else:
            found.append(of_facts(facts, **settings))
    return found


def lengths() -> List[Experiment]:
    """Every score, history, window and addressing on sentences up to twice as long as in training. A beam would measure
    hypotheses that stop early."""
    settings: Dict[str, Any] = {"search": GREEDY, "splits": "test test_long"}
    found = [of_facts({"score": score}, **settings) for score in ["none", *ATTENTION_SCORES.names()]]
    for registry in (HISTORIES, WINDOWS, ADDRESSINGS):
        kind = registry.flag.rpartition("-")[2]
        for name in registry.names():
            own = f"{registry.flag} {name}"
            found.append(Experiment(f"{kind}-{name}", {kind: f"{kind} {name}"}, own, **settings))
    return found


PARTS = {
    "as-it-is": "",
    "input-feeding": "--input-feeding on",
    "previous": "--attention-query previous",
    "word-in-query": "--attention-query-inputs state,word",
    "word-in-value": "--attention-value-inputs state,word",
    "split": "--attention-key-value split",
    "value-dim": "--attention-value-dim 64",
    "output-dim": "--encoder-output-dim 64",
    "additive": "--attention-score additive",
    "hidden-layers": "--attention-score additive --attention-hidden-layers 2",
    "heads": "--attention-heads 4",
    "past": "--attention-past on",
    "layers": "--encoder-layers 2",
    "pyramid": "--encoder-layers 2 --encoder-pyramid 1",
    "front-dense": "--encoder-front dense",
    "front-conv": "--encoder-front conv",
    "coverage-loss": "--criterion chunked_cross_entropy --coverage-loss 1",
    "readout-of-state": "--readout-inputs state --attention-query previous",
    "readout-of-all": "--readout-inputs state,word,context",
    "readout-linear": "--readout-activation none",
    "readout-maxout": "--readout-activation maxout",
    **{f"bridge-{name}": f"--bridge {name}" for name in ("backward", "linear", "mean", "shared", "tanh", "zero")},
    **{f"cell-{name}": f"--cell {name}" for name in CELLS.names() if name != "lstm"},
}
"""Switches of ``parts``, by the name of their folder. ``copy`` and ``lstm`` are what the model has as it is."""


def parts() -> List[Experiment]:
    """What is no score, history, window or addressing, one switch at a time, as ``lengths`` trains and tests."""
    settings: Dict[str, Any] = {"search": GREEDY, "splits": "test test_long"}
    return [Experiment(name, {"part": options or "as it is"}, options, **settings) for name, options in PARTS.items()]


def extrapolation() -> List[Experiment]:
    """How far the length of the training sentences can be left behind: histories, windows and addressings in the model
    of ``attn_lstm_shift``, greedy, and the addressing with a beam; and copying."""
    splits = " ".join(f"test_{length}" for length in FAR)
    room = f"--max-source-positions {FAR[-1] + 1} --max-target-positions {FAR[-1] + 1}"
    shared = recipe(REMEMBERS, room)
    greedy: Dict[str, Any] = {"shared": shared, "search": GREEDY_FAR, "splits": splits, "drawn": False}
    found = [
        Experiment("content", {"model": "content alone"}, f"{REMEMBERS} --attention-addressing none", **greedy),
        Experiment("shift", {"model": "shift"}, REMEMBERS, **greedy),
        Experiment("shift-beam", {"model": "shift, beam 5"}, REMEMBERS, **{**greedy, "search": f"{BEAM} {TO_THE_END}"}),
        Experiment("shift-copy", {"model": "shift, copy"}, f"{REMEMBERS} --reversal-order copy", **greedy),
    ]
    for name in ("location", "coverage"):
        own = f"{REMEMBERS} --attention-addressing none --attention-history {name}"
        found.append(Experiment(name, {"model": name}, own, **greedy))
    own = f"{REMEMBERS} --attention-addressing monotonic --reversal-order copy"
    found.append(Experiment("monotonic-copy", {"model": "monotonic, copy"}, own, **greedy))
    return found


def ten_symbols() -> List[Experiment]:
    """The setting of Ray Chowdhury and Caragea (2023): trained on 5-10 of ten symbols, copied and back to front, tested
    at 100."""
    shared = recipe(REMEMBERS, "--reversal-symbols 10 --reversal-max-length 10")
    settings: Dict[str, Any] = {"shared": shared, "search": GREEDY_FAR, "splits": "test test_50 test_100"}
    return [
        Experiment(f"ten-{order}", {"model": order}, f"--reversal-order {order}", **settings)
        for order in ("reverse", "copy")
    ]


def guided() -> List[Experiment]:
    """With and without supervised alignments."""
    common = "--attention-score additive --attention-query previous --label-smoothing 0 --criterion"
    criterion, shared = "label_smoothed_cross_entropy", recipe(updates=300)
    with_alignment = f"{criterion}_with_alignment --alignment-lambda 1"
    return [
        Experiment("guided", {"model": "guided"}, f"{common} {with_alignment}", shared),
        Experiment("unguided", {"model": "unguided"}, f"{common} {criterion}", shared),
    ]


def sampling() -> List[Experiment]:
    """With and without scheduled sampling: a true word with probability 1 at first, 0.75 after the last update."""
    long = "--reversal-long-min-length 31 --reversal-long-max-length 50"
    settings: Dict[str, Any] = {"shared": recipe(FIFTY_SYMBOLS, long, updates=SIX_PASSES), "splits": "test test_long"}
    sampled = (
        "--scheduled-sampling linear --scheduled-sampling-k 1.0 --scheduled-sampling-slope 0.000114 "
        "--scheduled-sampling-floor 0.75"
    )
    return [
        Experiment("teacher_forcing", {"model": "teacher forcing"}, **settings),
        Experiment("scheduled_sampling", {"model": "scheduled sampling"}, sampled, **settings),
    ]


MODES: Dict[str, Callable[[], List[Experiment]]] = {
    mode.__name__: mode for mode in (
        compare, fifty, mechanisms, normalizers, lengths, parts, extrapolation, ten_symbols, guided, sampling
    )
}
