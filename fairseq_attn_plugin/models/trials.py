"""Trials of the parts that other packages may register: three sentences of two positions, one of them padding."""

from typing import Any, Dict, List, Mapping

import torch
from torch import Tensor

from ..modules.attention.attention import Attention
from ..modules.attention.memory import AttentionMemory
from ..modules.carry import Tree, tree_map
from ..modules.recurrence.cells import RecurrentLayer
from ..modules.recurrence.padding import Padding
from ..modules.trial import Shape, checked, toy, trial
from .bridge import Bridge
from .encoder_fronts import EncoderFront

BATCH, LENGTH = 3, 2


def _mask() -> Tensor:
    mask = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    mask[1, 1] = True
    return mask


def _memory(value_dim: int) -> AttentionMemory:
    values = toy(BATCH, LENGTH, value_dim)
    return AttentionMemory(values, values, _mask())


def try_cell(part: str, layer: RecurrentLayer, input_dim: int) -> None:
    """One step. For ``part``, and for what is raised, see ``checked``."""
    state = (toy(BATCH, layer.hidden_dim),) * layer.state_tensors
    due: Shape = [(BATCH, layer.hidden_dim)] * layer.state_tensors
    with trial():
        checked(
            part, layer, ".forward", lambda cell: cell((toy(BATCH, input_dim),), state, cell.weights()),
            f"gives the state after, {layer.state_tensors} of B×H", due,
        )  # fmt: skip


def try_front(part: str, front: EncoderFront, size: int) -> None:
    """With and without padding."""
    embedded = toy(BATCH, LENGTH, size)
    with trial():
        for inputs in ((embedded, Padding(_mask())), (embedded, None)):
            call = lambda given: given(*inputs)  # noqa: B023, E731
            checked(part, front, ".forward", call, "gives B×S×E", (BATCH, LENGTH, size))


def try_bridge(
    part: str, bridge: Bridge, encoder_layers: int, encoder_dim: int, value_dim: int, state_tensors: int
) -> None:
    """From the state of an encoder of so many layers, M wide, and values."""
    state: List[tuple] = [(toy(BATCH, encoder_dim),) * state_tensors] * encoder_layers
    due: Shape = [[(BATCH, bridge.hidden_dim)] * state_tensors] * bridge.num_layers
    with trial():
        checked(
            part, bridge, ".forward", lambda given: given(state, _memory(value_dim)),
            f"gives {state_tensors} of R×H for each decoder layer", due,
        )  # fmt: skip


def try_attention(parts: Mapping[str, str], attention: Attention, query_dim: int, value_dim: int) -> None:
    """Two steps of all but the score, which :func:`build_score` has tried.

    Args:
        parts: what the user has asked for, as ``--attention-window local_m``, by attribute of the attention.
    """
    memory, query, scores = _memory(value_dim), toy(BATCH, 1, query_dim), toy(BATCH, 1, LENGTH)
    due = (BATCH, 1, LENGTH)
    state: Dict[str, Tree] = {}

    def run(name: str, method: str, call, contract: str, shape: Shape = None) -> Any:
        return checked(parts[name], getattr(attention, name), method, call, contract, shape)

    def ask(name: str, *inputs) -> Tensor:
        if name not in state:
            return run(name, ".forward", lambda part: part(*inputs), "gives B×n×S", due)
        pair: Shape = [due, None]
        call = lambda part: part(*inputs, state[name])  # noqa: E731
        result, state[name] = run(name, ".forward", call, "gives B×n×S and what it remembers", pair)
        return result

    with trial():
        for name in parts:
            if getattr(getattr(attention, name), "remembers", False):
                rows = lambda part: tree_map(lambda tensor: tensor.unsqueeze(1), part.first(memory))  # noqa: E731
                state[name] = run(name, ".first", rows, "gives tensors of B rows")
        for step in range(2):
            if attention.history is not None:
                features: Shape = (*due, attention.history.key_map.in_features)
                read = lambda part: part.features(state["history"], memory)  # noqa: E731
                run("history", ".features", read, "gives B×n×S×F", features)
            if attention.window is not None:
                ask("window", query, torch.tensor([step]), memory)
            weights = scores
            if attention.addressing is None or not attention.addressing.takes_scores:
                weights = ask("normalizer", scores, memory.padding_mask)
            if attention.addressing is not None:
                weights = ask("addressing", weights, query, memory)
            if attention.history is not None:
                after = lambda part: part.update(state["history"], weights, query, memory)  # noqa: B023, E731
                state["history"] = run("history", ".update", after, "gives what is remembered")
