"""Options of the model: every contradiction has one line that names flag, value and remedy; presets; embeddings."""

import argparse
import math
import re
from types import SimpleNamespace

import pytest
import torch
from fairseq import options as fairseq_options
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY
from model_factory import batch, build, config, dictionary, toy_task

from fairseq_attn_plugin.models.attn_rnn import AttnRNNConfig, AttnRNNModel
from fairseq_attn_plugin.models.presets import PRESETS
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES

ERRORS = {
    "--cell: got 'lsmt'; choose from gru, gru_reset_before, lstm, rnn": dict(cell="lsmt"),
    "--attention-score: got 'lunog'; choose from none, additive": dict(attention_score="lunog"),
    "--attention-normalizer: got 'max'; choose from": dict(attention_normalizer="max"),
    "--bridge: got 'dense'; choose from": dict(bridge="dense"),
    "--encoder-layers: got 0; give at least 1": dict(encoder_layers=0),
    "--attention-dim: got -3; give at least 1": dict(attention_dim=-3),
    "--readout-dim: got 0; give at least 1": dict(readout_dim=0),
    "--dropout: got 1.5; give a probability": dict(dropout=1.5),
    "--attention-dropout: got 1.0; give a probability": dict(attention_dropout=1.0),
    "--readout-inputs: got 'cell'; give a subset of state,word,context": dict(readout_inputs="state,cell"),
    "--readout-inputs: a name twice in 'state,state'": dict(readout_inputs="state,state"),
    "--readout-inputs: got ''": dict(readout_inputs=""),
    "--bridge copy: the encoder's state has 12 numbers (both directions), --decoder-hidden-size is 8; "
    "use --bridge linear, or --decoder-hidden-size 12": dict(bridge="copy", encoder_direction="bi"),
    "--attention-score dot: the query has 8 numbers (--decoder-hidden-size), the encoder's outputs 6; "
    "give --attention-dim": dict(attention_score="dot"),
    "--attention-score scaled_dot: the query has 8": dict(attention_score="scaled_dot"),
    "--attention-dim 4: --attention-score last has no size of its own; leave it out": dict(
        attention_score="last", attention_dim=4
    ),
    "--attention-dim 4: --attention-score location takes --attention-location-positions; leave it out": dict(
        attention_score="location", attention_dim=4
    ),
    "--attention-location-positions 9: --attention-score general takes --attention-dim; leave it out": dict(
        attention_location_positions=9
    ),
    "--attention-location-positions: got 0; give at least 1": dict(
        attention_score="location", attention_location_positions=0
    ),
    "--attention-bias on: --attention-score dot has no place for a bias; use --attention-bias off, or one of additive, "
    "concat, general, location, normed_additive": dict(attention_score="dot", attention_dim=4, attention_bias="on"),
    "--attention-query-inputs: got 'cell'; give a subset of state,word,context": dict(attention_query_inputs="cell"),
    "--attention-value-inputs: got 'context'; give a subset of state,word": dict(attention_value_inputs="context"),
    "--attention-value-inputs word: the attention would not read": dict(attention_value_inputs="word"),
    "--attention-score dot: the query has 8 numbers (--decoder-hidden-size), --attention-value-inputs 13; give": dict(
        attention_score="dot", encoder_hidden_size=8, attention_value_inputs="state,word"
    ),
    "--attention-value-inputs state,word needs attention": dict(
        attention_score="none", input_feeding="off", attention_value_inputs="state,word"
    ),
    "--attention-query-inputs: got ''; give a subset": dict(attention_query_inputs=""),
    "--attention-query-inputs state,word: --attention-score last does not read the query": dict(
        attention_score="last", attention_query_inputs="state,word"
    ),
    "--attention-score dot: the query has 15 numbers (--attention-query-inputs), the encoder's outputs 8; "
    "give --attention-dim": dict(attention_score="dot", encoder_hidden_size=8, attention_query_inputs="state,word"),
    "--bridge backward: --encoder-direction uni has no backward encoder; use --encoder-direction bi, or --bridge tanh":
        dict(bridge="backward"),
    "--forget-gate-bias 1.0: --cell gru has no forget gate; leave it out, or use --cell lstm": dict(
        cell="gru", forget_gate_bias=1.0
    ),
    "--residual-connections: they start at the second layer, and --encoder-layers and --decoder-layers are 1": dict(
        residual_connections=True
    ),
    "--residual-connections: layers that read pairs (--encoder-pyramid 2) have none, and no other layer could": dict(
        residual_connections=True, encoder_layers=3, encoder_pyramid=2
    ),
    "--encoder-front: got 'cnn'; choose from none, conv, dense": dict(encoder_front="cnn"),
    "--encoder-front-layers 2: --encoder-front none has no layers; leave it out": dict(encoder_front_layers=2),
    "--encoder-front-layers: got 0; give at least 1": dict(encoder_front="conv", encoder_front_layers=0),
    "--encoder-front-width 3: --encoder-front dense sees one token at a time; leave it out": dict(
        encoder_front="dense", encoder_front_width=3
    ),
    "--encoder-front-width: got 4; give an odd number": dict(encoder_front="conv", encoder_front_width=4),
    "--encoder-front-activation relu: --encoder-front none has no layers": dict(encoder_front_activation="relu"),
    "--encoder-pyramid: got -1; give at least 0": dict(encoder_pyramid=-1),
    "--encoder-pyramid 2: layers from the second on read pairs, and --encoder-layers is 2; use --encoder-pyramid 1, or "
    "give more layers": dict(encoder_pyramid=2, encoder_layers=2),
    "--encoder-output-dim: got 0; give at least 1": dict(encoder_output_dim=0),
    "--encoder-output-dim 4 needs attention": dict(
        attention_score="none", input_feeding="off", encoder_output_dim=4
    ),
    "--attention-score dot: the query has 8 numbers (--decoder-hidden-size), the encoder's outputs 4; give": dict(
        attention_score="dot", encoder_hidden_size=8, encoder_output_dim=4
    ),
    "--readout-bias on: --readout-activation none has a linear map only where --readout-dim is given; give "
    "--readout-dim, or use --readout-bias off": dict(readout_activation="none", readout_bias="on"),
    "--cell-input-dim: got 0; give at least 1": dict(cell_input_dim=0),
    "--scheduled-sampling: got 'quadratic'; choose from none, constant, exponential, inverse_sigmoid, linear": dict(
        scheduled_sampling="quadratic"
    ),
    "--scheduled-sampling linear needs --scheduled-sampling-slope: the probability of the true word is k - slope": dict(
        scheduled_sampling="linear", scheduled_sampling_k=1.0
    ),
    "--scheduled-sampling-k 0.5: --scheduled-sampling none has no such constant": dict(scheduled_sampling_k=0.5),
    "--scheduled-sampling-slope 0.5: --scheduled-sampling constant has no such constant": dict(
        scheduled_sampling="constant", scheduled_sampling_k=0.5, scheduled_sampling_slope=0.5
    ),
    "--scheduled-sampling-floor: got 1.5; give a probability": dict(scheduled_sampling_floor=1.5),
    "--scheduled-sampling-floor 0.5: --scheduled-sampling is none; leave it out": dict(scheduled_sampling_floor=0.5),
    "--scheduled-sampling-k 1.0: --scheduled-sampling constant takes 0 <= k < 1": dict(
        scheduled_sampling="constant", scheduled_sampling_k=1.0
    ),
    "--scheduled-sampling-k 1.0, --scheduled-sampling-slope 0.0: --scheduled-sampling linear takes 0 <= k <= 1 and "
    "slope > 0": dict(scheduled_sampling="linear", scheduled_sampling_k=1.0, scheduled_sampling_slope=0.0),
    "--scheduled-sampling-k 1.0: --scheduled-sampling exponential takes 0 < k < 1": dict(
        scheduled_sampling="exponential", scheduled_sampling_k=1.0
    ),
    "--scheduled-sampling-k 0.5: --scheduled-sampling inverse_sigmoid takes k >= 1": dict(
        scheduled_sampling="inverse_sigmoid", scheduled_sampling_k=0.5
    ),
    "--input-feeding on needs attention, and --attention-score is none; use --input-feeding off": dict(
        attention_score="none"
    ),
    "--attention-query previous needs attention, and --attention-score is none; use --attention-query current": dict(
        attention_score="none", input_feeding="off", attention_query="previous"
    ),
    "--scheduled-sampling-word sample: --scheduled-sampling is none": dict(scheduled_sampling_word="sample"),
    "--attention-normalizer sparsemax needs attention": dict(
        attention_score="none", input_feeding="off", attention_normalizer="sparsemax"
    ),
    "--attention-dim 4 needs attention": dict(attention_score="none", input_feeding="off", attention_dim=4),
    "--attention-bias on needs attention, and --attention-score is none; use --attention-bias off": dict(
        attention_score="none", input_feeding="off", attention_bias="on"
    ),
    "--attention-location-positions 9 needs attention": dict(
        attention_score="none", input_feeding="off", attention_location_positions=9
    ),
    "--attention-query-inputs word needs attention, and --attention-score is none; use --attention-query-inputs state":
        dict(attention_score="none", input_feeding="off", attention_query_inputs="word"),
    "--readout-inputs word: the output would not depend on the source; add state or context": dict(
        readout_inputs="word", attention_query="previous"
    ),
    "--readout-inputs word,context: neither the readout nor the query reads the decoder's state; add state": dict(
        readout_inputs="word,context", attention_query_inputs="word", attention_query="previous"
    ),
    "--readout-inputs context: neither the readout nor the query reads the decoder's state": dict(
        readout_inputs="context", attention_score="last"
    ),
    "--bridge zero: without attention (--attention-score none) the decoder learns nothing of the source; use --bridge "
    "tanh": dict(attention_score="none", input_feeding="off", bridge="zero"),
    "--bridge backward: without attention (--attention-score none) the forward encoder is read by nothing": dict(
        attention_score="none", input_feeding="off", bridge="backward", encoder_direction="bi"
    ),
    "--encoder-layers 3: without attention (--attention-score none) decoder layer l starts from encoder layer l, and "
    "--decoder-layers is 2; use --encoder-layers 2, or --bridge mean": dict(
        attention_score="none", input_feeding="off", encoder_layers=3, decoder_layers=2
    ),
    "--attention-normalizer sparsemax: the weights of --attention-score last are fixed; use --attention-normalizer "
    "softmax": dict(attention_score="last", attention_normalizer="sparsemax"),
    "--forget-gate-bias: got inf; give a finite number": dict(forget_gate_bias=math.inf),
    "--scheduled-sampling-k: got nan; give a finite number": dict(
        scheduled_sampling="constant", scheduled_sampling_k=math.nan
    ),
    "--scheduled-sampling-floor 0.8: --scheduled-sampling constant starts at 0.5; give less": dict(
        scheduled_sampling="constant", scheduled_sampling_k=0.5, scheduled_sampling_floor=0.8
    ),
    "--attention-dropout 0.5 needs attention": dict(
        attention_score="none", input_feeding="off", attention_dropout=0.5
    ),
    "--readout-inputs state,context: without attention": dict(
        attention_score="none", input_feeding="off", readout_inputs="state,context"
    ),
    "--readout-inputs state: with --attention-query current the context enters nothing": dict(readout_inputs="state"),
    "--share-decoder-input-output-embed: the vocabulary projection sees 8 numbers and --decoder-embed-dim is 7; "
    "give --decoder-out-embed-dim 7, or --readout-dim 7": dict(share_decoder_input_output_embed=True),
    "--share-all-embeddings: source and target dictionary differ (13 and 17 symbols)": dict(share_all_embeddings=True),
    "--copy on needs attention, and --attention-score is none; use --copy off": dict(
        copy="on", attention_score="none", input_feeding="off"
    ),
    "--copy on: the weights of --attention-score last are fixed; use --copy off": dict(
        copy="on", attention_score="last"
    ),
    "--copy on: it mixes the attention with a softmax, and --output-normalizer is entmax15; use --copy off": dict(
        copy="on", output_normalizer="entmax15"
    ),
    "--encoder-embed-path: no file 'nowhere.vec'": dict(encoder_embed_path="nowhere.vec"),
}


