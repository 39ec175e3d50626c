"""The encoder: source tokens → values, the key half of the score, and the final states."""

from typing import Dict, List, Optional

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from ..data.data_folder import is_tag, tag
from ..modules.attention.memory import AttentionMemory
from ..modules.combination import Combination
from ..modules.copying import Copies
from ..modules.recurrence.padding import Padding
from ..modules.recurrence.pyramid import SourceColumns, join_levels, source_columns
from ..modules.recurrence.stack import RecurrentStack, flatten_state
from .encoder_fronts import EncoderFront
from .precision import products_in

EncoderOut = Dict[str, List[Tensor]]


class RNNEncoder(FairseqEncoder):
    """Recurrent encoder, right for padding on either side and for batches in any order.

    Args:
        dictionary: source symbols.
        embed_tokens: V×E embedding.
        front: between embeddings and recurrence; None = nothing.
        recurrence: layers, one- or bidirectional. With a pyramid, several tokens share a position.
        output: a linear map of the top layer's output; None = the output as it is.
        value: what the attention finds at a position, of ``state``, the mapped output, and ``word``, the embedding,
            which gives the context a way to the word itself (Gehring et al., 2017, eq. 2, add it to the value); M =
            ``value.output_dim``. Words of tokens that share a position stand side by side.
        attention_keys: key half of the score; None = no attention, no keys.
        attention_values: what makes the values of what the attention finds; None = that is what they are. Keys are not
            made of it.
        splits: True: of the top layer's output, the first half is for the keys and the second half for the values
            (Daniluk et al., 2017, section 3.1).
        dropout_in: on embeddings.
        dropout_out: on the top layer's outputs.
        max_positions: longest source, ``</s>`` included.
        matmul_dtype: of the matrix products; None = of the parameters.
        reads_language: hand the embedding of the tag on that says which language is wanted.
        copy_map: the target symbol of each source symbol, see ``symbol_map``; None = nothing is copied.
        nothing: what stands there for a symbol that has none.
    """

    def __init__(
        self,
        dictionary,
        embed_tokens: nn.Embedding,
        front: Optional[EncoderFront],
        recurrence: RecurrentStack,
        output: Optional[nn.Linear],
        value: Combination,
        attention_keys: Optional[nn.Module],
        dropout_in: nn.Module,
        dropout_out: nn.Module,
        max_positions: int,
        matmul_dtype: Optional[torch.dtype] = None,
        reads_language: bool = False,
        attention_values: Optional[nn.Module] = None,
        splits: bool = False,
        copy_map: Optional[Tensor] = None,
        nothing: int = 0,
    ):
        super().__init__(dictionary)
        self.embed_tokens = embed_tokens
        self.front = front
        self.recurrence = recurrence
        self.output = output
        self.value = value
        self.attention_keys = attention_keys
        self.attention_values = attention_values
        self.splits = splits
        self.dropout_in = dropout_in
        self.dropout_out = dropout_out
        self._max_positions = max_positions
        self.matmul_dtype = matmul_dtype
        tags = torch.tensor([is_tag(symbol) for symbol in dictionary.symbols]) if reads_language else None
        self.register_buffer("tags", tags, persistent=False)
        self.register_buffer("copy_map", copy_map, persistent=False)
        self.nothing = nothing

    def forward(self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None, **kwargs) -> EncoderOut:
        """
        Args:
            src_tokens: B×S int64, padded on either side.
            src_lengths: not needed, the padding tells.

        Returns:
            Lists of tensors: what ``memory_of`` reads, in the columns of ``src_tokens`` (with a pyramid, those of
            ``join_levels``), and ``final_state``, the states after the last real token, layer by layer, one row for
            each row of the decoder.
        """
        is_padding = src_tokens.eq(self.dictionary.pad())
        padding, levels = Padding.of(is_padding), self.recurrence.pyramid
        embedded = self.dropout_in(self.embed_tokens(src_tokens))
        with products_in(self.matmul_dtype, src_tokens.device):
            inputs = embedded if self.front is None else self.front(embedded, padding).type_as(embedded)
            states, final = self.recurrence(inputs, padding=padding)
            states = self.dropout_out(states)
            words, padding = join_levels(embedded, padding, levels)
            states = states if self.output is None else self.output(states)
            of_keys, of_values = states.chunk(2, dim=2) if self.splits else (states, states)
            values = self.value(state=of_values, word=words)
            found = self.value(state=of_keys, word=words) if self.splits else values
            padding_mask = None if padding is None else padding.mask
            values = values if self.attention_values is None else self.attention_values(values)
            keys = values if self.attention_keys is None else self.attention_keys(found, padding_mask)
        memory = AttentionMemory(
            values=values,
            keys=keys,
            padding_mask=padding_mask,
            language=None if self.tags is None else self._language(src_tokens, embedded),
            source_columns=source_columns(is_padding, levels) if levels else None,
            copies=None if self.copy_map is None else Copies.of(self.copy_map[src_tokens], self.nothing),
        )
        return self._encoder_out(memory, flatten_state(final))

    def _language(self, src_tokens: Tensor, embedded: Tensor) -> Tensor:
        """B×S tokens and their B×S×E embeddings → that of each sentence's first tag, B×E; zero for one without words.

        Raises:
            ValueError: a sentence with words has no tag.
        """
        places = self.tags[src_tokens]
        first, tagged = places.long().argmax(dim=1), places.any(dim=1)
        empty = (src_tokens.eq(self.dictionary.pad()) | src_tokens.eq(self.dictionary.eos())).all(dim=1)
        if not bool((tagged | empty).all()):
            raise ValueError(
                f"--attention-query-inputs: the query reads the language, and a source sentence has no tag as "
                f"{tag('LANG')}; begin every source sentence with one, as data-prep/prepare_corpus.sh --tag-target does"
            )
        language = embedded[torch.arange(len(first), device=first.device), first]
        return language.masked_fill(~tagged.unsqueeze(1), 0.0)

    def reorder_encoder_out(self, encoder_out: EncoderOut, new_order: Tensor) -> EncoderOut:
        """Row i of the result is row ``new_order[i]``; values and keys are shared by a sentence's hypotheses."""
        before = memory_of(encoder_out)
        after = before.reorder(new_order)
        if after.values is before.values and after.beam == before.beam:
            return encoder_out
        return self._encoder_out(after, [part.index_select(0, new_order) for part in encoder_out["final_state"]])

    def _encoder_out(self, memory: AttentionMemory, final_state: List[Tensor]) -> EncoderOut:
        """Lists of tensors, empty where there is nothing; :func:`memory_of` is the inverse."""
        return {
            "values": [memory.values],
            "keys": [] if self.attention_keys is None else [memory.keys],
            "padding_mask": [] if memory.padding_mask is None else [memory.padding_mask],
            "language": [] if memory.language is None else [memory.language],
            "source_columns": [] if memory.source_columns is None else list(memory.source_columns),
            "copies": [] if memory.copies is None else list(memory.copies),
            "final_state": final_state,
        }

    def max_positions(self) -> int:
        """Longest source, ``</s>`` included."""
        return self._max_positions


def memory_of(encoder_out: EncoderOut) -> AttentionMemory:
    """What the attention reads of an encoder's output; without attention the keys stand for nothing."""

    def first(name: str) -> Optional[Tensor]:
        return encoder_out[name][0] if encoder_out[name] else None

    values = encoder_out["values"][0]
    keys, columns, copies = first("keys"), encoder_out["source_columns"], encoder_out["copies"]
    return AttentionMemory(
        values=values,
        keys=values if keys is None else keys,
        padding_mask=first("padding_mask"),
        language=first("language"),
        beam=encoder_out["final_state"][0].size(0) // max(1, values.size(0)),
        source_columns=SourceColumns(*columns) if columns else None,
        copies=Copies(*copies) if copies else None,
    )
