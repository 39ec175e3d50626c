"""Experiment files, axes and plans: what is trained, and what is said of mistakes before anything trains."""

import itertools
import json
from pathlib import Path

import pytest

from fairseq_attn_plugin.experiments import grid
from fairseq_attn_plugin.experiments.experiment import names, options_of, read_experiment, value_of
from fairseq_attn_plugin.experiments.plan import Programs, make_plan, read_plan
from fairseq_attn_plugin.models.bridge import BRIDGES
from fairseq_attn_plugin.models.encoder_fronts import ENCODER_FRONTS
from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS
from fairseq_attn_plugin.modules.attention.histories import HISTORIES
from fairseq_attn_plugin.modules.attention.normalizers import NORMALIZERS
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES
from fairseq_attn_plugin.modules.attention.windows import WINDOWS
from fairseq_attn_plugin.modules.recurrence.cells import CELLS

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
PROGRAMS = Programs(Path("/root"), Path("/bin"))
TINY = "train: --task reversal --arch attn_lstm_reversal --optimizer adam\n"


def plan_of(name, *words, folder=EXPERIMENTS, **changes):
    experiment = read_experiment(str(name), folder)
    vars(experiment).update(changes)
    return make_plan(experiment, Path("/out"), PROGRAMS, list(words))


def runs(name):
    return grid.runs_of(read_experiment(name, EXPERIMENTS).grids)


@pytest.mark.slow
@pytest.mark.parametrize("name", names(EXPERIMENTS))
def test_every_command_line_fits(name):
    """Options, combinations, splits and report, by fairseq's parser and the checks of task, model and report."""
    plan = plan_of(name)
    assert len({run.folder for run in plan.runs}) == len(plan.runs) > 0, "a folder each"
    for run in plan.runs:
        assert run.folder == Path(run.folder).name and run.label
        for command in run.decodings.values():
            has_attention = value_of("--attention-score", run.train) != "none"
            drawn = name != "extrapolation" and has_attention  # whose sentences are too long
            assert (value_of("--print-alignment", command) == "soft") == drawn


def test_the_default_is_a_grid_of_some_size():
    experiment = read_experiment("grid", EXPERIMENTS)
    assert len(runs("grid")) >= 24 and len(experiment.seeds) >= 3


@pytest.mark.parametrize(
    "name, queries, normalizers, cells",
    [
        ("mechanisms", ["previous", "current"], [None], CELLS.names()),
        ("normalizers", ["previous", "current"], NORMALIZERS.names(), [None]),
        ("lengths", [None], [None], [None]),
    ],
)
def test_tables_of_mechanisms_cover_the_registries_once(name, queries, normalizers, cells):
    memories = ("history", "window", "addressing")  # of ``lengths``, held by a test of their own
    found = [run for run in runs(name) if not run.facts.keys() & set(memories)]
    fixed = [score for score in ATTENTION_SCORES.names() if not ATTENTION_SCORES[score].reads_query]
    every = itertools.product(ATTENTION_SCORES.names(), queries, normalizers, cells)
    expected = {(s, q, None if s in fixed else n, c) for s, q, n, c in every}  # no normaliser changes their weights
    expected = [*expected, *(("none", None, None, cell) for cell in cells)]  # no query, no normaliser
    flags = ("--attention-score", "--attention-query", "--attention-normalizer", "--cell")
    trained = [tuple(value_of(flag, run.own) for flag in flags) for run in found]
    assert sorted(trained, key=str) == sorted(expected, key=str)
    facts = [tuple(run.facts.get(axis) for axis in ("score", "query", "normalizer", "cell")) for run in found]
    assert facts == trained, "the report tells what was trained"


def test_lengths_covers_what_attention_remembers():
    own = [" ".join(run.own) for run in runs("lengths")]
    for axis, registry in {"history": HISTORIES, "window": WINDOWS, "addressing": ADDRESSINGS}.items():
        for name in registry.names():
            assert own.count(f"--attention-{axis} {name}") == 1
            assert [run.name for run in runs("lengths") if run.facts == {axis: f"{axis} {name}"}] == [f"{axis}-{name}"]


