"""What is changed in fairseq itself, where it has no hook: reading checkpoints, making tasks, how commands end.

- Every command reads checkpoints by ``checkpoint_utils.load_checkpoint_to_cpu``, in ``fairseq-validate`` and
  ``from_pretrained`` before any task or model is asked. It compares no checksums, reads whatever file it is given and
  drops options that it does not know: :func:`check_checkpoint` runs first.
- A task of fairseq's own reads data folders and checkpoints of a task of this package without a word, whatever the
  model: :func:`check_folder` runs before a task is made, :func:`check_state` when it has read a checkpoint.
- Errors of fairseq's commands are stack traces: what is written for the user ends a command as one line, by
  :func:`say_in_one_line`.
- Its beam search does not end where probabilities are zero: ``models/sparse_search.py``.
"""

import functools
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, Optional, Type

import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.file_io import PathManager
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY, FairseqTask

from .checkpoints.files import NUMPY_GLOBALS, load_checkpoint
from .data.data_folder import DATA_FILE, check_described, what_is_said
from .models import sparse_search
from .modules.options import flag

HERE, FAIRSEQ = Path(__file__).parent, Path(checkpoint_utils.__file__).parent


def install() -> None:
    """Once a process."""
    if not hasattr(checkpoint_utils.load_checkpoint_to_cpu, "__wrapped__"):
        checkpoint_utils.load_checkpoint_to_cpu = _checked(checkpoint_utils.load_checkpoint_to_cpu)
        tasks.setup_task = _with_its_folder(tasks.setup_task)
        FairseqTask.load_state_dict = _with_its_state(FairseqTask.load_state_dict)
        options.parse_args_and_arch = _with_a_task(options.parse_args_and_arch)
        sys.excepthook = functools.partial(say_in_one_line, sys.excepthook)
        sparse_search.install()


# Checkpoints


def _checked(load):
    @functools.wraps(load)
    def load_checkpoint_to_cpu(path, *args, **kwargs):
        check_checkpoint(PathManager.get_local_path(str(path)))
        with torch.serialization.safe_globals(NUMPY_GLOBALS):
            return load(path, *args, **kwargs)

    return load_checkpoint_to_cpu


def check_checkpoint(path: str) -> None:
    """ValueError, one line, where a checkpoint is not what was written, or more than this version knows."""
    check_described(path)
    state = load_checkpoint(path)
    sections = state.get("cfg") or {}
    if not state.get("args") and isinstance(sections, dict):  # our models and tasks have never written the former
        check_architecture(path, sections.get("model"))
        check_known(path, sections.get("model"), _config_of_model)
        check_known(path, sections.get("task"), _config_of_task)
        _check_state_of_task(path, sections.get("task"), state.get("task_state") or {})


def check_architecture(path: str, section: Any) -> None:
    """ValueError where a checkpoint's model is none that is known here."""
    name = section.get("_name") if isinstance(section, dict) else None
    if name is not None and name not in ARCH_MODEL_NAME_REGISTRY and name not in MODEL_REGISTRY:
        raise ValueError(f"{path}: made with --arch {name}, which is not known here; give the --user-dir that it was "
                         "trained with")  # fmt: skip


def _config_of_model(name: str) -> Any:
    """The dataclass of an ``--arch`` of the package."""
    name = ARCH_MODEL_NAME_REGISTRY.get(name, name)
    return MODEL_DATACLASS_REGISTRY[name] if _is_ours(MODEL_REGISTRY.get(name)) else None


def _config_of_task(name: str) -> Any:
    """The dataclass of a ``--task`` of the package."""
    return TASK_DATACLASS_REGISTRY[name] if _is_ours(TASK_REGISTRY.get(name)) else None


def _is_ours(cls: Optional[type]) -> bool:
    return cls is not None and cls.__module__.split(".")[0] == __package__