@pytest.mark.parametrize("message", ERRORS)
def test_contradiction_is_one_clear_line(message):
    with pytest.raises(ValueError) as error:
        build(**ERRORS[message])
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_tables_that_differ_cannot_be_shared():
    shared = dictionary(9)
    with pytest.raises(ValueError, match="--encoder-embed-dim is 5 and --decoder-embed-dim is 7; one table"):
        build(toy_task(shared, shared), share_all_embeddings=True)


EMBEDDINGS = "2 5\ns1 1 2 3 4 5\ns3 0 0 0 0 1\n"


def test_pretrained_and_frozen_embeddings(tmp_path):
    path = tmp_path / "source.vec"
    path.write_text(EMBEDDINGS)
    torch.manual_seed(1)
    model = build(encoder_embed_path=str(path), encoder_freeze_embed=True)
    table = model.encoder.embed_tokens
    words = toy_task().source_dictionary
    assert table.weight[words.index("s1")].tolist() == [8.0 * i for i in range(1, 6)]  # build() scales by 8
    assert table.weight[words.index("s2")].abs().sum() > 0 and not table.weight.requires_grad
    assert (table.weight[words.pad()] == 0).all()
    assert model.decoder.embed_tokens.weight.requires_grad


@pytest.mark.parametrize(
    "text",
    [
        "2 5\ns1 1 2 3 4 5\n\ns3 0 0 0 0 1\n\n",
        "\ufeff2\t5\r\ns1\t1\t2\t3\t4\t5\r\ns3\t0\t0\t0\t0\t1",
        "4 5\nat a@b.c 1 1 1 1 1\ns1 1 2. 3e0 +4 5\n\u00a0 9 9 9 9 9\ns3  0 0 0 0 1\n",
    ],
    ids=["blank lines", "tabs, CR LF", "symbols with blanks"],
)
def test_embedding_files_as_others_write_them(tmp_path, text, caplog):
    path = tmp_path / "source.vec"
    path.write_text(text, encoding="utf-8", newline="")
    with caplog.at_level("INFO"):
        table, words = build(encoder_embed_path=str(path)).encoder.embed_tokens, toy_task().source_dictionary
    found = [(table.weight[words.index(symbol)] / 8).tolist() for symbol in ("s1", "s3")]  # build() scales by 8
    assert found == [[1, 2, 3, 4, 5], [0, 0, 0, 0, 1]]
    assert f"--encoder-embed-path: {path} has 2 of the 13 symbols of the dictionary" in caplog.text


