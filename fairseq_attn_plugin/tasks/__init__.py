"""fairseq tasks."""

from . import attn_translation, reversal, reversal_scorer  # noqa: F401
