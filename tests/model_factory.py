"""Small models and batches for the tests: every size is another, so that no transpose stays hidden."""

import copy
import itertools
from types import SimpleNamespace
from typing import Dict, Tuple

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from fairseq_attn_plugin.data.data_folder import is_tag, tag
from fairseq_attn_plugin.models.attn_rnn import AttnRNNConfig, AttnRNNModel
from fairseq_attn_plugin.models.checks import check_config
from fairseq_attn_plugin.models.config import resolved
from fairseq_attn_plugin.models.presets import PRESETS
from fairseq_attn_plugin.models.sizes import Sizes
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES

LENGTHS = (6, 1, 5, 3)
"""Source lengths, ``</s>`` included: S, 1, S-1 and another."""


DEFAULTS = OmegaConf.structured(AttnRNNConfig)


def dictionary(size: int) -> Dictionary:
    """``size`` symbols beside fairseq's own four."""
    result = Dictionary()
    for i in range(size):
        result.add_symbol(f"s{i}")
    return result


def toy_task(source=None, target=None):
    """What ``build_model`` reads of a task; V differs on both sides unless given."""
    source = source or dictionary(9)
    target = target or dictionary(13)
    return SimpleNamespace(source_dictionary=source, target_dictionary=target, max_positions=lambda: (64, 64))


def task_for(options):
    """``toy_task``, with tags in the source dictionary where the query reads the language; where words are copied, some
    of the source have other numbers in the target, and some are not there."""
    source = dictionary(9)
    if options.get("copy") == "on":
        source = Dictionary()
        for symbol in ("s7", "here", "s0", "s12", "s1", "there", "s3", "s5", "s6"):
            source.add_symbol(symbol)
    if "language" in (options.get("attention_query_inputs") or ""):
        source.add_symbol(tag("fr"))
        source.add_symbol(tag("en"))
    return toy_task(source)


def config(**options):
    """Small sizes, all different; M = H only where a bridge or score needs it."""
    small = dict(
        encoder_embed_dim=5, encoder_hidden_size=6, decoder_embed_dim=7, decoder_hidden_size=8, dropout=0.0,
        bridge="linear",
    )
    return OmegaConf.merge(DEFAULTS, {**small, **options})


def build(task=None, seed: int = 1, **options) -> AttnRNNModel:
    """A model in evaluation mode with large weights, so that attention is far from uniform."""
    torch.manual_seed(seed)
    model = AttnRNNModel.build_model(config(**options), task or task_for(options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0 if parameter.dim() else 1.0)  # not the temperature of cosine, which is a logarithm
    return model.eval()


BUILT: Dict[str, Tuple[AttnRNNModel, torch.Tensor]] = {}


def build_once(task, **options) -> AttnRNNModel:
    """``build`` for the dictionaries of ``task_for(options)``; a copy where it was built before, which takes a tenth of
    the time. The random numbers that follow are the same."""
    key = repr(sorted(options.items()))
    if key not in BUILT:
        BUILT[key] = build(task, **options), torch.get_rng_state()
    model, state = BUILT[key]
    torch.set_rng_state(state)
    return copy.deepcopy(model)


def check_command(words) -> None:
    """Raises what is wrong with the model's options of a command line of ``fairseq-train``, without making a model."""
    both = dictionary(9)
    named = [(name[2:].replace("-", "_"), value) for name, value in itertools.pairwise(words) if name.startswith("--")]
    given = {name: True if value.startswith("--") else value for name, value in named}
    own = {name: value for name, value in given.items() if name in DEFAULTS}
    cfg = resolved(OmegaConf.merge(DEFAULTS, {**PRESETS[given["arch"]], **own}))
    check_config(cfg, Sizes.of(cfg), both, both)


def mechanism(score: str, query: str = "current", normalizer: str = "softmax", cell: str = "lstm", **more) -> dict:
    """Options for one combination of the axes, with the sizes that the score needs."""
    options = dict(attention_score=score, attention_query=query, attention_normalizer=normalizer, cell=cell)
    if score == "none":
        options.update(input_feeding="off", attention_query="current", attention_normalizer="softmax")
    elif ATTENTION_SCORES[score].needs_equal_sizes:
        options["attention_dim"] = 4
    return {**options, **more}


def batch(task, lengths=LENGTHS, left_pad: bool = False, target_lengths=(4, 5, 2, 3), seed: int = 3):
    """Source B×S and shifted target B×T tokens, and source lengths; a tag before each sentence where there are tags."""
    generator = torch.Generator().manual_seed(seed)

    def fill(vocabulary, sizes, left):
        tokens = torch.full((len(sizes), max(sizes)), vocabulary.pad())
        for row, size in zip(tokens, sizes, strict=True):
            words = torch.randint(vocabulary.nspecial, len(vocabulary), (size - 1,), generator=generator)
            words = torch.cat([words, torch.tensor([vocabulary.eos()])])
            row[len(row) - size if left else 0 :][:size] = words
        return tokens

    source = fill(task.source_dictionary, lengths, left_pad)
    tags = [i for i, symbol in enumerate(task.source_dictionary.symbols) if is_tag(symbol)]
    for row, (tokens, size) in enumerate(zip(source, lengths, strict=True)):
        if tags and size > 1:  # a sentence of </s> alone has none
            tokens[len(tokens) - size if left_pad else 0] = tags[row % len(tags)]
    target = fill(task.target_dictionary, target_lengths, False)
    previous = target.roll(1, dims=1)
    previous[:, 0] = task.target_dictionary.eos()
    return source, torch.tensor(lengths), previous
