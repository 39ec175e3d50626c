"""The decoder: target tokens and the memory → logits and attention weights, a whole target or one step at a time."""

import logging
from typing import Dict, List, NamedTuple, Optional, Set, Tuple, cast

import torch
from fairseq.logging import metrics
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from ..modules.attention.memory import AttentionMemory
from ..modules.carry import Carry
from ..modules.copying import Mixture
from ..modules.output_normalizers import SparseOutput
from ..modules.recurrence.shared_products import PlainProducts, ReadyWeights, known_steps, lookup, products_for
from ..modules.recurrence.stack import unflatten_state
from ..modules.scheduled_sampling import ScheduledSampling
from .bridge import Bridge
from .decoder_step import DecoderStep, StepOutput
from .encoder import EncoderOut, memory_of
from .precision import products_in

logger = logging.getLogger(__name__)
IncrementalState = Dict[str, Dict[str, Optional[Tensor]]]


class Steps(NamedTuple):
    """What the steps leave behind."""

    features: Tensor
    """r(t), B×T×R, or what ``projection`` makes of it."""

    weights: Optional[Tensor]
    """a(t), B×T×S; None without attention."""

    carry: Carry

    gate: Optional[Tensor] = None
    """The logits of g(t), B×T×1; None where nothing is copied."""


