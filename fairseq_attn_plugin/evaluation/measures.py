"""What one run of an experiment measured, as plain values: a line of ``measures.jsonl``."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import metrics
from .generation_log import Sentence, read_generation_log, target_of
from .training_log import TrainingLog, read_training_log

LEARNT = 99.0
"""Percent of the sentences in validation that have to be all right."""
Line = Dict[str, Any]
Sentences = List[Sentence]


def measure_run(run: Dict[str, Any], out, task: str) -> Tuple[Line, Dict[str, Sentences]]:
    """Measures a run of ``plan.json``; one that failed, is not finished, or left a damaged log has the reason of it in
    ``failed`` and no numbers.

    Args:
        run: its entry in the plan.
        out: the folder of the experiment.
        task: fairseq's; of ``reversal`` the alignments are known, others are scored as text.

    Returns:
        The line, and the sentences of each test split (none where it failed), which are large.
    """
    line: Line = {"run": run["folder"], "name": run["name"], "facts": run["facts"], "seed": run["seed"]}
    folder = Path(out, run["folder"])
    try:
        check_finished(folder, list(run["decodings"]))
        log = read_training_log(folder / "train.jsonl")
        splits = {split: read_split(folder / f"generate-{split}.txt") for split in run["decodings"]}
    except (OSError, ValueError) as error:
        return {**line, "failed": _reason(error, out)}, {}
    order = "copy" if log.options.get("reversal_order") == "copy" else "reverse"
    measured = {"failed": None, **of_training(log)}
    known = order if task == "reversal" else None
    measured["tests"] = {split: of_test(sentences, known) for split, sentences in splits.items()}
    return {**line, **measured}, splits


def _reason(error: Exception, out) -> str:
    """One line, with files as the folder of the experiment has them."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}".replace(f"{out}/", "")
    return " ".join(str(error).replace(f"{out}/", "").split())


def check_finished(folder: Path, splits: Sequence[str]) -> None:
    """ValueError: with what a run failed, or what of it is not finished."""
    if (folder / "failed").exists():
        text = (folder / "failed").read_text(encoding="utf-8", errors="replace").strip()
        raise ValueError(text or "failed, without a reason")
    for step in ["train", *(f"generate-{split}" for split in splits)]:
        if not (folder / f"{step}.done").exists():
            raise ValueError(f"{step} is not finished")


def read_split(path: Path) -> Sentences:
    """Sentences of a log of ``fairseq-generate``. ValueError, OSError: it is damaged, missing or without references."""
    try:
        sentences = read_generation_log(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason}); decode again") from None
    for sentence in sentences:
        if sentence.target is None:
            raise ValueError(f"{path}: sentence {sentence.id} has no T line; is it the output of fairseq-generate?")
    return sentences


# Training


def of_training(log: TrainingLog) -> Line:
    """Size, speed, and when it had learnt; ``validations`` are those of the log with the seconds (None: not known, as
    of a training that was resumed)."""
    validations: List[Line] = [{**stats, "seconds": seconds_at(log, stats["num_updates"])} for stats in log.validations]
    reached = next((stats for stats in validations if stats.get("sentence_accuracy", 0.0) >= LEARNT), {})
    return {
        "parameters": log.parameters,
        "updates": log.updates,
        "seconds": log.seconds,
        "tokens_per_second": log.tokens_per_second,
        "updates_to_99": reached.get("num_updates"),
        "seconds_to_99": reached.get("seconds"),
        "trained_lengths": [_number(log.options.get(f"reversal_{which}_length", "")) for which in ("min", "max")],
        "data": log.options.get("data"),
        "validations": validations,
    }


def _number(text: str) -> Optional[int]:
    """None where an option was left as it is."""
    return int(text) if text.isdecimal() else None


def seconds_at(log: TrainingLog, updates: float) -> Optional[float]:
    """Seconds from the start of the training to an update and the validation that follows it, between two lines of the
    log in proportion; None where these say nothing of time."""
    if not log.wall or updates > max(log.wall):
        return None
    known = sorted(log.wall)
    return round(float(np.interp(updates, [0.0, *known], [0.0, *(log.wall[each] for each in known)])), 1)


# Tests


