"""The experiments of ``scripts/reversal.sh``, one list for each of its modes."""

from dataclasses import dataclass
from itertools import product
from typing import Callable, Dict, List

from ..modules.attention.normalizers import NORMALIZERS
from ..modules.attention.scores import ATTENTION_SCORES
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

GREEDY = "--beam 1 --scoring reversal --max-tokens 8000"
BEAM = "--beam 5 --scoring reversal --max-tokens 8000"
WEIGHTS = "--print-alignment soft"
WITHOUT_ATTENTION = "--attention-score none"

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
    """

    name: str
    facts: Dict[str, str]
    own: str = ""
    shared: str = recipe()
    search: str = BEAM
    splits: str = "test"

    @property
    def decoding(self) -> str:
        """Options of ``fairseq-generate``; the attention weights are printed where there are any."""
        return self.search if WITHOUT_ATTENTION in self.own else f"{self.search} {WEIGHTS}"

    @property
    def line(self) -> str:
        """What ``scripts/reversal.sh`` reads. No option has a | in it."""
        return "|".join([self.name, self.splits, self.shared, self.own, self.decoding])


def of_facts(facts: Dict[str, str], **settings: str) -> Experiment:
    """The experiment whose folder and options say no more than its facts."""
    own = " ".join(f"{FLAGS[name]} {value}" for name, value in facts.items())
    return Experiment("-".join(facts.values()), facts, own, **settings)


def compare() -> List[Experiment]:
    """With and without attention."""
    splits = "test test_long"
    return [
        Experiment("attention", {"model": "with attention"}, splits=splits),
        Experiment("no_attention", {"model": "without attention"}, WITHOUT_ATTENTION, splits=splits),
    ]


def fifty() -> List[Experiment]:
    """Many symbols, longer sentences."""
    return [Experiment("fifty", {"model": "50 symbols"}, shared=recipe(FIFTY_SYMBOLS, updates=SIX_PASSES))]


def short_sentences() -> Dict[str, str]:
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
    """Every score on sentences up to twice as long as in training. A beam would measure hypotheses that stop early."""
    scores = ["none", *ATTENTION_SCORES.names()]
    return [of_facts({"score": score}, search=GREEDY, splits="test test_long") for score in scores]


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
    settings = {"shared": recipe(FIFTY_SYMBOLS, long, updates=SIX_PASSES), "splits": "test test_long"}
    sampled = (
        "--scheduled-sampling linear --scheduled-sampling-k 1.0 --scheduled-sampling-slope 0.000114 "
        "--scheduled-sampling-floor 0.75"
    )
    return [
        Experiment("teacher_forcing", {"model": "teacher forcing"}, **settings),
        Experiment("scheduled_sampling", {"model": "scheduled sampling"}, sampled, **settings),
    ]


MODES: Dict[str, Callable[[], List[Experiment]]] = {
    mode.__name__: mode for mode in (compare, fifty, mechanisms, normalizers, lengths, guided, sampling)
}
