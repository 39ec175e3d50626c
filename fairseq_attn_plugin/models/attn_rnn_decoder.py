"""The decoder: target tokens and the memory → logits and attention weights, a whole target or one step at a time."""

from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from ..modules.attention import Attention
from ..modules.attention_memory import AttentionMemory
from ..modules.readout import Readout
from ..modules.recurrence import LayerState, RecurrentStack
from .bridge import Bridge, flatten_state, unflatten_state
from .rnn_encoder import EncoderOut, memory_of

IncrementalState = Dict[str, Dict[str, Optional[Tensor]]]


class Carry(NamedTuple):
    """What one step hands to the next."""

    layers: List[LayerState]
    """Per layer, B×H tensors."""

    feed: Optional[Tensor]
    """f(t-1), B×R; None without input feeding."""


class Steps(NamedTuple):
    """What the recurrence leaves behind for all steps."""

    features: Tensor
    """r(t), B×T×R."""

    weights: Optional[Tensor]
    """a(t), B×T×S; None without attention."""

    carry: Carry


@dataclass
class DecoderParts:
    """Modules and switches of an ``AttnRNNDecoder``.

    Args:
        embed_tokens: V×E embedding.
        recurrence: one-directional layers; the first one's input is the word, then the context where the query is
            the previous state, then the feed.
        bridge: first state.
        attention: None = no attention.
        readout: state, word and context → r(t), B×T×R.
        projection: r(t) → the size of the vocabulary projection's input; None = R already.
        vocabulary: the vocabulary projection, a linear layer that may share the embedding's weight.
        query_is_previous: True: q(t) from s(t-1), the context enters the cell (Bahdanau et al., 2015);
            False: q(t) from s(t) (Luong et al., 2015), or no attention.
        input_feeding: r(t-1) enters the cell.
        dropout_in: on embeddings.
        dropout_out: on the readout and what follows it.
        max_positions: longest target, ``</s>`` included.
    """

    embed_tokens: nn.Embedding
    recurrence: RecurrentStack
    bridge: Bridge
    attention: Optional[Attention]
    readout: Readout
    projection: Optional[nn.Linear]
    vocabulary: nn.Linear
    query_is_previous: bool
    input_feeding: bool
    dropout_in: nn.Module
    dropout_out: nn.Module
    max_positions: int


