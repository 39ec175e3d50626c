"""Scores: how well each source position answers the decoder's query.

A score has two halves. The key half runs once a sentence, in the encoder; the score half runs for every query, in the
decoder. Both see sizes after the common projection of ``--attention-dim``, where that is given. A score's own vectors
keep the start that is written here, whatever ``--parameter-init`` says.
"""

import math
from typing import Any, ClassVar, Mapping, Optional, Tuple, Type

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..options import Option, arguments, at_least_one, copies, follow
from ..recurrence.padding import token_positions
from ..recurrence.pointwise import additive_scores
from ..recurrence.shared_products import Linear, multiply, once
from ..registry import Registry
from ..trial import checked, toy, trial

COSINE_EPS = 1e-6  # float16 can hold it

ATTENTION_DIM = Option(
    "attention_dim",
    int,
    None,
    "project query and keys to this size (default: as they are; additive and its kin: --decoder-hidden-size)",
    check=at_least_one,
    absent="has no size of its own; leave it out",
    role="size",
)
ATTENTION_BIAS = Option(
    "attention_bias",
    str,
    None,
    "a bias in the score, for additive and its kin, general and location (default: on for additive and "
    "normed_additive, else off)",
    choices=("on", "off"),
    neutral="off",
    absent="has no place for a bias; use --attention-bias off, or one of {takers}",
    argument="bias",
    convert=lambda value: value == "on",
)
LOCATION_POSITIONS = 1024
"""As many as fairseq's tasks allow by default."""
POSITIONS = Option(
    "attention_location_positions",
    int,
    None,
    "source positions that --attention-score location knows, a limit as --max-source-positions is (default: "
    f"{LOCATION_POSITIONS})",
    check=at_least_one,
    absent="has no size of its own; leave it out",
    role="size",
)
HIDDEN_LAYERS = Option(
    "attention_hidden_layers",
    int,
    None,
    "tanh layers before the score's vector, for additive and its kin (default: 1, as published)",
    check=copies,
    fallback=1,
    absent="has no hidden layer; leave it out",
    argument="hidden_layers",
)


class AttentionKeys(nn.Module):
    """Key half of a score: values → keys, by a linear map without bias, or the values themselves.

    Args:
        value_dim: M, size of an encoder output.
        attention_dim: A, size of a key; None = the keys are the values, and no copy is made.
    """

    def __init__(self, value_dim: int, attention_dim: Optional[int] = None):
        super().__init__()
        self.projection = None if attention_dim is None else nn.Linear(value_dim, attention_dim, bias=False)

    def forward(self, values: Tensor, padding_mask: Optional[Tensor] = None) -> Tensor:
        """B×S×M values, B×S bool mask (True = padding) or None → B×S×A keys."""
        return values if self.projection is None else self.projection(values)


class AttentionScore(nn.Module):
    """Score half: a subclass writes ``forward``, and ``__init__`` where it has parameters.

    Args:
        query_dim: size of a query, after the projection of ``--attention-dim``.
        key_dim: A, size of a key.
        others: one for each of its options that has an ``argument``.
    """

    keys_class: ClassVar[Type[nn.Module]] = AttentionKeys
    """The key half that belongs to this score."""

    options: ClassVar[Tuple[Option, ...]] = (ATTENTION_DIM,)
    """Options that mean something to this score. That of the role "size" gives A; ``ATTENTION_DIM`` projects the query
    to that size, too. With a ``fallback`` the score always has a size of its own."""

    needs_equal_sizes: ClassVar[bool] = False
    """True where query and keys must have one size."""

    reads_query: ClassVar[bool] = True
    """False where the score does not depend on the query."""

    reads_keys: ClassVar[bool] = True
    """False where keys are no vectors made of the values, so that nothing can be added to them."""

    linear_in_keys: ClassVar[bool] = False
    """True where ``forward`` of this very class has e(q, k + k') = e(q, k) + e(q, k'). It speaks for no other class
    that has a ``forward``; see :meth:`adds_up`."""

    remembers: ClassVar[bool] = False
    """True where a step depends on those before, see ``Attention``."""

    def __init__(self, query_dim: int, key_dim: int):
        super().__init__()

    @classmethod
    def size_option(cls) -> Optional[Option]:
        """The option that gives A; None where there is none."""
        return next((option for option in cls.options if option.role == "size"), None)

    @classmethod
    def projects_query(cls, size: Optional[int]) -> bool:
        """Whether queries arrive projected to ``size``, the value of the size option."""
        return size is not None and cls.size_option() == ATTENTION_DIM

    def adds_up(self) -> bool:
        """Whether what stands in ``linear_in_keys`` holds of this object: every class whose ``forward`` may be called
        says so itself."""
        classes = type(self).__mro__[: type(self).__mro__.index(AttentionScore)]
        linear = all(vars(cls).get("linear_in_keys", False) for cls in classes if "forward" in vars(cls))
        return self.linear_in_keys and linear and "forward" not in vars(self) and not self.remembers

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """B×T×Q queries, B×S×A keys → B×T×S scores, at least one of them finite; padding is masked later."""
        raise NotImplementedError