def check_known(path: str, section: Any, config_of: Callable[[Any], Any]) -> None:
    """ValueError where a section of a checkpoint's options has one that says something and that no class here has."""
    config = config_of(section.get("_name")) if isinstance(section, dict) else None
    if config is None:
        return
    for name in section:
        if name not in ("_name", *config.__dataclass_fields__) and section[name] not in (None, False):
            given = f"{flag(name)} {section[name]}"
            raise ValueError(
                f"{path}: made with {given}, which this version does not know; give the --user-dir that it was trained "
                "with, or use the version that made it"
            )


def _check_state_of_task(path: str, section: Any, saved: Dict[str, Any]) -> None:
    task = TASK_REGISTRY.get(section.get("_name")) if isinstance(section, dict) else None
    name = getattr(task, "saved_as", None)
    if name is not None and name not in saved:
        raise ValueError(f"{path}: lacks the state of its task, {section['_name']}: it is damaged; use another")


# Tasks


def _with_its_folder(setup):
    @functools.wraps(setup)
    def setup_task(cfg, *args, **kwargs):
        check_folder(cfg)
        return setup(cfg, *args, **kwargs)

    return setup_task


def _with_its_state(load):
    @functools.wraps(load)
    def load_state_dict(task, state):
        load(task, state)
        check_state(task, state)

    return load_state_dict


def _with_a_task(parse):
    @functools.wraps(parse)
    def parse_args_and_arch(*args, **kwargs):
        try:
            return parse(*args, **kwargs)
        except KeyError as error:  # fairseq-validate has no default
            if error.args != (None,):
                raise
        raise ValueError("--task: not given; give that of the training, as --task attn_translation")

    return parse_args_and_arch


def check_folder(cfg: Any) -> None:
    """ValueError where fairseq's own translation would read a data folder of ``attn_translation``: it would take pieces
    for words, and raw text for unknown ones."""
    name = getattr(cfg, "task", None) or getattr(cfg, "_name", None)
    folder = str(getattr(cfg, "data", "")).partition(os.pathsep)[0]
    if name == "translation" and "segmentation" in what_is_said(folder):
        raise ValueError(
            f"--task translation: {Path(folder, DATA_FILE)} says how the text of the folder is segmented, and "
            "fairseq's own task does not read it; give --task attn_translation"
        )


def check_state(task: Any, state: Any) -> None:
    """ValueError where a task of fairseq's own reads the checkpoint of a task of this package."""
    if _is_ours(type(task)):
        return
    name = getattr(task.cfg, "_name", None) or "translation"
    for key, mark, ours in (("translation", "segmentation", "attn_translation"), ("reversal", "symbols", "reversal")):
        if mark in ((state or {}).get(key) or ()):
            raise ValueError(f"--task {name}: the checkpoint is of --task {ours}; give --task {ours}")


# Errors


def say_in_one_line(before, kind: Type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
    """To be ``sys.excepthook``: an error for the user of a command of fairseq is one line on stderr, any other as
    ``before``; with ``LOGLEVEL=DEBUG`` all are."""
    program = Path(sys.argv[0] if sys.argv else "")
    command = program.name.startswith("fairseq-") or program.parent.name == "fairseq_cli"
    message = message_for_user(error) if command and os.environ.get("LOGLEVEL", "").upper() != "DEBUG" else None
    if message is None:
        before(kind, error, trace)
    else:
        sys.stdout.flush()
        print(f"{program.name}: error: {message}", file=sys.stderr)


def message_for_user(error: BaseException) -> Optional[str]:
    """One line of an error that this package, or what reads fairseq's checkpoints, has raised, or that came before it;
    None of what nobody has foreseen."""
    for each in _chain(error):
        if isinstance(each, OSError) and each.filename is not None:
            return f"{each.filename}: {each.strerror}"
        if isinstance(each, (OSError, ValueError)) and _raised_for_user(each):
            return " ".join(str(each).split())
    return None


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _raised_for_user(error: BaseException) -> bool:
    """Whether the innermost of an error's frames is of this package, or of fairseq's reading of checkpoints."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = Path(trace.tb_frame.f_code.co_filename) if trace is not None else Path()
    return HERE in place.parents or place == FAIRSEQ / "checkpoint_utils.py"