class AttnRNNDecoder(FairseqIncrementalDecoder):
    """Recurrent decoder with attention.

    Equations, with y the embedded word, s the state of the top layer, f(t) = r(t) and f(0) = 0::

        previous:  q(t) = s(t-1),  c(t) = attention(q(t)),  s(t) = cell([y(t-1); c(t); f(t-1)], s(t-1))
        current:   s(t) = cell([y(t-1); f(t-1)], s(t-1)),   c(t) = attention(s(t))
        r(t) = readout(s(t), y(t-1), c(t))

    Where nothing of the attention enters a recurrence, a target is one call of torch's kernel a layer and one batched
    attention; otherwise it is a loop over the steps, with all that does not depend on the recurrence hoisted.
    """

    def __init__(self, dictionary, parts: DecoderParts):
        super().__init__(dictionary)
        self.embed_tokens = parts.embed_tokens
        self.recurrence = parts.recurrence
        self.bridge = parts.bridge
        self.attention = parts.attention
        self.readout = parts.readout
        self.projection = parts.projection
        self.vocabulary = parts.vocabulary
        self.query_is_previous = parts.query_is_previous
        self.input_feeding = parts.input_feeding
        self.dropout_in = parts.dropout_in
        self.dropout_out = parts.dropout_out
        self._max_positions = parts.max_positions
        self.need_attn = True

    @property
    def feeds_back(self) -> bool:
        """True where something of the attention enters the recurrence."""
        return self.input_feeding or self.query_is_previous

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Optional[EncoderOut] = None,
        incremental_state: Optional[IncrementalState] = None,
        features_only: bool = False,
        **kwargs,
    ) -> Tuple[Tensor, Dict[str, Optional[List[Tensor]]]]:
        """
        Args:
            prev_output_tokens: B×T int64, the target shifted right; with a cached state only the last column is read.
            encoder_out: the encoder's output, one row of the memory for each row here.
            incremental_state: fairseq's cache of the search; None = teacher forcing.
            features_only: leave the vocabulary projection out.

        Returns:
            B×T×V logits (or B×T×D features), and ``{"attn": [B×T×S weights in the columns of src_tokens]}``, or
            ``{"attn": None}`` without attention and where the search did not ask for it.
        """
        features, extra = self.extract_features(prev_output_tokens, encoder_out, incremental_state)
        return (features if features_only else self.output_layer(features)), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut,
        incremental_state: Optional[IncrementalState] = None,
    ) -> Tuple[Tensor, Dict[str, Optional[List[Tensor]]]]:
        """Like ``forward``, up to the input of the vocabulary projection."""
        memory = memory_of(encoder_out)
        carry = self._cached(incremental_state)
        if carry is None:
            carry = self._first(encoder_out)
        else:
            prev_output_tokens = prev_output_tokens[:, -1:]
        words = self.dropout_in(self.embed_tokens(prev_output_tokens))
        run = self._run_steps if self.feeds_back else self._run_whole
        features, weights, carry = run(words, carry, memory)
        self._cache(incremental_state, carry)
        if self.projection is not None:
            features = self.dropout_out(self.projection(features))
        returned = weights is not None and (self.training or self.need_attn)
        return features, {"attn": [weights] if returned else None}

    def output_layer(self, features: Tensor, **kwargs) -> Tensor:
        """B×T×D features → B×T×V logits."""
        return self.vocabulary(features)

    def _read(self, state: Tensor, word: Tensor, context: Optional[Tensor]) -> Tensor:
        return self.dropout_out(self.readout(state=state, word=word, context=context))

    def _run_whole(self, words: Tensor, carry: Carry, memory: AttentionMemory) -> Steps:
        """All steps at once: B×T×E words → features, weights and the state after the last step."""
        states, layers = self.recurrence(words, carry.layers)
        context, weights = (None, None) if self.attention is None else self.attention(states, memory)
        return Steps(self._read(states, words, context), weights, Carry(layers, None))

    def _run_steps(self, words: Tensor, carry: Carry, memory: AttentionMemory) -> Steps:
        """The same, step by step: the readable reference of the recurrence."""
        step = self.recurrence.stepper(words)
        layers, feed = carry
        tops, contexts, weights, feeds = [], [], [], []
        for t in range(words.size(1)):
            fed = [] if feed is None else [feed]
            if self.query_is_previous:
                context, weight = self.attention(layers[-1][0].unsqueeze(1), memory)
                fed = [context.squeeze(1)] + fed
            layers = step(t, fed[0] if len(fed) == 1 else torch.cat(fed, dim=1), layers)
            top = layers[-1][0]
            if not self.query_is_previous:
                context, weight = self.attention(top.unsqueeze(1), memory)
            if feed is not None:
                feed = self._read(top, words[:, t], context.squeeze(1))
                feeds.append(feed)
            tops.append(top)
            contexts.append(context)
            weights.append(weight)
        if feeds:
            features = torch.stack(feeds, dim=1)
        else:
            features = self._read(torch.stack(tops, dim=1), words, torch.cat(contexts, dim=1))
        return Steps(features, torch.cat(weights, dim=1), Carry(layers, feed))

    def _first(self, encoder_out: EncoderOut) -> Carry:
        """State before the first step; f(0) = 0."""
        final = unflatten_state(encoder_out["final_state"], self.recurrence.state_tensors)
        layers = self.bridge(final)
        feed = layers[-1][0].new_zeros(layers[-1][0].size(0), self.readout.output_dim) if self.input_feeding else None
        return Carry(layers, feed)

    def _cached(self, incremental_state: Optional[IncrementalState]) -> Optional[Carry]:
        """State of the search so far; None before its first step."""
        cache = self.get_incremental_state(incremental_state, "carry")
        if cache is None:
            return None
        tensors = [cache[name] for name in sorted(cache) if name != "feed"]
        return Carry(unflatten_state(tensors, self.recurrence.state_tensors), cache.get("feed"))

    def _cache(self, incremental_state: Optional[IncrementalState], carry: Carry) -> None:
        if incremental_state is None:
            return
        cache = {f"state{i:04d}": tensor for i, tensor in enumerate(flatten_state(carry.layers))}
        if carry.feed is not None:
            cache["feed"] = carry.feed
        self.set_incremental_state(incremental_state, "carry", cache)

    def reorder_incremental_state(self, incremental_state: Optional[IncrementalState], new_order: Tensor) -> None:
        """Row i of the cache becomes row ``new_order[i]`` (R' int64; rows may repeat or vanish)."""
        cache = self.get_incremental_state(incremental_state, "carry")
        if cache is not None:
            cache = {name: tensor.index_select(0, new_order) for name, tensor in cache.items()}
            self.set_incremental_state(incremental_state, "carry", cache)

    def max_positions(self) -> int:
        """Longest target, ``</s>`` included."""
        return self._max_positions

    def make_generation_fast_(self, need_attn=False, **kwargs) -> None:
        """Called by fairseq before search: attention is returned only where it was asked for."""
        if need_attn and self.attention is None:
            raise ValueError(
                f"--print-alignment {need_attn}: this model has no attention (--attention-score none); "
                "leave --print-alignment out, or train with another --attention-score"
            )
        self.need_attn = bool(need_attn)
