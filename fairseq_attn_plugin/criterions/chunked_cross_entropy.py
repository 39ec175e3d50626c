"""Criterion ``chunked_cross_entropy``: fairseq's losses without a tensor of the size B×T×V."""

from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.logging import metrics
from torch import Tensor, nn

from ..modules.copying import Mixture
from ..modules.coverage_loss import repeated_attention
from ..modules.options import LARGEST
from ..modules.vocabulary_loss import VocabularyLoss, mixture_loss, vocabulary_loss

NAME = "chunked_cross_entropy"


@dataclass
class ChunkedCrossEntropyConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Options beside those of ``label_smoothed_cross_entropy``, which it has, too."""

    coverage_loss: float = field(
        default=0.0,
        metadata={
            "help": "weight of the coverage loss, which is what the attention of each target word repeats of the "
            "attention of those before; added to the loss of the word (0: none)"
        },
    )


@register_criterion(NAME, dataclass=ChunkedCrossEntropyConfig)
class ChunkedCrossEntropyCriterion(LabelSmoothedCrossEntropyCriterion):
    """``label_smoothed_cross_entropy`` straight from the decoder's features: the same loss, gradients and logs, in less
    time and memory (see :func:`vocabulary_loss`). For models whose decoder takes ``features_only`` and has a linear
    layer ``vocabulary``, as ``attn_rnn`` has; its ``matmul_dtype``, where there is one, is that of the products here.

    With ``coverage_loss`` λ a target word costs λ Σ over j of min(a(t, j), Σ over t' < t of a(t', j)) beside (See et
    al., 2017, eq. 12–13), a the weights that the decoder returns. Words that ``ignore_prefix_size`` leaves out cost
    nothing, but what they attend to counts as attended to.

    Raises:
        ValueError: the label smoothing is no share, the weight of the coverage loss is none, the model is of another
            kind, or has no attention that a coverage loss could teach.
    """

    def __init__(
        self, task, sentence_avg, label_smoothing, ignore_prefix_size=0, report_accuracy=False, coverage_loss=0.0
    ):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"--label-smoothing: got {label_smoothing}; give 0 or more, and less than 1")
        if not 0 <= coverage_loss <= LARGEST:
            raise ValueError(f"--coverage-loss: got {coverage_loss}; give a number of 0 or more, at most {LARGEST:g}")
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        self.coverage_loss = coverage_loss

    def forward(self, model, sample, reduce=True):
        """Loss summed over the batch, sample size and logging outputs; ``reduce=False`` is fairseq's own, per word."""
        check_decoder(getattr(model, "decoder", None))
        if not reduce:
            return super().forward(model, sample, reduce=False)
        target = model.get_targets(sample, None)

        def losses_of_output(decoder, inputs, output):
            coverage = self._coverage(output[1], target).sum() if self.coverage_loss else None
            return (*self._loss(decoder, output, target, sample["ntokens"]), coverage)

        # within the model's own call: distributed training takes a weight that is used later for one that is not
        hook = model.decoder.register_forward_hook(losses_of_output)
        try:
            loss, nll_loss, correct, coverage = model(**sample["net_input"], features_only=True)
        finally:
            hook.remove()
        if coverage is not None:
            loss = loss + self.coverage_loss * coverage
        sample_size = target.size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.data,
            "nll_loss": nll_loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": target.size(0),
            "sample_size": sample_size,
        }
        if coverage is not None:
            logging_output["coverage_loss"] = coverage.data
        if self.report_accuracy:
            logging_output["n_correct"] = utils.item(correct)
            logging_output["total"] = utils.item(target[:, self.ignore_prefix_size :].ne(self.padding_idx).sum())
        return loss, sample_size, logging_output

    def compute_loss(self, model, net_output, sample, reduce=True):
        """fairseq's, of all the logits: what ``reduce=False`` asks for, N×1 for the words of B×T targets."""
        loss, nll_loss = super().compute_loss(model, net_output, sample, reduce=reduce)
        if self.coverage_loss:
            coverage = self._coverage(net_output[1], model.get_targets(sample, net_output))
            loss = loss + self.coverage_loss * (coverage.sum() if reduce else coverage.view_as(loss))
        return loss, nll_loss

    def _loss(self, decoder, output, target: Tensor, ntokens: int) -> VocabularyLoss:
        """What the decoder returns, B×T×D features first, and B×T targets, of which ``ntokens`` are words → the sums
        over all targets that count."""
        rows = output[0][:, self.ignore_prefix_size :].flatten(0, 1)
        mixture = Mixture.returned(output[1])
        mixture = None if mixture is None else mixture.flatten(self.ignore_prefix_size)
        words = target[:, self.ignore_prefix_size :].flatten()
        is_word = words.ne(self.padding_idx)
        count = int(is_word.sum()) if self.ignore_prefix_size else ntokens  # a GPU is waited for with a prefix only
        if count < len(words):
            first = torch.argsort(is_word, stable=True, descending=True)[:count]
            rows, words = rows.index_select(0, first), words.index_select(0, first)
            mixture = None if mixture is None else mixture.select(first)
        if mixture is not None:
            return mixture_loss(decoder.output_layer, rows, mixture, words, self.eps, self.report_accuracy)
        return vocabulary_loss(
            rows,
            decoder.vocabulary.weight,
            decoder.vocabulary.bias,
            words,
            label_smoothing=self.eps,
            matmul_dtype=getattr(decoder, "matmul_dtype", None),
            count_correct=self.report_accuracy,
        )

    def _coverage(self, extra: Any, target: Tensor) -> Tensor:
        """What the decoder returns beside features or logits and B×T targets → the coverage loss of each position, B×T
        without the prefix; 0 where there is no word."""
        weights = attention_weights(extra)
        repeated = repeated_attention(weights)[:, self.ignore_prefix_size :]
        return repeated.masked_fill(target[:, self.ignore_prefix_size :].eq(self.padding_idx), 0.0)

    @classmethod
    def reduce_metrics(cls, logging_outputs) -> None:
        """fairseq's; and ``coverage_loss``, per word and before it is weighted."""
        super().reduce_metrics(logging_outputs)
        ntokens = sum(log.get("ntokens", 0) for log in logging_outputs)
        if ntokens and any("coverage_loss" in log for log in logging_outputs):
            coverage = sum(log.get("coverage_loss", 0) for log in logging_outputs)
            metrics.log_scalar("coverage_loss", coverage / ntokens, ntokens, round=3)


