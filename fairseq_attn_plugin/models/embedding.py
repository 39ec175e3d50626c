"""Embeddings: new, pretrained, frozen or shared."""

from typing import Tuple

from fairseq import utils
from torch import nn

from ..modules.options import flag

INIT_BOUND = 0.1
"""``--parameter-init uniform`` is uniform in ±0.1, as in Luong et al. (2015, section 4.1) and fairseq's ``lstm``."""


def build_embeddings(cfg, source_dictionary, target_dictionary) -> Tuple[nn.Embedding, nn.Embedding]:
    """Source and target embedding of ``cfg``, one module where ``--share-all-embeddings`` is given."""
    source = _build(cfg, "encoder", source_dictionary)
    target = source if cfg.share_all_embeddings else _build(cfg, "decoder", target_dictionary)
    return source, target


def _build(cfg, side: str, dictionary) -> nn.Embedding:
    size, path = cfg[f"{side}_embed_dim"], cfg[f"{side}_embed_path"]
    embedding = nn.Embedding(len(dictionary), size, padding_idx=dictionary.pad())
    if cfg.parameter_init == "uniform":
        nn.init.uniform_(embedding.weight, -INIT_BOUND, INIT_BOUND)
        nn.init.zeros_(embedding.weight[dictionary.pad()])
    if path:
        _load(embedding, dictionary, path, flag(f"{side}_embed_path"))
    embedding.weight.requires_grad_(not cfg[f"{side}_freeze_embed"])
    return embedding


def _load(embedding: nn.Embedding, dictionary, path: str, option: str) -> None:
    """Rows of the symbols that ``path`` knows; ValueError where their size is another or nothing matches."""
    with open(path, encoding="utf-8") as lines:
        if len(next(lines, "").split()) != 2:
            raise ValueError(f"{option}: the first line of {path} must give the number of symbols and the size")
    try:
        pretrained = utils.parse_embedding(path)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{option}: {path} is not an embedding file ({error})") from None
    sizes = {len(vector) for vector in pretrained.values()}
    if sizes - {embedding.embedding_dim}:
        raise ValueError(
            f"{option}: {path} has vectors of {min(sizes - {embedding.embedding_dim})} numbers; "
            f"give {option.replace('path', 'dim')} that size (it is {embedding.embedding_dim})"
        )
    if not any(symbol in pretrained for symbol in dictionary.symbols):
        raise ValueError(f"{option}: {path} has no symbol of the dictionary")
    utils.load_embedding(pretrained, dictionary, embedding)