class AttnRNNDecoder(FairseqIncrementalDecoder):
    """Recurrent decoder with attention: it drives a :class:`DecoderStep`, which has the equations.

    Where no step reads more of those before than the cell's state, a target is one call of torch's kernel a layer and
    one batched attention; otherwise it is a loop of steps.

    Args:
        dictionary: target symbols.
        embed_tokens: V×E embedding.
        bridge: first state.
        step: one step.
        projection: r(t) → the size of the vocabulary projection's input; None = that is R already.
        vocabulary: the vocabulary projection, which may share the embedding's weight.
        scheduled_sampling: None = the true words, always.
        dropout_in: on embeddings.
        max_target_positions: longest target, ``</s>`` included.
        matmul_dtype: of the matrix products; None = of the parameters.
        sparse_output: what makes probabilities of the logits; None = the softmax.
    """

    def __init__(
        self,
        dictionary,
        embed_tokens: nn.Embedding,
        bridge: Bridge,
        step: DecoderStep,
        projection: Optional[nn.Linear],
        vocabulary: nn.Linear,
        scheduled_sampling: Optional[ScheduledSampling],
        dropout_in: nn.Module,
        max_target_positions: int,
        matmul_dtype: Optional[torch.dtype] = None,
        sparse_output: Optional[SparseOutput] = None,
    ):
        super().__init__(dictionary)
        self.embed_tokens = embed_tokens
        self.cell_input = step.cell_input
        self.recurrence = step.recurrence
        self.bridge = bridge
        self.query = step.query
        self.attention = step.attention
        self.past = step.past
        self.readout = step.readout
        self.copy_gate = step.copy_gate
        self.projection = projection
        self.vocabulary = vocabulary
        self.scheduled_sampling = scheduled_sampling
        self.dropout_in = dropout_in
        self.dropout_out = step.dropout_out
        self.step = step
        self.max_target_positions = max_target_positions
        self.matmul_dtype = matmul_dtype
        self.sparse_output = sparse_output
        self.need_attn = True
        self._logged: Set[str] = set()
        self._ready: Optional[ReadyWeights] = None

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: EncoderOut,
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
            ``{"attn": None}`` without attention and where the search did not ask for it. The logits of a decoder that
            copies are those whose softmax is the mixture, in float32; what :class:`Mixture` is made of stands beside
            the weights, as ``copy``.
        """
        features, extra = self.extract_features(prev_output_tokens, encoder_out, incremental_state)
        if features_only:
            return features, extra
        logits, mixture = self.output_layer(features, incremental_state), Mixture.returned(extra)
        return logits if mixture is None else mixture.logits(logits), extra

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
                carry = self._first(encoder_out, memory)
            else:
                prev_output_tokens = prev_output_tokens[:, -1:]
            steps = self._run(prev_output_tokens, carry, memory, incremental_state)
        if incremental_state is not None:
            self.set_incremental_state(incremental_state, "carry", {"carry": steps.carry})
        extra: Dict[str, Optional[List[Tensor]]] = {"attn": None}
        wanted = self.training or self.need_attn
        if steps.weights is not None and (wanted or steps.gate is not None):
            weights = memory.in_source_columns(steps.weights)
            extra["attn"] = [weights] if wanted else None
            copies = memory.copies_of_rows()
            if steps.gate is not None and copies is not None:
                extra["copy"] = list(Mixture.of(steps.gate, weights, copies))
        return steps.features, extra

    def output_layer(
        self, features: Tensor, incremental_state: Optional[IncrementalState] = None, **kwargs
    ) -> Tensor:
        """B×T×D features → B×T×V logits in the type of the parameters."""
        with products_in(self.matmul_dtype, features.device):
            if incremental_state is None or torch.is_grad_enabled():
                return self.vocabulary(features).type_as(self.vocabulary.weight)
            with self._products(incremental_state).active():
                return self.vocabulary(features).type_as(self.vocabulary.weight)

    def get_normalized_probs(self, net_output, log_probs: bool, sample=None) -> Tensor:
        """fairseq's; of a sparse output its own probabilities, -inf for the logarithm of 0.

        Raises:
            ValueError: a criterion asks for the logarithm of probabilities that can be zero.
        """
        if self.sparse_output is None:
            return super().get_normalized_probs(net_output, log_probs, sample)
        if self.training and log_probs:
            raise ValueError(
                "--criterion: this one takes the logarithm of probabilities, and those of --output-normalizer entmax15 "
                "and sparsemax can be zero; use --criterion entmax_loss, or --output-normalizer softmax"
            )
        log_probabilities = self.sparse_output.log_probabilities(net_output[0])
        return log_probabilities if log_probs else log_probabilities.exp()

    def _run(
        self,
        tokens: Tensor,
        carry: Carry,
        memory: AttentionMemory,
        incremental_state: Optional[IncrementalState] = None,
    ) -> Steps:
        """B×T decoder inputs → input of the vocabulary projection, weights and what the last step hands on."""
        sampling = self.scheduled_sampling if self.training and incremental_state is None else None
        searches = tokens.size(1) == 1 and not torch.is_grad_enabled()
        if sampling is None and not self.step.feeds_back and not searches:
            self._log_once("over all its steps at once")
            words = self.dropout_in(self.embed_tokens(tokens))
            output, carry = self.step.whole(words, carry, memory)
            return Steps(self._project(cast(Tensor, output.readout)), output.weights, carry, output.gate)
        self._log_once("step by step")
        products = self._products(incremental_state, tokens.size(1))
        products.forget_unused()
        with products.active():
            if sampling is not None:
                return self._run_sampled(tokens, carry, memory, sampling)
            words = self.dropout_in(self.embed_tokens(tokens))
            outputs: List[StepOutput] = []
            for word in known_steps(words):
                output, carry = self.step(word, carry, memory, read=searches)
                outputs.append(output)
            first = outputs[0].readout
            if searches and first is not None:
                gate = None if outputs[0].gate is None else outputs[0].gate.unsqueeze(1)
                return Steps(self._project(first.unsqueeze(1)), outputs[0].weights, carry, gate)
        features, gate = self._read(outputs, words)
        return Steps(self._project(features), _weights(outputs), carry, gate)

    def _run_sampled(
        self, tokens: Tensor, carry: Carry, memory: AttentionMemory, sampling: ScheduledSampling
    ) -> Steps:
        """``_run`` where some of the words are the model's own (scheduled sampling)."""
        metrics.log_scalar("true_word_probability", sampling.probability, weight=0, round=4)
        is_true = sampling.true_words(tokens)
        features, outputs = [], []
        word = tokens[:, 0]
        for t in range(tokens.size(1)):
            output, carry = self.step(self.dropout_in(lookup(word, self.embed_tokens)), carry, memory)
            outputs.append(output)
            assert output.readout is not None  # it is read at every step
            features.append(self._project(output.readout))
            if t + 1 < tokens.size(1):
                mixture = self._mixture(output, memory)
                word = self._sampled(features[-1], mixture, tokens[:, t + 1], ~is_true[:, t + 1], sampling)
        gates = [output.gate for output in outputs if output.gate is not None]
        gate = torch.stack(gates, dim=1) if gates else None
        return Steps(torch.stack(features, dim=1), _weights(outputs), carry, gate)

    def _mixture(self, output: StepOutput, memory: AttentionMemory) -> Optional[Mixture]:
        """Of one step, B rows; None where nothing is copied."""
        copies = memory.copies_of_rows()
        if output.gate is None or output.weights is None or copies is None:
            return None
        return Mixture(output.gate, memory.in_source_columns(output.weights).squeeze(1), *copies)

    @torch.no_grad()
    def _sampled(
        self,
        features: Tensor,
        mixture: Optional[Mixture],
        true: Tensor,
        is_own: Tensor,
        sampling: ScheduledSampling,
    ) -> Tensor:
        """Next words, B: those of ``true``, and the model's own where ``is_own``, for which alone the CPU works out the
        logits; a GPU would have to be waited for to know which they are."""
        rows = is_own.nonzero().squeeze(1) if is_own.device.type == "cpu" else None
        if rows is not None:
            if not len(rows):
                return true
            features, mixture = features[rows], None if mixture is None else mixture.select(rows)
        logits = self.vocabulary(features).type_as(self.vocabulary.weight)
        if mixture is not None:
            logits = mixture.logits(logits)
        elif self.sparse_output is not None:
            logits = self.sparse_output.log_probabilities(logits)
        logits[:, self.dictionary.pad()] = float("-inf")
        own = sampling.words(logits)
        return torch.where(is_own, own, true) if rows is None else true.index_copy(0, rows, own)

    def _read(self, outputs: List[StepOutput], words: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        """r of all steps, B×T×R, and the logits of g, B×T×1; worked out here, all at once, what no step has read."""
        readouts = None
        if outputs[0].readout is not None:
            readouts = torch.stack(cast(List[Tensor], [output.readout for output in outputs]), dim=1)
            if self.copy_gate is None:
                return readouts, None
        states = torch.stack([output.state for output in outputs], dim=1)
        contexts = None
        if outputs[0].context is not None:
            contexts = torch.stack(cast(List[Tensor], [output.context for output in outputs]), dim=1)
        readouts = self.step.read(states, words, contexts) if readouts is None else readouts
        return readouts, self.step.gate(states, words, contexts)

    def _project(self, features: Tensor) -> Tensor:
        return features if self.projection is None else self.dropout_out(self.projection(features))

    def _log_once(self, way: str) -> None:
        if self.training and way not in self._logged:
            self._logged.add(way)
            logger.info(f"the decoder is trained {way}")

    def _products(self, incremental_state: Optional[IncrementalState], steps: int = 1) -> PlainProducts:
        """For this pass, or for the search that ``incremental_state`` belongs to; weights stay ready once fairseq has
        said that the model only decodes from now on."""
        device = self.vocabulary.weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        if torch.is_grad_enabled() or incremental_state is None:
            return products_for(dtype, steps=steps)
        kept = self.get_incremental_state(incremental_state, "products")
        if kept is None or kept["dtype"] != dtype:
            kept = {"products": products_for(dtype, self._ready), "dtype": dtype}
            self.set_incremental_state(incremental_state, "products", kept)
        return kept["products"]

    def _first(self, encoder_out: EncoderOut, memory: AttentionMemory) -> Carry:
        """What the first step starts from."""
        layers = self.bridge(unflatten_state(encoder_out["final_state"], self.recurrence.state_tensors), memory)
        layers = [tuple(part.type_as(self.vocabulary.weight) for part in layer) for layer in layers]
        return self.step.first(layers, memory)

    def _cached(self, incremental_state: Optional[IncrementalState]) -> Optional[Carry]:
        """State of the search so far; None before its first step."""
        cache = self.get_incremental_state(incremental_state, "carry")
        return None if cache is None else cache["carry"]

    def reorder_incremental_state(self, incremental_state: Optional[IncrementalState], new_order: Tensor) -> None:
        """Row i of the cache becomes row ``new_order[i]`` (R' int64; rows may repeat or vanish)."""
        carry = self._cached(incremental_state)
        if carry is not None:
            self.set_incremental_state(incremental_state, "carry", {"carry": carry.select(new_order)})

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
        self._ready = ReadyWeights()


def _weights(outputs: List[StepOutput]) -> Optional[Tensor]:
    """a of all steps, B×T×S; None without attention."""
    if outputs[0].weights is None:
        return None
    return torch.cat(cast(List[Tensor], [output.weights for output in outputs]), dim=1)