@pytest.mark.parametrize(
    "text, message",
    [
        ("2 3\ns1 1 2 3\n", "{} has vectors of 3 numbers; give --encoder-embed-dim that size (it is 5)"),
        ("s1 1 2 3 4 5\n", "line 1 of {} must give the number of symbols and the size"),
        ("", "line 1 of {} must give"),
        ("1 5\nother 1 2 3 4 5\n", "{} has no symbol of the dictionary"),
        ("1 5\ns1 1 2 x 4 5\n", "line 2 of {} has 'x' where a finite number was due"),
        ("1 5\ns1 1 2 nan 4 5\n", "line 2 of {} has 'nan' where"),
        ("1 5\ns1 1 2 1e39 4 5\n", "line 2 of {} has '1e39' where"),
        ("2 5\ns1 1 2 3 4 5\ns2 1 2.", "line 3 of {} has no symbol with 5 numbers; get the whole file"),
        ("3 5\ns1 1 2 3 4 5\n", "{} has 1 symbols, and its first line says 3; get the whole file, or write 1 there"),
        ("1 5\ns1 1 2 3 4 5 6\n", "line 2 of {} has more than 5 numbers"),
        ("1 5\n\xe9 1 2 3 4 5\n", "line 2 of {} is not UTF-8; convert the file"),
    ],
)
def test_bad_embedding_file(tmp_path, text, message):
    path = tmp_path / "source.vec"
    path.write_text(text, encoding="latin1")
    with pytest.raises(ValueError) as error:
        build(encoder_embed_path=str(path))
    assert str(error.value).startswith("--encoder-embed-path: " + message.format(path)) and "\n" not in str(error.value)


