"""What the documentation says of the code, of its own tables and of its pages is so; the site of it is built, and loads
nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest
import yaml
from documentation import DOCS, NOTEBOOKS, PAGES, ROOT, prose, read

from fairseq_attn_plugin.models.bridge import BRIDGES
from fairseq_attn_plugin.models.encoder_fronts import ENCODER_FRONTS
from fairseq_attn_plugin.models.presets import PRESETS
from fairseq_attn_plugin.modules import options
from fairseq_attn_plugin.modules.attention.addressings import ADDRESSINGS
from fairseq_attn_plugin.modules.attention.histories import HISTORIES
from fairseq_attn_plugin.modules.attention.normalizers import NORMALIZERS
from fairseq_attn_plugin.modules.attention.scores import ATTENTION_SCORES
from fairseq_attn_plugin.modules.attention.windows import WINDOWS
from fairseq_attn_plugin.modules.combination import ACTIVATIONS
from fairseq_attn_plugin.modules.recurrence.cells import CELLS
from fairseq_attn_plugin.modules.scheduled_sampling import SCHEDULES

MAX_README = 160
MAX_ROWS = 10


def test_the_readme_is_a_front_door():
    text = read("README.md")
    assert len(text.splitlines()) <= MAX_README
    rows = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert all(table.count("\n") - 2 <= MAX_ROWS for table in rows)
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", text))
    assert linked == set(DOCS) - {"docs/index.md", "docs/reference.md"}


def test_numbers_of_the_readme_stand_on_the_page_that_it_links():
    _, _, rest = read("README.md").partition("## Five things")
    things, _, _ = rest.partition("\n\nA checkpoint")
    items = re.split(r"^\d\. ", things, flags=re.M)[1:]
    assert len(items) == 5
    for item in items:
        page = re.findall(r"\]\((docs/[\w-]+\.md)", item)[-1]
        for number in re.findall(r"\d+\.\d+", item):
            assert number in read(page), f"{number} is not on {page}"
    rows = {row.split("|")[1].strip(): row for row in read("docs/reversal.md").splitlines() if row.startswith("| w")}
    for row in re.findall(r"^\| with.*$", read("README.md"), re.M):
        name, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert set(cells) <= {cell.strip() for cell in rows[name].split("|")}, row


def test_the_version_is_the_same_everywhere():
    (version,) = re.findall(r'^version = "(.*)"$', read("pyproject.toml"), re.M)
    assert f"version = {{{version}}}" in read("README.md")
    assert re.search(r"^## \[(\S+)\] - \d{4}-\d\d-\d\d$", read("CHANGELOG.md"), re.M)[1] == version


def table(page: str, heading: str, start: str) -> Dict[str, List[str]]:
    """Rows of the first table after ``heading`` whose header starts with ``start``, by their first cell; the header is
    the row of that name."""
    text = read(page).split(f"\n{heading}\n")[1]
    lines = text[text.index(f"\n| {start} |" if start else "\n|  |") + 1 :].split("\n\n")[0].splitlines()
    lines = [line for line in lines if not line.startswith(("| -", "|-"))]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_scores_have_the_numbers_of_the_experiments():
    page = "docs/reversal.md"
    mechanisms = [table(page, "### Mechanisms", f"{what} accuracy") for what in ("sentence", "alignment")]
    lengths = table(page, "### Lengths", "")
    summary = table("docs/mechanisms.md", "## Scores", "score | sentence accuracy")
    header = summary.pop("score")
    assert set(summary) == {"none", *ATTENTION_SCORES.names()}
    for score, row in summary.items():
        found = dict(zip(header, row))
        for what, rows in zip(("sentence", "alignment"), mechanisms):
            assert found.pop(f"{what} accuracy") == rows[score][rows[f"{what} accuracy"].index("current, lstm")]
        for name, value in found.items():
            assert value == lengths[score][lengths[""].index(name.replace("lengths ", ""))]


def test_every_mechanism_has_an_equation():
    """Beside its name in a table, or in a block below the paragraph that the name begins."""
    sections = re.split(r"^##+ (.*)$", read("docs/mechanisms.md"), flags=re.M)
    text = dict(zip(sections[1::2], sections[2::2]))
    for heading, names in {
        "Encoder": ENCODER_FRONTS.names(),
        "Scores": set(ATTENTION_SCORES.names()) - {"last"},  # which has none
        "Normalisers": NORMALIZERS.names(),
        "Histories": HISTORIES.names(),
        "Windows": WINDOWS.names(),
        "Addressings": ADDRESSINGS.names(),
        "Cells": CELLS.names(),
        "Bridges": BRIDGES.names(),
        "Readouts": set(ACTIVATIONS) - {"relu"},
        "Scheduled sampling": SCHEDULES.names(),
    }.items():
        for name in names:
            row, paragraph = rf"^\| `{name}` \| \$`", rf"^`{name}`[:,].*\n(?:.+\n)*\n```math"
            assert re.search(f"{row}|{paragraph}", text[heading], re.M), (heading, name)


def test_presets_are_the_options_that_the_page_says():
    rows = table("docs/mechanisms.md", "## Architectures", "`--arch` | options")
    rows.pop("--arch")
    assert set(rows) == set(PRESETS)
    for name, values in PRESETS.items():
        flags = " ".join(f"{options.flag(option)} {value}" for option, value in values.items())
        assert rows[name] == ([f"`{flags}`"] if flags else ["none: the defaults"]), name
    described = table("docs/mechanisms.md", "## Architectures", "`--arch` | what it is")
    assert set(PRESETS) <= {name.strip(" `") for key in described for name in key.split(",")}


def test_options_that_pages_name_are_there():
    """Options of the model, the tasks and the criterion, by the start of their names."""
    reference = set(re.findall(r"^\| `(--[\w-]+)", read("docs/options.md"), re.M))
    ours = re.compile(r"--(?:attention|readout|cell|bridge|scheduled|encoder|decoder|reversal|translation)[\w-]*")
    theirs = {"--encoder-bidirectional", "--decoder-attention", "--bridge-factor"}  # fairseq's, and of an example
    for page in PAGES:
        for option in ours.findall(read(page)):
            assert option in reference | theirs, f"{page}: {option}"


def slug(heading: str) -> str:
    """The anchor of a heading, on a code forge and on the site."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(path.relative_to(ROOT).as_posix()), re.M)
            assert anchor in map(slug, headings), f"{page}: {target}"
        assert page == "README.md" or not page.startswith("docs/") or path.parent == ROOT / "docs", "not on the site"


