"""Whether command lines can be, before any of them runs: by fairseq's own parser, and the checks of task and model."""

import argparse
import re
from typing import Any, Dict, List, NoReturn, Sequence, Tuple

from fairseq import options
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_REGISTRY

from ..data.data_folder import tag
from .experiment import nearest, options_of, value_of


class Checker:
    """Parsers of fairseq's commands; each is made once for a task, an architecture, an optimiser and so on."""

    def __init__(self) -> None:
        self._parsers: Dict[Tuple, argparse.ArgumentParser] = {}

    def train(self, words: List[str], splits: Sequence[str] = ()) -> argparse.Namespace:
        """Options of ``fairseq-train``, without the path of the plugin, and splits of a task that needs no data.

        Raises:
            ValueError: an option that there is not, a value or a combination that cannot be.
        """
        args = self._parse("train", words)
        task = None
        if hasattr(TASK_REGISTRY[args.task], "problem"):  # it draws its data
            task = TASK_REGISTRY[args.task].setup_task(args)
            problem = task.problem()
            for split in splits:
                problem.split(split)
        check_model(args, task)
        return args

    def generate(self, words: List[str]) -> argparse.Namespace:
        """Options of ``fairseq-generate``; ValueError as in ``train``."""
        return self._parse("generate", words)

    def is_switch(self, option: str, words: List[str]) -> bool:
        """Whether an option of ``fairseq-train`` takes no value, where the others are ``words``."""
        action = self._parser("train", words)._option_string_actions.get(option)
        return action is not None and action.nargs == 0

    def _parse(self, command: str, words: List[str]) -> argparse.Namespace:
        parser = self._parser(command, words)
        _check_values(parser, words)
        args = parser.parse_args(words)
        if hasattr(args, "arch") and args.arch in ARCH_CONFIG_REGISTRY:
            ARCH_CONFIG_REGISTRY[args.arch](args)
        return args

    def _parser(self, command: str, words: List[str]) -> argparse.ArgumentParser:
        choosers = ["--user-dir", "--task", "--arch", *(f"--{name.replace('_', '-')}" for name in REGISTRIES)]
        key = (command, *(value_of(option, words) for option in choosers))
        if key not in self._parsers:
            parser = options.get_training_parser() if command == "train" else options.get_generation_parser()
            chosen = [value_of("", words) or ""] if words and not words[0].startswith("--") else []  # a data folder
            chosen += [word for option in choosers for word in _given(option, words)]
            parser.error = _raise_from(parser)
            options.parse_args_and_arch(parser, chosen, parse_known=True)
            self._parsers[key] = parser
        return self._parsers[key]


def _given(option: str, words: List[str]) -> List[str]:
    value = value_of(option, words)
    return [] if value is None else [option, value]


def check_model(args: argparse.Namespace, task: Any = None) -> None:
    """The options of a model of this package; others are left to fairseq.

    Args:
        args: of ``fairseq-train``.
        task: for its dictionaries; None: one for both sides, with a tag of a language.
    """
    model = ARCH_MODEL_REGISTRY.get(args.arch) or MODEL_REGISTRY.get(args.arch)
    if not hasattr(model, "checked_options"):
        return
    both = Dictionary()
    both.add_symbol(tag("en"))
    source, target = (both, both) if task is None else (task.source_dictionary, task.target_dictionary)
    model.checked_options({name: value for name, value in vars(args).items() if _is_plain(value)}, source, target)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _check_values(parser: argparse.ArgumentParser, words: List[str]) -> None:
    """fairseq evaluates some values as Python: what is none of it is an error of many kinds."""
    for option, value in options_of(words):
        action = parser._option_string_actions.get(option)
        if action is not None and callable(action.type) and action.nargs in (None, "?") and value:
            try:
                action.type(value)
            except Exception:
                raise ValueError(f"{option}: got {value!r}; it does not take this") from None


def _raise_from(parser: argparse.ArgumentParser):
    """In place of the parser's own ``error``, which ends the program."""

    def error(message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        choice = re.match(r"argument (--[\w-]+)[^:]*: invalid choice: (\S+)", message)
        if unknown:
            there = [option for option in parser._option_string_actions if option.startswith("--")]
            near = nearest(unknown[1], there).partition("; choose from")[0]
            raise ValueError(f"{unknown[1]}: no option of these commands{near or '; see docs/options.md'}")
        if choice:
            there = [str(each) for each in parser._option_string_actions[choice[1]].choices or ()]
            raise ValueError(f"{choice[1]}: got {choice[2]}{nearest(choice[2].strip(chr(39)), there)}")
        raise ValueError(re.sub(r"^argument (--[\w-]+)[^:]*:", r"\1:", message))

    return error
