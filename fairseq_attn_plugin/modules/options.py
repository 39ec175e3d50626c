"""Options, each declared once, where it is read: its name, type, default, help and check.

What belongs to the model as a whole is declared in ``models/config.py``. What belongs to one part, such as a score or a
cell, stands in ``options`` of that part's class. The config, its checks, the construction of the parts and the
reference of all options are made from these declarations.
"""

import inspect
import math
import re
from dataclasses import dataclass, field, replace
from keyword import iskeyword
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

Check = Callable[[Any], Optional[str]]
"""A value → what to give instead, None where it is good."""


LEFT_OUT = "leave it out"
PRESET = ", or where a preset gives it, use another --arch"
"""The remedy for an option that has no neutral value: nothing on the command line takes back what a preset gives."""


MOST = 1_000_000
"""Numbers of a vector, positions and the like."""
MOST_COPIES = 1_000
"""Layers and heads, each of which is made by itself."""
LARGEST = 1e30
"""Of real numbers: float32 holds them, and what is made of some of them."""


def at_least_one(value, most: int = MOST) -> Optional[str]:
    if value < 1:
        return "give at least 1"
    return None if value <= most else f"give at most {most:,}"


def copies(value) -> Optional[str]:
    return at_least_one(value, MOST_COPIES)


def odd(value) -> Optional[str]:
    return at_least_one(value) if value > MOST or value >= 1 and value % 2 else "give an odd number"


def at_least_zero(value) -> Optional[str]:
    return None if value >= 0 else "give at least 0"


def finite(value) -> Optional[str]:
    if not math.isfinite(value):
        return "give a finite number"
    return None if abs(value) <= LARGEST else f"give a number between {-LARGEST:g} and {LARGEST:g}"


def dropout_probability(value) -> Optional[str]:
    return None if 0.0 <= value < 1.0 else "give a probability in [0, 1)"


def probability(value) -> Optional[str]:
    return None if 0.0 <= value <= 1.0 else "give a probability in [0, 1]"


def follow(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """A fallback: the value of another option."""
    return lambda values: values[name]


class _Required:
    """Stands for nothing: the option has to be given."""


REQUIRED = _Required()


@dataclass(frozen=True)
class Option:
    """One command line option.

    Args:
        name: of the field; ``attention_dim`` is typed ``--attention-dim``.
        type: int, float, str or bool (a flag without a value).
        default: None = not given.
        help: one line.
        choices: the values there are; None = any of the type.
        check: of a value that is given.
        fallback: what None stands for: a value, a function of the values of all options (:func:`follow`), or
            ``REQUIRED``. Parts that share an option may differ in it, see :meth:`otherwise`.
        neutral: the value that may be given where the option means nothing; None = the default.
        absent: of an option of parts, what a part that does not have it is told after its name; ``{takers}`` stands
            for the names of those that have it.
        required: of an option of parts, why one that has it cannot do without; ``{part}`` stands for the class.
        role: parts have at most one option of one role.
        argument: of an option of parts, the argument of the class that gets the value; empty = none does.
        convert: makes that argument of the value.
    """

    name: str
    type: type
    default: Any
    help: str = field(compare=False)
    choices: Optional[Tuple[str, ...]] = None
    check: Optional[Check] = None
    fallback: Any = field(default=None, compare=False)
    neutral: Any = None
    absent: str = "does not have it; leave it out"
    required: str = ""
    role: str = ""
    argument: str = ""
    convert: Optional[Callable[[Any], Any]] = None

    def otherwise(self, fallback: Any) -> "Option":
        """The same option, where None stands for ``fallback``."""
        return replace(self, fallback=fallback)

    @property
    def flag(self) -> str:
        """As typed."""
        return flag(self.name)

    def says_nothing(self, value: Any) -> bool:
        """Whether ``value`` may be given where the option means nothing."""
        return value is None or value == (self.default if self.neutral is None else self.neutral)

    def value(self, values: Mapping[str, Any]) -> Any:
        """What holds, given the values of all options."""
        given = values[self.name]
        if given is not None:
            return given
        return self.fallback(values) if callable(self.fallback) else self.fallback

    def check_value(self, value: Any) -> None:
        """Raises a ValueError with flag, value and remedy."""
        remedy = None if value is None or self.check is None else self.check(value)
        if remedy is not None:
            raise ValueError(f"{self.flag}: got {value}; {remedy}")


def flag(name: str) -> str:
    """``attention_dim`` → ``--attention-dim``."""
    return "--" + name.replace("_", "-")


_NAME = re.compile("[a-z][a-z0-9_]*")
_declared: Dict[str, Tuple[Option, str]] = {}
"""Every option by name, and who has declared it first."""


def declare(options: Sequence[Option], owner: str) -> None:
    """Notes the options of ``owner``, a text that names it.

    Raises:
        ValueError: one of them is no ``Option``, is incomplete, or has the name of another that means something else.
    """
    if not isinstance(options, (tuple, list)):
        raise ValueError(f"{owner}: its options are {options!r}; give a tuple of Option")
    for option in options:
        if not isinstance(option, Option):
            raise ValueError(f"{owner}: {option!r} among its options is no Option")
        if not _NAME.fullmatch(str(option.name)) or iskeyword(option.name) or not option.help:
            raise ValueError(f"{owner}: option {option.name!r} is incomplete; give a name (a_b for --a-b) and a help")
        if option.type not in (int, float, str, bool):
            raise ValueError(f"{owner}: option {option.name} has type {option.type!r}; give int, float, str or bool")
        if not _is_a_default(option):
            raise ValueError(f"{owner}: option {option.name} has default {option.default!r}, which is no value of it")
        if [other.name for other in options].count(option.name) > 1:
            raise ValueError(f"{owner}: option {option.name} stands there twice; leave one out")
        other, first = _declared.get(option.name, (option, owner))
        if other != option:
            raise ValueError(f"{owner}: option {option.name} means something else than that of {first}; rename it")
        _declared.setdefault(option.name, (option, owner))


def _is_a_default(option: Option) -> bool:
    """None, or what could be given; a flag is off. Choices are texts."""
    if option.choices is not None:
        return option.type is str and option.default in (None, *option.choices)
    types = (int, float) if option.type is float else option.type
    return option.default is None or (isinstance(option.default, types) and option.default is not True)


def check_constructor(cls: type, options: Sequence[Option], owner: str) -> None:
    """Raises a ValueError where ``cls`` has no argument for one of its options."""
    if not options:
        return
    parameters = inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option.argument and option.argument not in parameters:
            raise ValueError(f"{owner}: option {option.name} is for argument {option.argument!r}, which it has not")


def arguments(options: Sequence[Option], values: Mapping[str, Any]) -> Dict[str, Any]:
    """Arguments of a part's class, by name, from the values of all options."""
    found = {}
    for option in options:
        if option.argument:
            value = option.value(values)
            found[option.argument] = value if option.convert is None else option.convert(value)
    return found


def subset(option: str, value: str, sizes: Mapping[str, int]) -> Dict[str, int]:
    """Those of ``sizes`` that ``value``, names between commas, has, in the order of ``sizes``.

    Raises:
        ValueError: it names something else, or something twice.
    """
    names: List[str] = [name.strip() for name in value.split(",")]
    unknown = [name for name in names if name not in sizes]
    if unknown or len(set(names)) < len(names):
        what: Union[str, None] = f"got {unknown[0]!r}" if unknown else f"a name twice in {value!r}"
        raise ValueError(f"{flag(option)}: {what}; give a subset of {','.join(sizes)}")
    return {name: size for name, size in sizes.items() if name in names}
