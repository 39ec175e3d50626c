"""A name → class table: the only place where the choices of an option are listed."""

from typing import Any, Callable, Dict, Generic, List, Mapping, Optional, Tuple, Type, TypeVar

from .options import LEFT_OUT, PRESET, REQUIRED, Option, check_constructor, declare

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name for one command line option.

    Args:
        flag: the option that selects from this table, as typed (``"--attention-score"``).
        base: what every class of the table is derived from.
        optional: whether ``none`` is a choice, too.

    Example::

        @ATTENTION_SCORES.register("dot")
        class DotScore(AttentionScore): ...
    """

    def __init__(self, flag: str, base: Type[T], optional: bool = False):
        self.flag = flag
        self.base = base
        self.optional = optional
        self.listeners: List[Callable[[], None]] = []
        """Called after every registration."""
        self._classes: Dict[str, Type[T]] = {}

    def register(self, name: str) -> Callable[[Type[T]], Type[T]]:
        """Decorator that adds a class under ``name``.

        Raises:
            ValueError: a second class of one name, no subclass of ``base``, no name, options that are incomplete or
                clash with others, or an override of what follows from other methods.
        """

        def add(cls: Type[T]) -> Type[T]:
            if not isinstance(name, str) or name in ("", "none"):
                raise ValueError(f"{self.flag}: {name!r} cannot be the name of {cls!r}; give another word")
            if name in self._classes:
                raise ValueError(f"{self.flag}: {name!r} is registered already, by {self._classes[name].__qualname__}")
            if not (isinstance(cls, type) and issubclass(cls, self.base)):
                what = getattr(cls, "__qualname__", repr(cls))
                raise ValueError(f"{self.flag}: {name!r} is {what}, which is no subclass of {self.base.__qualname__}")
            self._check_declarations(name, cls)
            self._classes[name] = cls
            try:
                for listener in self.listeners:
                    listener()
            except ValueError:
                del self._classes[name]
                raise
            return cls

        return add

    def _check_declarations(self, name: str, cls: Type[T]) -> None:
        owner = f"{self.flag} {name}: {cls.__qualname__}"
        options = getattr(cls, "options", ())
        declare(options, owner)
        check_constructor(cls, options, owner)
        roles = [option.role for option in options if option.role]
        if len(set(roles)) < len(roles):
            raise ValueError(f"{owner}: {len(options)} options, of which two are of one role; give one of each")
        for method in getattr(cls, "final", ()):
            ours = [c for c in self.base.__subclasses__() if c.__module__ == self.base.__module__]
            if not any(getattr(cls, method) is getattr(other, method) for other in (self.base, *ours)):
                raise ValueError(f"{owner}.{method} follows from other methods; override forward instead")

    def names(self) -> List[str]:
        """Registered names, sorted."""
        return sorted(self._classes)

    def choices(self) -> str:
        """All that may be given, between commas."""
        return ", ".join(["none"] * self.optional + self.names())

    def __getitem__(self, name: str) -> Type[T]:
        return self.named(name, self.flag, self.choices())

    def named(self, name: str, flag: str, choices: str = "") -> Type[T]:
        """The class that another option, ``flag``, asks for; ValueError where there is none."""
        if name not in self._classes:
            raise ValueError(f"{flag}: got {name!r}; choose from {choices or ', '.join(self.names())}")
        return self._classes[name]

    def get(self, name: str) -> Optional[Type[T]]:
        """None for ``none``, where that is a choice; ValueError for a name that is no choice."""
        return None if self.optional and name == "none" else self[name]

    def options(self) -> Tuple[Option, ...]:
        """Options of all classes, each once."""
        every = [option for cls in self._classes.values() for option in getattr(cls, "options", ())]
        return tuple({option.name: option for option in every}.values())

    def takers(self, option: Option) -> List[str]:
        """Names of the classes that have an option."""
        return [name for name in self.names() if option in getattr(self._classes[name], "options", ())]

    def owner(self, option: Option) -> str:
        """The first class that has an option, as messages name it."""
        name = self.takers(option)[0]
        return f"{self.flag} {name}: {self._classes[name].__qualname__}"

    def check_options(self, name: str, values: Mapping[str, Any]) -> None:
        """Whether all options that are given mean something to the class of ``name``, and none is missing.

        Raises:
            ValueError: one is not as the class has it; flag, value and remedy.
        """
        cls = self.get(name)
        own = getattr(cls, "options", ())
        for option in self.options():
            value = values[option.name]
            if option in own or option.says_nothing(value):
                continue
            other = next((o for o in own if option.role and o.role == option.role), None)
            why = option.absent.format(takers=", ".join(self.takers(option)))
            why = why if other is None else f"takes {other.flag}; {LEFT_OUT}"
            raise ValueError(
                f"{option.flag} {value}: {self.flag} {name} {why}{PRESET if why.endswith(LEFT_OUT) else ''}"
            )
        for option in own:
            if option.value(values) is REQUIRED:
                raise ValueError(f"{self.flag} {name} needs {option.flag}: {option.required.format(part=cls)}")
