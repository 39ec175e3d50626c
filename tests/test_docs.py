"""Examples in the documentation: each is run by a test, or listed here with the reason why not; fairseq and the scripts
know all that they are given."""

import ast
import io
import logging
import re
import runpy
import shlex
import sys
from typing import Dict, List, NamedTuple

import pytest
import torch
from documentation import PAGES, ROOT, block, blocks, read
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq_commands import PLUGIN
from lstm_checkpoint import translation_task
from model_factory import batch, build, toy_task
from test_subclasses import assert_beams_have_the_scores_of_teacher_forcing, greedy

from fairseq_attn_plugin.models.attn_rnn import recompose
from fairseq_attn_plugin.models.bridge import BRIDGES
from fairseq_attn_plugin.modules import options
from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS
from fairseq_attn_plugin.modules.attention.histories import HISTORIES
from fairseq_attn_plugin.modules.attention.normalizers import NORMALIZERS
from fairseq_attn_plugin.modules.recurrence.cells import CELLS

MODULE = '"$(python -m fairseq_attn_plugin)"'

TRAINS = "trains for minutes; test_compare_script.py and test_nmt_script.py run the scripts"
INSTALLS = "installs packages; test_packaging.py and test_test_script.py run the scripts"
PROCESSES = "starts several processes; test_train_distributed.py does so on less"
NEEDS_A_MODEL = "needs what a long training leaves; the test of the script runs it"

