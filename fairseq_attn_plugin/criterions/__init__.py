"""Criterions, registered with fairseq on import."""

from . import chunked_cross_entropy  # noqa: F401
