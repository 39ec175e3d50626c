"""The decoder: target tokens and the memory → logits and attention weights, a whole target or one step at a time."""

import logging
from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

import torch
from fairseq.logging import metrics
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from ..modules.attention import Attention
from ..modules.attention_memory import AttentionMemory
from ..modules.combination import Combination
from ..modules.fused_loop import FusedLoop, LoopModules
from ..modules.recurrence import RecurrentStack
from ..modules.recurrent_cells import LayerState
from ..modules.scheduled_sampling import ScheduledSampling
from ..modules.step_tapes import PreparedWeights, linear_tape
from .bridge import Bridge, flatten_state, unflatten_state
from .precision import products_in
from .rnn_encoder import EncoderOut, memory_of

logger = logging.getLogger(__name__)
IncrementalState = Dict[str, Dict[str, Optional[Tensor]]]


class Carry(NamedTuple):
    """What one step hands to the next."""

    layers: List[LayerState]
    """Per layer, B×H tensors."""

    feed: Optional[Tensor]
    """f(t-1), B×R; None without input feeding."""

    context: Optional[Tensor]
    """c(t-1), B×M; None where the query does not read it."""


class Steps(NamedTuple):
    """What the recurrence leaves behind for all steps."""

    features: Tensor
    """r(t), B×T×R, or what ``projection`` makes of it."""

    weights: Optional[Tensor]
    """a(t), B×T×S; None without attention."""

    carry: Carry


@dataclass
class DecoderParts:
    """Modules and switches of an ``AttnRNNDecoder``, which has them under the same names.

    Args:
        embed_tokens: V×E embedding.
        cell_input: context (where the query is the previous state) and feed (with input feeding), side by side, which
            follow the word in the first layer's input; or a map of the word and these to that input.
        recurrence: one-directional layers.
        bridge: first state.
        query: state, word and context → q(t).
        attention: None = no attention.
        readout: state, word and context → r(t), B×T×R.
        projection: r(t) → the size of the vocabulary projection's input; None = R already.
        vocabulary: the vocabulary projection, a linear layer that may share the embedding's weight.
        query_is_previous: True: q(t) from s(t-1), the context enters the cell (Bahdanau et al., 2015);
            False: q(t) from s(t) (Luong et al., 2015), or no attention.
        input_feeding: r(t-1) enters the cell.
        scheduled_sampling: None = the true words, always.
        dropout_in: on embeddings.
        dropout_out: on the readout and what follows it.
        max_target_positions: longest target, ``</s>`` included.
        matmul_dtype: of the matrix products; None = of the parameters.
    """

    embed_tokens: nn.Embedding
    cell_input: Combination
    recurrence: RecurrentStack
    bridge: Bridge
    query: Combination
    attention: Optional[Attention]
    readout: Combination
    projection: Optional[nn.Linear]
    vocabulary: nn.Linear
    query_is_previous: bool
    input_feeding: bool
    scheduled_sampling: Optional[ScheduledSampling]
    dropout_in: nn.Module
    dropout_out: nn.Module
    max_target_positions: int
    matmul_dtype: Optional[torch.dtype] = None


