"""One repeatable piece of work each: a training step, a search, a large matrix product."""

from dataclasses import dataclass
from typing import Callable

import torch
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.sequence_generator import SequenceGenerator
from omegaconf import OmegaConf

from .systems import Setting, build_loss, build_model, precision
from .workloads import SyntheticTask, random_batch

CLIP_NORM = 1.0
LEARNING_RATE = 0.001
PRODUCTS = {"cpu": (1024, 512, 8192), "cuda": (8192, 8192, 8192)}
"""Rows, inner size and columns of the product that the matrix-product rate is measured with."""


@dataclass
class Work:
    """Args:
        run: does it once.
        amount: what one run gets done, in ``unit``.
    """

    run: Callable[[], object]
    amount: float
    unit: str


def training_step(setting: Setting) -> Work:
    """One update as fairseq's trainer does it: gradients of the loss per target token, clipped, then Adam."""
    task = SyntheticTask(setting.workload.vocabulary)
    batch = random_batch(setting.workload, task, setting.device, setting.mixed)
    model = build_model(setting, task).train()
    criterion = build_loss(setting, task)
    options = OmegaConf.merge(OmegaConf.structured(FairseqAdamConfig), {"lr": [LEARNING_RATE], "tpu": False})
    optimizer = FairseqAdam(options, list(model.parameters()))

    def run() -> torch.Tensor:
        optimizer.zero_grad()
        with precision(setting):
            loss, sample_size, _ = criterion(model, batch)
        optimizer.backward(loss)
        optimizer.multiply_grads(1.0 / sample_size)
        optimizer.clip_grad_norm(CLIP_NORM)
        optimizer.step()
        return loss.detach()

    return Work(run, batch["ntokens"], "target tokens/s")


def search(setting: Setting, beam: int) -> Work:
    """Beam search over one batch; every hypothesis has T tokens, so that all systems take the same steps."""
    task = SyntheticTask(setting.workload.vocabulary)
    batch = random_batch(setting.workload, task, setting.device, setting.mixed)
    model = build_model(setting, task).eval()
    model.prepare_for_inference_(OmegaConf.create({"generation": {"beam": beam, "print_alignment": None}}))
    words = setting.workload.target_length - 1  # `</s>` is not counted
    generator = SequenceGenerator(
        [model], task.target_dictionary, beam_size=beam, max_len_a=0, max_len_b=words, min_len=words
    )

    def run() -> list:
        with precision(setting):
            return generator.generate([model], batch)

    return Work(run, setting.workload.sentences, "sentences/s")


def product(device: str, dtype: str) -> Work:
    """A large matrix product: how fast this machine multiplies at best."""
    rows, inner, columns = PRODUCTS[device]
    left, right = (
        torch.randn(size, dtype=getattr(torch, dtype), device=device) for size in ((rows, inner), (columns, inner))
    )
    return Work(lambda: left @ right.t(), 2.0 * rows * inner * columns, "operations/s")
