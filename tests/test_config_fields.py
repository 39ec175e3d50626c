"""Fields of the configs: checkpoints keep them by name, and fairseq keeps all configs' fields in one flat namespace."""

import dataclasses

import fairseq.dataclass.configs as fairseq_configs
import pytest
import torch
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq_commands import hypotheses

from fairseq_attn_plugin.__main__ import own_fields
from fairseq_attn_plugin.models.attn_rnn import AttnRNNConfig
from fairseq_attn_plugin.tasks.attn_translation import AttnTranslationConfig
from fairseq_attn_plugin.tasks.reversal import ReversalConfig
from fairseq_attn_plugin.tasks.reversal_scorer import ReversalScorerConfig

# A field that a checkpoint has must never go or get another name, and one that it lacks must come with a default that
# does what was done before there was the field: new fields are added here, and no line is ever changed.
FIRST = dict(
    cell="lstm", dropout=0.1, parameter_init="uniform", encoder_embed_dim=512, encoder_embed_path=None,
    encoder_freeze_embed=False, encoder_hidden_size=None, encoder_layers=1, encoder_direction="uni",
    encoder_dropout_in=None, encoder_dropout_out=None, decoder_embed_dim=512, decoder_embed_path=None,
    decoder_freeze_embed=False, decoder_hidden_size=None, decoder_layers=1, decoder_dropout_in=None,
    decoder_dropout_out=None, decoder_out_embed_dim=None, share_decoder_input_output_embed=False,
    share_all_embeddings=False, bridge="copy", attention_score="general", attention_dim=None,
    attention_normalizer="softmax", attention_query="current", attention_dropout=0.0, input_feeding="on",
    readout_inputs=None, readout_activation="tanh", readout_dim=None,
)  # fmt: skip
ADDED = dict(
    forget_gate_bias=None, residual_connections=False, layer_norm=False, attention_bias=None,
    attention_location_positions=None, attention_query_inputs=None, cell_input_activation="none", cell_input_dim=None,
    scheduled_sampling="none", scheduled_sampling_k=None, scheduled_sampling_slope=None, scheduled_sampling_floor=0.0,
    scheduled_sampling_word="argmax", matmul_dtype="float32", attention_value_inputs=None,
    encoder_front="none", encoder_front_layers=None, encoder_front_activation=None, encoder_front_width=None,
    encoder_pyramid=0, encoder_output_dim=None, readout_bias="off",
    attention_hidden_layers=None, attention_history="none", attention_history_size=None, attention_history_width=None,
    attention_history_over=None, attention_fertility=None, attention_window="none", attention_window_width=None,
    attention_addressing="none", attention_shift_width=None, attention_addressing_start=None,
    attention_monotonic_bias=None, attention_monotonic_noise=None, attention_monotonic_search=None,
    attention_past="off", attention_past_score=None, attention_past_normalizer=None, attention_past_dim=None,
    attention_heads=1, attention_key_value="shared", attention_value_dim=None, copy="off", output_normalizer="softmax",
)  # fmt: skip
REVERSAL = [
    "symbols", "min_length", "max_length", "train_size", "train_data", "valid_size", "test_size", "test_min_length",
    "test_max_length", "long_size", "long_min_length", "long_max_length", "exact_size", "seed", "order",
    "source_padding",
    "eval_beam", "eval_max_len_a", "eval_max_len_b", "save_dir", "restore_file", "finetune_from_model",
    "reset_dataloader", "no_last_checkpoints",
]  # fmt: skip
TRANSLATION = dict(
    left_pad_source=False, translation_valid_beam=1, translation_valid_max_len_a=1.5, translation_valid_max_len_b=10,
    report_attention=False, translate_to=None, translation_save_dir="${checkpoint.save_dir}",
    translation_restore_file="${checkpoint.restore_file}",
    translation_finetune_from_model="${checkpoint.finetune_from_model}",
    translation_reset_dataloader="${checkpoint.reset_dataloader}",
    translation_no_last_checkpoints="${checkpoint.no_last_checkpoints}",
    translation_best_metric="${checkpoint.best_checkpoint_metric}",
    translation_maximize="${checkpoint.maximize_best_checkpoint_metric}",
    translation_post_process="${common_eval.post_process}",
)  # fmt: skip


def test_no_field_is_renamed_and_no_default_changed():
    defaults = {field.name: field.default for field in dataclasses.fields(AttnRNNConfig) if field.name != "_name"}
    assert defaults == {**FIRST, **ADDED}
    names = {field.name for field in dataclasses.fields(ReversalConfig)} - {"_name"}
    others = {"report_attention", "max_source_positions", "max_target_positions"}
    assert names == {f"reversal_{name}" for name in REVERSAL} | others
    assert {name: getattr(AttnTranslationConfig, name) for name in own_fields(AttnTranslationConfig)} == TRANSLATION


def fairseq_fields():
    """Names of the fields of fairseq's own configs: those of every command, and of every optimizer, criterion, ..."""
    groups = [value for value in vars(fairseq_configs).values() if dataclasses.is_dataclass(value)]
    tables = [CRITERION_DATACLASS_REGISTRY, *(kind["dataclass_registry"] for kind in REGISTRIES.values())]
    groups += [config for table in tables for config in table.values() if config not in (None, ReversalScorerConfig)]
    return {field.name for group in groups for field in dataclasses.fields(group)} - {"_name"}


@pytest.mark.parametrize("config", [AttnRNNConfig, AttnTranslationConfig, ReversalConfig, ReversalScorerConfig])
def test_no_field_has_the_name_of_one_of_fairseq(config):
    """A second option of one name is swallowed without a word, and its value is the other's."""
    theirs = fairseq_fields()
    assert {"beam", "weight_decay", "label_smoothing", "min_len"} <= theirs
    assert not theirs & own_fields(config)


@pytest.mark.slow
def test_checkpoint_without_the_newer_fields_loads_with_their_defaults(command, tmp_path):
    command(
        "train",
        "--task reversal --arch attn_gru_additive --encoder-embed-dim 8 --decoder-embed-dim 8 --optimizer adam "
        f"--max-tokens 200 --max-update 3 --disable-validation --no-epoch-checkpoints --save-dir {tmp_path}",
    )
    path = tmp_path / "checkpoint_last.pt"
    generate = f"--task reversal --path {path} --reversal-test-size 9 --max-len-b 9"
    expected = hypotheses(command("generate", generate))
    checkpoint = torch.load(path, weights_only=True)
    model = checkpoint["cfg"]["model"]
    checkpoint["cfg"]["model"] = {name: model[name] for name in ("_name", *FIRST)}
    assert len(model) == 1 + len(FIRST) + len(ADDED)
    torch.save(checkpoint, path)
    assert len(expected) == 9 and hypotheses(command("generate", generate)) == expected