ATTENTION_SCORES: Registry[AttentionScore] = Registry("--attention-score", AttentionScore, optional=True)


def build_score(
    name: str, query_dim: int, value_dim: int, values: Mapping[str, Any]
) -> Tuple[nn.Module, AttentionScore]:
    """Both halves of a score, tried out once, so that a class that does not fit is reported by name.

    Args:
        name: in ``ATTENTION_SCORES``.
        query_dim: Q, size of a query before any projection.
        value_dim: M, size of a value.
        values: of the score's options, by name.

    Raises:
        ValueError: a constructor, or the shape of keys or scores, is not what ``AttentionKeys`` and ``AttentionScore``
            say.
    """
    score_class = ATTENTION_SCORES[name]
    size_option = score_class.size_option()
    size = None if size_option is None else size_option.value(values)
    projected = score_class.projects_query(size)
    key_dim = value_dim if size is None else size
    sizes = (key_dim if projected else query_dim, key_dim)
    others = arguments(score_class.options, values)
    takes = "takes (value_dim, attention_dim)", "takes (query_dim, key_dim)"
    part = f"{ATTENTION_SCORES.flag} {name}"
    keys = checked(part, score_class.keys_class, "", lambda half: half(value_dim, size), takes[0])
    score = checked(part, score_class, "", lambda half: half(*sizes, **others), takes[1])
    source = 2 if size is None or projected else min(2, size)
    given, query = toy(3, source, value_dim), toy(3, 4, sizes[0])
    mask = (torch.arange(3 * source) == 3).view(3, source)  # where there are two positions, the second sentence has one
    with trial():
        known = checked(part, keys, ".forward", lambda half: half(given, mask), "gives B×S×A keys", (3, source, None))
        if not score.remembers:
            call = lambda half: half(query, known)  # noqa: E731
            checked(part, score, ".forward", call, "gives B×T×S scores", (3, 4, source))
    return keys, score


@ATTENTION_SCORES.register("dot")
class DotScore(AttentionScore):
    """e(j) = q · k(j) (Luong et al., 2015, section 3.1)."""

    needs_equal_sizes = True
    linear_in_keys = True

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return multiply(query, keys, transposed=True)


@ATTENTION_SCORES.register("scaled_dot")
class ScaledDotScore(DotScore):
    """e(j) = q · k(j) / sqrt(A) (Vaswani et al., 2017, eq. 1)."""

    linear_in_keys = True

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return super().forward(query / math.sqrt(keys.size(2)), keys)


class CosineKeys(AttentionKeys):
    """Keys of length one; a key of zeros stays zero."""

    def forward(self, values: Tensor, padding_mask: Optional[Tensor] = None) -> Tensor:
        return normalize(super().forward(values, padding_mask), dim=2, eps=COSINE_EPS)