def test_every_page_is_on_the_site():
    config = yaml.safe_load(read("mkdocs.yml"))
    pages = [f"docs/{path}" for entry in config["nav"] for path in entry.values()]
    assert sorted(pages) == sorted([*DOCS, *(notebook.replace(".ipynb", ".md") for notebook in NOTEBOOKS)])
    for page in {*DOCS, *NOTEBOOKS} - {"docs/index.md"}:
        assert f"]({Path(page).name})" in read("docs/index.md"), page


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="bash scripts/setup.sh docs installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for path in [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        tag = r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)="
        assert not re.search(rf"(?:{tag}|url\()[\"']?(?:https?:)?//|@import", text), path


def test_messages_of_the_set_up_are_those_of_the_script():
    """Each part of a message between what is filled in."""
    rows = table("docs/getting-started.md", "## When the set-up fails", "message")
    rows.pop("message")
    script = re.sub(r"\$\w+|\$\{[^}]*\}", "$", read("scripts/setup.sh"))
    for message in rows:
        for part in re.split(r"…|'?c\+\+'|3\.1\d(?: to 3\.1\d)?", message):
            assert part.strip() in script, message


def test_rooms_are_there():
    for page, heading, start in [
        ("docs/architecture.md", "## The rooms", "room"),
        ("docs/architecture.md", "## Where to change what", "change"),
        ("CONTRIBUTING.md", "## Layout", "place"),
    ]:
        for row, cells in table(page, heading, start).items():
            for name in re.findall(r"`([\w./-]+(?:/|\.py))`", f"`{row}` {cells[0]}"):
                folders = (".", "tests", "fairseq_attn_plugin", "fairseq_attn_plugin/modules")
                found = any((ROOT / folder / name).exists() for folder in folders)
                assert found or list(ROOT.glob(f"fairseq_attn_plugin/modules/*/{name}")), name
