"""A checkpoint of fairseq's ``lstm`` as one of ``attn_rnn`` that computes the same.

fairseq's ``lstm`` is Luong et al. (2015): score general, query the current state, input feeding, readout tanh. Its
readout has the context's columns first, and where its bridge is a linear map, one map serves all layers.
"""

import os
import re
from argparse import Namespace
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, Dict, Optional

import torch
from fairseq import utils
from fairseq.checkpoint_utils import load_checkpoint_to_cpu
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.models.lstm import LSTMModel, base_architecture
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ..evaluation.whole_files import check_output
from ..models.attn_rnn import AttnRNNConfig, AttnRNNModel
from ..models.config import resolved
from ..models.sizes import Sizes
from ..modules.options import flag
from .files import FIRST_EPOCH, NUMPY_GLOBALS, first_line, load_checkpoint, save_checkpoint

SOURCES = (
    (r"encoder\.recurrence\.layers\.(\d+)\.(\w+)_l0(_reverse)?", r"encoder.lstm.\2_l\1\3"),
    (r"decoder\.recurrence\.layers\.(\d+)\.(\w+)_l0", r"decoder.layers.\1.\2"),
    (r"decoder\.bridge\.projections\.\d+\.0\.(\w+)", r"decoder.encoder_hidden_proj.\1"),
    (r"decoder\.bridge\.projections\.\d+\.1\.(\w+)", r"decoder.encoder_cell_proj.\1"),
    (r"decoder\.attention\.score\.linear\.weight", r"decoder.attention.input_proj.weight"),
    (r"decoder\.readout\.projection\.weight", r"decoder.attention.output_proj.weight"),
    (r"decoder\.projection\.(\w+)", r"decoder.additional_fc.\1"),
    (r"decoder\.vocabulary\.(\w+)", r"decoder.fc_out.\1"),
)
"""Pattern of a parameter of ``attn_rnn``, and the one of ``lstm`` that it comes from; the others share their names."""


def convert_checkpoint(path: str, out: str) -> str:
    """Writes the checkpoint of ``attn_rnn`` that computes what the one of ``lstm`` at ``path`` does.

    Task, criterion and the other sections of the configuration stay; the state of the optimiser and the place in the
    data are left out, so that a training that goes on from here begins its first epoch with a fresh optimiser.

    Returns:
        One line: sizes, and the options of the model.

    Raises:
        ValueError: one line with path, finding and, where there is one, remedy.
    """
    if os.path.lexists(out):
        raise ValueError(f"{out}: exists; give the name of a new file")
    check_output(out, path, streams=False)
    state = read_checkpoint(path)
    try:
        options = convert_options(state["cfg"]["model"])
        model = build_model(options, state["model"])
        parameters = convert_parameters(state["model"], model, options)
    except ValueError as error:
        raise ValueError(f"{path}: {first_line(error)}") from None
    converted = {
        "args": None,
        "cfg": {**plain(state["cfg"]), "model": OmegaConf.to_container(options, enum_to_str=True)},
        "model": parameters,
        "criterion": state.get("criterion"),
        "optimizer_history": state["optimizer_history"],
        "task_state": state.get("task_state", {}),
        "extra_state": {"train_iterator": FIRST_EPOCH},
    }
    save_checkpoint(converted, out)
    return f"{out}: {summary(model, options)}"


# The checkpoint


def read_checkpoint(path: str) -> Dict[str, Any]:
    """The checkpoint of an ``lstm`` at ``path``, whose "cfg" is a dict of sections, that of the model a Namespace.

    Raises:
        ValueError: it is something else.
    """
    name = _architecture(path)
    model = ARCH_MODEL_REGISTRY.get(name)
    if model is AttnRNNModel:
        raise ValueError(f"{path}: a checkpoint of attn_rnn ({name}) already; there is nothing to convert")
    if model is not LSTMModel:
        raise ValueError(f"{path}: a checkpoint of {name}; give one of fairseq's lstm")
    return _upgraded(path)


def _architecture(path: str) -> Optional[str]:
    """``--arch`` of a checkpoint of whatever model and release."""
    state = load_checkpoint(path)
    given = state.get("args") or state["cfg"].get("model")
    if given is None:
        raise ValueError(f"{path}: not a checkpoint of fairseq, it lacks the model's options")
    given = vars(given) if isinstance(given, Namespace) else given
    return given.get("_name") or given.get("arch")


def _upgraded(path: str) -> Dict[str, Any]:
    """The checkpoint as fairseq reads it: what older releases wrote, flat options in "args" above all, has become what
    today's write."""
    try:
        with torch.serialization.safe_globals(NUMPY_GLOBALS):
            state = load_checkpoint_to_cpu(path)
    except Exception as error:  # lost entries, options of a task that is not registered, ...
        raise ValueError(f"{path}: fairseq cannot read it ({type(error).__name__}: {first_line(error)})") from None
    return {**state, "cfg": OmegaConf.to_container(state["cfg"], resolve=True, enum_to_str=True)}


