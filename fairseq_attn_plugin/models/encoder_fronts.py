"""Encoder fronts: what stands between the embeddings and the recurrence."""

from typing import ClassVar, Optional, Tuple

from torch import Tensor, nn

from ..modules.combination import ACTIVATIONS
from ..modules.options import Option, copies, odd
from ..modules.recurrence.padding import Padding
from ..modules.registry import Registry

ENCODER_FRONT_LAYERS = Option(
    "encoder_front_layers",
    int,
    None,
    "layers of the encoder front (default: 1)",
    check=copies,
    fallback=1,
    absent="has no layers; leave it out",
    argument="num_layers",
)
ENCODER_FRONT_ACTIVATION = Option(
    "encoder_front_activation",
    str,
    None,
    "after each layer of the encoder front (default: tanh)",
    choices=("tanh", "relu"),
    fallback="tanh",
    absent="has no layers; leave it out",
    argument="activation",
)
ENCODER_FRONT_WIDTH = Option(
    "encoder_front_width",
    int,
    None,
    "tokens that a convolution of --encoder-front conv sees, itself in the middle: an odd number (default: 3)",
    check=odd,
    fallback=3,
    absent="sees one token at a time; leave it out",
    argument="width",
)


class EncoderFront(nn.Module):
    """What makes the recurrence's inputs of the embeddings: a subclass writes ``forward``.

    Args:
        size: E, of an embedding and of what comes out.
    """

    options: ClassVar[Tuple[Option, ...]] = ()
    """Options that mean something to this front."""

    def __init__(self, size: int):
        super().__init__()

    def forward(self, embedded: Tensor, padding: Optional[Padding] = None) -> Tensor:
        """B×S×E embeddings, and where they are padding (None = nowhere) → B×S×E inputs of the recurrence; what comes
        out on padding stands for nothing."""
        raise NotImplementedError


ENCODER_FRONTS: Registry[EncoderFront] = Registry("--encoder-front", EncoderFront, optional=True)


@ENCODER_FRONTS.register("dense")
class DenseFront(EncoderFront):
    """x'(j) = tanh(W x(j) + b), or relu, in so many layers, each position by itself: a map of a word into what the
    recurrence reads, as the layers before the recurrence of Hannun et al. (2014), section 2, eq. 1, without context and
    clipping."""

    options = (ENCODER_FRONT_LAYERS, ENCODER_FRONT_ACTIVATION)

    def __init__(self, size: int, num_layers: int = 1, activation: str = "tanh"):
        super().__init__(size)
        self.layers = nn.ModuleList(nn.Linear(size, size) for _ in range(num_layers))
        _, self.activation = ACTIVATIONS[activation]

    def forward(self, embedded: Tensor, padding: Optional[Padding] = None) -> Tensor:
        for layer in self.layers:
            embedded = self.activation(layer(embedded))
        return embedded


@ENCODER_FRONTS.register("conv")
class ConvFront(EncoderFront):
    """x'(j) = tanh(sum over k of W(k) x(j + k) + b), or relu, k from -(width - 1)/2 to (width - 1)/2, in so many layers
    (Gehring et al., 2017, "A convolutional encoder model", section 3.2, width 3, without residual connections). Beyond
    the first and the last real token there are zeros, in every layer, so a sentence is the same in any batch."""

    options = (ENCODER_FRONT_LAYERS, ENCODER_FRONT_ACTIVATION, ENCODER_FRONT_WIDTH)

    def __init__(self, size: int, num_layers: int = 1, activation: str = "tanh", width: int = 3):
        super().__init__(size)
        self.layers = nn.ModuleList(nn.Conv1d(size, size, width, padding=width // 2) for _ in range(num_layers))
        _, self.activation = ACTIVATIONS[activation]

    def forward(self, embedded: Tensor, padding: Optional[Padding] = None) -> Tensor:
        tokens = (embedded if padding is None else padding.to_front(embedded)).transpose(1, 2)
        for layer in self.layers:
            tokens = self.activation(layer(tokens))
            if padding is not None:
                tokens = tokens.masked_fill(padding.behind.unsqueeze(1), 0.0)
        tokens = tokens.transpose(1, 2)
        return tokens if padding is None else padding.from_front(tokens)
