"""One step of the decoder, written once: teacher forcing, scheduled sampling and search all drive it."""

from typing import List, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from ..modules.attention.attention import Attention
from ..modules.attention.heads import MultiHeadAttention
from ..modules.attention.memory import AttentionMemory
from ..modules.attention.past import OwnPast
from ..modules.carry import Carry, Tree
from ..modules.combination import Combination
from ..modules.copying import CopyGate
from ..modules.recurrence.cells import LayerState
from ..modules.recurrence.stack import RecurrentStack


class StepOutput(NamedTuple):
    """What a step leaves behind."""

    state: Tensor
    """s(t), R×H, output of the top layer."""

    context: Optional[Tensor]
    """c(t), R×M, and that of the decoder's past beside it; None without attention."""

    weights: Optional[Tensor]
    """a(t), R×1×S; None without attention."""

    readout: Optional[Tensor]
    """r(t), R×R'; None where it is left for all steps at once."""

    gate: Optional[Tensor] = None
    """The logit of g(t), R×1; None where nothing is copied, or where it is left for all steps at once."""


class DecoderStep:
    """query → attention → cell → readout, or cell → query → attention → readout.

    Equations, with y the embedded word, s the output of the top layer, f(t) = r(t) and f(0) = c(0) = 0::

        previous:  q(t) = query(s(t-1), y(t-1), c(t-1)),  c(t) = attention(q(t)),  s(t) = cell([y(t-1); c(t); f(t-1)])
        current:   s(t) = cell([y(t-1); f(t-1)]),  q(t) = query(s(t), y(t-1), c(t-1)),  c(t) = attention(q(t))
        r(t) = readout(s(t), y(t-1), c(t))

    The query may read the language that is wanted, too, the same at every step. s(t-1) in the query is the state that
    the cell keeps, before residual connection and layer norm. Where the decoder attends to its own past, c(t) is
    [c(t); c'(t)], c'(t) = past(q(t), s(1), ..., s(t-1)).

    Args:
        cell_input: context (where the query is the previous state) and feed (with input feeding), side by side, which
            follow the word in the first layer's input; or a map of the word and these to that input.
        recurrence: one-directional layers.
        query: state, word, context and language → q(t).
        attention: None = no attention.
        readout: state, word and context → r(t).
        dropout_out: on the readout.
        query_is_previous: True: q(t) from s(t-1), the context enters the cell (Bahdanau et al., 2015);
            False: q(t) from s(t) (Luong et al., 2015), or no attention.
        input_feeding: r(t-1) enters the cell.
        past: attention to s(1), ..., s(t-1); None = no such attention.
        copy_gate: state, word and context → the logit of g(t), the probability to generate and not to copy; None =
            nothing is copied.
    """

    def __init__(
        self,
        cell_input: Combination,
        recurrence: RecurrentStack,
        query: Combination,
        attention: Union[Attention, MultiHeadAttention, None],
        readout: Combination,
        dropout_out: nn.Module,
        query_is_previous: bool,
        input_feeding: bool,
        past: Optional[OwnPast] = None,
        copy_gate: Optional[CopyGate] = None,
    ):
        self.cell_input = cell_input
        self.recurrence = recurrence
        self.query = query
        self.attention = attention
        self.readout = readout
        self.dropout_out = dropout_out
        self.query_is_previous = query_is_previous
        self.input_feeding = input_feeding
        self.past = past
        self.copy_gate = copy_gate

    @property
    def keeps_context(self) -> bool:
        """Whether c(t-1) is read."""
        return "context" in self.query.inputs

    @property
    def feeds_back(self) -> bool:
        """Whether a step reads more of those before than the cell's own state, and than an addressing goes through by
        itself: then a target is a loop of steps."""
        remembers = self.past is not None or (self.attention is not None and not self.attention.takes_all_steps)
        return self.input_feeding or self.query_is_previous or self.keeps_context or remembers

    def first(self, layers: List[LayerState], memory: AttentionMemory) -> Carry:
        """What the first step starts from, given the first state of every layer."""
        h = layers[-1][0]
        context_dim = memory.values.size(2) + (0 if self.past is None else self.past.state_dim)
        return Carry(
            position=0,
            parts={
                "cell": layers,
                "feed": h.new_zeros(h.size(0), self.readout.output_dim) if self.input_feeding else None,
                "context": h.new_zeros(h.size(0), context_dim) if self.keeps_context else None,
                "attention": {} if self.attention is None else self.attention.first(memory),
                "past": None if self.past is None else self.past.first(h),
            },
        )

    def __call__(
        self, word: Tensor, carry: Carry, memory: AttentionMemory, read: bool = True
    ) -> Tuple[StepOutput, Carry]:
        """One step for R rows.

        Args:
            word: y(t-1), R×E.
            carry: what the step before has handed on.
            memory: what the attention reads.
            read: False leaves out a gate, and a readout, that no step reads; :meth:`gate` and :meth:`read` are for all
                steps at once.
        """
        layers, feed, context = carry.parts["cell"], carry.parts["feed"], carry.parts["context"]
        weights, remembered = None, carry.parts["attention"]
        if self.query_is_previous and self.attention is not None:
            before = layers[-1][0]
            context, weights, remembered = self._attend(self.attention, before, word, context, carry, memory)
        top, layers = self.recurrence.step(self._cell_inputs(word, context, feed), layers)
        if self.attention is not None and not self.query_is_previous:
            context, weights, remembered = self._attend(self.attention, top, word, context, carry, memory)
        readout = self.read(top, word, context) if read or self.input_feeding else None
        parts = {
            "cell": layers,
            "feed": readout if self.input_feeding else None,
            "context": context if self.keeps_context else None,
            "attention": remembered,
            "past": None if self.past is None else self.past.append(carry.parts["past"], top),
        }
        gate = self.gate(top, word, context) if read else None
        return StepOutput(top, context, weights, readout, gate), Carry(carry.position + 1, parts)

    def whole(
        self, words: Tensor, carry: Carry, memory: AttentionMemory
    ) -> Tuple[StepOutput, Carry]:
        """All steps at once, for a decoder that does not feed back: B×T×E words → what they leave behind, B×T×…."""
        inputs = self.cell_input(word=words) if self.cell_input.inputs else words
        states, layers = self.recurrence(inputs, carry.parts["cell"])
        context, weights, remembered = None, None, carry.parts["attention"]
        if self.attention is not None:
            query = self.query(state=states, word=words, language=memory.language_for(states))
            context, weights, remembered = self.attention(query, memory, remembered, carry.position)
        carry = Carry(carry.position + words.size(1), {**carry.parts, "cell": layers, "attention": remembered})
        readout, gate = self.read(states, words, context), self.gate(states, words, context)
        return StepOutput(states, context, weights, readout, gate), carry

    def read(self, state: Tensor, word: Tensor, context: Optional[Tensor]) -> Tensor:
        """r(t) of one step, or of all: R×… or R×T×… tensors."""
        return self.dropout_out(self.readout(state=state, word=word, context=context))

    def gate(self, state: Tensor, word: Tensor, context: Optional[Tensor]) -> Optional[Tensor]:
        """The logit of g(t) of one step, or of all: R×… or R×T×… tensors."""
        if self.copy_gate is None or context is None:
            return None
        return self.copy_gate(state=state, word=word, context=context)

    def _cell_inputs(self, word: Tensor, context: Optional[Tensor], feed: Optional[Tensor]) -> List[Tensor]:
        """Side by side the first layer's input."""
        if "word" in self.cell_input.inputs:
            return [self.cell_input(word=word, context=context, feed=feed)]
        return [word, *self.cell_input.parts(context=context, feed=feed)]

    def _attend(
        self,
        attention: Union[Attention, MultiHeadAttention],
        state: Tensor,
        word: Tensor,
        context: Optional[Tensor],
        carry: Carry,
        memory: AttentionMemory,
    ) -> Tuple[Tensor, Tensor, Tree]:
        """s R×H, y(t-1) R×E, c(t-1) R×M → c(t), R×M; a(t), R×1×S; what the attention remembers."""
        query = self.query(state=state, word=word, context=context, language=memory.language_for(state))
        attended = attention(query.unsqueeze(1), memory, carry.parts["attention"], carry.position)
        context = attended.context.squeeze(1)
        if self.past is not None:
            context = torch.cat([context, self.past(query, carry.parts["past"])], dim=1)
        return context, attended.weights, attended.state
