"""A converted checkpoint of fairseq's ``lstm`` computes what that computes, and returns the attention unshifted."""

import pytest
import torch
from fairseq import utils
from fairseq.checkpoint_utils import load_model_ensemble
from fairseq.models.lstm import LSTMModel
from lstm_checkpoint import lstm_checkpoint, translation_task
from model_factory import batch

from fairseq_attn_plugin.checkpoints.conversion import convert_checkpoint
from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel

CASES = {
    "one layer": dict(),
    "two layers": dict(encoder_layers=2, decoder_layers=2),
    "bidirectional": dict(encoder_bidirectional=True),
    "three layers, bidirectional": dict(encoder_layers=3, decoder_layers=3, encoder_bidirectional=True),
    "equal sizes": dict(encoder_hidden_size=8, encoder_layers=2, decoder_layers=2),
    "equal sizes, bidirectional": dict(encoder_hidden_size=4, encoder_bidirectional=True),
    "other readout size": dict(decoder_out_embed_dim=9),
    "tied": dict(share_decoder_input_output_embed=True, decoder_out_embed_dim=7),
    "tied, hidden size": dict(share_decoder_input_output_embed=True, decoder_embed_dim=8),
    "all tied": dict(share_all_embeddings=True, encoder_embed_dim=7, decoder_out_embed_dim=7),
    "preset": dict(arch="lstm_luong_wmt_en_de", encoder_layers=2, decoder_layers=2),
}


@pytest.mark.parametrize("left_pad", [False, True], ids=["right-padded", "left-padded"])
@pytest.mark.parametrize("case", CASES)
def test_logits_and_attention_equal_fairseq_lstm(tmp_path, case, left_pad):
    task = translation_task(CASES[case])
    lstm_checkpoint(tmp_path / "lstm.pt", **CASES[case])
    convert_checkpoint(tmp_path / "lstm.pt", tmp_path / "out.pt")
    (theirs,), _ = load_model_ensemble([str(tmp_path / "lstm.pt")], task=task)
    (ours,), _ = load_model_ensemble([str(tmp_path / "out.pt")], task=task)
    assert type(theirs) is LSTMModel and type(ours) is AttnRNNModel
    # fairseq's model takes sorted batches only
    lengths = (6, 5, 3, 1)
    source, source_lengths, previous = batch(task, lengths, left_pad)
    theirs.encoder.left_pad = left_pad
    with torch.no_grad():
        expected, expected_attention = theirs.eval()(source, source_lengths, previous)
        logits, extra = ours.eval()(source, source_lengths, previous)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
    # fairseq returns left-padded attention in right-padded columns
    undone = torch.zeros_like(expected_attention)
    for row, length in enumerate(lengths):
        start = source.size(1) - length if left_pad else 0
        undone[row, :, start : start + length] = expected_attention[row, :, :length]
    torch.testing.assert_close(extra["attn"][0], undone, atol=1e-5, rtol=1e-5)

    limits = [utils.resolve_max_positions(task.max_positions(), model.max_positions()) for model in (theirs, ours)]
    assert limits[0] == limits[1] == (30, 1024)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_dropout_and_frozen_embeddings_carry_over(tmp_path, side):
    """Each of them at its own place; one table is frozen on whichever side the flag says so."""
    places = {f"{part}_dropout_{place}": 0.1 * i for i, (part, place) in enumerate(
        [("encoder", "in"), ("encoder", "out"), ("decoder", "in"), ("decoder", "out")], start=1
    )}
    options = {**CASES["all tied"], f"{side}_freeze_embed": True, **places}
    lstm_checkpoint(tmp_path / "lstm.pt", **options)
    summary = convert_checkpoint(tmp_path / "lstm.pt", tmp_path / "out.pt")
    (theirs, ours), _ = load_model_ensemble(
        [str(tmp_path / name) for name in ("lstm.pt", "out.pt")], task=translation_task(options)
    )
    for half in ("encoder", "decoder"):
        their_half, our_half = getattr(theirs, half), getattr(ours, half)
        assert not (their_half.embed_tokens.weight.requires_grad or our_half.embed_tokens.weight.requires_grad)
        for place in ("in", "out"):
            assert getattr(our_half, f"dropout_{place}").p == getattr(their_half, f"dropout_{place}_module").p
            assert f"--{half}-dropout-{place} {places[f'{half}_dropout_{place}']}" in summary
