"""Embeddings: new, pretrained, frozen or shared."""

import codecs
import logging
import re
from typing import List, Tuple

import torch
from fairseq import utils
from torch import Tensor, nn

from ..modules.options import flag

logger = logging.getLogger(__name__)

INIT_BOUND = 0.1
"""``--parameter-init uniform`` is uniform in ±0.1, as in Luong et al. (2015, section 4.1) and fairseq's ``lstm``."""
NUMBER = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


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
    """Rows of the symbols that the file has; ValueError where it is no whole file of vectors of that size, or nothing
    matches."""
    size, wanted = embedding.embedding_dim, set(dictionary.symbols)
    with open(path, "rb") as lines:
        count, given = _heading(next(lines, b""), f"{option}: line 1 of {path}")
        if given != size:
            raise ValueError(
                f"{option}: {path} has vectors of {given} numbers; give {option.replace('path', 'dim')} that size "
                f"(it is {size})"
            )
        pretrained, rows = {}, 0
        for number, line in enumerate(lines, start=2):
            if line.strip():
                symbol, numbers = _fields(line, size, f"{option}: line {number} of {path}")
                rows += 1
                if symbol in wanted:
                    pretrained[symbol] = _vector(numbers, f"{option}: line {number} of {path}")
    if rows < count:
        raise ValueError(
            f"{option}: {path} has {rows} symbols, and its first line says {count}; get the whole file, or write "
            f"{rows} there"
        )
    if not pretrained:
        raise ValueError(f"{option}: {path} has no symbol of the dictionary; give vectors of its symbols")
    logger.info(f"{option}: {path} has {len(pretrained)} of the {len(dictionary)} symbols of the dictionary")
    utils.load_embedding(pretrained, dictionary, embedding)


def _heading(line: bytes, where: str) -> Tuple[int, int]:
    """Number of symbols and size of a vector; ``where`` begins every error."""
    fields = line.removeprefix(codecs.BOM_UTF8).split()
    if len(fields) != 2 or not all(field.isdigit() and len(field) < 10 for field in fields):
        raise ValueError(f"{where} must give the number of symbols and the size, as in 5000 300; put such a line there")
    return int(fields[0]), int(fields[1])


def _fields(line: bytes, size: int, where: str) -> Tuple[str, List[bytes]]:
    """Symbol and numbers. What stands before the last ``size`` fields is the symbol, even with blanks in it."""
    first, *numbers = fields = line.rsplit(maxsplit=size)
    if len(fields) <= size:
        raise ValueError(f"{where} has no symbol with {size} numbers; get the whole file, or mend that line")
    *_, last = first.split()
    if last != first.strip() and NUMBER.fullmatch(last):
        raise ValueError(f"{where} has more than {size} numbers; mend that line, or the size in the first one")
    try:
        return first.strip().decode("utf-8"), numbers
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8; convert the file, as with iconv -f latin1 -t utf-8") from None


def _vector(numbers: List[bytes], where: str) -> Tensor:
    """The numbers as float32."""
    vector = torch.tensor([float(number) if NUMBER.fullmatch(number) else torch.nan for number in numbers])
    if not vector.isfinite().all():
        wrong = numbers[int(vector.isfinite().int().argmin())][:20].decode("utf-8", "replace")
        raise ValueError(f"{where} has {wrong!r} where a finite number was due; mend that line")
    return vector
