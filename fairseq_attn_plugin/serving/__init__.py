"""Serving of trained models: importing this gives ``AttnRNNModel.from_pretrained`` its loader."""

from . import translator  # noqa: F401
