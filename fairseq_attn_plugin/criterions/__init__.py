"""Criterions, registered with fairseq on import."""

from . import chunked_cross_entropy, entmax_loss  # noqa: F401
