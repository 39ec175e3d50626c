"""Search where most words have probability zero: fairseq's does not end when no hypothesis is left to go on.

It waits for as many finished hypotheses as the beam is wide, or for the longest that may be, where ``</s>`` must have a
probability. A model whose output is sparse may give fewer hypotheses any probability, or none to ``</s>`` there.
"""

import functools
from typing import Any, Callable, Dict, List

import torch
from fairseq.sequence_generator import SequenceGenerator, SequenceGeneratorWithAlignment
from torch import Tensor

ZERO = -1e30
"""Stands for the logarithm of 0 where fairseq wants a number; sums of it are numbers, too."""

FILLER = "filler"
"""What a hypothesis has that stands for one that there is not."""

Hypothesis = Dict[str, Any]


def install() -> None:
    """Once a process; a generator of models with a softmax is as it was."""
    if not hasattr(SequenceGenerator.__init__, "__wrapped__"):
        SequenceGenerator.__init__ = _starts(SequenceGenerator.__init__)
        SequenceGenerator._generate = _generates(SequenceGenerator._generate)
        SequenceGeneratorWithAlignment.generate = _aligns(SequenceGeneratorWithAlignment.generate)


def _is_sparse(generator: SequenceGenerator) -> bool:
    decoders = [getattr(model, "decoder", None) for model in generator.model.models]
    return any(getattr(decoder, "sparse_output", None) is not None for decoder in decoders)


def _starts(init):
    @functools.wraps(init)
    def __init__(self, *args, **kwargs):
        init(self, *args, **kwargs)
        if _is_sparse(self):
            self.search.step = within_support(self.search.step, self.eos)

    return __init__


def _generates(generate):
    @functools.wraps(generate)
    def _generate(self, *args, **kwargs):
        finalized = generate(self, *args, **kwargs)
        if not _is_sparse(self):
            return finalized
        found = [possible(hypotheses) for hypotheses in finalized]
        if isinstance(self, SequenceGeneratorWithAlignment):  # it wants as many for every sentence
            found = [[*each, *({**each[-1], FILLER: True} for _ in range(len(each), self.beam_size))] for each in found]
        return found

    return _generate


def _aligns(generate):
    @functools.wraps(generate)
    def with_alignments(self, *args, **kwargs):
        finalized = generate(self, *args, **kwargs)
        return [[each for each in hypotheses if FILLER not in each] for hypotheses in finalized]

    return with_alignments


def within_support(search: Callable[..., Any], eos: int) -> Callable[..., Any]:
    """A search's ``step``, in which a sentence ends when none of its hypotheses can go on: all of them get ``</s>``,
    with ``ZERO``. So does one that nothing can follow, as at the longest that may be."""

    @functools.wraps(search)
    def step(step: int, lprobs: Tensor, scores: Tensor, *args, **kwargs):
        before = scores[:, :, step - 1] if step else lprobs.new_zeros(lprobs.shape[:2])
        is_live = before > -torch.inf
        ends = is_live & (lprobs == -torch.inf).all(dim=2)
        ends = ends | ~(is_live & ~ends).any(dim=1, keepdim=True)
        if not bool(ends.any()):
            return search(step, lprobs, scores, *args, **kwargs)
        end = torch.full_like(lprobs[0, 0], -torch.inf)
        end[eos] = 0.0  # fairseq's sampling wants a probability
        lprobs = torch.where(ends.unsqueeze(2), end, lprobs)
        if step:
            scores = scores.clone()
            scores[:, :, step - 1] = torch.where(ends, before.clamp(min=ZERO) + ZERO, before)
            return search(step, lprobs, scores, *args, **kwargs)
        found, words, beams = search(step, lprobs, scores, *args, **kwargs)
        return torch.where(ends[:, :1], found + ZERO, found), words, beams  # there all rows are alike

    return step


def possible(hypotheses: List[Hypothesis]) -> List[Hypothesis]:
    """Those with a probability, best first; where there are none, the best one, with the score -inf."""
    found = [each for each in hypotheses if _has_probability(each["positional_scores"])]
    if found or not hypotheses:
        return found
    best = hypotheses[0]
    scores = best["positional_scores"]
    cut = torch.where(scores > ZERO / 2, scores, torch.full_like(scores, -torch.inf))
    return [{**best, "score": torch.full_like(best["score"], -torch.inf), "positional_scores": cut}]


def _has_probability(scores: Tensor) -> bool:
    return bool((scores.isfinite() & (scores > ZERO / 2)).all())