@ATTENTION_SCORES.register("cosine")
class CosineScore(DotScore):
    """e(j) = g q · k(j) / (‖q‖ ‖k(j)‖) (Graves et al., 2014, eq. 5-6), g = exp(``log_scale``) > 0, learned.

    g starts at 10: cosines lie in [-1, 1], and softmax over them alone stays nearly uniform (among 20 positions, the
    best possible one gets e² / (e² + 19) = 28 % of the weight; with g = 10 all of it).
    """

    keys_class = CosineKeys
    linear_in_keys = True

    def __init__(self, query_dim: int, key_dim: int):
        super().__init__(query_dim, key_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.log_scale.exp() * super().forward(normalize(query, dim=2, eps=COSINE_EPS), keys)


@ATTENTION_SCORES.register("general")
class GeneralScore(AttentionScore):
    """e(j) = (W q + b) · k(j) (Luong et al., 2015, section 3.1, without b), computed as q · (W' k(j)) + b · k(j): what
    stands in brackets is one product a sentence."""

    options = (ATTENTION_DIM, ATTENTION_BIAS.otherwise("off"))
    linear_in_keys = True

    def __init__(self, query_dim: int, key_dim: int, bias: bool = False):
        super().__init__(query_dim, key_dim)
        self.linear = Linear(query_dim, key_dim, bias=bias)  # not one that quantisation puts another in the place of

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        scores = multiply(query, once(self._mapped, keys), transposed=True)
        return scores if self.linear.bias is None else scores + once(self._shifts, keys)

    def _mapped(self, keys: Tensor) -> Tensor:
        """W' k(j), B×S×Q."""
        return torch.matmul(keys, self.linear.weight.type_as(keys))

    def _shifts(self, keys: Tensor) -> Tensor:
        """b · k(j), B×1×S."""
        return torch.matmul(keys, self.linear.bias.type_as(keys)).unsqueeze(1)


@ATTENTION_SCORES.register("concat")
class ConcatScore(AttentionScore):
    """e(j) = u · tanh(W [q; v(j)]) (Luong et al., 2015, section 3.1), computed as u · tanh(W_q q + W_k v(j)).

    W_q and W_k are the projections to ``--attention-dim``: query and keys arrive here projected. With further hidden
    layers, each is tanh(W' x + b'), A to A, between the tanh and u.
    """

    options = (ATTENTION_DIM.otherwise(follow("decoder_hidden_size")), ATTENTION_BIAS.otherwise("off"), HIDDEN_LAYERS)
    needs_equal_sizes = True

    def __init__(self, query_dim: int, key_dim: int, bias: bool = False, hidden_layers: int = 1):
        super().__init__(query_dim, key_dim)
        self.layers = nn.ModuleList(nn.Linear(key_dim, key_dim) for _ in range(hidden_layers - 1))
        self.bias = nn.Parameter(torch.zeros(key_dim)) if bias else None
        self.vector = nn.Parameter(torch.empty(key_dim).uniform_(-1.0, 1.0) / math.sqrt(key_dim))

    def output_vector(self) -> Tensor:
        """u, of size A."""
        return self.vector

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        shifted, vector = once(self._shifted, keys), once(self.output_vector)
        if not self.layers:
            return additive_scores(query, shifted, vector, keys.dtype)
        hidden = torch.tanh(query.unsqueeze(2) + shifted.unsqueeze(1))
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
        return torch.matmul(hidden, vector.type_as(hidden)).type_as(query)

    def _shifted(self, keys: Tensor) -> Tensor:
        """k(j) + b, in float32 at least: gradients of all steps are summed in this type."""
        keys = keys.to(torch.promote_types(keys.dtype, torch.float32))
        return keys if self.bias is None else keys + self.bias


@ATTENTION_SCORES.register("additive")
class AdditiveScore(ConcatScore):
    """e(j) = u · tanh(W_q q + W_k v(j) + b) (Bahdanau et al., 2015, A.1.2, which leaves all biases out of print)."""

    options = (ATTENTION_DIM.otherwise(follow("decoder_hidden_size")), ATTENTION_BIAS.otherwise("on"), HIDDEN_LAYERS)


@ATTENTION_SCORES.register("normed_additive")
class NormedAdditiveScore(AdditiveScore):
    """e(j) = g u/‖u‖ · tanh(W_q q + W_k v(j) + b), g = sqrt(1/A) and b = 0 at the start: weight normalisation
    (Salimans and Kingma, 2016, eq. 2) of the additive score, as TensorFlow's AttentionWrapper has it."""

    def __init__(self, query_dim: int, key_dim: int, bias: bool = True, hidden_layers: int = 1):
        super().__init__(query_dim, key_dim, bias, hidden_layers)
        self.scale = nn.Parameter(torch.tensor(math.sqrt(1.0 / key_dim)))

    def output_vector(self) -> Tensor:
        return self.scale * self.vector / self.vector.norm()


class LocationKeys(AttentionKeys):
    """Position of every token among the real ones, from 0, whichever side is padded: B×S×1 int64, 0 on padding.

    Args:
        value_dim: not used.
        attention_dim: the number of positions that the score knows, from ``--attention-location-positions``.
    """

    def __init__(self, value_dim: int, attention_dim: int):
        super().__init__(value_dim)
        self.positions = attention_dim

    def forward(self, values: Tensor, padding_mask: Optional[Tensor] = None) -> Tensor:
        """ValueError: a source has more positions than there are."""
        nowhere = torch.zeros_like(values[:, :, 0], dtype=torch.bool)
        positions = token_positions(nowhere if padding_mask is None else padding_mask)
        if positions.size(1) > self.positions and int(positions.max()) >= self.positions:
            raise ValueError(
                f"--attention-location-positions {self.positions}: a source has {int(positions.max()) + 1} positions, "
                "</s> included; train with more positions"
            )
        return positions.unsqueeze(2)


@ATTENTION_SCORES.register("location")
class LocationScore(AttentionScore):
    """e(j) = (W q + b)(j): the query alone says where to look (Luong et al., 2015, section 3.1, without b)."""

    keys_class = LocationKeys
    reads_keys = False
    options = (POSITIONS.otherwise(LOCATION_POSITIONS), ATTENTION_BIAS.otherwise("off"))

    def __init__(self, query_dim: int, key_dim: int, bias: bool = False):
        super().__init__(query_dim, key_dim)
        self.linear = Linear(query_dim, key_dim, bias=bias)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        everywhere = self.linear(query)
        return everywhere.gather(2, keys.transpose(1, 2).expand(-1, everywhere.size(1), -1))


class LastKeys(AttentionKeys):
    """0 at the last token that is not padding, -inf elsewhere: B×S×1."""

    def forward(self, values: Tensor, padding_mask: Optional[Tensor] = None) -> Tensor:
        positions = torch.arange(values.size(1), device=values.device).expand(values.size(0), -1)
        if padding_mask is not None:
            positions = positions.masked_fill(padding_mask, -1)
        is_last = positions == positions.amax(dim=1, keepdim=True)
        return torch.zeros_like(values[:, :, :1]).masked_fill(~is_last.unsqueeze(2), float("-inf"))


@ATTENTION_SCORES.register("last")
class LastScore(AttentionScore):
    """All weight on the last token: the fixed context of Cho et al. (2014), a baseline for attention."""

    keys_class = LastKeys
    options = ()
    reads_query = False
    reads_keys = False

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return keys.transpose(1, 2).expand(-1, query.size(1), -1)
