"""Peak memory of a training step, in a fresh process: what one system leaves behind is no part of the next one's."""

import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Union

import torch

from .rounds import reason_of
from .systems import Setting
from .work import training_step
from .workloads import Workload

WARM_UP, STEPS = 2, 2
TINY = Workload(12, 4, 4, sentences=2, source_length=3, target_length=3)


def peak_memory(setting: Setting, threads: int) -> int:
    """Bytes that the training needs at most, parameters and Adam's averages included, measured in a fresh process.

    Raises:
        RuntimeError: the system does not run; in one line, why.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])  # what is imported once need not be imported by each
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        peak = pool.submit(_measure, setting, threads).result()
    if isinstance(peak, str):
        raise RuntimeError(peak)
    return peak


def _measure(setting: Setting, threads: int) -> Union[int, str]:
    """The peak, or why there is none: not every error can travel from one process to another."""
    try:
        torch.set_num_threads(threads)
        training_step(replace(setting, workload=TINY)).run()  # loads the libraries, which are no part of a step
        return (_peak_of_gpu if setting.device == "cuda" else _peak_of_process)(setting)
    except Exception as error:
        return reason_of(error)


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
