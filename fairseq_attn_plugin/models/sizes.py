"""Sizes of the model's parts, worked out once from its options."""

from dataclasses import dataclass
from typing import Dict, Optional

from ..modules.attention.scores import ATTENTION_DIM, ATTENTION_SCORES
from ..modules.options import subset


@dataclass(frozen=True)
class Sizes:
    """Numbers of all vectors that pass from one part to another. Where one is put together, a dictionary has the sizes
    of what it is made of, by name and in their order in it."""

    source_word: int
    """Size of a source embedding."""

    target_word: int
    """E, of a target embedding."""

    encoder: int
    """Of an encoder layer's output and state, both directions side by side."""

    decoder: int
    """H, of a decoder layer's state."""

    output: Optional[int]
    """What the encoder's output is mapped to; None = the output as it is."""

    values: Dict[str, int]
    """Of what the attention finds at a position: what keys and values are made of."""

    value_dim: Optional[int]
    """M of values that are mapped; None = what the attention finds, as it is."""

    query: Dict[str, int]
    """Of a query, Q; empty without attention."""

    key: Optional[int]
    """A of all heads together, what the score's own option says or defaults to; None = the keys are what the attention
    finds."""

    context: int
    """Of a context, and that of the decoder's past beside it."""

    readout_inputs: Dict[str, int]
    readout_dim: Optional[int]
    """R' of a readout that is mapped; None = its inputs as they are."""

    fed: Dict[str, int]
    """What enters the cell beside the word."""

    cell_input_dim: Optional[int]
    """Of the cell's input where that is mapped; None = the word and what is fed, side by side."""

    vocabulary: int
    """Of what the vocabulary projection reads."""

    @property
    def value(self) -> int:
        """M, of a value."""
        return self.value_dim or self.found

    @property
    def found(self) -> int:
        """Of what keys and values are made of."""
        return sum(self.values.values())

    @property
    def readout(self) -> int:
        """R'."""
        return self.readout_dim or sum(self.readout_inputs.values())

    @property
    def cell_input(self) -> int:
        """I, of the first decoder layer's input."""
        return self.cell_input_dim or self.target_word + sum(self.fed.values())

    @classmethod
    def of(cls, cfg) -> "Sizes":
        """Those of a ``resolved`` config.

        Raises:
            ValueError: an option that names inputs names others, or one twice.
        """
        encoder = cfg.encoder_hidden_size * (2 if cfg.encoder_direction == "bi" else 1)
        output, half = cfg.encoder_output_dim, 2 if cfg.attention_key_value == "split" else 1
        sources = {"state": (output or encoder) // half, "word": cfg.encoder_embed_dim * 2**cfg.encoder_pyramid}
        values = subset("attention_value_inputs", cfg.attention_value_inputs, sources)
        heads, found = cfg.attention_heads > 1, sum(values.values())
        value_dim = cfg.attention_value_dim or (found if heads else None)
        context = (value_dim or found) + (cfg.decoder_hidden_size if cfg.attention_past == "on" else 0)
        known = {"state": cfg.decoder_hidden_size, "word": cfg.decoder_embed_dim, "context": context}
        score = ATTENTION_SCORES.get(cfg.attention_score)
        asked = {**known, "language": cfg.encoder_embed_dim}
        query = {} if score is None else subset("attention_query_inputs", cfg.attention_query_inputs, asked)
        option = None if score is None else score.size_option()
        key = None if option is None else option.value(cfg)
        if heads and option == ATTENTION_DIM:
            key = key or cfg.decoder_hidden_size
        readout_inputs = subset("readout_inputs", cfg.readout_inputs, known)
        readout = cfg.readout_dim or sum(readout_inputs.values())
        fed = {"context": context} if score is not None and cfg.attention_query == "previous" else {}
        if cfg.input_feeding == "on":
            fed["feed"] = readout
        return cls(
            source_word=cfg.encoder_embed_dim,
            target_word=cfg.decoder_embed_dim,
            encoder=encoder,
            decoder=cfg.decoder_hidden_size,
            output=output,
            values=values,
            value_dim=value_dim,
            query=query,
            key=key,
            context=context,
            readout_inputs=readout_inputs,
            readout_dim=cfg.readout_dim,
            fed=fed,
            cell_input_dim=cfg.cell_input_dim,
            vocabulary=cfg.decoder_out_embed_dim or readout,
        )
