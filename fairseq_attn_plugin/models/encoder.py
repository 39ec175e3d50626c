"""The encoder: source tokens → values, the key half of the score, and the final states."""

from typing import Dict, List, Optional

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from ..modules.attention.memory import AttentionMemory
from ..modules.combination import Combination
from ..modules.recurrence.padding import Padding
from ..modules.recurrence.stack import RecurrentStack, flatten_state
from .precision import products_in

EncoderOut = Dict[str, List[Tensor]]


class RNNEncoder(FairseqEncoder):
    """Recurrent encoder, right for padding on either side and for batches in any order.

    Args:
        dictionary: source symbols.
        embed_tokens: V×E embedding.
        recurrence: layers, one- or bidirectional.
        value: what the attention finds at a position, of ``state``, the top layer's output, and ``word``, the
            embedding, which gives the context a way to the word itself (Gehring et al., 2017, eq. 2, add it to the
            value); M = ``value.output_dim``.
        attention_keys: key half of the score; None = no attention, no keys.
        attention_values: what makes the values of what the attention finds; None = that is what they are. Keys are not
            made of it.
        splits: True: of the top layer's output, the first half is for the keys and the second half for the values
            (Daniluk et al., 2017, section 3.1).
        dropout_in: on embeddings.
        dropout_out: on the top layer's outputs.
        max_positions: longest source, ``</s>`` included.
        matmul_dtype: of the matrix products; None = of the parameters.
    """

    def __init__(
        self,
        dictionary,
        embed_tokens: nn.Embedding,
        recurrence: RecurrentStack,
        value: Combination,
        attention_keys: Optional[nn.Module],
        dropout_in: nn.Module,
        dropout_out: nn.Module,
        max_positions: int,
        matmul_dtype: Optional[torch.dtype] = None,
        attention_values: Optional[nn.Module] = None,
        splits: bool = False,
    ):
        super().__init__(dictionary)
        self.embed_tokens = embed_tokens
        self.recurrence = recurrence
        self.value = value
        self.attention_keys = attention_keys
        self.attention_values = attention_values
        self.splits = splits
        self.dropout_in = dropout_in
        self.dropout_out = dropout_out
        self._max_positions = max_positions
        self.matmul_dtype = matmul_dtype

    def forward(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None, **kwargs) -> EncoderOut:
        """
        Args:
            src_tokens: B×S int64, padded on either side.
            src_lengths: not needed, the padding tells.

        Returns:
            Lists of tensors: what ``memory_of`` reads, in the columns of ``src_tokens``, and ``final_state``, the
            states after the last real token, layer by layer, one row for each row of the decoder.
        """
        padding = Padding.of(src_tokens.eq(self.dictionary.pad()))
        padding_mask = None if padding is None else padding.mask
        embedded = self.dropout_in(self.embed_tokens(src_tokens))
        with products_in(self.matmul_dtype, src_tokens.device):
            states, final = self.recurrence(embedded, padding=padding)
            states = self.dropout_out(states)
            of_keys, of_values = states.chunk(2, dim=2) if self.splits else (states, states)
            values = self.value(state=of_values, word=embedded)
            found = self.value(state=of_keys, word=embedded) if self.splits else values
            keys = [] if self.attention_keys is None else [self.attention_keys(found, padding_mask)]
            values = values if self.attention_values is None else self.attention_values(values)
        return {
            "values": [values],
            "keys": keys,
            "padding_mask": [] if padding_mask is None else [padding_mask],
            "final_state": flatten_state(final),
        }

    def reorder_encoder_out(self, encoder_out: EncoderOut, new_order: Tensor) -> EncoderOut:
        """Row i of the result is row ``new_order[i]``; values and keys are shared by a sentence's hypotheses."""
        before = memory_of(encoder_out)
        after = before.reorder(new_order)
        if after.values is before.values and after.beam == before.beam:
            return encoder_out
        return {
            "values": [after.values],
            "keys": encoder_out["keys"] and [after.keys],
            "padding_mask": [] if after.padding_mask is None else [after.padding_mask],
            "final_state": [part.index_select(0, new_order) for part in encoder_out["final_state"]],
        }

    def max_positions(self) -> int:
        """Longest source, ``</s>`` included."""
        return self._max_positions


def memory_of(encoder_out: EncoderOut) -> AttentionMemory:
    """What the attention reads of an encoder's output; without attention the keys stand for nothing."""

    def first(name: str) -> Optional[Tensor]:
        return encoder_out[name][0] if encoder_out[name] else None

    values = encoder_out["values"][0]
    keys = first("keys")
    return AttentionMemory(
        values=values,
        keys=values if keys is None else keys,
        padding_mask=first("padding_mask"),
        beam=encoder_out["final_state"][0].size(0) // max(1, values.size(0)),
    )
