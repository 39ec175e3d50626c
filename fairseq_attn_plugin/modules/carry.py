"""What one step of the decoder hands to the next, as one tree of tensors."""

from dataclasses import dataclass
from typing import Any, Callable, Dict

from torch import Tensor

Tree = Any
"""A tensor, None, or a list, tuple or dictionary of trees."""


def tree_map(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """A tree of the same shape, with ``function`` of every tensor."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {name: tree_map(function, part) for name, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = [tree_map(function, part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if tree is None:
        return None
    raise TypeError(f"{type(tree).__qualname__} in a carry; give tensors, lists, tuples, dictionaries, None")


@dataclass(frozen=True)
class Carry:
    """State of the decoder between two steps.

    Args:
        position: t, the number of target positions that have been read.
        parts: owner → what it hands to itself; nobody else knows what is in it. Every tensor has R rows first, one for
            each sentence or hypothesis.
    """

    position: int
    parts: Dict[str, Tree]

    def select(self, rows: Tensor) -> "Carry":
        """Row i of the result is row ``rows[i]`` (R' int64; rows may repeat or vanish)."""
        return Carry(self.position, tree_map(lambda tensor: tensor.index_select(0, rows), self.parts))