def of_test(sentences: Sentences, order: Optional[str]) -> Line:
    """The measures of a test split; all but the entropy (nats) in percent.

    Args:
        order: of a reversal test, for the known alignments; None for a translation, which is scored as text instead.
    """
    counts = by_length(sentences, order is None)
    whole = total(counts.values())
    line: Line = {"sentences": len(sentences)}
    if order is None:
        line.update(of_translation(sentences), exact_match=whole.sentence_accuracy)
    line["sentence_accuracy"], line["token_accuracy"] = whole.sentence_accuracy, whole.token_accuracy
    if order is not None:
        line["alignment_accuracy"] = alignment_accuracy(sentences, order)
    line.update(of_attention(sentences))
    line["by_length"] = {str(length): as_plain(counts[length]) for length in sorted(counts)}
    return line


def by_length(sentences: Sentences, as_text: bool = False) -> Dict[int, metrics.Counts]:
    """Counts of the best hypotheses by the length of the source, ``</s>`` not counted.

    Args:
        as_text: compare words of the D line, not symbols of the H line.
    """
    found: Dict[int, metrics.Counts] = {}
    for sentence in sentences:
        best = sentence.hypotheses[0]
        words = (best.text or "").split() if as_text else best.tokens
        found.setdefault(len(sentence.source), metrics.Counts()).add(target_of(sentence), words)
    return found


def total(parts) -> metrics.Counts:
    """The sums of counts."""
    whole = metrics.Counts()
    for part in parts:
        whole.sentences += part.sentences
        whole.correct += part.correct
        whole.distance += part.distance
        whole.length += part.length
    return whole


def as_plain(counts: metrics.Counts) -> Line:
    """Sums and the accuracies that follow from them; :func:`from_plain` reads the sums."""
    accuracies = {"sentence_accuracy": counts.sentence_accuracy, "token_accuracy": counts.token_accuracy}
    return {**vars(counts), **accuracies}


def from_plain(line: Line) -> metrics.Counts:
    """The counts of a line of ``by_length``."""
    return metrics.Counts(line["sentences"], line["correct"], line["distance"], line["length"])


def alignment_accuracy(sentences: Sentences, order: str = "reverse") -> Optional[float]:
    """Target positions where the best hypothesis attends most to the source position that they are a copy of, in
    percent: the mirrored one, or with ``order`` ``copy`` the same.

    ``</s>`` is left out; None without weights.
    """
    right = positions = 0
    for sentence in sentences:
        best, length = sentence.hypotheses[0], len(sentence.source)
        if best.weights is not None:
            attended = best.weights[: len(best.tokens)].argmax(axis=1)
            right += metrics.aligned(attended, range(length) if order == "copy" else range(length - 1, -1, -1))
            positions += length
    return metrics.alignment_accuracy(right, positions) if positions else None


def of_attention(sentences: Sentences) -> Line:
    """``entropy``, ``coverage`` and ``monotonicity`` of the printed weights of the best hypotheses, as
    ``--report-attention`` has them in validation; None without weights."""
    sums = metrics.AttentionSums()
    for sentence in sentences:
        weights = sentence.hypotheses[0].weights
        if weights is not None:
            rows, columns = weights.shape
            is_source = np.arange(columns) < max(columns - 1, 1)  # the last one is </s>
            each = metrics.attention_sums(weights[None], is_source[None], np.ones((1, rows), bool))
            for name, value in vars(each).items():
                setattr(sums, name, getattr(sums, name) + value)
    if not sums.words:
        return {"entropy": None, "coverage": None, "monotonicity": None}
    return {
        "entropy": metrics.attention_entropy(sums.entropy, sums.words),
        "coverage": metrics.share(sums.covered, sums.sources),
        "monotonicity": metrics.share(sums.forward, sums.steps),
    }


def of_translation(sentences: Sentences) -> Line:
    """``bleu`` and ``chrf`` of the best hypotheses as text, after ``--post-process`` and the like."""
    references = [" ".join(target_of(sentence)) for sentence in sentences]
    texts = [" ".join((sentence.hypotheses[0].text or "").split()) for sentence in sentences]
    line = {}
    for name in ("bleu", "chrf"):
        score = metrics.CorpusScore(name)
        line[name] = score.score(*score.statistics(references, texts))
    return line
