"""Models: importing this registers ``attn_rnn`` and its presets."""

from . import attn_rnn  # noqa: F401