RUN = {
    # page, text in the block: the test that runs it
    ("README.md", "--arch attn_gru_bahdanau"): "test_docs.py::test_a_model_on_the_reversal_task",
    ("docs/reversal.md", "--arch attn_gru_additive"): "test_docs.py::test_a_model_on_the_reversal_task",
    ("docs/reversal.md", "export_reversal.sh"): "test_docs.py::test_scripts_on_small_files",
    ("docs/tools.md", "score.sh"): "test_docs.py::test_scripts_on_small_files",
    ("docs/tools.md", "translator.translate_lines"): "test_translator.py::test_the_example_of_the_page",
    ("docs/tools.md", "Vote("): "test_several_models.py::test_the_example_of_the_page",
    ("docs/extending.md", "class DistanceScore"): "test_outside_score.py::test_the_example_of_the_page",
    ("docs/extending.md", "--user-dir my_scores"): "test_outside_score.py::test_the_example_of_the_page",
    ("docs/extending.md", "class SharpSoftmax"): "test_docs.py::test_a_normaliser_of_your_own",
    ("docs/extending.md", "class MinimalGatedUnit"): "test_docs.py::test_a_cell_of_your_own",
    ("docs/extending.md", "class ScaledCopy"): "test_docs.py::test_a_bridge_of_your_own",
    ("docs/extending.md", "class FadingCoverage"): "test_docs.py::test_attention_of_your_own_that_remembers",
    ("docs/extending.md", "class GatedAddressing"): "test_docs.py::test_attention_of_your_own_that_remembers",
    ("docs/extending.md", "found = attention("): "test_docs.py::test_examples_of_python",
    ("docs/extending.md", "loss.backward()"): "test_docs.py::test_examples_of_python",
    ("docs/from-fairseq-lstm.md", "--arch lstm"): "test_docs.py::test_the_same_command_makes_the_same_model",
    ("docs/hydra.md", "fairseq-hydra-train"): "test_workflows.py::test_hydra_example_trains_what_the_preset_does",
}
LONG = {
    # page, text in the block: why no test runs it as it stands
    ("README.md", "bash scripts/test.sh"): TRAINS,
    ("README.md", "TORCH_INDEX_URL"): INSTALLS,
    ("README.md", "nmt.sh"): TRAINS,
    ("CONTRIBUTING.md", "setup.sh dev"): INSTALLS,
    ("CONTRIBUTING.md", "test.sh fast"): "these are the tests",
    ("CONTRIBUTING.md", "mkdocs serve"): "goes on until it is stopped; below, the site is built",
    ("CONTRIBUTING.md", "def forward("): "a method alone",
    ("docs/getting-started.md", "bash scripts/test.sh"): TRAINS,
    ("docs/getting-started.md", "TORCH_INDEX_URL"): INSTALLS,
    ("docs/getting-started.md", "# makes .venv"): INSTALLS,
    ("docs/getting-started.md", "pip install -c"): INSTALLS,
    ("docs/getting-started.md", "pip wheel"): "installs packages; test_packaging.py trains with the wheel",
    ("docs/mechanisms.md", "--scheduled-sampling linear"): "not a whole command; test_scheduled_sampling.py trains so",
    ("docs/comparing.md", "compare.sh --jobs 2"): TRAINS,
    ("docs/comparing.md", "--launcher"): TRAINS,
    ("docs/reversal.md", "bash scripts/reversal.sh"): TRAINS,
    ("docs/scaling.md", "--nproc 2"): PROCESSES,
    ("docs/scaling.md", "--nproc 4"): PROCESSES,
    ("docs/tools.md", "translate.sh runs/nmt/multi30k.de-en/model"): NEEDS_A_MODEL,
    ("docs/tools.md", "translate.sh --vote"): NEEDS_A_MODEL,
    ("docs/tools.md", "average_checkpoints.sh"): NEEDS_A_MODEL,
    ("docs/tools.md", "plot_attention.sh"): NEEDS_A_MODEL,
    ("docs/tools.md", "replace_unknown.sh"): NEEDS_A_MODEL,
    ("docs/tools.md", "convert_fairseq_lstm.sh"): NEEDS_A_MODEL,
    ("docs/from-fairseq-lstm.md", "convert_fairseq_lstm.sh"): NEEDS_A_MODEL,
    ("docs/translation.md", "nmt.sh"): TRAINS,
    ("docs/transduction.md", "nmt.sh"): TRAINS,
    ("docs/transduction.md", "transduce.sh"): "trains for minutes; test_transduce_script.py runs the script",
    ("docs/transduction.md", "translate.sh"): NEEDS_A_MODEL,
    ("docs/translation.md", "--lowercase"): NEEDS_A_MODEL,
    ("docs/translation.md", "fairseq-generate"): TRAINS,
    ("docs/translation.md", "--finetune-from-model"): "trains for minutes; test_data_prep_like.py goes on with a model",
    ("docs/translation.md", "nmt_compare.sh"): TRAINS,
    ("docs/questions.md", "question-attention"): TRAINS,
    ("docs/questions.md", "question-order"): TRAINS,
    ("docs/questions.md", "question-score"): TRAINS,
    ("docs/questions.md", "question-forcing"): TRAINS,
    ("docs/questions.md", "demonstration_corpus.py"): TRAINS,
}


def test_every_example_is_run_or_listed():
    listed: Dict[tuple, str] = {**RUN, **LONG}
    assert len(listed) == len(RUN) + len(LONG)
    for page, text in listed:
        block(page, text)
    for found in blocks():
        names = [key for key in listed if key[0] == found.page and key[1] in found.text]
        assert len(names) == 1, f"{found.page}: {names or 'in neither list'}: {found.text}"