def test_frozen_without_a_file_is_only_frozen():
    model = build(decoder_freeze_embed=True)
    assert not model.decoder.embed_tokens.weight.requires_grad


def unscaled(**options):
    """A model as it starts: ``build`` makes the weights large."""
    torch.manual_seed(1)
    return AttnRNNModel.build_model(config(**options), toy_task())


@pytest.mark.parametrize("start", ["uniform", "torch"])
def test_start_of_the_parameters(start):
    model = unscaled(
        parameter_init=start, attention_score="normed_additive", layer_norm=True, forget_gate_bias=1.5,
        decoder_layers=2, encoder_direction="bi",
    )  # fmt: skip
    score = model.decoder.attention.score
    assert score.scale.item() == pytest.approx(8**-0.5) and (score.bias == 0).all() and score.vector.std() > 0
    assert all((norm.weight == 1).all() for norm in model.decoder.recurrence.norms)
    layers = [*model.encoder.recurrence.layers, *model.decoder.recurrence.layers]
    for layer in layers:
        size = layer.hidden_size
        for suffix in ("", "_reverse")[: 1 + layer.bidirectional]:
            both = getattr(layer, "bias_ih_l0" + suffix) + getattr(layer, "bias_hh_l0" + suffix)
            assert (both[size : 2 * size] == 1.5).all() and not (both[:size] == 1.5).any()
    assert len(layers) == 3
    for weight in (model.encoder.embed_tokens.weight, model.decoder.vocabulary.weight, layers[0].weight_ih_l0):
        assert (weight.abs().max() <= 0.1) == (start == "uniform")
    cosine = unscaled(parameter_init=start, attention_score="cosine", attention_dim=4).decoder.attention.score
    assert cosine.log_scale.exp().item() == pytest.approx(10.0)


