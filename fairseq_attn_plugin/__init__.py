"""Recurrent attention models for fairseq, loaded with ``--user-dir``: importing the package registers them."""

import argparse

import torch

from . import criterions, fairseq_hooks, models, processes, serving, tasks  # noqa: F401

# fairseq's own legacy models (`lstm`) pickle their options; our own checkpoints hold no class at all.
torch.serialization.add_safe_globals([argparse.Namespace])
fairseq_hooks.install()
processes.install()
