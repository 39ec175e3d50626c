"""``--scoring reversal``: sentence and token accuracy of ``fairseq-generate``, overall and by length."""

from dataclasses import dataclass, field

from fairseq.dataclass import FairseqDataclass
from fairseq.scoring import BaseScorer, register_scorer

from ..evaluation import metrics


@dataclass
class ReversalScorerConfig(FairseqDataclass):
    reversal_bucket_width: int = field(
        default=5, metadata={"help": "lengths in one bucket of the report: 5 gives 1-5, 6-10, ..."}
    )


@register_scorer("reversal", dataclass=ReversalScorerConfig)
class ReversalScorer(BaseScorer):
    """Reports, after fairseq's ``Generate test with beam=5:``, one line for all sentences and one for each bucket of
    reference lengths, each of them ``name=value`` pairs: ``length`` (``all`` or ``6-10``), ``sentence_accuracy``,
    ``token_accuracy`` (both in percent), ``sentences``."""

    def __init__(self, cfg: ReversalScorerConfig):
        super().__init__(cfg)
        if cfg.reversal_bucket_width < 1:
            raise ValueError(f"--reversal-bucket-width: got {cfg.reversal_bucket_width}; give 1 or more")

    def _pairs(self):
        return [line.split() for line in self.ref], [line.split() for line in self.pred]

    def score(self) -> float:
        """Sentence accuracy in percent."""
        return metrics.count(*self._pairs()).sentence_accuracy

    def result_string(self) -> str:
        lines = [_line("all", metrics.count(*self._pairs()))]
        references, hypotheses = self._pairs()
        buckets = metrics.count_by_length(references, hypotheses, self.cfg.reversal_bucket_width)
        return "\n".join(lines + [_line(f"{low}-{high}", counts) for (low, high), counts in buckets.items()])


def _line(length: str, counts: metrics.Counts) -> str:
    return (
        f"length={length} sentence_accuracy={counts.sentence_accuracy:.3f} "
        f"token_accuracy={counts.token_accuracy:.3f} sentences={counts.sentences}"
    )
