"""One repeatable piece of work each: a training step, a search, a large matrix product."""

import gc
import time
from dataclasses import dataclass
from typing import Callable, Optional, Tuple

import torch
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.sequence_generator import SequenceGenerator
from omegaconf import OmegaConf
from torch import Tensor, nn

from .floor import count_operations
from .systems import SYSTEMS, Setting, build_loss, build_model, criterion_of, precision
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
        criterion: of a training step, its name.
        operations: of a training step whose matrix products were counted, their number.
    """

    run: Callable[[], object]
    amount: float
    unit: str
    criterion: Optional[str] = None
    operations: Optional[int] = None

    def warm_up(self, seconds: float, clock: Callable[[], float]) -> int:
        """Runs once for what is prepared once, then until so many seconds have passed; how many runs these were."""
        self.run()
        start, count = clock(), 0
        while count == 0 or clock() - start < seconds:
            self.run()
            count += 1
        return count

    def time(self, runs: int, clock: Callable[[], float]) -> float:
        """Seconds of one run, the mean of so many."""
        start = clock()
        for _ in range(runs):
            self.run()
        return (clock() - start) / runs


def synchronized_clock() -> float:
    """Seconds, once a GPU has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def give_back_memory() -> None:
    """What nothing refers to any more, also to the GPU."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def training_pass(setting: Setting) -> Tuple[nn.Module, Callable[[], Tuple[Tensor, int]], int]:
    """A model in training, what gives its loss and the sample size over one batch, and the batch's target tokens."""
    task = SyntheticTask(setting.workload.vocabulary)
    batch = random_batch(setting.workload, task, setting.device, setting.mixed)
    model = build_model(setting, task).train()
    criterion = build_loss(setting, task)

    def loss() -> Tuple[Tensor, int]:
        with precision(setting):
            return criterion(model, batch)[:2]

    return model, loss, batch["ntokens"]


def training_step(setting: Setting) -> Work:
    """One update as fairseq's trainer does it: gradients of the loss per target token, clipped, then Adam."""
    model, loss_of_batch, tokens = training_pass(setting)
    options = OmegaConf.merge(OmegaConf.structured(FairseqAdamConfig), {"lr": [LEARNING_RATE], "tpu": False})
    optimizer = FairseqAdam(options, list(model.parameters()))

    def run() -> Tensor:
        optimizer.zero_grad()
        loss, sample_size = loss_of_batch()
        optimizer.backward(loss)
        optimizer.multiply_grads(1.0 / sample_size)
        optimizer.clip_grad_norm(CLIP_NORM)
        optimizer.step()
        return loss.detach()

    return Work(run, tokens, "target tokens/s", criterion_of(setting))


def counted_training_step(setting: Setting) -> Work:
    """``training_step`` after one of them, whose matrix products were counted."""
    work = training_step(setting)
    work.operations = count_operations(work.run)
    return work


def search(setting: Setting, beam: int) -> Work:
    """Beam search over one batch; every hypothesis has T tokens, so that all systems take the same steps.

    Raises:
        ValueError: the system differs from another one in training only.
    """
    if SYSTEMS[setting.system].searches_like is not None:
        raise ValueError(f"{setting.system} searches exactly as {SYSTEMS[setting.system].searches_like} does")
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
