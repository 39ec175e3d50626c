"""fairseq's commands around a model for raw text: without its task, with constraints, with alignments that they cannot
print; and the beam of validation."""

import io
import re
import shutil
import sys

import pytest
from fairseq_commands import hypotheses
from translation_data import SMALL_MODEL, trained_folder

from fairseq_attn_plugin.models.decoder import AttnRNNDecoder

pytestmark = pytest.mark.slow
REVERSAL = "--task reversal --arch attn_lstm_reversal --optimizer adam --max-tokens 200 --reversal-valid-size 4"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("tasks")


@pytest.fixture
def trained(root, command):
    """(data folder for two target languages, checkpoint), made once."""
    data, checkpoint = root / "corpus.de-en+fr", root / "save" / "checkpoint_last.pt"
    if not checkpoint.exists():
        sizes = {"train": 60, "valid": 4, "test": 4}
        trained_folder(command, root, "--max-update 20", targets=("en", "fr"), sizes=sizes)
    return data, checkpoint


@pytest.fixture
def typed(command, monkeypatch, trained):
    """typed(text, option...): what fairseq-interactive prints of it."""

    def run(text, *options):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        data, checkpoint = trained
        return command("interactive", f"{data} --task attn_translation --path {checkpoint} --translate-to fr", *options)

    return run


# Without the task


@pytest.mark.parametrize("model", [SMALL_MODEL, "--arch lstm", "--arch transformer_iwslt_de_en"])
def test_a_folder_without_its_task_is_one_line(command, trained, tmp_path, model):
    """Whatever the model, and before anything is trained."""
    data, checkpoint = trained
    folder = f"^--task translation: {re.escape(str(data))}/data.json says how the text .* segmented, .*; give --task"
    with pytest.raises(ValueError, match=folder):
        options = f"{model} --max-tokens 100 --max-update 1".replace("--task attn_translation", "")
        command("train", data, options, f"--save-dir {tmp_path}")
    assert not list(tmp_path.glob("*.pt"))
    for name in ("generate", "interactive"):
        with pytest.raises(ValueError, match=folder):
            command(name, data, "--path", checkpoint)


def test_a_checkpoint_without_its_task_is_one_line(command, trained, tmp_path):
    data, checkpoint = trained
    words = tmp_path / "words"
    shutil.copytree(data, words)
    (words / "data.json").unlink()
    with pytest.raises(ValueError, match="^--task translation: the checkpoint is of --task attn_translation; give"):
        command("generate", words, "--path", checkpoint)
    with pytest.raises(ValueError, match="^--task: not given; give that of the training"):
        command("validate", data, "--path", checkpoint)
    for arch in ("attn_lstm_reversal", "lstm"):
        options = REVERSAL.replace("attn_lstm_reversal", arch)
        command("train", options, f"--max-update 1 --disable-validation --save-dir {tmp_path / arch}")
        with pytest.raises(ValueError, match="^--task translation: the checkpoint is of --task reversal; give"):
            command("generate", words, f"--path {tmp_path / arch / 'checkpoint_last.pt'}")


# Typed lines


def test_constraints_are_cut_as_the_target_is(typed):
    text = typed("Der hund.\tle chat\tun\nDer hund.\n", "--constraints --beam 10 --max-len-b 20")
    assert hypotheses(text, "S")[0][1].startswith("<2fr> ")
    constraints = [pieces.replace(" ", "").replace("▁", " ").strip() for _, pieces in hypotheses(text, "C")]
    assert constraints == ["le chat", "un"] and "<2" not in "".join(constraints)
    found = dict(hypotheses(text, "D"))["0"]
    assert "le chat" in found and "un" in found and "<" not in found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Der hund.\t日本", "--constraints: got '日本', and no translation of the model has '▁?日本'; leave"),
        ("Der hund.\t\tle", "--constraints: one of a line is empty; leave the second of two tabs out"),
    ],
)
def test_constraints_that_cannot_be(typed, line, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        typed(line + "\n", "--constraints")


def test_interactive_prints_no_soft_alignment_and_says_so(typed, command, tmp_path, monkeypatch):
    message = "^--print-alignment soft: fairseq-interactive prints pairs alone; give --print-alignment hard, or take"
    with pytest.raises(ValueError, match=message):
        typed("Der hund.\n", "--print-alignment soft")
    text = typed("Der hund.\nDer alte hund.\n", "--print-alignment hard")
    assert [bool(re.fullmatch(r"\d+-\d+( \d+-\d+)*", line)) for _, line in hypotheses(text, "A")] == [True, True]
    command("train", REVERSAL, "--max-update 1 --disable-validation --save-dir", tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a b\n"))
    with pytest.raises(ValueError, match=message):
        command("interactive", f"--task reversal --path {tmp_path}/checkpoint_last.pt --print-alignment soft")


# Validation


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("task", ["attn_translation", "reversal"])
def test_validation_keeps_as_many_hypotheses_as_it_is_told(trained, command, monkeypatch, tmp_path, task, beam):
    """Of four sentences, in one batch: the decoder reads ``beam`` rows for each of them at every step."""
    rows, forward = [], AttnRNNDecoder.forward

    def counted(self, prev_output_tokens, encoder_out, incremental_state=None, **kwargs):
        if incremental_state is not None and not self.training:
            rows.append((prev_output_tokens.size(1), prev_output_tokens.size(0)))
        return forward(self, prev_output_tokens, encoder_out, incremental_state, **kwargs)

    monkeypatch.setattr(AttnRNNDecoder, "forward", counted)
    given = {
        "reversal": (REVERSAL, "--reversal-eval-beam"),
        "attn_translation": (f"{trained[0]} {SMALL_MODEL}", "--translation-valid-beam"),
    }
    options, beam_option = given[task]
    command("train", options, f"{beam_option} {beam} --max-update 1 --batch-size-valid 8 --save-dir {tmp_path}")
    first = {number for step, number in rows if step == 1}
    sentences = 4 if task == "reversal" else 8  # to two languages
    assert first == {sentences * beam} and max(number for _, number in rows) == sentences * beam
