"""``python -m fairseq_attn_plugin`` prints the ``--user-dir`` path; with ``options``, every option the plugin adds."""

import argparse
import dataclasses
import os
import sys
from typing import Any, Dict, Iterator, List, Set, Tuple

from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import ARCH_MODEL_INV_REGISTRY, MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

USAGE = "usage: python -m fairseq_attn_plugin [options]"
INTRODUCTION = """# Options

For a reader who looks an option up: every option that the plugin adds to fairseq's commands. Options that fairseq's
`lstm` has too keep their name and meaning. An option or a pair of options that makes no sense is an error with flag,
value and remedy. What the mechanisms compute is in [mechanisms](mechanisms.md).

`python -m fairseq_attn_plugin options` prints this page."""


def is_ours(cls: type) -> bool:
    """Whether a class is defined in this package."""
    return cls.__module__.split(".")[0] == __package__


def plugin_configs() -> Iterator[Tuple[str, str, type]]:
    """Yields (flag and name that select it, dataclass) for all that this package has registered with fairseq."""
    tables = [("arch", MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY), ("task", TASK_REGISTRY, TASK_DATACLASS_REGISTRY)]
    tables += [(name, kind["registry"], kind["dataclass_registry"]) for name, kind in REGISTRIES.items()]
    for flag, classes, configs in tables:
        for name, cls in sorted(classes.items()):
            if is_ours(cls) and configs.get(name):
                yield f"--{flag.replace('_', '-')}", name, configs[name]


def own_fields(config: type) -> Set[str]:
    """Names of the fields that this package's classes declare; a base class of fairseq's keeps its own. All, where the
    config itself is fairseq's."""
    if not is_ours(config):
        return {field.name for field in dataclasses.fields(config)}
    return {name for cls in config.__mro__ if is_ours(cls) for name in vars(cls).get("__annotations__", {})}


def options(config: type) -> List[argparse.Action]:
    """Options of one dataclass as fairseq's own parser makes them; a field that another config supplies makes none."""
    if not issubclass(config, FairseqDataclass):
        raise TypeError(f"{config.__qualname__}: register a FairseqDataclass")
    parser = argparse.ArgumentParser(add_help=False)
    gen_parser_from_dataclass(parser, config())
    own = own_fields(config)
    return [action for action in parser._actions if action.dest in own]


def describe_value(action: argparse.Action) -> str:
    """What the option takes: ``flag`` for one without a value, its choices, or its type."""
    if action.nargs == 0:
        return "flag"
    if action.choices:
        return ", ".join(f"`{choice}`" for choice in action.choices)
    names: Dict[Any, str] = {int: "int", float: "float", str: "string", bool: "bool"}
    return names.get(action.type, "list, as `[1, 2]`")


def describe_default(action: argparse.Action) -> str:
    """The default in code marks; nothing for a flag and for an option without one."""
    if action.nargs == 0 or action.default is None:
        return ""
    return f"`{action.default}`" if action.default != "" else '`""`'


def table(config: type) -> Iterator[str]:
    """Yields the lines of one Markdown table."""
    yield "| option | value | default | meaning |"
    yield "|---|---|---|---|"
    for action in options(config):
        flags = ", ".join(f"`{flag}`" for flag in action.option_strings or [action.dest])
        cells = (flags, describe_value(action), describe_default(action), " ".join((action.help or "").split()))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def reference() -> Iterator[str]:
    """Yields the lines of ``docs/options.md``, a Markdown table for each model, task and the like."""
    yield INTRODUCTION
    for flag, name, config in plugin_configs():
        presets = sorted(set(ARCH_MODEL_INV_REGISTRY.get(name, [])) - {name}) if flag == "--arch" else []
        yield f"\n## `{flag} {name}`\n"
        if presets:
            yield f"And its presets `{'`, `'.join(presets)}`.\n"
        yield from table(config)


def main(arguments: List[str]) -> int:
    """Runs one of the two commands; returns the exit status."""
    if not arguments:
        print(os.path.dirname(os.path.abspath(__file__)))
    elif arguments == ["options"]:
        print("\n".join(reference()))
    elif arguments in (["-h"], ["--help"]):
        print(f"{USAGE}\n{__doc__}")
    else:
        print(f"got {' '.join(arguments)!r}; {USAGE}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