def test_parts_covers_bridges_cells_and_fronts():
    own = [" ".join(run.own) for run in runs("parts")]
    assert len(set(own)) == len(own) and own[0] == ""
    for registry, as_it_is in ((BRIDGES, "copy"), (CELLS, "lstm"), (ENCODER_FRONTS, "none")):
        assert {f"{registry.flag} {name}" for name in registry.names()} - set(own) <= {f"{registry.flag} {as_it_is}"}


def test_sampling_trains_with_and_without():
    without, sampled = plan_of("sampling").runs
    updates, slope, floor = (
        float(value_of(option, sampled.train))
        for option in ("--max-update", "--scheduled-sampling-slope", "--scheduled-sampling-floor")
    )
    assert "--scheduled-sampling" not in without.train and floor == 0.75
    assert 1.0 - slope * updates == pytest.approx(floor, abs=0.01), "the floor is reached at the end"


@pytest.mark.parametrize(
    "axes, expected",
    [
        ({"score": "none,dot", "query": "all", "history": "none,location", "copy": "on,off"},
         ["none", *(f"dot-{q}-{h}-copy-{c}" for q in ("previous", "current") for h in ("none", "location")
                    for c in ("on", "off"))]),
        ({"score": "last,location", "normalizer": "softmax,sparsemax", "history": "none,coverage"},
         ["last", "location-softmax", "location-sparsemax"]),  # reads no query; reads no keys
        ({"addressing": "monotonic,shift", "normalizer": "softmax,sparsemax"},
         ["monotonic", "shift-softmax", "shift-sparsemax"]),
        ({"dropout": "0.1,0.3", "layer-norm": "on,off"},
         ["dropout-0.1-layer-norm-on", "dropout-0.1-layer-norm-off", "dropout-0.3-layer-norm-on",
          "dropout-0.3-layer-norm-off"]),
    ],
)  # fmt: skip
def test_what_means_nothing_is_trained_once(axes, expected):
    found = grid.runs_of([axes], lambda option: option == "--layer-norm")
    assert [run.name for run in found] == expected
    for run in found:
        assert len(run.facts) == len(run.own) / 2 or "layer-norm" in axes
        assert ("--layer-norm" in run.own) == (run.facts.get("layer-norm") == "layer-norm on")


def test_words_of_all_come_before_the_users_and_those_before_a_runs_own():
    plan = plan_of("guided", "--cell", "gru", "--dropout=0.3", seeds=["1", "7"])
    experiment = read_experiment("guided", EXPERIMENTS)
    assert [run.folder for run in plan.runs] == ["guided-seed1", "guided-seed7", "unguided-seed1", "unguided-seed7"]
    for run, (axis, seed) in zip(plan.runs, itertools.product(runs("guided"), "17")):
        updates = ["--max-update", "300", "--total-num-update", "300"]
        words = [*experiment.train, *updates, "--cell", "gru", "--dropout=0.3", *axis.own, "--seed", seed]
        save = ["--save-dir", f"/out/{run.folder}/checkpoints", "--log-file", f"/out/{run.folder}/train.jsonl"]
        assert run.train == ["/bin/fairseq-train", "--user-dir", "/root/fairseq_attn_plugin", *words, *save]
        assert run.settings == f"train {' '.join(words)} | generate {' '.join(experiment.decode)}"
        assert run.updates == 300


def test_a_file_extends_another_and_axes_take_options(tmp_path):
    (tmp_path / "base.yaml").write_text(f"title: Base\n{TINY}decode: --beam 1\naxes: {{cell: all}}\nseeds: [1, 2]\n")
    (tmp_path / "mine.yaml").write_text(
        "extends: base\nseeds: 3\nmore: --dropout 0.1\naxes:\n  model:\n    plain:\n    wide one: --decoder-layers 2\n"
        "    --input-feeding on:\n    beam: {name: b, decode: --beam 2, splits: [test_9]}\n  clip-norm: [010]\n"
    )
    plan = plan_of(tmp_path / "mine.yaml", folder=tmp_path)
    assert (plan.title, [run.seed for run in plan.runs]) == ("Base", ["3"] * 4)
    assert [run.name for run in plan.runs] == [
        f"{name}-clip-norm-010" for name in ("plain", "wide-one", "input-feeding-on", "b")
    ]
    assert [value_of("--decoder-layers", run.train) for run in plan.runs] == [None, "2", None, None]
    assert plan.runs[2].facts == {"model": "--input-feeding on", "clip-norm": "clip-norm 010"}, "text"
    assert plan.runs[2].train.count("--input-feeding") == 1
    assert [list(run.decodings) for run in plan.runs] == [["test"]] * 3 + [["test_9"]]
    assert value_of("--beam", plan.runs[3].decodings["test_9"]) == "2"
    out = tmp_path / "out"
    out.mkdir()
    plan.write(out)
    assert read_plan(out) == plan and json.loads((out / "plan.json").read_text())["task"] == "reversal"


