"""Cross-entropy straight from the decoder's features: the logits of some rows at a time, each computed once."""

from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .copying import Mixture

CHUNK_LOGITS = 2**22
"""Logits that exist at a time, 16 MB in float32: with fewer the products are slower, with more hardly faster."""

CHUNK_ROWS = 256
"""At least so many rows are a chunk, however large the vocabulary: every chunk reads and writes W's whole gradient."""

WEIGHT_ROWS = 2048
"""Rows of W whose gradient is computed at a time where it has to change its type before it is added."""


class VocabularyLoss(NamedTuple):
    """Sums over all rows."""

    loss: Tensor
    """Label-smoothed cross-entropy; the only one that has a gradient."""

    nll_loss: Tensor
    """Cross-entropy."""

    correct: Optional[Tensor]
    """Rows whose largest logit is the target's, int64; None where nobody asked."""


def vocabulary_loss(
    features: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    target: Tensor,
    label_smoothing: float = 0.0,
    matmul_dtype: Optional[torch.dtype] = None,
    count_correct: bool = False,
) -> VocabularyLoss:
    """Label-smoothed cross-entropy of the vocabulary projection, summed over N rows::

        z = W r + b,  p = softmax(z),  nll = -log p(y),  smooth = -Σ_v log p(v)
        loss = (1 - ε - ε/(V-1)) nll + ε/(V-1) smooth

    Nothing of the size N×V is kept: as the gradients are known up to a factor, they are computed with the loss, chunk
    by chunk, and the backward pass only multiplies by that factor. Under ``torch.no_grad`` they are left out.

    Args:
        features: r, N×D.
        weight: W, V×D.
        bias: b, V; None = 0.
        target: y, N int64, no padding among them.
        label_smoothing: ε.
        matmul_dtype: type in which z and the gradients of r and W are multiplied; None = autocast's where that is on,
            else that of ``features``. The softmax and all sums are in float32, or float64 for float64 features.
        count_correct: count the rows that are predicted correctly, too.
    """
    device = features.device.type
    if matmul_dtype is None:
        matmul_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
    options = (label_smoothing, matmul_dtype, count_correct, torch.is_grad_enabled())
    with torch.autocast(device, enabled=False):  # every type is chosen here
        return VocabularyLoss(*_ChunkedLoss.apply(features, weight, bias, target, *options))


