"""``--report-attention``: entropy, coverage, monotonicity and share on gold positions of the attention in validation.

The weights are those that the decoder returns while the criterion reads the true words, whatever the criterion.
"""

import dataclasses
from contextlib import contextmanager
from dataclasses import field
from typing import Any, Dict, Iterator, List, Optional

from fairseq.tasks import FairseqTask
from torch import Tensor

from ..evaluation import metrics
from .summed_metrics import log_of_sums, log_sums

FLAG = "--report-attention"
SUMS = {each.name: f"_attention_{each.name}" for each in dataclasses.fields(metrics.AttentionSums)}
LOGGED = (
    ("attention_entropy", metrics.attention_entropy, "entropy", "words"),
    ("attention_coverage", metrics.share, "covered", "sources"),
    ("attention_monotonicity", metrics.share, "forward", "steps"),
    ("attention_on_gold", metrics.share, "right", "aligned"),
)
"""Name in the log, and the function of which sums it is."""


def report_attention_field():
    """The option, a field of a task's dataclass."""
    what = "validation logs entropy (nats), coverage, monotonicity and, where alignments are known, the share on the "
    return field(
        default=False, metadata={"help": what + "gold position (percent) of the attention, given the true words"}
    )


def check_attention(model) -> None:
    """ValueError for a model of the plugin without attention: before the training, not after its first epoch."""
    decoder = getattr(model, "decoder", None)
    if decoder is not None and getattr(decoder, "attention", decoder) is None:
        raise ValueError(_NOTHING)


_NOTHING = (
    f"{FLAG}: this model returns no attention (--attention-score none, or a model that keeps its weights to itself); "
    "leave it out, or use another --attention-score"
)


class Watch:
    """What the decoder of a model has returned as attention since :func:`watched` began."""

    def __init__(self) -> None:
        self.weights: Optional[Tensor] = None

    def __call__(self, decoder, inputs, output) -> None:
        found: Any = output[1]
        if isinstance(found, dict):  # of fairseq's lstm it is the weights themselves
            found = found["attn"][0] if found.get("attn") else None
        self.weights = found


@contextmanager
def watched(model, wanted: bool) -> Iterator[Watch]:
    """Yields a :class:`Watch` of the decoder's calls within the block; of none where nothing is ``wanted``."""
    watch = Watch()
    hook = model.decoder.register_forward_hook(watch) if wanted else None
    try:
        yield watch
    finally:
        if hook is not None:
            hook.remove()


def attention_sums(watch: Watch, sample: Dict[str, Any], source_dictionary, target_dictionary) -> Dict[str, float]:
    """The sums of a batch by their names in the logging outputs.

    Raises:
        ValueError: the model returned no attention.
    """
    if watch.weights is None:
        raise ValueError(_NOTHING)
    source = sample["net_input"]["src_tokens"]
    is_source = source.ne(source_dictionary.pad()) & source.ne(source_dictionary.eos())
    is_word = sample["target"].ne(target_dictionary.pad())
    weights, gold = watch.weights.detach().float(), sample.get("alignments")
    sums = metrics.attention_sums(
        weights.cpu().numpy(),
        is_source.cpu().numpy(),
        is_word.cpu().numpy(),
        None if gold is None else gold.cpu().numpy(),
    )
    return {SUMS[name]: float(value) for name, value in dataclasses.asdict(sums).items()}


def log_attention(logging_outputs: List[dict]) -> None:
    """Logs the metrics that the sums of the outputs give; nothing where there are no sums."""
    total = log_sums(logging_outputs, SUMS.values())
    for name, function, part, whole in LOGGED:
        if total.get(SUMS[whole]):
            log_of_sums(name, function, SUMS[part], SUMS[whole])


class ReportsAttention(FairseqTask):
    """To be inherited before a fairseq task whose config has ``report_attention``: validation reports the attention."""

    def build_model(self, cfg, from_checkpoint=False):
        """fairseq's; a ValueError where a report is asked for of a model without attention."""
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.report_attention:
            check_attention(model)
        return model

    def valid_step(self, sample, model, criterion):
        """fairseq's, and the sums behind the report."""
        with watched(model, self.cfg.report_attention) as watch:
            loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if self.cfg.report_attention:
            logging_output.update(attention_sums(watch, sample, self.source_dictionary, self.target_dictionary))
        return loss, sample_size, logging_output

    def reduce_metrics(self, logging_outputs, criterion):
        """fairseq's, and the report."""
        super().reduce_metrics(logging_outputs, criterion)
        log_attention(logging_outputs)
