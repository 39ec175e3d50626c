"""A hook of mkdocs: formulas, ```math blocks and $`...`$ in a line, become MathML when the site is built.

GitHub (MathJax), GitLab (KaTeX) and latex2mathml read the same LaTeX as long as it keeps to ``COMMANDS`` and
``ENVIRONMENTS``; latex2mathml prints what it does not know and goes on, so that is looked for here.
"""

import re
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from mkdocs.exceptions import BuildError
from pymdownx.superfences import SuperFencesException

COMMANDS = set(
    r"""\begin \end \\ \quad \, \text \frac \dfrac \sqrt \underset \left \right \lvert \rvert \lVert \rVert
    \sum \min \max \exp \ln \tanh \cdot \dots \infty \in \le \leftarrow \propto
    \varepsilon \gamma \lambda \sigma \Delta \Phi""".split()
)
ENVIRONMENTS = {"split", "cases"}
INLINE = r"\$`([^`]+)`\$"
CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "msubsup": 3, "munder": 2}


class FormulaError(BuildError, SuperFencesException):
    """Ends the build; without the second base, superfences would print the block as it is."""


def mathml(tex: str, display: str) -> str:
    """LaTeX → MathML; ``display``: block or inline."""
    unknown = {name for name in re.findall(r"\\(?:[a-zA-Z]+|.)", tex) if name not in COMMANDS}
    unknown |= set(re.findall(r"\\begin\{(.*?)\}", tex)) - ENVIRONMENTS
    if unknown:
        raise FormulaError(f"formula {tex!r}: {', '.join(sorted(unknown))} is not in the list of docs/formulas.py")
    braces = re.sub(r"\\.", "", tex)
    if braces.count("{") != braces.count("}"):
        raise FormulaError(f"formula {tex!r}: braces do not match")
    try:
        root = ElementTree.fromstring(convert(tex, xmlns="", display=display))
    except Exception as error:  # latex2mathml's own have no common class
        raise FormulaError(f"formula {tex!r}: {type(error).__name__} {error}") from error
    for element in root.iter():
        children = CHILDREN.get(element.tag, len(element))
        if "\\" in (element.text or "") or len(element) != children or element.tag == "mtr" and children > 2:
            raise FormulaError(f"formula {tex!r}: {ElementTree.tostring(element, encoding='unicode')}")
        space(element)
    return ElementTree.tostring(root, encoding="unicode")


def space(row: ElementTree.Element) -> None:
    """Operators and names get TeX's spacing, where that of MathML is another, and primes their full size."""
    before, bars = None, 0
    closing = (")", "]")
    for child, after in zip(row, [*row[1:], None]):
        text = child.text or ""
        operator = before is not None and before.tag == "mo" and before.text not in closing
        if child.tag in ("mi", "mo") and len(text) > 1 and text.isalpha():  # min, tanh
            child.tag = "mo"
            child.set("lspace", "0.167em" if before is not None and not operator else "0")
            child.set("rspace", "0" if after is not None and after.text == "(" else "0.167em")
        elif text in ("/", "∞"):
            child.set("lspace", "0")
            child.set("rspace", "0")
        elif text in ("|", "‖"):
            child.set("form", "postfix" if bars % 2 else "prefix")
            child.set("stretchy", "false")
            bars += 1
        elif text == "−" and operator:
            child.set("form", "prefix")
        elif text == ";":
            child.tag = "mo"
        elif child.tag == "msup" and set(child[1].text or "x") <= set("′″"):
            child.tag = "mrow"
        before = child


def fence(source, language, css_class, options, md, **kwargs) -> str:
    return f'<div class="{css_class}">{mathml(source, "block")}</div>'


class Inline(InlineProcessor):
    def handleMatch(self, m, data):
        return self.md.htmlStash.store(mathml(m[1], "inline")), m.start(0), m.end(0)


class InlineFormulas(Extension):
    def extendMarkdown(self, md):
        md.inlinePatterns.register(Inline(INLINE, md), "formula", 195)  # before code, 190


def on_config(config):
    config.markdown_extensions.append(InlineFormulas())
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "formula", "format": fence})
    return config
