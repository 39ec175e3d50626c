"""Translations, scores, tables and pictures of one training, and tables of several, from what scripts/nmt.sh left."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..data.data_folder import kinds, measure, read_data_settings, reference_file
from . import error_rates, plots, scoring, tables, whole_files, word_pieces
from .generation_log import Sentence, read_generation_log
from .training_log import read_training_log

RATES = {"char": ("WER", "CER"), "none": ("WER", "SER")}
"""Error rates, by what the target is cut into; beside BLEU, or before it where lines are words."""
HEAD = ["", "parameters", "updates", "training, minutes", "test set", "beam"]


def metrics_of(settings: Dict[str, Any]) -> List[str]:
    """What is scored of the test sets of a data folder with this ``data.json``, in the order of the columns."""
    rates = [*RATES.get(kinds(settings["segmentation"], "target")[0], ())]
    return [*rates, "BLEU"] if measure(settings) == "exact_match" else [*scoring.SACREBLEU, *rates]


def hypotheses(sentences: Sequence[Sentence], count: int, path) -> List[str]:
    """Best hypotheses as text, sentence n in place n; an empty source has an empty one.

    Raises:
        ValueError: the log has other sentences than the ``count`` that there are.
    """
    missing = sorted(set(range(count)) ^ {sentence.id for sentence in sentences})
    if missing:
        raise ValueError(f"{path}: {len(sentences):,} sentences for {count:,} lines of text; {missing[0]} is the first "
                         "that only one has")  # fmt: skip
    return [(sentence.hypotheses[0].text or "") if sentence.source else "" for sentence in sentences]


def report_run(out, data, splits: Sequence[str], pieces_of: Callable[[str], List[str]]) -> str:
    """Writes, for each split, ``<split>.hyp``, ``<split>.ref`` and a picture of the attention; ``report.json`` and
    ``report.md``, the table, which is returned. Scores of other splits stay in both.

    Args:
        out: folder with ``train.jsonl``, ``settings``, ``seconds`` and ``generate-<split>.txt``.
        data: the data folder.
        pieces_of: source as the logs show it → its pieces.
    """
    out, settings = Path(out), read_data_settings(data)
    tests = read_run("", out).report["tests"] if (out / "report.json").exists() else {}
    report: Dict[str, Any] = {"source": settings["source"], "target": settings["target"], **training(out)}
    report["tests"] = tests
    words = settings["segmentation"] in word_pieces.SEGMENTATIONS
    for split in splits:
        log = out / f"generate-{split}.txt"
        reference = scoring.read_lines(reference_file(data, split, settings["source"]))
        sentences = read_generation_log(log)
        found = hypotheses(sentences, len(reference), log)
        for ending, lines in (("hyp", found), ("ref", reference)):
            whole_files.write_text(out / f"{split}.{ending}", "".join(line + "\n" for line in lines))
        scored = scoring.score(reference, {split: found}, wanted=metrics_of(settings))
        report["tests"][split] = {**scoring.as_json(scored), "beam": beam_width(log)}
        panels = word_pieces.readable(sentences, pieces_of, words)
        if panels:
            plots.save(plots.attention_heat_maps(panels), out / f"attention-{split}.png")
    whole_files.write_json(out / "report.json", report)
    text = table([Run(f"{report['source']}→{report['target']}", out, report)]) + "\n" + notes(report)
    whole_files.write_text(out / "report.md", text)
    return text


def beam_width(log) -> int:
    """Of the decoding that left the log, whose last line names it. ValueError: it does not."""
    found = re.findall(r"^Generate .* with beam=(\d+): ", Path(log).read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise ValueError(f"{log}: no line 'Generate ... with beam=...', so the decoding did not come to its end")
    return int(found[-1])


def training(out: Path) -> Dict[str, Any]:
    """Numbers of the training: parameters, updates, epochs, the best BLEU in validation, what chose the checkpoint,
    seconds (None where it was killed together with the script), and its settings."""
    log, steps = read_training_log(out / "train.jsonl"), step_seconds(out)
    seconds = log.seconds
    if seconds is None and len(steps["train"]) == count_starts(out / "train.log"):
        seconds = sum(steps["train"])
    bleu = [stats["bleu"] for stats in log.validations if "bleu" in stats]
    settings = (out / "settings").read_text(encoding="utf-8").strip()
    return {
        "parameters": log.parameters,
        "updates": log.updates,
        "epochs": int(log.validations[-1]["epoch"]) if log.validations else 0,
        "best validation BLEU": max(bleu) if bleu else None,
        "chosen by": chosen_by(settings, log.validations),
        "training seconds": seconds,
        "seconds of each step": {name: sum(times) for name, times in steps.items()},
        "settings": settings,
    }


def chosen_by(settings: str, validations: Sequence[Dict[str, float]]) -> Optional[Dict[str, Any]]:
    """``metric``, the measure that chooses the best checkpoint, and ``value``, the best of it in validation (None: it
    was not logged); None where the settings do not name it."""
    words = settings.split()
    named = [following for word, following in zip(words, words[1:]) if word == "--best-checkpoint-metric"]
    named += [word.partition("=")[2] for word in words if word.startswith("--best-checkpoint-metric=")]
    if not named:
        return None
    values = [stats[named[-1]] for stats in validations if named[-1] in stats]
    best = max if "--maximize-best-checkpoint-metric" in words else min
    return {"metric": named[-1], "value": best(values) if values else None}


def step_seconds(out: Path) -> Dict[str, List[int]]:
    """Wall times of every step, one for each start but those that were killed together with the script."""
    seconds: Dict[str, List[int]] = {}
    for line in (out / "seconds").read_text(encoding="utf-8").splitlines():
        name, number = line.split()
        seconds.setdefault(name, []).append(int(number))
    return seconds


def count_starts(log: Path) -> int:
    """How often a step was started, by its log."""
    with open(log, encoding="utf-8", errors="replace") as lines:
        return sum(line.startswith("$ ") for line in lines)


@dataclass
class Run:
    """One training: label, folder and its ``report.json``."""

    label: str
    folder: Path
    report: Dict[str, Any]


def read_run(label: str, folder) -> Run:
    """ValueError: there is no report, or a damaged one."""
    path = Path(folder, "report.json")
    try:
        return Run(label, Path(folder), json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); scripts/nmt.sh writes it") from None


def comparison(runs: Sequence[Run]) -> List[Dict[str, Any]]:
    """Scores of several runs, one dict per run and test set. Test sets of the same reference are compared: the first
    run is the baseline of the paired tests of the others.

    Raises:
        ValueError, OSError: translations are missing or do not fit their reference.
    """
    texts: Dict[tuple, Dict[tuple, List[str]]] = {}
    wanted = common_metrics(runs)
    for run in runs:
        for split in run.report["tests"]:
            path = run.folder / f"{split}.ref"
            reference = scoring.read_lines(path)
            lines = scoring.read_system(run.folder / f"{split}.hyp", reference, path)
            texts.setdefault(tuple(reference), {})[run.label, split] = lines
    rows = []
    for lines_of_reference, systems in texts.items():
        named = {f"{label}, {split}": lines for (label, split), lines in systems.items()}
        scored = scoring.as_json(scoring.score(lines_of_reference, named, wanted=wanted))["systems"]
        rows += [{"label": label, "test set": split, **numbers} for (label, split), numbers in zip(systems, scored)]
    return rows


def common_metrics(runs: Sequence[Run]) -> List[str]:
    """What every test set of the runs was scored by, in the order of the first; BLEU where there is nothing."""
    tests = [test["systems"][0] for run in runs for test in run.report["tests"].values()]
    return [name for name in tests[0] if name in scoring.METRICS.values() and all(name in test for test in tests)] or [
        "BLEU"
    ]


def table(runs: Sequence[Run]) -> str:
    """One row per run and test set. ValueError: two runs have one label."""
    by_label = {run.label: run.report for run in runs}
    if len(by_label) < len(runs):
        labels = [run.label for run in runs]
        twice = max(labels, key=labels.count)
        raise ValueError(f"two runs are called {twice!r}; give each a folder, or a label, of its own name")
    if len(runs) == 1:
        tests = runs[0].report["tests"].items()
        rows = [{"label": runs[0].label, "test set": split, **test["systems"][0]} for split, test in tests]
    else:
        rows = comparison(runs)
    scores = list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, dict)))
    lines = [[*HEAD, *scores]]
    for row in rows:
        report, test = by_label[row["label"]], row["test set"]
        minutes, beam = _minutes(report["training seconds"]), str(report["tests"][test]["beam"])
        numbers = [f"{report['parameters']:,}", f"{report['updates']:,}", minutes, test, beam]
        lines.append([row["label"], *numbers, *(_score(row.get(name)) for name in scores)])
    return tables.markdown(lines)


def _minutes(seconds: Optional[float]) -> str:
    return "–" if seconds is None else f"{seconds / 60:,.1f}"


def _score(value: Optional[Dict[str, float]]) -> str:
    return "–" if value is None else scoring.cell(value)


def notes(report: Dict[str, Any]) -> str:
    """What stands below the table of one training."""
    lines = []
    chosen = report.get("chosen by") or {"metric": "bleu", "value": report["best validation BLEU"]}
    if chosen["value"] is not None:
        name = "BLEU" if chosen["metric"] == "bleu" else chosen["metric"]
        averaged = re.search(r"\| average ([1-9]\d*) \|", report["settings"])
        why = ", which chose the checkpoint"
        why = f"; the model is the mean of the last {averaged[1]} epochs" if averaged else why
        lines.append(f"Best {name} in validation (greedy): {chosen['value']:.2f}{why}.")
    steps = ", ".join(f"{name} {seconds:,}" for name, seconds in report["seconds of each step"].items())
    lines.append(f"Wall time in seconds: {steps}.")
    return "\n".join([*lines, measures(report)]) + "\n"


def measures(report: Dict[str, Any], baseline: str = "") -> str:
    """What intervals and tests are, and the signatures of the scores."""
    first = next(iter(report["tests"].values()))
    note = f"± 95 % interval of {first['resamples']:,} bootstrap resamples"
    note += f"; p: paired bootstrap against {baseline}." if baseline else "."
    scores = {name: value for name, value in first["systems"][0].items() if isinstance(value, dict)}
    means = [f"{name}: {error_rates.MEANINGS[name]}, in percent." for name in scores if name in error_rates.RATES]
    signatures = [f"{name}: {value['signature']}" for name, value in scores.items() if "signature" in value]
    return "\n".join([note, *means, *signatures])
