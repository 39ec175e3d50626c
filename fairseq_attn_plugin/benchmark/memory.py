"""Peak memory of a training step, in a fresh process: what one system leaves behind is no part of the next one's."""

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Dict

import torch

from .checkout import HERE, Checkout, in_a_fork
from .systems import Setting
from .work import training_step
from .workloads import Workload

WARM_UP, STEPS = 2, 2
TINY = Workload(12, 4, 4, sentences=2, source_length=3, target_length=3)


class MemoryMeter:
    """Measures memory, for use in a ``with`` statement. It keeps a process for each checkout, which has all imported
    and computes nothing; every system is measured in a fork of that."""

    def __enter__(self) -> "MemoryMeter":
        self._stack = ExitStack()
        self._processes: Dict[Path, Checkout] = {}
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def peak(self, setting: Setting, threads: int, root: Path = HERE) -> int:
        """Bytes that the training needs at most, parameters and Adam's averages included.

        Raises:
            RuntimeError: the system does not run; in one line, why.
        """
        if root not in self._processes:
            self._processes[root] = self._stack.enter_context(Checkout(root))
        return self._processes[root].call(in_a_fork, _measure, setting, threads)


def _measure(setting: Setting, threads: int) -> int:
    torch.set_num_threads(threads)
    training_step(replace(setting, workload=TINY)).run()  # loads the libraries, which are no part of a step
    return (_peak_of_gpu if setting.device == "cuda" else _peak_of_process)(setting)


def _peak_of_gpu(setting: Setting) -> int:
    before = torch.cuda.memory_allocated()
    work = training_step(setting)
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            torch.cuda.reset_peak_memory_stats()
        work.run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_of_process(setting: Setting) -> int:
    """Peak resident memory of warm steps, less what was resident before the model was built."""
    before = _status("VmRSS")
    work = training_step(setting)
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
        work.run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """A field of this process's status, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.findall(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)[0]) * 1024
