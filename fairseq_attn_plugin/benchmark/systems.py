"""What is compared: fairseq's own ``lstm`` and forms of ``attn_rnn``, all of the same sizes."""

from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Dict, Optional

import torch
from fairseq.criterions import CRITERION_REGISTRY, build_criterion
from fairseq.models import MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY, BaseFairseqModel
from omegaconf import OmegaConf

from .workloads import Workload

REFERENCE = "fairseq"
CHUNKED = "chunked_cross_entropy"
PLAIN = "label_smoothed_cross_entropy"
LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class System:
    """One column of the table.

    Args:
        model: name that fairseq knows.
        options: of that model, beside the sizes, which follow from the workload.
        searches_like: name of the system whose search is the same, where the two differ in training only.
        usual: whether it is measured where none is asked for by name.
    """

    model: str
    options: Dict[str, Any] = field(default_factory=dict)
    searches_like: Optional[str] = None
    usual: bool = True


LUONG = dict(attention_score="general", attention_query="current")
SYSTEMS: Dict[str, System] = {
    REFERENCE: System("lstm"),
    "feeding": System("attn_rnn", dict(LUONG, input_feeding="on")),
    "feeding-sampled": System(
        "attn_rnn",
        dict(LUONG, input_feeding="on", scheduled_sampling="constant", scheduled_sampling_k=0.5),
        searches_like="feeding",
        usual=False,
    ),
    "no-feeding": System("attn_rnn", dict(LUONG, input_feeding="off")),
    "additive": System(
        "attn_rnn", dict(attention_score="additive", attention_query="previous", input_feeding="off")
    ),
}
for base in ("feeding", "additive"):  # what it costs that the attention remembers, beside the same model without
    for axis, value in (("history", "coverage"), ("history", "location"), ("addressing", "shift")):
        remembering = {**SYSTEMS[base].options, f"attention_{axis}": value}
        SYSTEMS[f"{base}-{value}"] = System("attn_rnn", remembering, usual=False)
USUAL = tuple(name for name, system in SYSTEMS.items() if system.usual)
"""Measured where none is asked for by name."""


@dataclass(frozen=True)
class Setting:
    """All that a measurement depends on."""

    workload: Workload
    system: str
    dtype: str = "float32"
    device: str = "cpu"
    dropout: float = 0.1
    criterion: Optional[str] = None
    """Of ``attn_rnn``; None = chunked_cross_entropy where it is registered. fairseq's lstm has its own."""

    mixed: bool = False


def build_model(setting: Setting, task) -> BaseFairseqModel:
    """The model of a setting with random weights, on its device.

    Raises:
        ValueError: the system has no such type of numbers.
    """
    torch.manual_seed(1)
    system = SYSTEMS[setting.system]
    build = {"lstm": _build_lstm, "attn_rnn": _build_attn_rnn}[system.model]
    return build(setting, {**_sizes(setting), **system.options}, task).to(setting.device)


def criterion_of(setting: Setting) -> str:
    """Name of the criterion that trains a setting."""
    if SYSTEMS[setting.system].model == "lstm":
        return PLAIN
    return setting.criterion or (CHUNKED if CHUNKED in CRITERION_REGISTRY else PLAIN)


def build_loss(setting: Setting, task) -> torch.nn.Module:
    """The criterion of a setting, on its device."""
    options = Namespace(criterion=criterion_of(setting), label_smoothing=LABEL_SMOOTHING, sentence_avg=False)
    return build_criterion(options, task).to(setting.device)


def precision(setting: Setting) -> torch.autocast:
    """What fairseq's ``--amp`` wraps the forward pass in; ``attn_rnn`` has an option of its own instead."""
    enabled = setting.dtype != "float32" and SYSTEMS[setting.system].model == "lstm"
    return torch.autocast(setting.device, torch.bfloat16, enabled=enabled)


def _sizes(setting: Setting) -> Dict[str, Any]:
    """Options that both models have."""
    work = setting.workload
    if work.hidden_dim % 2:
        raise ValueError(f"hidden size {work.hidden_dim}: the encoder's two directions need an even one")
    return dict(
        dropout=setting.dropout, encoder_embed_dim=work.embed_dim, encoder_hidden_size=work.hidden_dim // 2,
        encoder_layers=work.layers, decoder_embed_dim=work.embed_dim, decoder_hidden_size=work.hidden_dim,
        decoder_layers=work.layers,
    )  # fmt: skip


def _build_lstm(setting: Setting, options: Dict[str, Any], task) -> torch.nn.Module:
    if setting.dtype != "float32" and setting.device == "cpu":
        raise ValueError(f"fairseq has no {setting.dtype} on the CPU")
    options.update(encoder_bidirectional=True, decoder_out_embed_dim=setting.workload.hidden_dim, criterion=PLAIN)
    options.update(adaptive_softmax_cutoff=None)
    return MODEL_REGISTRY["lstm"].build_model(Namespace(**options), task)


def _build_attn_rnn(setting: Setting, options: Dict[str, Any], task) -> torch.nn.Module:
    # with M = H fairseq's lstm hands the encoder's last state on as it is
    options.update(encoder_direction="bi", bridge="copy")
    if options["attention_score"] == "additive":
        options.update(attention_dim=setting.workload.hidden_dim)
    if setting.dtype != "float32":
        options.update(matmul_dtype=setting.dtype)
    config = OmegaConf.merge(OmegaConf.structured(MODEL_DATACLASS_REGISTRY["attn_rnn"]), options)
    return MODEL_REGISTRY["attn_rnn"].build_model(config, task)
