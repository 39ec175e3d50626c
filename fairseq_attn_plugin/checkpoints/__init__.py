"""Checkpoints as files: reading and writing them, averaging, conversion of fairseq's ``lstm``."""