def plain(sections: Dict[str, Any]) -> Dict[str, Any]:
    """Options of optimisers and the like without a dataclass as dicts; such a task takes its Namespace only."""
    return {
        name: vars(section) if isinstance(section, Namespace) and name != "task" else section
        for name, section in sections.items()
    }


# Options


def convert_options(given: Namespace) -> DictConfig:
    """Options of ``attn_rnn`` for those of ``lstm``.

    Raises:
        ValueError: what they ask for is not there.
    """
    known = Namespace()
    base_architecture(known)
    given = Namespace(**vars(given))
    ARCH_CONFIG_REGISTRY[getattr(given, "_name", None) or given.arch](given)
    if not utils.eval_bool(given.decoder_attention):
        raise ValueError("--decoder-attention False: attn_rnn has no input feeding without attention")
    ours = {field.name for field in fields(AttnRNNConfig)}
    options = {name: value for name, value in vars(given).items() if name in ours & set(vars(known))}
    # the embeddings are in the checkpoint; the file that they started from need not be there
    options.update(encoder_embed_path=None, decoder_embed_path=None)
    if given.share_all_embeddings:
        frozen = given.encoder_freeze_embed or given.decoder_freeze_embed
        options.update(encoder_freeze_embed=frozen, decoder_freeze_embed=frozen)
    if given.decoder_out_embed_dim == given.decoder_hidden_size:
        options["decoder_out_embed_dim"] = None
    options.update(
        _name="attn_rnn",
        encoder_direction="bi" if given.encoder_bidirectional else "uni",
        attention_score="general",
        attention_query="current",
        input_feeding="on",
        readout_activation="tanh",
    )
    config = OmegaConf.merge(OmegaConf.structured(AttnRNNConfig), options)
    assert isinstance(config, DictConfig)  # as both are
    sizes = Sizes.of(resolved(config))
    config.bridge = "copy" if sizes.encoder == sizes.decoder else "linear"
    return config


def summary(model: AttnRNNModel, options: DictConfig) -> str:
    """Sizes, and the options that are not the defaults, as flags."""
    words = ["--arch attn_rnn"]
    for field in fields(AttnRNNConfig):
        value = options[field.name]
        if field.name != "_name" and value != field.default:
            words.append(flag(field.name) if value is True else f"{flag(field.name)} {value}")
    size = sum(parameter.numel() for parameter in model.parameters())
    source, target = len(model.encoder.dictionary), len(model.decoder.dictionary)
    return f"{size:,} parameters, {source:,} source and {target:,} target symbols, {' '.join(words)}"


# Parameters


def build_model(options: DictConfig, theirs: Dict[str, Tensor]) -> AttnRNNModel:
    """The model of ``options``, untrained, for dictionaries of the sizes in the checkpoint."""
    source, target = (_dictionary(theirs, f"{side}.embed_tokens.weight") for side in ("encoder", "decoder"))
    task = SimpleNamespace(source_dictionary=source, target_dictionary=target, max_positions=lambda: (1, 1))
    return AttnRNNModel.build_model(options, task)


def _dictionary(theirs: Dict[str, Tensor], name: str) -> Dictionary:
    if name not in theirs:
        raise ValueError(f"lacks the parameter {name}")
    dictionary = Dictionary()
    for number in range(len(dictionary), theirs[name].size(0)):
        dictionary.add_symbol(str(number))
    return dictionary


def convert_parameters(theirs: Dict[str, Tensor], model: AttnRNNModel, options: DictConfig) -> Dict[str, Tensor]:
    """Parameters of ``model``, out of those of an ``lstm``.

    Raises:
        ValueError: one is missing, has another shape or is not one of an ``lstm``.
    """
    if any(name.startswith("decoder.adaptive_softmax.") for name in theirs):
        raise ValueError("--criterion adaptive_loss: attn_rnn has no adaptive softmax")
    idle, converted = set(theirs), {}
    for name, parameter in model.state_dict().items():
        source = source_of(name, options)
        if source not in theirs:
            raise ValueError(f"lacks the parameter {source}")
        if theirs[source].shape != parameter.shape:
            shapes = [" × ".join(map(str, tensor.shape)) for tensor in (theirs[source], parameter)]
            raise ValueError(f"parameter {source} is {shapes[0]}, by the options of the checkpoint {shapes[1]}")
        converted[name] = theirs[source]
        idle.discard(source)
    if idle:
        raise ValueError(f"has the parameter {min(idle)}, which fairseq's lstm of these options does not have")
    readout, sizes = "decoder.readout.projection.weight", Sizes.of(resolved(options))
    context, state = converted[readout].split([sizes.encoder, sizes.decoder], dim=1)
    converted[readout] = torch.cat([state, context], dim=1)
    return converted


def source_of(name: str, options: DictConfig) -> str:
    """The parameter of ``lstm`` that the parameter ``name`` of ``attn_rnn`` comes from."""
    if name == "decoder.vocabulary.weight" and (
        options.share_decoder_input_output_embed or options.share_all_embeddings
    ):
        return "decoder.embed_tokens.weight"
    for pattern, template in SOURCES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, template, name)
    return name