def mixture_loss(
    project: Callable[[Tensor], Tensor],
    features: Tensor,
    mixture: Mixture,
    target: Tensor,
    label_smoothing: float = 0.0,
    count_correct: bool = False,
) -> VocabularyLoss:
    """The same of a :class:`Mixture`, whose p it is. The logits of a chunk are worked out again in the backward pass.

    Args:
        project: N×D features → N×V logits.
        features: r, N×D.
        mixture: of N rows.
        target: y, N int64, no padding among them.
        label_smoothing: ε.
        count_correct: count the rows that are predicted correctly, too.
    """

    def of_chunk(features: Tensor, target: Tensor, *parts: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        log_probabilities = torch.log_softmax(Mixture(*parts).logits(project(features)), dim=1)
        nll_loss = -log_probabilities.gather(1, target.unsqueeze(1)).sum()
        smooth_share = label_smoothing / (log_probabilities.size(1) - 1)
        loss = (1 - label_smoothing - smooth_share) * nll_loss - smooth_share * log_probabilities.sum()
        return loss, nll_loss.detach(), log_probabilities.detach().argmax(dim=1).eq(target).sum()

    columns = project(features[:1]).size(1) if len(features) else 1
    rows = max(CHUNK_LOGITS // columns, CHUNK_ROWS)
    chunks = zip(*(part.split(rows) for part in (features, target, *mixture)), strict=True)
    sums = [checkpoint(of_chunk, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    loss, nll_loss, correct = (torch.stack(part).sum() for part in zip(*sums, strict=True))
    return VocabularyLoss(loss, nll_loss, correct if count_correct else None)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, bias, target, label_smoothing, matmul_dtype, count_correct, differentiate):
        inputs, sum_dtype = (features, weight, bias), torch.promote_types(features.dtype, torch.float32)
        gradients = [
            torch.zeros_like(tensor, dtype=sum_dtype) if differentiate and needed else None
            for tensor, needed in zip(inputs, ctx.needs_input_grad)
        ]
        smooth_share = label_smoothing / (weight.size(0) - 1)
        nll_share = 1 - label_smoothing - smooth_share
        nll_loss, smooth_loss = features.new_zeros((), dtype=sum_dtype), features.new_zeros((), dtype=sum_dtype)
        correct = target.new_zeros(()) if count_correct else None
        table = weight.to(matmul_dtype)
        for part, read, logits, product in _chunks(features, table, bias, sum_dtype):
            label = target[part].unsqueeze(1)
            if correct is not None:
                correct += logits.max(dim=1, keepdim=True).indices.eq(label).sum()
            logits.sub_(logits.amax(dim=1, keepdim=True))
            label_logit, logit_sum = logits.gather(1, label), logits.sum(dim=1, keepdim=True)
            total = logits.exp_().sum(dim=1, keepdim=True)
            log_total = total.log()
            nll_loss += (log_total - label_logit).sum()
            smooth_loss += (weight.size(0) * log_total - logit_sum).sum()
            if any(gradient is not None for gradient in gradients):
                logits.div_(total).sub_(smooth_share).scatter_add_(1, label, torch.full_like(total, -nll_share))
                _add_gradients(gradients, part, read, table, logits, product)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
        ctx.mark_non_differentiable(nll_loss, *([correct] if count_correct else []))
        return nll_share * nll_loss + smooth_share * smooth_loss, nll_loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx, factor, *_):
        gradients = ctx.saved_tensors
        if factor.device.type != "cpu" or factor != 1:  # a comparison would make a GPU wait
            gradients = [None if gradient is None else gradient * factor for gradient in gradients]
        gradients = [None if gradient is None else gradient.to(t) for gradient, t in zip(gradients, ctx.dtypes)]
        return (*gradients, None, None, None, None, None)


def _chunks(
    features: Tensor, table: Tensor, bias: Optional[Tensor], sum_dtype: torch.dtype
) -> Iterator[Tuple[slice, Tensor, Tensor, Tensor]]:
    """Yields (which rows, these features in the type of ``table``, their logits in ``sum_dtype``, room for the same in
    the type of ``table``); the last two are the same where the types are, and are written over by the next chunk."""
    rows = min(max(CHUNK_LOGITS // table.size(0), CHUNK_ROWS), max(1, features.size(0)))
    logits = table.new_empty(rows, table.size(0), dtype=sum_dtype)
    room = None if table.dtype == sum_dtype else torch.empty_like(logits, dtype=table.dtype)
    for start in range(0, features.size(0), rows):
        part = slice(start, start + rows)
        read = features[part].to(table.dtype)
        chunk = logits[: len(read)]
        product = chunk if room is None else room[: len(read)]
        torch.mm(read, table.t(), out=product)
        if product is not chunk:
            chunk.copy_(product)
        if bias is not None:
            chunk.add_(bias)
        yield part, read, chunk, product


def _add_gradients(
    gradients: List[Optional[Tensor]], part: slice, read: Tensor, table: Tensor, d_logits: Tensor, product: Tensor
) -> None:
    """Adds what one chunk gives to the gradients of features, weight and bias, as far as these are wanted."""
    d_features, d_weight, d_bias = gradients
    if d_bias is not None:
        d_bias.add_(d_logits.sum(dim=0))
    if product is d_logits:
        if d_features is not None:
            torch.mm(product, table, out=d_features[part])
        if d_weight is not None:
            d_weight.addmm_(product.t(), read)
        return
    lift = 1.0
    if product.dtype == torch.float16:  # or small probabilities were zero; features up to 2 leave its range nowhere
        lift = 2.0 ** (15 - (len(read) - 1).bit_length())
        d_logits.mul_(lift)
    product.copy_(d_logits)
    if d_features is not None:
        d_features[part].copy_(torch.mm(product, table)).div_(lift)
    if d_weight is not None:
        for d_rows, columns in zip(d_weight.split(WEIGHT_ROWS), product.split(WEIGHT_ROWS, dim=1)):
            d_rows.add_(torch.mm(columns.t(), read), alpha=1 / lift)
