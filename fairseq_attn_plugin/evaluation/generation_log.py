"""What ``fairseq-generate`` and ``fairseq-interactive`` print (S, T, H, D, P, A lines), as dataclasses."""

import re
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

import numpy as np

EOS = "</s>"
LINE = re.compile(r"([STHDPA])-(\d+)\t(.*)")
HARD_ALIGNMENT = re.compile(r"\d+-\d+( \d+-\d+)*")


@dataclass
class Hypothesis:
    """One hypothesis of the beam; T counts its tokens and ``</s>``, S those of the source and ``</s>``.

    Attributes:
        score: log probability to base 2, divided by the length as ``--lenpen`` says.
        tokens: the H line, ``</s>`` left out.
        text: the D line: tokens joined, BPE and tokenisation undone.
        token_scores: log probability to base 2 of each of the T tokens.
        weights (ndarray): T×S attention weights, of ``--print-alignment soft``; else None.
        links: (source, target) positions, of ``--print-alignment``; else None.
    """

    score: float
    tokens: List[str]
    text: Optional[str] = None
    token_scores: Optional[List[float]] = None
    weights: Optional[np.ndarray] = None
    links: Optional[List[Tuple[int, int]]] = None


@dataclass
class Sentence:
    """One source sentence, its reference (None in an interactive log) and its hypotheses, best first."""

    id: int
    source: List[str]
    target: Optional[List[str]] = None
    hypotheses: List[Hypothesis] = field(default_factory=list)


def read_generation_log(path) -> List[Sentence]:
    """Sentences of a log, sorted by id; batches may come in any order, other lines are skipped.

    Args:
        path: file with the stdout of ``fairseq-generate`` or ``fairseq-interactive``.
    Raises:
        ValueError: a damaged line, an incomplete sentence, or a log that stops before the end, with file and line.
    """
    sentences: Dict[int, Sentence] = {}
    number, line, finished, aligned = 0, "\n", False, False
    with open(path, encoding="utf-8", newline="\n") as log:
        for number, line in enumerate(log, 1):
            finished = finished or line.startswith("Generate ")
            if not re.match("[STHDPA]-", line):
                continue
            try:
                kind, ident, rest = _parts(line)
                _add(sentences, kind, int(ident), rest)
            except (KeyError, IndexError, ValueError) as error:
                if not line.endswith("\n"):
                    break
                why = f" ({error})" if isinstance(error, ValueError) and str(error) else ""
                raise ValueError(f"{path}:{number}: damaged line {line.rstrip()[:60]!r}{why}") from None
            aligned = aligned or kind == "A"
    if not sentences:
        raise ValueError(f"{path}: no S lines; is this the output of fairseq-generate, without --quiet?")
    has_targets = any(sentence.target is not None for sentence in sentences.values())
    if not line.endswith("\n") or (has_targets and not finished):
        raise ValueError(f"{path}:{number}: the log stops here, before fairseq-generate was done; run it again")
    for sentence in sentences.values():
        _check(sentence, aligned, path)
    return [sentences[ident] for ident in sorted(sentences)]


def _parts(line: str) -> Tuple[str, str, str]:
    """Letter, number and rest of a line. ValueError: it is none of those that fairseq prints."""
    found = LINE.fullmatch(line.rstrip("\n"))
    if found is None:
        raise ValueError
    return found[1], found[2], found[3]


def _add(sentences: Dict[int, Sentence], kind: str, ident: int, rest: str) -> None:
    """Takes one line in. KeyError, IndexError: the line that must come before it is missing."""
    if kind == "S":
        if ident in sentences:
            raise ValueError(f"sentence {ident} comes twice")
        sentences[ident] = Sentence(ident, rest.split())
    elif kind == "T":
        sentences[ident].target = rest.split()
    elif kind == "H":
        score, tokens = rest.split("\t")
        sentences[ident].hypotheses.append(Hypothesis(float(score), tokens.split()))
    else:
        _complete(sentences[ident].hypotheses[-1], kind, rest)


def _complete(hypothesis: Hypothesis, kind: str, rest: str) -> None:
    if kind == "D":
        hypothesis.text = rest.split("\t")[1]
    elif kind == "P":
        hypothesis.token_scores = [float(score) for score in rest.split()]
    elif HARD_ALIGNMENT.fullmatch(rest):
        pairs = (pair.split("-") for pair in rest.split())
        hypothesis.links = [(int(source), int(target)) for source, target in pairs]
    elif rest:
        hypothesis.weights = np.array([[float(weight) for weight in row.split(",")] for row in rest.split()])
    else:
        hypothesis.links = []


def _check(sentence: Sentence, aligned: bool, path) -> None:
    where = f"{path}: sentence {sentence.id}"
    if not sentence.hypotheses:
        raise ValueError(f"{where} has no H line")
    for hypothesis in sentence.hypotheses:
        if hypothesis.token_scores is None:
            raise ValueError(f"{where}: a hypothesis without P line")
        if aligned and hypothesis.weights is None and hypothesis.links is None:
            raise ValueError(f"{where}: a hypothesis without A line, though others have one")
        if hypothesis.weights is not None and len(hypothesis.weights) != len(hypothesis.token_scores):
            raise ValueError(f"{where}: {len(hypothesis.weights)} rows of attention weights for "
                             f"{len(hypothesis.token_scores)} tokens")  # fmt: skip


def attention_weights(hypothesis: Hypothesis) -> np.ndarray:
    """The T×S weights of a hypothesis. ValueError: no soft alignments in the log."""
    if hypothesis.weights is None:
        raise ValueError("no attention weights in the log: run fairseq-generate with --print-alignment soft")
    return hypothesis.weights


def target_of(sentence: Sentence) -> List[str]:
    """The reference of a sentence. ValueError: none in the log."""
    if sentence.target is None:
        raise ValueError(f"sentence {sentence.id}: no T line in the log; run fairseq-generate, which writes them")
    return sentence.target


def attention_axes(sentence: Sentence, hypothesis: Hypothesis) -> Tuple[List[str], List[str]]:
    """Source (S) and target (T) symbols that belong to the columns and rows of the weights, ``</s>`` included.

    Raises:
        ValueError: no soft alignments in the log; symbols that were joined after decoding; a hypothesis with ``<s>``,
            which fairseq leaves out of the H line (models that have learnt little write it).
    """
    axes = []
    for tokens, size in zip((sentence.source, hypothesis.tokens), reversed(attention_weights(hypothesis).shape)):
        if size - len(tokens) not in (0, 1):
            raise ValueError(f"sentence {sentence.id}: {size} attention weights for {len(tokens)} symbols: symbols "
                             "joined by --post-process, --remove-bpe or --bpe or by the task (of attn_translation: "
                             "give plot_attention.sh --data), or <s> in the hypothesis")  # fmt: skip
        axes.append(tokens + [EOS] * (size - len(tokens)))
    return axes[0], axes[1]
