"""Criterion ``entmax_loss``: what stands in for the cross entropy where probabilities can be zero."""

from dataclasses import dataclass, field
from typing import Tuple

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

NAME = "entmax_loss"
NEEDS_LOG = ("nll_loss", "ppl")


@dataclass
class EntmaxLossConfig(FairseqDataclass):
    """Options of fairseq's criterions that mean something here, and one that does not."""

    label_smoothing: float = field(
        default=0.0, metadata={"help": "must be 0: a sparse distribution gives nothing to most words"}
    )
    report_accuracy: bool = field(default=False, metadata={"help": "report accuracy metric"})
    sentence_avg: bool = II("optimization.sentence_avg")
    entmax_best_metric: str = II("checkpoint.best_checkpoint_metric")


@register_criterion(NAME, dataclass=EntmaxLossConfig)
class EntmaxLossCriterion(FairseqCriterion):
    """The loss of the model's ``--output-normalizer``, ``entmax15`` or ``sparsemax``, summed over the target's words;
    see ``modules/output_normalizers.py``. It is in no logarithm's unit, so there is no perplexity: 0 where the word has
    all of the probability.

    Raises:
        ValueError: label smoothing is asked for, or the best checkpoint by a perplexity; the model is of another kind.
    """

    def __init__(self, task, sentence_avg, label_smoothing=0.0, report_accuracy=False, entmax_best_metric="loss"):
        super().__init__(task)
        if label_smoothing:
            raise ValueError(
                f"--label-smoothing {label_smoothing}: --criterion {NAME} has none, as its probabilities are zero for "
                "most words; leave it out"
            )
        if entmax_best_metric in NEEDS_LOG:
            raise ValueError(
                f"--best-checkpoint-metric {entmax_best_metric}: --criterion {NAME} logs no logarithm of a "
                "probability; use --best-checkpoint-metric loss"
            )
        self.sentence_avg = sentence_avg
        self.report_accuracy = report_accuracy

    def forward(self, model, sample, reduce=True):
        """Loss summed over the batch (``reduce=False``: of each of the B·T targets, 0 on padding), sample size and
        logging outputs."""
        output = check_output(getattr(model, "decoder", None))
        scores = model(**sample["net_input"])[0]
        target = model.get_targets(sample, None)
        is_word = target.ne(self.padding_idx)
        scores, words = scores[is_word], target[is_word]
        losses = output.loss(scores, words)
        loss = losses.sum() if reduce else losses.new_zeros(target.shape).masked_scatter(is_word, losses).flatten()
        sample_size = target.size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": losses.detach().sum(),
            "support": self._support(output, scores.detach()),
            "ntokens": sample["ntokens"],
            "nsentences": target.size(0),
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            logging_output["n_correct"] = utils.item(scores.argmax(dim=1).eq(words).sum())
            logging_output["total"] = utils.item(is_word.sum())
        return loss, sample_size, logging_output

    @staticmethod
    @torch.no_grad()
    def _support(output, scores: Tensor) -> Tensor:
        """How many words have a probability, summed over N×V scores."""
        return output.log_probabilities(scores).isfinite().sum()

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """Logs ``loss``, by sample size, and ``support``, the mean number of words that have a probability."""
        loss, support, ntokens, sample_size, correct, total = _sums(
            logging_outputs, "loss", "support", "ntokens", "sample_size", "n_correct", "total"
        )
        metrics.log_scalar("loss", loss / max(sample_size, 1), sample_size, round=3)
        metrics.log_scalar("support", support / max(ntokens, 1), ntokens, round=1)
        if total:
            metrics.log_scalar("accuracy", 100.0 * correct / total, total, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def _sums(logging_outputs, *names: str) -> Tuple[float, ...]:
    return tuple(utils.item(sum(log.get(name, 0) for log in logging_outputs)) for name in names)


def check_output(decoder):
    """What makes the probabilities of a decoder; ValueError where it is the softmax, or where there is none to ask."""
    output = getattr(decoder, "sparse_output", None)
    if output is None:
        raise ValueError(
            f"--criterion {NAME}: the probabilities of this model are those of a softmax; use --output-normalizer "
            "entmax15 (a model of this plugin), or --criterion label_smoothed_cross_entropy"
        )
    return output
