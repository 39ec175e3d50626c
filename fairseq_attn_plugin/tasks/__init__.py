"""fairseq tasks."""

from . import reversal, reversal_scorer  # noqa: F401