@pytest.mark.parametrize("left_pad", [False, True])
def test_source_longer_than_the_positions_of_location(left_pad):
    task = toy_task()
    source, _, _ = batch(task, left_pad=left_pad)
    build(task, attention_score="location", attention_location_positions=6).encoder(source)
    short = build(task, attention_score="location", attention_location_positions=5).encoder
    assert short.max_positions() == 5  # fairseq skips or refuses longer sources before they come here
    with pytest.raises(ValueError, match="--attention-location-positions 5: a source has 6 positions, </s> included"):
        short(source)
    short(source[1:])  # the longest real source counts, not the width of the batch


@pytest.mark.parametrize("task", ["multilingual_translation", "semisupervised_translation"])
def test_tasks_that_want_several_models_are_refused(task, monkeypatch):
    words = f"data --task {task} --lang-pairs a-b --arch"
    for arch in ("attn_rnn", "attn_lstm"):  # where the command line is read, and where the task asks for the model
        with pytest.raises(ValueError, match=f"^--task {task}: .*; use --task translation_multi_simple_epoch, or"):
            fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), [*words.split(), arch])
    with pytest.raises(ValueError, match=f"^--task {task}: "):
        build(object.__new__(TASK_REGISTRY[task]))


READ = ("readout_inputs", "state,context")


@pytest.mark.parametrize("score", ["none", *ATTENTION_SCORES.names()])
@pytest.mark.parametrize("preset", PRESETS)
def test_remedies_lead_from_any_preset_to_any_score(preset, score):
    """Whoever does what the messages say comes to a model that can be built."""
    options = {"bridge": "copy", **PRESETS[preset], "attention_score": score}
    options = {option: 8 if re.search("_(dim|size)$", option) else value for option, value in options.items()}
    for _ in range(9):
        try:
            AttnRNNModel.build_model(config(**options), toy_task())
            return
        except ValueError as error:
            message = str(error)
        remedy = re.search(r"use --([a-z-]+) ([\w,.]*[\w.])|(?:give|add) (?:--([a-z-]+)|context|state)", message)
        left_out = re.match(r"--([a-z-]+) .*; leave it out", message)
        if left_out and not remedy:
            del options[left_out[1].replace("-", "_")]
            continue
        assert remedy, message
        option, value, size_option = remedy.groups()
        option, value = (option, value) if option else (size_option, 8) if size_option else READ
        options[option.replace("-", "_")] = value
    pytest.fail(message)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_state_differences_only(preset):
    assert ARCH_MODEL_REGISTRY[preset].__name__ == "AttnRNNModel"
    for option, value in PRESETS[preset].items():
        default = AttnRNNConfig.__dataclass_fields__[option].default
        assert default != value, f"{preset} repeats the default of {option}"
    args = argparse.Namespace(encoder_embed_dim=17)
    ARCH_CONFIG_REGISTRY[preset](args)
    assert args.encoder_embed_dim == 17  # what the command line says stays


def test_plain_encoder_decoder_has_nothing_of_attention():
    model = build(**PRESETS["seq2seq_lstm"])
    names = " ".join(name for name, _ in model.named_parameters())
    assert not re.search("attention|readout", names)
    task = toy_task()
    source, lengths, previous = batch(task)
    logits, extra = model(source, lengths, previous)
    assert extra == {"attn": None}
    # the state advances: one word fed twice gives two different steps
    same = torch.full_like(previous, 5)
    steps = model(source, lengths, same)[0]
    assert not torch.allclose(steps[:, 1], steps[:, 2])
    with pytest.raises(ValueError, match="--print-alignment hard: this model has no attention"):
        model.decoder.make_generation_fast_(need_attn="hard")


UNGUIDED = {
    "--attention-score none": dict(attention_score="none", input_feeding="off"),
    "--attention-score last": dict(attention_score="last"),
    "--attention-normalizer sparsemax": dict(attention_normalizer="sparsemax"),
    "--attention-normalizer entmax15": dict(attention_normalizer="entmax15"),
}


@pytest.mark.parametrize("what", UNGUIDED)
def test_attention_whose_logarithm_is_infinite_says_so(what):
    error = build(**UNGUIDED[what]).alignment_loss_error
    assert what in error and "--criterion label_smoothed_cross_entropy_with_alignment" in error
    task = toy_task()
    task.cfg = SimpleNamespace(load_alignments=True)  # as fairseq's translation task has it
    with pytest.raises(ValueError, match="--load-alignments: --criterion label_smoothed"):
        build(task, **UNGUIDED[what])
    assert build(task).alignment_loss_error is None