def attention_weights(extra: Any) -> Tensor:
    """Of what a decoder returns beside its logits the weights, B×T×S; ValueError where there are none to be taught."""
    found: Optional[list] = extra.get("attn") if isinstance(extra, dict) else None
    if not found:
        raise ValueError(
            "--coverage-loss: this model has no attention (--attention-score none); leave it out, or use another "
            "--attention-score"
        )
    if torch.is_grad_enabled() and not found[0].requires_grad:
        raise ValueError(
            "--coverage-loss: the attention weights of this model are fixed (--attention-score last); leave it out, or "
            "use another --attention-score"
        )
    return found[0]


def check_decoder(decoder) -> None:
    """ValueError where the logits are not ``vocabulary(features)``."""
    if getattr(decoder, "sparse_output", None) is not None:
        raise ValueError(
            f"--criterion {NAME}: it takes the logarithm of probabilities, and those of this model's "
            "--output-normalizer can be zero; use --criterion entmax_loss, or --output-normalizer softmax"
        )
    if not isinstance(getattr(decoder, "vocabulary", None), nn.Linear):
        raise ValueError(
            f"--criterion {NAME}: needs a model of this plugin (--arch attn_lstm and others), got one with a "
            f"{type(decoder).__name__}; use --criterion label_smoothed_cross_entropy with it"
        )
