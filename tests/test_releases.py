"""A checkpoint of any release loads in this version and gives what it gave then."""

import shutil
from pathlib import Path

import pytest
import torch
from release_fixtures import load, outputs, read, unpack, write_checkpoint

FIXTURES = Path(__file__).parent / "fixtures"
RELEASES = {folder.name: read(folder / "models.pt") for folder in sorted(FIXTURES.iterdir())}
"""What ``models.pt`` of each release holds."""


def cases(kind):
    return [(release, name) for release, content in RELEASES.items() for name in content[kind]]


def trained(release, name):
    """A checkpoint that fairseq-train wrote."""
    return FIXTURES / release / f"{name}.pt"


def assert_gives(checkpoint, batches, then):
    """Logits, attention, and the hypotheses of the beam search with their scores."""
    given, numbers = outputs(*load(checkpoint), batches), unpack(then["numbers"])
    assert given["tokens"] == then["tokens"]
    assert given["numbers"].keys() == numbers.keys()
    for name, expected in numbers.items():
        tolerance = 1e-4 if name.startswith("scores") else 1e-5
        found = given["numbers"][name]
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("release, name", cases("models"))
def test_a_model_gives_what_it_gave(release, name, tmp_path):
    content = RELEASES[release]
    model = content["models"][name]
    checkpoint = write_checkpoint(content["task"], model, tmp_path / "checkpoint.pt")
    assert_gives(checkpoint, content["batches"], model["outputs"])


@pytest.mark.parametrize("release, name", cases("trained"))
def test_a_checkpoint_of_fairseq_train_gives_what_it_gave(release, name):
    content = RELEASES[release]
    assert_gives(trained(release, name), content["batches"], content["trained"][name])


@pytest.mark.slow
@pytest.mark.parametrize("release", [release for release, content in RELEASES.items() if content["resumed"]])
def test_a_training_goes_on_as_it_would_have(release, command, tmp_path):
    """Parameter for parameter: the optimiser's state has no names, only their order."""
    then = RELEASES[release]["resumed"]
    before = shutil.copy(trained(release, then["checkpoint"]), tmp_path / "before.pt")
    command("train", then["options"], f"--restore-file {before} --save-dir {tmp_path}")
    parameters = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)["model"]
    torch.testing.assert_close(dict(parameters), unpack(then["parameters"]), rtol=1e-4, atol=1e-4)


def test_the_fixtures_are_small():
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*.pt")) <= 300_000
