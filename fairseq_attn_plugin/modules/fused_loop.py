"""The decoder's loop over time steps as one node of the autograd graph, with its gradient written out by hand."""

from typing import List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .attention import Attention
from .attention_memory import AttentionMemory
from .combination import Combination
from .recurrence import RecurrentStack
from .recurrent_cells import LayerState
from .step_tapes import Grads, PreparedWeights, add


class LoopModules(NamedTuple):
    """The decoder's modules and switches that the loop reads; see ``DecoderParts``."""

    cell_input: Combination
    recurrence: RecurrentStack
    query: Combination
    attention: Optional[Attention]
    readout: Combination
    dropout_out: nn.Module
    query_is_previous: bool
    input_feeding: bool


class LoopOutputs(NamedTuple):
    """What the loop gives, B×T×…, and what its last step hands on: readouts, or what they are made of."""

    tops: Optional[Tensor]
    contexts: Optional[Tensor]
    feeds: Optional[Tensor]
    weights: Optional[Tensor]
    carry: Tuple[List[LayerState], Optional[Tensor], Optional[Tensor]]


class FusedLoop:
    """T steps of the decoder's recurrence, as ``AttnRNNDecoder`` has it, forwards and backwards.

    What makes it fast: products of what is known for all steps, and gradients of all that the steps share, are one
    product each (``step_tapes``); arithmetic is in place; and autograd sees one node. It can be differentiated once;
    its buffers live as long as its outputs do.

    Args:
        modules: the decoder's.
        prepared: weights of this pass.
        words: B×T×E.
        layers: per layer, the first state.
        feed: f(0), B×R, constant; None without input feeding.
        context: c(0), B×M, constant; None where the query does not read it.
        memory: what the attention reads.
    """

    def __init__(
        self,
        modules: LoopModules,
        prepared: PreparedWeights,
        words: Tensor,
        layers: List[LayerState],
        feed: Optional[Tensor],
        context: Optional[Tensor],
        memory: AttentionMemory,
    ):
        self.m, self.words, self.steps = modules, words, words.size(1)
        self.first = layers, feed, context
        known = None if "word" in modules.cell_input.inputs else words
        self.stack = modules.recurrence.tape(prepared, known, self.steps)
        self.cell_input = modules.cell_input.tape(prepared, self.steps)
        self.query = modules.query.tape(prepared, self.steps)
        self.attention = None
        if modules.attention is not None:
            self.attention = modules.attention.tape(memory, prepared, self.steps)
        self.readout = None  # otherwise it is for the caller, all steps at once
        if modules.input_feeding or (self.steps == 1 and not torch.is_grad_enabled()):
            self.readout = modules.readout.tape(prepared, self.steps, modules.dropout_out)
        tapes = (self.stack, self.cell_input, self.query, self.attention, self.readout)
        self.tapes = [tape for tape in tapes if tape is not None]

    def run(self) -> LoopOutputs:
        """Runs all steps; autograd knows of it."""
        if not torch.is_grad_enabled():
            return self.forward()
        states = [part for layer in self.first[0] for part in layer]
        shared = [tensor for tape in self.tapes for tensor in tape.shared]
        outputs = _Loop.apply(self, self.words, *states, *shared)
        return LoopOutputs(*outputs, carry=self.last)

    def forward(self) -> LoopOutputs:
        """All steps, from the first."""
        m, (layers, feed, context) = self.m, self.first
        weight = None
        tops, contexts, feeds, weights = [], [], [], []
        for t, word in enumerate(self.words.unbind(1)):
            if m.query_is_previous:
                query = self.query.forward(t, dict(state=layers[-1][0], word=word, context=context))
                context, weight = self.attention.forward(t, query)
            fed = self.cell_input.parts(t, dict(word=word, context=context, feed=feed))
            top, layers = self.stack.forward(t, fed, layers)
            if self.attention is not None and not m.query_is_previous:
                query = self.query.forward(t, dict(state=top, word=word, context=context))
                context, weight = self.attention.forward(t, query)
            if self.readout is not None:
                feed = self.readout.forward(t, dict(state=top, word=word, context=context))
                feeds.append(feed)
            else:
                tops.append(top)
                contexts.append(context)
            weights.append(weight)
        self.last = layers, feed, context
        stacked = [torch.stack(kept, 1) if kept and kept[0] is not None else None for kept in (tops, contexts, feeds)]
        return LoopOutputs(*stacked, None if self.attention is None else torch.cat(weights, dim=1), self.last)

    def backward(self, tops: Grads, contexts: Grads, feeds: Grads, weights: Grads) -> Tuple[Tensor, Grads]:
        """Gradients of the outputs, step by step, None for zero → those of the words, B×T×E or None, and of the first
        states."""
        m = self.m
        states: List[Grads] = [[None] * len(layer) for layer in self.first[0]]
        of_words: Grads = [None] * self.steps
        of_feed = of_context = None
        for t in reversed(range(self.steps)):
            top, context, feed = tops[t], add(contexts[t], of_context), add(feeds[t], of_feed)
            of_context = of_feed = None
            if feed is not None:
                of_read = self.readout.backward(t, feed)
                top, context = add(top, of_read.get("state")), add(context, of_read.get("context"))
                of_words[t] = add(of_words[t], of_read.get("word"))
            if self.attention is not None and not m.query_is_previous:
                of_query = self.query.backward(t, self.attention.backward(t, context, weights[t]))
                top, of_context = add(top, of_query.get("state")), of_query.get("context")
                of_words[t] = add(of_words[t], of_query.get("word"))
            fed = self.cell_input.backward(t, self.stack.backward(t, top, states))
            of_feed = fed.get("feed")
            of_words[t] = add(of_words[t], fed.get("word"))
            if m.query_is_previous:
                context = add(context, fed.get("context"))
                of_query = self.query.backward(t, self.attention.backward(t, context, weights[t]))
                states[-1][0], of_context = add(states[-1][0], of_query.get("state")), of_query.get("context")
                of_words[t] = add(of_words[t], of_query.get("word"))
        of_words = None if all(grad is None for grad in of_words) else torch.stack(of_words, dim=1)
        return of_words, [grad for layer in states for grad in layer]


class _Loop(Function):
    """Words, first states and shared tensors → the tensors of ``LoopOutputs``."""

    @staticmethod
    def forward(ctx, loop: FusedLoop, *tensors: Optional[Tensor]):
        ctx.loop = loop
        ctx.save_for_backward(*tensors)  # so that autograd notices when one is changed before the backward pass
        ctx.types = [None if tensor is None else tensor.dtype for tensor in tensors]
        ctx.set_materialize_grads(False)
        return loop.forward()[:4]

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Optional[Tensor]):
        loop, _ = ctx.loop, ctx.saved_tensors
        by_step = [[None] * loop.steps if grad is None else grad.unbind(1) for grad in grads[:3]]
        weights = [None] * loop.steps if grads[3] is None else grads[3].unsqueeze(2).unbind(1)
        of_words, of_states = loop.backward(*by_step, weights)
        of_shared = [grad for tape in loop.tapes for grad in tape.shared_grads()]
        every = zip((of_words, *of_states, *of_shared), ctx.types)
        return (None, *(None if grad is None else grad.to(dtype) for grad, dtype in every))