class AttnRNNDecoder(FairseqIncrementalDecoder):
    """Recurrent decoder with attention.

    Equations, with y the embedded word, s the output of the top layer, f(t) = r(t) and f(0) = c(0) = 0::

        previous:  q(t) = query(s(t-1), y(t-1), c(t-1)),  c(t) = attention(q(t)),  s(t) = cell([y(t-1); c(t); f(t-1)])
        current:   s(t) = cell([y(t-1); f(t-1)]),  q(t) = query(s(t), y(t-1), c(t-1)),  c(t) = attention(q(t))
        r(t) = readout(s(t), y(t-1), c(t))

    s(t-1) in the query is the state that the cell keeps, before residual connection and layer norm.

    Where nothing of the attention enters a recurrence, a target is one call of torch's kernel a layer and one batched
    attention; otherwise it is a loop over the steps, with all that does not depend on the recurrence hoisted.
    """

    def __init__(self, dictionary, parts: DecoderParts):
        super().__init__(dictionary)
        for name, part in vars(parts).items():
            setattr(self, name, part)
        self.need_attn = True
        self.fused = True
        self._logged: Set[str] = set()
        self._final_weights: Optional[dict] = None

    @property
    def feeds_back(self) -> bool:
        """True where something of the attention enters the recurrence."""
        return self.input_feeding or self.query_is_previous or self._keeps_context

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
        if features_only:
            return features, extra
        return self.output_layer(features, incremental_state), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut,
        incremental_state: Optional[IncrementalState] = None,
    ) -> Tuple[Tensor, Dict[str, Optional[List[Tensor]]]]:
        """Like ``forward``, up to the input of the vocabulary projection."""
        with products_in(self.matmul_dtype, prev_output_tokens.device):
            memory = memory_of(encoder_out)
            carry = self._cached(incremental_state)
            if carry is None:
                carry = self._first(encoder_out)
            else:
                prev_output_tokens = prev_output_tokens[:, -1:]
            if self.training and self.scheduled_sampling is not None and incremental_state is None:
                steps = self._run_sampled(prev_output_tokens, carry, memory)
            else:
                steps = self._run(prev_output_tokens, carry, memory, self._prepared(incremental_state))
        self._cache(incremental_state, steps.carry)
        returned = steps.weights is not None and (self.training or self.need_attn)
        return steps.features, {"attn": [steps.weights] if returned else None}

    def output_layer(
        self, features: Tensor, incremental_state: Optional[IncrementalState] = None, **kwargs
    ) -> Tensor:
        """B×T×D features → B×T×V logits in the type of the parameters."""
        with products_in(self.matmul_dtype, features.device):
            prepared = None if incremental_state is None else self._prepared(incremental_state)
            return _linear(self.vocabulary, features, prepared).type_as(self.vocabulary.weight)

    def _read(self, state: Tensor, word: Tensor, context: Optional[Tensor]) -> Tensor:
        return self.dropout_out(self.readout(state=state, word=word, context=context))

    def _prepared(self, incremental_state: Optional[IncrementalState]) -> PreparedWeights:
        """For this pass, or for the search that ``incremental_state`` belongs to; what is worked out of the weights
        alone is kept once fairseq has said that the model only decodes from now on."""
        device = self.vocabulary.weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        if torch.is_grad_enabled():
            return PreparedWeights(dtype)
        kept = self.get_incremental_state(incremental_state, "weights")
        if kept is None or kept["prepared"].dtype != dtype:
            kept = {"prepared": PreparedWeights(dtype, self._final_weights)}
            if incremental_state is not None:
                self.set_incremental_state(incremental_state, "weights", kept)
        return kept["prepared"]

    def _run(
        self, tokens: Tensor, carry: Carry, memory: AttentionMemory, prepared: Optional[PreparedWeights]
    ) -> Steps:
        """B×T decoder inputs → input of the vocabulary projection, weights and what the last step hands on."""
        words = self.dropout_in(self.embed_tokens(tokens))
        searches = tokens.size(1) == 1 and not torch.is_grad_enabled()
        if self.fused and prepared is not None and (self.feeds_back or searches):
            self._log_once("in a fused loop over its steps")
            steps = self._run_fused(words, carry, memory, prepared)
        elif self.feeds_back:
            self._log_once("step by step")
            steps = self._run_steps(words, carry, memory)
        else:
            self._log_once("over all its steps at once")
            steps = self._run_whole(words, carry, memory)
        if self.projection is None:
            return steps
        features = _linear(self.projection, steps.features, None if tokens.size(1) > 1 else prepared)
        return steps._replace(features=self.dropout_out(features))

    def _log_once(self, way: str) -> None:
        if self.training and way not in self._logged:
            self._logged.add(way)
            logger.info(f"the decoder is trained {way}")

    def _run_sampled(self, tokens: Tensor, carry: Carry, memory: AttentionMemory) -> Steps:
        """``_run`` word by word, some of the words the model's own (scheduled sampling)."""
        metrics.log_scalar("true_word_probability", self.scheduled_sampling.probability, weight=0, round=4)
        is_true = self.scheduled_sampling.true_words(tokens)
        done: List[Steps] = []
        word = tokens[:, 0]
        for t in range(tokens.size(1)):
            done.append(self._run(word.unsqueeze(1), done[-1].carry if done else carry, memory, None))
            if t + 1 < tokens.size(1):
                with torch.no_grad():
                    logits = self.output_layer(done[-1].features).squeeze(1)
                    logits[:, self.dictionary.pad()] = float("-inf")
                word = torch.where(is_true[:, t + 1], tokens[:, t + 1], self.scheduled_sampling.words(logits))
        features, weights, carries = zip(*done, strict=True)
        weights = None if weights[0] is None else torch.cat(weights, dim=1)
        return Steps(torch.cat(features, dim=1), weights, carries[-1])

    def _run_whole(self, words: Tensor, carry: Carry, memory: AttentionMemory) -> Steps:
        """All steps at once: B×T×E words."""
        inputs = self.cell_input(word=words) if self.cell_input.inputs else words
        states, layers = self.recurrence(inputs, carry.layers)
        context, weights = None, None
        if self.attention is not None:
            context, weights = self.attention(self.query(state=states, word=words), memory)
        return Steps(self._read(states, words, context), weights, Carry(layers, None, None))

    def _run_fused(self, words: Tensor, carry: Carry, memory: AttentionMemory, prepared: PreparedWeights) -> Steps:
        """``_run_steps``, fast."""
        modules = LoopModules(*(getattr(self, name) for name in LoopModules._fields))
        outputs = FusedLoop(modules, prepared, words, *carry, memory).run()
        features = outputs.feeds
        if features is None:
            features = self._read(outputs.tops, words, outputs.contexts)
        layers, feed, context = outputs.carry
        carry = Carry(layers, feed if self.input_feeding else None, context if self._keeps_context else None)
        return Steps(features, outputs.weights, carry)

    def _run_steps(self, words: Tensor, carry: Carry, memory: AttentionMemory) -> Steps:
        """The same, step by step: the readable reference of the recurrence."""
        step = self.recurrence.stepper(None if "word" in self.cell_input.inputs else words)
        layers, feed, context = carry
        tops, contexts, weights, feeds = [], [], [], []
        for t, word in enumerate(words.unbind(1)):
            if self.query_is_previous:
                context, weight = self._attend(layers[-1][0], word, context, memory)
            fed = self.cell_input(word=word, context=context, feed=feed) if self.cell_input.inputs else None
            top, layers = step(t, fed, layers)
            if not self.query_is_previous:
                context, weight = self._attend(top, word, context, memory)
            if feed is not None:
                feed = self._read(top, word, context)
                feeds.append(feed)
            tops.append(top)
            contexts.append(context)
            weights.append(weight)
        if feeds:
            features = torch.stack(feeds, dim=1)
        else:
            features = self._read(torch.stack(tops, dim=1), words, torch.stack(contexts, dim=1))
        return Steps(features, torch.cat(weights, dim=1), Carry(layers, feed, context if self._keeps_context else None))

    def _attend(
        self, state: Tensor, word: Tensor, context: Optional[Tensor], memory: AttentionMemory
    ) -> Tuple[Tensor, Tensor]:
        """s B×H, y(t-1) B×E, c(t-1) B×M → c(t) B×M, a(t) B×1×S."""
        query = self.query(state=state, word=word, context=context)
        context, weights = self.attention(query.unsqueeze(1), memory)
        return context.squeeze(1), weights

    @property
    def _keeps_context(self) -> bool:
        return "context" in self.query.inputs

    def _first(self, encoder_out: EncoderOut) -> Carry:
        """What the first step starts from; f(0) = c(0) = 0."""
        memory = memory_of(encoder_out)
        layers = self.bridge(unflatten_state(encoder_out["final_state"], self.recurrence.state_tensors), memory)
        layers = [tuple(part.type_as(self.vocabulary.weight) for part in layer) for layer in layers]
        h = layers[-1][0]
        feed = h.new_zeros(h.size(0), self.readout.output_dim) if self.input_feeding else None
        context = h.new_zeros(h.size(0), memory.values.size(2)) if self._keeps_context else None
        return Carry(layers, feed, context)

    def _cached(self, incremental_state: Optional[IncrementalState]) -> Optional[Carry]:
        """State of the search so far; None before its first step."""
        cache = self.get_incremental_state(incremental_state, "carry")
        if cache is None:
            return None
        tensors = [cache[name] for name in sorted(cache) if name.startswith("state")]
        layers = unflatten_state(tensors, self.recurrence.state_tensors)
        return Carry(layers, cache.get("feed"), cache.get("context"))

    def _cache(self, incremental_state: Optional[IncrementalState], carry: Carry) -> None:
        if incremental_state is None:
            return
        cache = {f"state{i:04d}": tensor for i, tensor in enumerate(flatten_state(carry.layers))}
        cache.update({name: part for name, part in carry._asdict().items() if name != "layers" and part is not None})
        self.set_incremental_state(incremental_state, "carry", cache)

    def reorder_incremental_state(self, incremental_state: Optional[IncrementalState], new_order: Tensor) -> None:
        """Row i of the cache becomes row ``new_order[i]`` (R' int64; rows may repeat or vanish)."""
        cache = self.get_incremental_state(incremental_state, "carry")
        if cache is not None:
            cache = {name: tensor.index_select(0, new_order) for name, tensor in cache.items()}
            self.set_incremental_state(incremental_state, "carry", cache)

    def max_positions(self) -> int:
        """Longest target, ``</s>`` included."""
        return self.max_target_positions

    def make_generation_fast_(self, need_attn=False, **kwargs) -> None:
        """Called by fairseq before search: attention is returned only where it was asked for."""
        if need_attn and self.attention is None:
            raise ValueError(
                f"--print-alignment {need_attn}: this model has no attention (--attention-score none); "
                "leave --print-alignment out, or train with another --attention-score"
            )
        self.need_attn = bool(need_attn)
        self._final_weights = {}


def _linear(linear: nn.Linear, x: Tensor, prepared: Optional[PreparedWeights]) -> Tensor:
    """B×T×K → B×T×G, in search with weights that were made ready for all of it."""
    if prepared is None or torch.is_grad_enabled():
        return linear(x)
    rows = linear_tape(prepared, [linear.weight], linear.bias).forward(0, [x.flatten(0, 1)], linear.weight.dtype)
    return rows.unflatten(0, x.shape[:2])