@pytest.mark.parametrize("where", sorted(set(RUN.values())))
def test_the_tests_that_run_them_are_there(where):
    file, name = where.split("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


class Command(NamedTuple):
    words: List[str]
    given: str
    """What an echo hands to it."""
    out: str
    """The file that it writes."""


def commands(text: str) -> List[Command]:
    """The commands of a block, without comments."""
    text = text.replace("\\\n", " ").replace(MODULE, str(PLUGIN))
    text = text.replace(" ... ", " --task reversal --arch attn_lstm ")
    found = []
    for line in text.splitlines():
        echo, _, line = line.rpartition(" | ")
        words, out = shlex.split(line, comments=True), ""
        for sign in ("<", ">"):
            if sign in words:
                at = words.index(sign)
                out = words[at + 1] if sign == ">" else out
                del words[at : at + 2]
        if words:
            found.append(Command(words, "".join(word + "\n" for word in shlex.split(echo)[1:]), out))
    return found


def as_fairseq_is_given(words: List[str]) -> List[str]:
    """Of a script that hands on what stands after ``--``, the command that it makes."""
    if words[:2] != ["bash", "scripts/train_distributed.sh"]:
        return words
    return ["fairseq-train", "--user-dir", str(PLUGIN), *words[words.index("--") + 1 :]]


FAIRSEQ = [
    pytest.param(words, id=f"{found.page}: {words[0]}")
    for found in blocks()
    if found.language == "bash" and "my_scores" not in found.text
    for words in (as_fairseq_is_given(command.words) for command in commands(found.text))
    if words[0] in ("fairseq-train", "fairseq-generate", "fairseq-interactive")
]


@pytest.mark.parametrize("words", FAIRSEQ)
def test_fairseq_knows_every_option(words):
    """Also of commands that no test runs."""
    if words[0] == "fairseq-train":
        parser = fairseq_options.get_training_parser()
    else:
        parser = fairseq_options.get_generation_parser(interactive=words[0] == "fairseq-interactive")
    fairseq_options.parse_args_and_arch(parser, words[1:])


def test_scripts_are_there_and_know_every_option():
    """Those that a page names, in a block or in the text; modes and options stand in the comment at their top."""
    for page in PAGES:
        for name in re.findall(r"(?:scripts|data-prep)/[a-z_]+\.(?:sh|py)", read(page)):
            assert (ROOT / name).exists(), f"{page}: {name}"
    for found in blocks():
        for words, _, _ in commands(found.text) if found.language == "bash" else ():
            if words[0] != "bash":
                continue
            script = (ROOT / words[1]).read_text(encoding="utf-8")
            usage = script.partition("\nset ")[0]
            for word in words[2 : words.index("--") if "--" in words else None]:
                if word.startswith("--"):
                    python = ROOT / words[1].replace(".sh", ".py")
                    where = usage + (python.read_text(encoding="utf-8") if python.exists() else "")
                    assert word in where, f"{found.page}: {words}"
            mode = words[2] if len(words) > 2 else ""
            if words[1] in ("scripts/nmt_compare.sh", "scripts/reversal.sh", "scripts/test.sh") and mode.isalpha():
                assert re.search(rf"\b{mode}\b", usage), f"{found.page}: {words}"
            if words[1] == "scripts/compare.sh" and mode.isalpha():
                assert (ROOT / "experiments" / f"{mode}.yaml").exists(), f"{found.page}: {words}"


@pytest.fixture
def follow(command, tmp_path, monkeypatch, capfd):
    """follow(commands) runs them in an empty folder, in this process, which has imported fairseq and torch; scripts
    without their set-up. Returns what the last one printed."""
    monkeypatch.chdir(tmp_path)

    def follow(steps):
        output = ""
        for words, given, out in steps:
            monkeypatch.setattr(sys, "stdin", io.StringIO(given))
            if words[0] == "bash":
                script = ROOT / words[1].replace(".sh", ".py")
                monkeypatch.setattr(sys, "argv", [str(script), *words[2:]])
                capfd.readouterr()
                runpy.run_path(str(script), run_name="__main__")
                logging.disable(logging.NOTSET)  # scripts leave fairseq's lines out
                output = capfd.readouterr().out
            elif words[0].startswith("fairseq-"):
                output = command(words[0].partition("-")[2], *words[1:])
            if out:
                (tmp_path / out).write_text(output)
        return output

    return follow


@pytest.mark.slow
@pytest.mark.parametrize(
    "page, text, files",
    [
        ("README.md", "--arch attn_gru_bahdanau", ["checkpoints/bahdanau/checkpoint_best.pt"]),
        ("docs/reversal.md", "--arch attn_gru_additive", ["generate.txt", "attention.png"]),
    ],
)
def test_a_model_on_the_reversal_task(page, text, files, tmp_path, follow):
    """As it stands, but for the length of the training and the sizes of the data."""
    shorter, replaced = re.subn(r"--max-epoch 5", "--max-update 5 --reversal-valid-size 20", block(page, text))
    assert replaced == 1
    output = follow(commands(shorter.replace("--beam 5", "--beam 5 --max-len-b 9 --reversal-test-size 10")))
    for name in files:
        assert (tmp_path / name).stat().st_size, name
    if page == "docs/reversal.md":
        assert re.search(r"^S-0\ta b c d$", output, re.M) and re.search(r"^H-0\t", output, re.M)


@pytest.mark.slow
def test_scripts_on_small_files(tmp_path, follow):
    for name, lines in {"reference": ["a dog runs .", "two children"], "baseline": ["a dog .", "two"]}.items():
        (tmp_path / f"{name}.en").write_text("".join(line + "\n" for line in lines))
    (tmp_path / "other.en").write_text((tmp_path / "reference.en").read_text())
    assert "100.00" in follow(commands(block("docs/tools.md", "score.sh")))
    follow(commands(block("docs/reversal.md", "export_reversal.sh")))
    source, target = ((tmp_path / "reversal-text" / f"test.{side}").read_text().splitlines() for side in ("src", "tgt"))
    assert [line[::-1] for line in source] == target


@pytest.fixture
def registries(monkeypatch):
    """What is registered in a test is gone after it."""
    for registry in (NORMALIZERS, HISTORIES, ADDRESSINGS, CELLS, BRIDGES):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(options, "_declared", dict(options._declared))
    yield
    monkeypatch.undo()
    recompose()


def run_python(text: str) -> dict:
    names: dict = {"__name__": "example"}
    exec(compile(block("docs/extending.md", text), "docs/extending.md", "exec"), names)
    return names


def test_a_normaliser_of_your_own(registries):
    normalizer = run_python("class SharpSoftmax")["SharpSoftmax"]()
    scores = torch.tensor([[[1.0, 2.0, 3.0]]])
    padding = torch.tensor([[False, False, True]])
    expected = torch.tensor([[[1 / (1 + torch.e**2), 1 / (1 + torch.e**-2), 0.0]]])
    torch.testing.assert_close(normalizer(scores, padding), expected)
    build(attention_normalizer="sharp_softmax")


def test_a_cell_of_your_own(registries):
    """A padded batch gives what each sentence gives alone; with one number in a state, the equations by hand."""
    run_python("class MinimalGatedUnit")
    task = toy_task()
    model = build(task, cell="minimal_gated", encoder_direction="bi", decoder_layers=2)
    source, lengths, previous = batch(task)
    logits = model(source, lengths, previous)[0]
    for n, length in enumerate(lengths):
        alone = model(source[n : n + 1, :length], lengths[n : n + 1], previous[n : n + 1])[0]
        torch.testing.assert_close(alone[0], logits[n])

    layer = CELLS["minimal_gated"](1, 1)
    with torch.no_grad():
        for weight, values in zip(layer.weights(), ([2.0, 1.0], [3.0, -1.0], [0.5, 0.0], [0.0, 0.0])):
            weight.copy_(torch.tensor(values).view_as(weight))
    x, h = 0.4, 0.3
    f = torch.sigmoid(torch.tensor(2.0 * x + 3.0 * h + 0.5))
    new = torch.tanh(1.0 * x - 1.0 * (f * h))
    (found,) = layer((torch.tensor([[x]]),), (torch.tensor([[h]]),), layer.weights())
    torch.testing.assert_close(found.squeeze(), (1 - f) * h + f * new)


def test_a_bridge_of_your_own(registries):
    """With a factor of 2 the decoder starts from twice what it starts from with the copy."""
    run_python("class ScaledCopy")
    given = "data --task translation --arch attn_rnn --bridge scaled_copy --bridge-factor 2".split()
    cfg = convert_namespace_to_omegaconf(
        fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), given)
    ).model
    model = ARCH_MODEL_REGISTRY["attn_rnn"].build_model(cfg, toy_task())
    state = (torch.ones(1, 512), torch.full((1, 512), 3.0))
    first, second = model.decoder.bridge.bridge(0, state)
    assert first.eq(2).all() and second.eq(6).all()
    cfg.bridge = "copy"
    with pytest.raises(ValueError, match="--bridge-factor 2.0: --bridge copy does not have it; leave it out"):
        ARCH_MODEL_REGISTRY["attn_rnn"].build_model(cfg, toy_task())


