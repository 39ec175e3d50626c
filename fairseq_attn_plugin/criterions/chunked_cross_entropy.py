"""Criterion ``chunked_cross_entropy``: fairseq's losses without a tensor of the size B×T×V."""

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from torch import Tensor, nn

from ..modules.vocabulary_loss import VocabularyLoss, vocabulary_loss

NAME = "chunked_cross_entropy"


@register_criterion(NAME, dataclass=LabelSmoothedCrossEntropyCriterionConfig)
class ChunkedCrossEntropyCriterion(LabelSmoothedCrossEntropyCriterion):
    """``label_smoothed_cross_entropy`` straight from the decoder's features: the same loss, gradients and logs, in less
    time and memory (see :func:`vocabulary_loss`). For models whose decoder takes ``features_only`` and has a linear
    layer ``vocabulary``, as ``attn_rnn`` has; its ``matmul_dtype``, where there is one, is that of the products here.

    Raises:
        ValueError: the label smoothing is no share, or the model is of another kind.
    """

    def __init__(self, task, sentence_avg, label_smoothing, ignore_prefix_size=0, report_accuracy=False):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"--label-smoothing: got {label_smoothing}; give 0 or more, and less than 1")
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)

    def forward(self, model, sample, reduce=True):
        """Loss summed over the batch, sample size and logging outputs; ``reduce=False`` is fairseq's own, per word."""
        check_decoder(getattr(model, "decoder", None))
        if not reduce:
            return super().forward(model, sample, reduce=False)
        target = model.get_targets(sample, None)

        def loss_of_output(decoder, inputs, output) -> VocabularyLoss:
            return self._loss(decoder, output[0], target, sample["ntokens"])

        # within the model's own call: distributed training takes a weight that is used later for one that is not
        hook = model.decoder.register_forward_hook(loss_of_output)
        try:
            loss, nll_loss, correct = model(**sample["net_input"], features_only=True)
        finally:
            hook.remove()
        sample_size = target.size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": loss.data,
            "nll_loss": nll_loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": target.size(0),
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            logging_output["n_correct"] = utils.item(correct)
            logging_output["total"] = utils.item(target[:, self.ignore_prefix_size :].ne(self.padding_idx).sum())
        return loss, sample_size, logging_output

    def _loss(self, decoder, features: Tensor, target: Tensor, ntokens: int) -> VocabularyLoss:
        """B×T×D features and B×T targets, of which ``ntokens`` are words → the sums over all targets that count."""
        rows = features[:, self.ignore_prefix_size :].flatten(0, 1)
        words = target[:, self.ignore_prefix_size :].flatten()
        is_word = words.ne(self.padding_idx)
        count = int(is_word.sum()) if self.ignore_prefix_size else ntokens  # a GPU is waited for with a prefix only
        if count < len(words):
            first = torch.argsort(is_word, stable=True, descending=True)[:count]
            rows, words = rows.index_select(0, first), words.index_select(0, first)
        return vocabulary_loss(
            rows,
            decoder.vocabulary.weight,
            decoder.vocabulary.bias,
            words,
            label_smoothing=self.eps,
            matmul_dtype=getattr(decoder, "matmul_dtype", None),
            count_correct=self.report_accuracy,
        )


def check_decoder(decoder) -> None:
    """ValueError where the logits are not ``vocabulary(features)``."""
    if not isinstance(getattr(decoder, "vocabulary", None), nn.Linear):
        raise ValueError(
            f"--criterion {NAME}: needs a model of this plugin (--arch attn_lstm and others), got one with a "
            f"{type(decoder).__name__}; use --criterion label_smoothed_cross_entropy with it"
        )
