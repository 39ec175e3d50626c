"""A name → class table: the only place where the choices of an option are listed."""

from typing import Callable, Dict, Generic, List, Type, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name for one command line option.

    Args:
        flag: the option that selects from this table, as typed (``"--attention-score"``).
        base: what every class of the table is derived from.

    Example::

        @ATTENTION_SCORES.register("dot")
        class DotScore(AttentionScore): ...
    """

    def __init__(self, flag: str, base: Type[T] = object):
        self.flag = flag
        self.base = base
        self._classes: Dict[str, Type[T]] = {}

    def register(self, name: str) -> Callable[[Type[T]], Type[T]]:
        """Decorator that adds a class under ``name``.

        Raises:
            ValueError: a second class of one name, no subclass of ``base``, or no name.
        """

        def add(cls: Type[T]) -> Type[T]:
            if not isinstance(name, str) or name in ("", "none"):
                raise ValueError(f"{self.flag}: {name!r} cannot be the name of {cls!r}; give another word")
            if name in self._classes:
                raise ValueError(f"{self.flag}: {name!r} is registered already, by {self._classes[name].__qualname__}")
            if not (isinstance(cls, type) and issubclass(cls, self.base)):
                what = getattr(cls, "__qualname__", repr(cls))
                raise ValueError(f"{self.flag}: {name!r} is {what}, which is no subclass of {self.base.__qualname__}")
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> List[str]:
        """Registered names, sorted."""
        return sorted(self._classes)

    def __getitem__(self, name: str) -> Type[T]:
        if name not in self._classes:
            raise ValueError(f"{self.flag}: got {name!r}; choose from {', '.join(self.names())}")
        return self._classes[name]