@pytest.mark.parametrize(
    "text, words",
    [
        ("axez: {}", "mine.yaml: axez: no key of an experiment; did you mean axes?"),
        ("axes: [", "mine.yaml:3: expected "),
        ("train: a\ntrain: b", "mine.yaml:1: key train stands twice"),
        ("[1]", "mine.yaml: got no keys; give some of "),
        ("extends: bace", "mine.yaml: extends: got 'bace'; choose from base, mine"),
        ("extends: mine", "mine.yaml: extends: mine.yaml is extended by this file"),
        ("updates: many", "mine.yaml: updates: got 'many'; give a number, 1 or more"),
        ("seeds: [1, 1]", "mine.yaml: seeds: got 1 twice; give each once"),
        ("axes: {score: dot}\ngrids: [{cell: gru}]", "mine.yaml: axes: it has grids as well"),
        ("train: --lr 'x", "mine.yaml: train: \"--lr 'x\": No closing quotation"),
        ("axes: {score: [generel, additiv, none], cell: [lstn]}",
         "score: got 'generel', 'additiv'; choose from none, additive, concat, cosine, dot, general, last, location, "
         "normed_additive, scaled_dot\ncell: got 'lstn'; did you mean lstm?"),
        ("axes: {dropout: all}", "dropout: got all; its values are in no table, so name them"),
        ("axes: {layer-norm: 'on,maybe'}", "layer-norm: got 'maybe'; --layer-norm takes no value, so choose from on"),
        ("axes: {model: {a: {nane: x}}}", "model: a: nane: no key of a value; did you mean name?"),
        ("axes: {model: {a: {name: x}, b: {name: x}}}", "two runs would share the folder x (model a; model b)"),
        ("axes: {model: {a: --cell gru}, cell: lstm}", "cell: model sets --cell as well; leave one of both axes out"),
        ("axes: {droput: '0.1'}", "--droput: no option of these commands; did you mean --dropout?"),
        ("axes: {dropout: '0.1,x,y'}",
         "--dropout: got 'x'; it does not take this (in dropout-x)\n--dropout: got 'y'; it does not take this"),
        ("axes: {attention-heads: '1,3', bridge: 'copy,mad'}", "--attention-heads 3: a value has 128 numbers"),
        ("more: --arch attn_lstm_x", "--arch: got 'attn_lstm_x'"),
        ("more: --attention-score lunog", "--attention-score: got 'lunog'; choose from none, additive"),
        ("more: --reversal-min-length 30", "--reversal-min-length: 30 is more than --reversal-max-length 20"),
        ("more: --save-dir=x", "--save-dir: checkpoints and logs are in the folder of the run; leave it out"),
        ("more: --seed 3", "--seed: give --seeds 1,2,3"),
        ("splits: [test_0]", "--gen-subset: got 'test_0'; a sentence has 1 to"),
        ("decode: --beem 1", "--beem: no option of these commands; did you mean --beam?"),
        ("report: {colums: []}", "report: unknown key 'colums' (did you mean 'columns'?)"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_anything_trains(tmp_path, text, words):
    (tmp_path / "base.yaml").write_text(TINY)
    more = "" if "extends" in text or text.startswith("train") or text == "[1]" else "extends: base\n"
    (tmp_path / "mine.yaml").write_text(f"{text}\n{more}")
    with pytest.raises(ValueError) as error:
        experiment = read_experiment(str(tmp_path / "mine.yaml"), tmp_path)
        user = experiment.more if "-dir" in text or "--seed" in text else []  # as what the user says
        make_plan(experiment, Path("/out"), PROGRAMS, user)
    assert words in str(error.value)


def test_words_of_a_line_by_option():
    words = "data --lr 0.1 --betas (0.9, 0.98) --cpu --lr=0.2".split()
    assert dict(options_of(words)) == {"": "data", "--lr": "0.2", "--betas": "(0.9, 0.98)", "--cpu": ""}
