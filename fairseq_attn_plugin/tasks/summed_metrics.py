"""Metrics that follow from sums over batches and processes.

The sums are floats: checkpoints keep them, and load without any foreign class.
"""

from typing import Callable, Dict, Iterable, List

from fairseq.logging import metrics


def log_sums(logging_outputs: List[dict], names: Iterable[str]) -> Dict[str, float]:
    """Sums what the outputs hold under ``names`` and logs it; what none of them has is left out. A name with ``_``
    before it is not printed."""
    present = [name for name in names if any(name in output for output in logging_outputs)]
    sums = {name: float(sum(output.get(name, 0) for output in logging_outputs)) for name in present}
    for name, value in sums.items():
        metrics.log_scalar_sum(name, value)
    return sums


def log_of_sums(name: str, function: Callable[..., float], *sums: str) -> None:
    """Logs ``function(*sums)``, worked out from the sums so far whenever fairseq prints, with three decimals."""

    def value(meters) -> float:
        return round(float(function(*(float(meters[key].sum) for key in sums))), 3)

    metrics.log_derived(name, value)
