"""The notebook of the documentation: it runs, what is stored in it says what its text claims, and it becomes a page."""

import json
import re
import runpy
import sys
from types import SimpleNamespace

import pytest
from documentation import ROOT

NOTEBOOK = ROOT / "docs" / "attention.ipynb"
MOST_BYTES = 600_000
FEW = {"UPDATES": 10, "BATCH": 20, "TESTED": 4}
LAST = re.compile(r"^ *(.+): sentences (\{.*\}), letters looked at (.*)$", re.M)


def cells(kind):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def printed():
    """What is stored in the notebook as printed."""
    return "".join("".join(out["text"]) for cell in cells("code") for out in cell["outputs"] if "text" in out)


def test_it_is_stored_as_it_was_executed():
    """From the first cell to the last, with nothing but prints and pictures, each of which has words for it."""
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert [cell["execution_count"] for cell in cells("code")] == list(range(1, len(cells("code")) + 1))
    for output in (output for cell in cells("code") for output in cell["outputs"]):
        if output["output_type"] == "stream":
            assert output["name"] == "stdout", output["text"]
        else:
            assert len(output["metadata"]["image/png"]["alt"]) > 40


def test_what_is_stored_says_what_the_text_claims():
    text = printed()
    seconds = [int(found) for found in re.findall(r"updates in (\d+) seconds", text)]
    assert len(seconds) == 5 and max(seconds) < 90
    found = {
        name: ({int(length): int(right) for length, right in re.findall(r"(\d+): '(\d+) %'", sentences)}, aligned)
        for name, sentences, aligned in LAST.findall(text)
    }
    right = {name: sentences for name, (sentences, _) in found.items()}
    aligned = {name: float(value.split()[0]) for name, (_, value) in found.items() if value != "–"}
    assert right["no attention"][8] > 95 and right["no attention"][12] < 95 and right["no attention"][24] == 0
    for name in ("after the step", "before the step", "location", "shift"):
        assert right[name][8] == right[name][12] == 100, name
    assert right["after the step"][24] < 10 < right["location"][24]
    assert set(right["shift"].values()) == {100}
    assert aligned["after the step"] > 95 > 70 > aligned["before the step"]


@pytest.mark.slow(30)
def test_every_cell_runs(monkeypatch):
    """On a few small batches."""
    for module in ("nbclient", "ipykernel"):
        pytest.importorskip(module, reason="bash scripts/setup.sh docs installs it")
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    for name, value in FEW.items():
        parameters.source, replaced = re.subn(rf"^{name} = \d+", f"{name} = {value}", parameters.source, flags=re.M)
        assert replaced == 1, name
    NotebookClient(notebook, timeout=300, startup_timeout=300, kernel_name="python3").execute()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert sum("image/png" in output["data"] for output in pictures) == len(pictures) > 5


@pytest.fixture(scope="module")
def hooks():
    """The names of docs/notebook.py and docs/formulas.py."""
    for module in ("mkdocs", "latex2mathml", "pymdownx"):
        pytest.importorskip(module, reason="bash scripts/setup.sh docs installs it")
    paths = [ROOT / "docs" / f"{name}.py" for name in ("formulas", "notebook")]
    formulas, notebook = (SimpleNamespace(**runpy.run_path(str(path))) for path in paths)
    return SimpleNamespace(formulas=formulas, notebook=notebook)


def test_it_becomes_a_page_with_its_outputs(hooks):
    markdown, pictures = hooks.notebook.page(json.loads(NOTEBOOK.read_text(encoding="utf-8")), "attention")
    assert markdown.startswith("# ") and markdown.count("```python\n") == len(cells("code"))
    assert re.findall(r"!\[[^\]]+\]\((.*)\)", markdown) == list(pictures)
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    assert all(line.rstrip() in markdown for line in printed().splitlines())
    text = re.sub(r"^```(?:python|text)\n.*?^```$", "", markdown, flags=re.S | re.M)
    blocks, inline = re.findall(r"```math\n(.*?)```", text, re.S), re.findall(r"\$`([^`]+)`\$", text)
    assert len(blocks) > 3 and len(inline) > 10
    assert "$" not in re.sub(r"```math\n.*?```|\$`[^`]+`\$", "", text, flags=re.S)
    for tex, display in [*((tex, "block") for tex in blocks), *((tex, "inline") for tex in inline)]:
        hooks.formulas.mathml(tex, display)


@pytest.mark.parametrize(
    "given, page",
    [
        ("a $x(1)$, $s$ and `$HOME`", "a $`x(1)`$, $`s`$ and `$HOME`"),
        ("$$\na\n+ b\n$$\n", "```math\na\n+ b\n```\n"),
        ("5 $ and no more", "5 $ and no more"),
    ],
)
def test_formulas_of_a_notebook_are_those_of_pages(hooks, given, page):
    assert hooks.notebook.formulas(given) == page


def test_an_error_in_a_notebook_ends_the_build(hooks):
    failed = {"output_type": "error", "ename": "ValueError"}
    notebook = {"cells": [{"cell_type": "code", "source": "1 / 0", "outputs": [failed]}]}
    with pytest.raises(ValueError, match="a.ipynb: an output is error; execute the notebook anew"):
        hooks.notebook.page(notebook, "a")


def test_links_of_the_notebook_lead_somewhere():
    for cell in cells("markdown"):
        for target in re.findall(r"\]\(([\w-]+\.md)", "".join(cell["source"])):
            assert (ROOT / "docs" / target).exists(), target


def test_the_corpus_of_the_demonstration():
    """No line twice, none of a test in training; the four lines, and every word of them, are where they should be."""
    sys.path.insert(0, str(ROOT / "data-prep"))
    try:
        from demonstration_corpus import DEMONSTRATION, corpus
    finally:
        sys.path.pop(0)
    splits = corpus()
    assert splits == corpus()
    lines = [pair for split in splits.values() for pair in split]
    assert len({english for english, _ in lines}) == len({french for _, french in lines}) == len(lines)
    known = {side: {word for pair in splits["train"] for word in pair[side].split()} for side in (0, 1)}
    for pair in [*splits["test"], *splits["valid"], *DEMONSTRATION]:
        assert all(set(pair[side].split()) <= known[side] for side in (0, 1)), pair
    french = dict(lines)
    assert french["she's not small ."] == "elle n'est pas petite ."
    assert french["they're tall now ."] == "ils sont grands maintenant ."
    assert french["i forgot yesterday ."] == "j'ai oublié hier ."
    assert french["don't stop ."] == "n'arrête pas !"
