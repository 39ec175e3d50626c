"""With copied weights the model computes what fairseq's ``lstm`` computes, and returns the attention unshifted."""

from argparse import Namespace

import pytest
import torch
from fairseq.models.lstm import LSTMModel, base_architecture
from model_factory import batch, build, dictionary, toy_task

CASES = {
    "one layer": dict(),
    "two layers": dict(encoder_layers=2, decoder_layers=2),
    "bidirectional": dict(encoder_bidirectional=True),
    "two layers, bidirectional": dict(encoder_layers=2, decoder_layers=2, encoder_bidirectional=True),
    "other readout size": dict(decoder_out_embed_dim=9),
    "tied": dict(share_decoder_input_output_embed=True, decoder_out_embed_dim=7),
    "all tied": dict(share_all_embeddings=True, encoder_embed_dim=7, decoder_out_embed_dim=7),
}


def reference_model(task, options) -> LSTMModel:
    args = Namespace(
        encoder_embed_dim=5, encoder_hidden_size=6, decoder_embed_dim=7, decoder_hidden_size=8,
        decoder_out_embed_dim=8, adaptive_softmax_cutoff=None, criterion="cross_entropy",
    )
    vars(args).update(options)
    base_architecture(args)
    torch.manual_seed(11)
    model = LSTMModel.build_model(args, task)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)
    return model.eval()


def our_model(task, options):
    sizes = dict(decoder_out_embed_dim=8, encoder_layers=1) | options
    if sizes["decoder_out_embed_dim"] == 8:
        del sizes["decoder_out_embed_dim"]
    sizes["encoder_direction"] = "bi" if sizes.pop("encoder_bidirectional", False) else "uni"
    return build(task, attention_score="general", input_feeding="on", **sizes)


def copy_weights(theirs, ours) -> None:
    """fairseq's parameters into ours: the attention's output projection has its columns the other way round."""
    state = {"encoder.embed_tokens.weight": theirs.encoder.embed_tokens.weight}
    for name, value in theirs.encoder.lstm.named_parameters():
        kind, layer = name.replace("_reverse", "").rsplit("_l", 1)
        state[f"encoder.recurrence.layers.{layer}.{kind}_l0{'_reverse' if 'reverse' in name else ''}"] = value
    decoder = theirs.decoder
    state["decoder.embed_tokens.weight"] = decoder.embed_tokens.weight
    for i, cell in enumerate(decoder.layers):
        for name, value in cell.named_parameters():
            state[f"decoder.recurrence.layers.{i}.{name}_l0"] = value
        for j, projection in enumerate((decoder.encoder_hidden_proj, decoder.encoder_cell_proj)):
            for name, value in projection.named_parameters():
                state[f"decoder.bridge.projections.{i}.{j}.{name}"] = value
    state["decoder.attention.score.linear.weight"] = decoder.attention.input_proj.weight
    context, query = decoder.attention.output_proj.weight.split([decoder.encoder_output_units, decoder.hidden_size], 1)
    state["decoder.readout.projection.weight"] = torch.cat([query, context], 1)
    if hasattr(decoder, "additional_fc"):
        for name, value in decoder.additional_fc.named_parameters():
            state[f"decoder.projection.{name}"] = value
    if hasattr(decoder, "fc_out"):
        for name, value in decoder.fc_out.named_parameters():
            state[f"decoder.vocabulary.{name}"] = value
    else:
        state["decoder.vocabulary.weight"] = decoder.embed_tokens.weight
    ours.load_state_dict(state, strict=True)


@pytest.mark.parametrize("left_pad", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("case", CASES)
def test_logits_and_attention_equal_fairseq_lstm(case, left_pad):
    shared = dictionary(9)
    task = toy_task(shared, shared if CASES[case].get("share_all_embeddings") else None)
    # fairseq's model takes sorted batches only
    lengths = (6, 5, 3, 1)
    source, source_lengths, previous = batch(task, lengths, left_pad)
    theirs = reference_model(task, CASES[case])
    theirs.encoder.left_pad = left_pad
    ours = our_model(task, CASES[case])
    copy_weights(theirs, ours)
    with torch.no_grad():
        expected, expected_attention = theirs(source, source_lengths, previous)
        logits, extra = ours(source, source_lengths, previous)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
    # fairseq returns left-padded attention in right-padded columns
    undone = torch.zeros_like(expected_attention)
    for row, length in enumerate(lengths):
        start = source.size(1) - length if left_pad else 0
        undone[row, :, start : start + length] = expected_attention[row, :, :length]
    torch.testing.assert_close(extra["attn"][0], undone, atol=1e-5, rtol=1e-5)