OF_YOUR_OWN = {
    "class FadingCoverage": dict(attention_history="fading", attention_score="additive", attention_query="previous"),
    "class GatedAddressing": dict(attention_addressing="gated", input_feeding="off"),
}


@pytest.mark.parametrize("text", OF_YOUR_OWN)
def test_attention_of_your_own_that_remembers(text, registries):
    """At most 20 lines; it learns, decodes step by step what it gives at once, and moves with the hypotheses."""
    assert len([line for line in block("docs/extending.md", text).splitlines() if line.strip()]) <= 20
    run_python(text)
    task = toy_task()
    model = build(task, **OF_YOUR_OWN[text])
    plain = build(task, **{**OF_YOUR_OWN[text], "attention_history": "none", "attention_addressing": "none"})
    plain.load_state_dict(model.state_dict(), strict=False)
    source, lengths, previous = batch(task, left_pad=True)
    logits, extra = model(source, lengths, previous)
    torch.testing.assert_close(extra["attn"][0].sum(dim=2), torch.ones_like(previous, dtype=torch.float))
    assert (logits - plain(source, lengths, previous)[0]).abs().max() > 0.01
    torch.testing.assert_close(greedy(model, source, previous), logits, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert_beams_have_the_scores_of_teacher_forcing(model, task, source, lengths, 1e-5)

    def loss():
        return torch.nn.functional.cross_entropy(model(source, lengths, previous)[0].flatten(0, 1), previous.flatten())

    optimizer, before = torch.optim.SGD(model.train().parameters(), lr=1e-3), loss()
    before.backward()
    part = model.decoder.attention.history or model.decoder.attention.addressing
    assert all(parameter.grad.abs().sum() > 0 for parameter in part.parameters())
    optimizer.step()
    assert loss() < before


def test_examples_of_python(capsys):
    found = run_python("found = attention(")["found"]
    torch.testing.assert_close(found.weights.sum(dim=2), torch.ones(2, 1))
    assert found.weights[1, 0, 3:].eq(0).all()
    names = run_python("loss.backward()")
    size = len(names["symbols"])
    assert names["logits"].shape == (1, 5, size) and names["extra"]["attn"][0].shape == (1, 5, 5)
    assert names["source"].tolist() == [[4, 5, 6, 7, 2]] and names["shifted"].tolist() == [[2, 7, 6, 5, 4]]
    assert all(parameter.grad is not None for parameter in names["model"].parameters())


def test_the_same_command_makes_the_same_model():
    """As many parameters of each shape, but that the readout has the state's columns first."""
    shapes = []
    for words, _, _ in commands(block("docs/from-fairseq-lstm.md", "--arch lstm")):
        parser = fairseq_options.get_training_parser()
        cfg = convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, words[1:]))
        task = translation_task({})
        model = ARCH_MODEL_REGISTRY[words[words.index("--arch") + 1]].build_model(cfg.model, task)
        shapes.append(sorted(tuple(parameter.shape) for parameter in model.parameters()))
    assert shapes[0] == shapes[1]
