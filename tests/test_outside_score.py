"""A score of an outside package: the example of docs/extending.md, run as it stands, and what a wrong score is told."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from fairseq_commands import hypotheses, load
from model_factory import batch, build, toy_task
from torch import nn

from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES, AttentionKeys, AttentionScore

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
EXAMPLE = re.compile(r"<!-- outside score -->\n```python\n(.*?)```\n```bash\n(.*?)```\n<!-- /outside score -->", re.S)
SERVING = """
import my_scores
from fairseq.models import MODEL_REGISTRY
model = MODEL_REGISTRY["attn_rnn"].from_pretrained("checkpoints/distance", "checkpoint_last.pt", ".")
print(model.translate("a b b c d"))
"""


@pytest.fixture
def run(programs):
    """run(command, folder, text) runs a command where fairseq's are on the path; returns its stdout."""

    def run(command, cwd, text=None):
        environment = {**os.environ, "PATH": os.pathsep.join([str(programs / "bin"), os.environ["PATH"]])}
        done = subprocess.run(command, cwd=cwd, env=environment, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


@pytest.mark.slow(seconds=30)
def test_the_example_of_the_page(tmp_path, command, run):
    """In processes of its own: here the score is not registered. Without attention 81 % of the sentences are right."""
    found = EXAMPLE.search(PAGE.read_text(encoding="utf-8"))
    assert found, "docs/extending.md has no example between <!-- outside score --> and <!-- /outside score -->"
    python, commands = found.groups()
    (tmp_path / "my_scores").mkdir()
    (tmp_path / "my_scores" / "__init__.py").write_text(python, encoding="utf-8")
    text = run(["bash", "-euc", commands], tmp_path)
    assert float(re.search(r"length=all sentence_accuracy=([\d.]+)", text).group(1)) > 92

    checkpoint = tmp_path / "checkpoints" / "distance" / "checkpoint_last.pt"
    saved = load(checkpoint)
    assert saved["cfg"]["model"]["attention_score"] == "distance"
    assert not [name for name in saved["model"] if name.startswith("decoder.attention")]  # it has no parameters

    given = f"--user-dir my_scores --task reversal --path {checkpoint} --print-alignment hard"
    text = run(["fairseq-interactive", *given.split()], tmp_path, "a b b c d\n")
    ((_, hypothesis),) = hypotheses(text)
    assert len(hypotheses(text, "A")) == 1
    assert run(["python", "-c", SERVING], tmp_path).splitlines()[-1] == hypothesis.split("\t")[1]

    with pytest.raises(ValueError, match="--attention-score: got 'distance'; choose from none"):
        command("generate", f"--task reversal --path {checkpoint}")


# Errors


@pytest.fixture
def register(monkeypatch):
    """register(name, class) for the duration of one test."""
    monkeypatch.setattr(ATTENTION_SCORES, "_classes", dict(ATTENTION_SCORES._classes))
    return lambda name, cls: ATTENTION_SCORES.register(name)(cls)


def dot(query, keys):
    return torch.bmm(query[..., :1], keys[..., :1].transpose(1, 2))


class NoScore(nn.Module):
    def forward(self, query, keys):
        return dot(query, keys)


class OneSize(AttentionScore):
    def __init__(self, size):
        super().__init__(size, size)


class Transposed(AttentionScore):
    def forward(self, query, keys):
        return dot(query, keys).transpose(1, 2)


class OneForAllPositions(AttentionScore):
    def forward(self, query, keys):
        return dot(query, keys).sum(dim=2, keepdim=True)


class Undefined(AttentionScore):
    def forward(self, query, keys):
        return dot(query, keys) * float("nan")


class NoTensor(AttentionScore):
    def forward(self, query, keys):
        return dot(query, keys), None


class SizesDiffer(AttentionScore):
    def forward(self, query, keys):
        return torch.bmm(query, keys.transpose(1, 2))


class MaskToo(AttentionScore):
    def forward(self, query, keys, padding_mask):
        return dot(query, keys)


class OptionOfItsOwn(AttentionScore):
    options = ("attention_width",)


class KeysWithoutPadding(AttentionKeys):
    def forward(self, values, padding_mask=None):
        return values[:, ~padding_mask.any(dim=0)]


class FlatKeys(AttentionKeys):
    def forward(self, values, padding_mask=None):
        return values.sum(dim=2)


class ShortKeys(AttentionKeys):
    def forward(self, values, padding_mask=None):
        return values[:, :1]


class KeysWithoutMask(AttentionKeys):
    def forward(self, values):
        return values


class KeysOfOneSize(AttentionKeys):
    def __init__(self, value_dim):
        super().__init__(value_dim)


def with_keys(keys):
    """A score with another key half."""
    return type(f"Of{keys.__name__}", (AttentionScore,), {"keys_class": keys, "forward": lambda self, q, k: dot(q, k)})


WRONG = {
    # class with the mistake: the score, what was expected
    NoScore: (NoScore, "AttentionScore"),
    OneSize: (OneSize, "(query_dim, key_dim)"),
    Transposed: (Transposed, "B×T×S"),
    OneForAllPositions: (OneForAllPositions, "B×T×S"),
    NoTensor: (NoTensor, "B×T×S"),
    Undefined: (Undefined, "NaN"),
    OptionOfItsOwn: (OptionOfItsOwn, "no Option"),
    KeysWithoutPadding: (with_keys(KeysWithoutPadding), "B×S×A"),
    SizesDiffer: (SizesDiffer, "B×T×S"),
    MaskToo: (MaskToo, "B×T×S"),
    FlatKeys: (with_keys(FlatKeys), "B×S×A"),
    ShortKeys: (with_keys(ShortKeys), "B×S×A"),
    KeysWithoutMask: (with_keys(KeysWithoutMask), "B×S×A"),
    KeysOfOneSize: (with_keys(KeysOfOneSize), "(value_dim, attention_dim)"),
}


@pytest.mark.parametrize("culprit", WRONG, ids=lambda cls: cls.__name__)
def test_a_wrong_score_is_reported_by_name(culprit, register):
    """When it is registered or when the model is built, not at the first batch."""
    score, expected = WRONG[culprit]
    with pytest.raises(ValueError) as caught:
        register("outside", score)
        build(attention_score="outside")
    error = str(caught.value)
    assert "\n" not in error
    for part in ("--attention-score", "outside", culprit.__name__, expected):
        assert part in error, error


class LengthKeys(AttentionKeys):
    """Keys of a size of their own: how long a value is."""

    def forward(self, values, padding_mask=None):
        return values.norm(dim=2, keepdim=True)


class LengthScore(AttentionScore):
    """e(j) = b·|v(j)|, for every query the same; one more argument has a default."""

    keys_class = LengthKeys

    def __init__(self, query_dim, key_dim, start=0.5):
        super().__init__(query_dim, key_dim)
        self.factor = nn.Parameter(torch.tensor([start]))

    def forward(self, query, keys):
        return (self.factor * keys).transpose(1, 2).expand(-1, query.size(1), -1)


def test_keys_may_have_a_size_of_their_own(register):
    register("length", LengthScore)
    task = toy_task()
    model = build(task, attention_score="length")
    source, lengths, previous = batch(task)
    weights = model(source, lengths, previous)[1]["attn"][0]
    values = model.encoder(source, lengths)["values"][0]
    scores = (model.decoder.attention.score.factor * values.norm(dim=2)).masked_fill(source.eq(1), float("-inf"))
    torch.testing.assert_close(weights, scores.softmax(dim=1).unsqueeze(1).expand_as(weights))
