"""Requests to one ``Translator`` from several threads at once, each answer held against the one given alone.

usage: python tests/translator_load.py MODEL_FOLDER [--threads N] [--requests N, of each thread]

It prints a table: requests so far, answers that differ from those given alone, memory of the process. Its status is 1
where an answer was another one.
"""

import argparse
import random
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

import fairseq_attn_plugin  # noqa: F401
from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel
from fairseq_attn_plugin.serving.translator import Translation, Translator

LENGTHS = (0, 1, 2, 5, 9, 20)
"""Words of most lines."""

LONGEST = 1000
"""Words of some."""

OPTIONS: List[Dict[str, Any]] = [{}, {"lenpen": 0.5}, {"max_len_b": 3}, {"temperature": 2.0}, {"unnormalized": True}]


def requests_for(translator: Translator, words: List[str], number: int, longest: int = LONGEST) -> List[Dict[str, Any]]:
    """Arguments of ``translate_lines``: lines of 0 to ``longest`` words, beams, languages, with attention and without.

    Args:
        words: what the lines are made of.
        number: how many requests; every tenth has a line of ``longest`` words.
    """
    generator, requests = random.Random(1), []
    for index in range(number):
        lengths = [generator.choice(LENGTHS) for _ in range(generator.randint(1, 3))]
        lengths += [longest] if index % 10 == 9 else []
        request = dict(
            lines=[" ".join(generator.choices(words, k=length)) for length in lengths],
            beam=generator.choice([1, 2, 5]),
            target=generator.choice(translator.bpe.targets),
            attention=index % 2 == 0,
            max_tokens=generator.choice([60, 4000]),
            **generator.choice(OPTIONS),
        )
        requests.append(request)
    return requests


def same(ours: List[Translation], theirs: List[Translation]) -> bool:
    """Whether two answers are equal, to the last bit."""
    return len(ours) == len(theirs) and all(
        np.array_equal(getattr(mine, name), getattr(other, name))
        for mine, other in zip(ours, theirs)
        for name in Translation.__dataclass_fields__
    )


def different_answers(translator: Translator, requests: List[Dict[str, Any]], threads: int, rounds: int) -> List[int]:
    """``threads`` threads put all requests ``rounds`` times, each in another order → numbers of the requests whose
    answer was not the one given alone; an exception is raised."""
    alone = [translator.translate_lines(**request) for request in requests]
    different: List[int] = []
    failed: List[BaseException] = []

    def put(seed: int) -> None:
        try:
            order = [number for _ in range(rounds) for number in range(len(requests))]
            random.Random(seed).shuffle(order)
            different.extend(n for n in order if not same(translator.translate_lines(**requests[n]), alone[n]))
        except BaseException as error:
            failed.append(error)

    started = [threading.Thread(target=put, args=(seed,)) for seed in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    if failed:
        raise failed[0]
    return different


def resident() -> float:
    """Memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--requests", type=int, default=500)
    args = parser.parse_args()
    translator = AttnRNNModel.from_pretrained(args.model)
    words = [translator.src_dict[n].strip("▁") for n in range(4, len(translator.src_dict))]
    requests = requests_for(translator, [word for word in words if word.isalpha()], 50)
    wrong = 0
    print("| requests | other answers | memory, MiB |\n| ---: | ---: | ---: |")
    for part in range(args.requests // len(requests)):
        wrong += len(different_answers(translator, requests, args.threads, 1))
        print(f"| {(part + 1) * args.threads * len(requests):,} | {wrong} | {resident():.0f} |", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
