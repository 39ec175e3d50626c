"""Several models at once: the ensemble is fairseq's, the vote goes by its rule, and what cannot be is one line."""

import itertools
import json
import re
import shutil

import pytest
import torch
from documentation import read
from fairseq_commands import hypotheses
from test_translate_script import translate  # noqa: F401
from translation_data import SMALL_MODEL, data_folder, model_folder, read_lines

from fairseq_attn_plugin.models.attn_rnn import AttnRNNModel
from fairseq_attn_plugin.serving import vote
from fairseq_attn_plugin.serving.translator import Translation
from fairseq_attn_plugin.serving.vote import Vote

pytestmark = pytest.mark.slow

POSITIONS = "--max-source-positions 60 --max-target-positions 101"
MEMBERS = {"a": "--seed 1", "b": "--seed 2 --attention-score additive --encoder-hidden-size 40", "c": "--seed 3"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture
def models(root, command):
    """Folders of three models that have seen a few batches, the third of which has other pieces; made once."""
    if not (root / "c" / "checkpoint.pt").exists():
        for name, options in MEMBERS.items():
            made, vocabulary = (root / "other", 60) if name == "c" else (root, 120)
            data = made / "corpus.de-en"
            if not data.exists():
                made.mkdir(exist_ok=True)
                data_folder(command, made, sizes={"train": 80, "valid": 2, "test": 16}, vocabulary=vocabulary)
            save = root / f"save-{name}"
            words = f"{SMALL_MODEL} {options} {POSITIONS} --max-update 20 --disable-validation --save-dir {save}"
            command("train", data, words)
            model_folder(data, save / "checkpoint_last.pt", root / name)
    return [root / name for name in MEMBERS]


def test_an_ensemble_is_what_generate_prints(root, models, command):
    lines = read_lines(root / "text" / "test.de")
    first, second, _ = models
    text = command(
        "generate", f"{root}/corpus.de-en --task attn_translation --path {first}/checkpoint.pt:{second}/checkpoint.pt",
        "--beam 3 --print-alignment soft --batch-size 1 --max-len-a 2 --max-len-b 25", POSITIONS,
    )  # fmt: skip
    scores, alignments = dict(hypotheses(text, "D")), dict(hypotheses(text, "A"))
    translator = AttnRNNModel.from_pretrained([first, second])
    alone = AttnRNNModel.from_pretrained(first).translate_lines(lines, beam=3)
    different = 0
    for number, line in enumerate(lines):
        (found,) = translator.translate_lines([line], beam=3)
        score, text = scores[str(number)].split("\t")
        assert found.text == text and found.score == pytest.approx(float(score), abs=1e-4)
        rows = [[float(x) for x in row.split(",")] for row in alignments[str(number)].split()]
        assert torch.allclose(torch.tensor(found.attention), torch.tensor(rows), atol=1e-4)
        different += abs(found.score - alone[number].score) > 1e-3
    assert different > 10, "two models, not the first alone"


def test_the_probabilities_of_an_ensemble_are_the_mean(models):
    """Of a given target, by forced decoding of each."""
    translator = AttnRNNModel.from_pretrained(models[:2])
    (found,) = translator.translate_lines(["Der hund."], beam=1)
    source = torch.tensor([[translator.src_dict.index(piece) for piece in found.source]])
    target = torch.tensor([[translator.tgt_dict.index(piece) for piece in found.target]])
    before = torch.cat([torch.full((1, 1), translator.tgt_dict.eos()), target[:, :-1]], dim=1)
    probabilities = []
    for model in translator.models:
        logits, _ = model(source, torch.tensor([source.size(1)]), before)
        probabilities.append(logits.softmax(-1).gather(2, target[:, :, None]))
    mean = torch.stack(probabilities).mean(0).log2().mean()
    assert found.score == pytest.approx(float(mean), abs=1e-4)


def brute_force(texts, scores):
    """The rule, over every member as a candidate: votes, sum of scores, first."""
    ranks = []
    for member, text in enumerate(texts):
        voters = [other for other in range(len(texts)) if texts[other] == text]
        ranks.append((-len(voters), -sum(scores[voter] for voter in voters), member))
    return min(ranks)[2]


def test_the_rule_of_the_vote():
    assert vote.winner(["b", "a", "a"], [-0.1, -3.0, -2.0]) == 1, "most votes, whatever the scores"
    assert vote.winner(["b", "a"], [-0.5, -0.25]) == 1, "of as many votes the greater sum"
    assert vote.winner(["a", "b", "a", "b"], [-1.0, -0.75, -0.25, -0.5]) == 0, "as many, as much: the first"
    for texts in itertools.product("abc", repeat=4):
        for scores in itertools.product((-1.0, -0.5), repeat=4):
            assert vote.winner(texts, scores) == brute_force(texts, scores)
    with pytest.raises(ValueError, match="^a vote of 0 texts with 0 scores; give a score for each, at least one$"):
        vote.winner([], [])


def test_a_vote_of_models_with_other_pieces(root, models):
    lines = ["", *read_lines(root / "text" / "test.de")]
    members = [AttnRNNModel.from_pretrained(folder) for folder in (*models, models[0])]
    found = Vote(members).translate_lines(lines, beam=2)
    answers = [member.translate_lines(lines, beam=2) for member in members]
    for line, (done, *each) in enumerate(zip(found, *answers, strict=True)):
        texts = [answer.text for answer in each]
        best = each[vote.winner(texts, [answer.score for answer in each])]
        assert done.votes == texts.count(done.text) and (done.votes > 1 or line)
        for name in set(Translation.__dataclass_fields__) - {"votes", "attention"}:
            assert getattr(done, name) == getattr(best, name)
    assert Vote(members).translate("Der hund.", beam=2) == Vote(members).translate(["Der hund."], beam=2)[0]
    for mistake in (dict(beem=2), dict(sampling="yes")):
        with pytest.raises((TypeError, ValueError), match=f"^{next(iter(mistake))}: "):
            Vote(members).translate_lines(["Der hund."], **mistake)
    with pytest.raises(ValueError, match="^lines: got 'Der hund.', which is not a list"):
        Vote(members).translate_lines("Der hund.")
    for wrong, message in (([], "none given"), ([models], "got a list; give translators")):
        with pytest.raises(ValueError, match=f"^members: {message}"):
            Vote(wrong)


def test_models_that_cannot_be_decoded_together_are_one_line(models, tmp_path, translate):  # noqa: F811
    first, _, other = models
    remedy = "give models of one data folder, or let each decode alone and vote (--vote)"
    pieces = "pieces (dictionaries or sentencepiece model)"
    assert translate(first, b"der\n", other, status=1) == (
        b"", f"error: {other}: decoded together with {first}, but of other {pieces}; {remedy}\n"
    )  # fmt: skip
    turned = shutil.copytree(first, tmp_path / "turned")
    settings = json.loads((turned / "data.json").read_text())
    (turned / "data.json").write_text(json.dumps({**settings, "segmentation": "unigram"}))
    said = translate(first, b"", turned, status=1)[1]
    assert said.startswith("error: ") and len(said.splitlines()) == 1
    with pytest.raises(ValueError, match="^no model given; give at least one folder$"):
        AttnRNNModel.from_pretrained([])


def test_the_command_takes_several(models, translate):  # noqa: F811
    first, second, other = models
    out, _ = translate(first, b"der hund.\n", "--json", second, "--beam", 2)
    together = json.loads(out)
    (done,) = AttnRNNModel.from_pretrained([first, second]).translate_lines(["der hund."], beam=2)
    assert together["text"] == done.text and together["score"] == pytest.approx(done.score, abs=1e-5)
    assert "votes" not in together
    out, said = translate(first, b"der hund.\n\n", "--vote", other, first, "--json")
    voted, blank = map(json.loads, out.splitlines())
    assert voted["votes"] >= 2 and blank["votes"] == 3 and said.startswith("translated 2 lines, 1 empty")


def test_the_example_of_the_page(models, capfd):
    """It runs as it stands, but for the folders."""
    text = read("docs/tools.md")
    (example,) = re.findall(r"<!-- several models -->\n```python\n(.*?)```\n<!-- /several models -->", text, re.S)
    code = example.replace("runs/nmt/a/model", str(models[0])).replace("runs/nmt/b/model", str(models[1]))
    exec(compile(code, "docs/tools.md", "exec"), {})
    assert len(capfd.readouterr().out.splitlines()) == 1
