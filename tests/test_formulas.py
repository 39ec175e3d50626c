"""The formulas of the documentation: LaTeX that GitHub, GitLab and the site render alike."""

import runpy
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from documentation import PAGES, ROOT, formulas, parts


@pytest.fixture(scope="module")
def hook():
    """The names of docs/formulas.py."""
    for module in ("latex2mathml", "mkdocs", "pymdownx"):
        pytest.importorskip(module, reason="bash scripts/setup.sh docs installs it")
    return SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "formulas.py")))


def test_every_formula_renders(hook):
    found = formulas()
    assert {display for _, display, _ in found} == {"block", "inline"}
    for page, display, tex in found:
        root = ElementTree.fromstring(hook.mathml(tex, display))
        assert root.get("display") == display
        cells, rows = len(root.findall(".//mtd")), len(root.findall(".//mtr"))
        assert rows == tex.count(r"\begin") + tex.count("\\\\"), f"{page}: {tex}"
        assert cells == rows + tex.count("&"), f"{page}: {tex}"


def test_every_command_of_the_list_is_one_of_a_formula(hook):
    text = "".join(tex for _, _, tex in formulas())
    assert not [name for name in hook.COMMANDS | hook.ENVIRONMENTS if name not in text]


def test_equations_are_formulas():
    """No equation of the page of mechanisms is a block of plain text, and every sign of a block begins and ends."""
    assert {part.language for part in parts("docs/mechanisms.md")} == {None, "math", "bash"}
    for page in PAGES:
        text = "".join(part.text for part in parts(page) if part.language is None)
        assert text.count("$`") == text.count("`$"), page


@pytest.mark.parametrize(
    "tex, reason",
    [
        (r"\foo x", r"\\foo is not in the list"),
        (r"\operatorname{score}", r"\\operatorname is not in the list"),
        ("\\begin{aligned} a &= b \\\\ c &= d \\end{aligned}", "aligned is not in the list"),
        (r"\begin{split} a &= b & c &= d \end{split}", "<mtr"),
        (r"a & b", "ParseError"),
        (r"\frac{a}", "<mfrac"),
        (r"\text{score", "braces"),
        (r"a_", "MissingSuperScriptOrSubscript"),
        (r"\left( a", "MissingRight"),
        ("", "NoAvailableTokens"),
    ],
)
def test_a_broken_formula_is_an_error(hook, tex, reason):
    """latex2mathml alone prints most of them."""
    with pytest.raises(hook.FormulaError, match=reason):
        hook.mathml(tex, "block")


@pytest.mark.parametrize(
    "tex, shown",
    [
        (r"\min(a)", '<mo lspace="0" rspace="0">min</mo><mo stretchy="false">(</mo>'),
        (r"o \tanh a", '<mi>o</mi><mo lspace="0.167em" rspace="0.167em">tanh</mo><mi>a</mi>'),
        (
            r"\lVert q \rVert",
            '<mo form="prefix" stretchy="false">‖</mo><mi>q</mi><mo form="postfix" stretchy="false">‖</mo>',
        ),
        (r"(a) \ln a", '<mo stretchy="false">)</mo><mo lspace="0.167em" rspace="0.167em">ln</mo><mi>a</mi>'),
        (r"i = -1", '<mo>=</mo><mo form="prefix">−</mo><mn>1</mn>'),
        (r"(1) - 1", '<mo stretchy="false">)</mo><mo>−</mo><mn>1</mn>'),
        (r"[s; y]", "<mi>s</mi><mo>;</mo><mi>y</mi>"),
        (r"b'", "<mrow><mi>b</mi><mi>′</mi></mrow>"),
        (r"b^2", "<msup><mi>b</mi><mn>2</mn></msup>"),
    ],
)
def test_spacing_is_that_of_tex(hook, tex, shown):
    assert shown in hook.mathml(tex, "inline")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["```math\n\\foo x\n```\n", "| a |\n|---|\n| $`\\foo x`$ |\n"])
def test_a_broken_formula_ends_the_build(hook, tmp_path, text):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(text)
    config = f"site_name: a\nhooks: [{ROOT}/docs/formulas.py]\nmarkdown_extensions: [tables, pymdownx.superfences]\n"
    (tmp_path / "mkdocs.yml").write_text(config)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "index.md" in done.stderr and r"\foo is not in the list" in done.stderr, done.stderr
