"""Folders of experiments as fairseq would leave them, with results that are chosen."""

import json
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np

TRAINED = """\
{{'common': {{'seed': 1}}, 'task': {{'_name': 'reversal', 'reversal_max_length': 6}}}}
num. shared model params: {parameters:,} (num. trained: {parameters:,})
{{"epoch": 1, "num_updates": "4", "wall": "3"}}
{{"epoch": 1, "valid_loss": "3", "valid_sentence_accuracy": "{first}", "valid_num_updates": "8"}}
{{"epoch": 1, "train_num_updates": "8", "train_wall": "6", "train_wps": "100"}}
{{"epoch": 2, "valid_loss": "1", "valid_sentence_accuracy": "{last}", "valid_num_updates": "16"}}
{{"epoch": 2, "train_num_updates": "16", "train_wall": "12", "train_wps": "300"}}
done training in {seconds} seconds
"""
PROBLEM = ("abcdef", "abc", "fedc", "ab", "fabce")
"""Sources of a test split."""


def log_of(sentences: Sequence[tuple], weighted: bool = True) -> str:
    """What ``fairseq-generate`` writes of (source, reference, hypothesis), each of symbols of one letter; the weights
    are 0.75 on the mirrored source position and 0.25 on ``</s>``, which the last row has all of."""
    lines = []
    for number, (source, reference, hypothesis) in enumerate(sentences):
        lines += [f"S-{number}\t{' '.join(source)}", f"T-{number}\t{' '.join(reference)}"]
        lines += [f"{kind}-{number}\t-0.5\t{' '.join(hypothesis)}" for kind in "HD"]
        lines.append(f"P-{number}\t{' '.join(['-0.5'] * (len(hypothesis) + 1))}")
        if weighted:
            weights = np.zeros((len(hypothesis) + 1, len(source) + 1))
            weights[:, -1] = 0.25
            for row in range(len(hypothesis)):
                weights[row, max(len(source) - 1 - row, 0)] += 0.75
            weights[-1, -1] = 1
            lines.append(f"A-{number}\t{' '.join(','.join(map(str, row)) for row in weights)}")
    return "\n".join([*lines, "Generate test with beam=1: ok", ""])


def reversed_sentences(right: int = len(PROBLEM)) -> List[tuple]:
    """The problem, of which the first so many are right and the others lack their last symbol."""
    mirrored = [source[::-1] for source in PROBLEM]
    return [(s, m, m if n < right else m[:-1]) for n, (s, m) in enumerate(zip(PROBLEM, mirrored))]


def write_run(
    out: Path,
    folder: str,
    sentences: Optional[Sequence[tuple]] = None,
    weighted: bool = True,
    parameters: int = 1234,
    first: float = 50,
    last: float = 99.5,
    seconds: float = 12.5,
) -> Path:
    """A run that is finished: its training and its test split."""
    run = out / folder
    run.mkdir(parents=True)
    log = TRAINED.format(parameters=parameters, first=first, last=last, seconds=seconds)
    (run / "train.jsonl").write_text(log, encoding="utf-8")
    text = log_of(reversed_sentences() if sentences is None else sentences, weighted)
    (run / "generate-test.txt").write_text(text, encoding="utf-8")
    for step in ("train", "generate-test"):
        (run / f"{step}.done").touch()
    return run


def entry(name: str, facts: Dict[str, str], seed: str = "1", task: str = "reversal") -> dict:
    """Of a run in a plan."""
    folder, train = f"{name}-seed{seed}", ["fairseq-train", "--task", task, "--seed", seed]
    decodings = {"test": ["fairseq-generate", "--gen-subset", "test"]}
    return dict(name=name, facts=facts, seed=seed, folder=folder, train=train, decodings=decodings)


def write_plan(out: Path, runs: List[dict], report: Optional[dict] = None, task: str = "reversal") -> None:
    """``plan.json``."""
    versions = {"python": "3.11", "torch": "2", "fairseq": "0.12", "fairseq_attn_plugin": "1"}
    plan = dict(title="A <title>", about="What it is about.", experiment="x", task=task, report=report or {})
    (out / "plan.json").write_text(json.dumps({**plan, "runs": runs, "versions": versions}), encoding="utf-8")
