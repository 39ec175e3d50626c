"""The pages of the documentation, as prose and blocks."""

import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
NOTEBOOKS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.ipynb"))
PAGES = ["README.md", "CONTRIBUTING.md", *DOCS]


class Block(NamedTuple):
    page: str
    language: Optional[str]
    text: str


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def parts(page: str) -> List[Block]:
    """What a page is made of: blocks, and between them prose, whose language is None."""
    pieces = re.split(r"^(```\w*)\n(.*?)^```$", read(page), flags=re.S | re.M)
    found = [Block(page, None, text) for text in pieces[::3]]
    for fence, text in zip(pieces[1::3], pieces[2::3]):
        found.append(Block(page, fence.strip("`"), text))
    return found


def blocks() -> List[Block]:
    """Every block of commands or of Python."""
    return [part for page in PAGES for part in parts(page) if part.language in ("bash", "sh", "python")]


def block(page: str, text: str) -> str:
    """The one block of a page that has ``text``."""
    (found,) = [b.text for b in blocks() if b.page == page and text in b.text]
    return found


def formulas() -> List[Tuple[str, str, str]]:
    """Page, "block" or "inline", and LaTeX of every formula."""
    found = []
    for page in PAGES:
        for part in parts(page):
            if part.language == "math":
                found.append((page, "block", part.text))
            elif part.language is None:
                found += [(page, "inline", tex) for tex in re.findall(r"\$`([^`]*)`\$", part.text)]
    return found


def prose(page: str) -> str:
    """A page without its blocks."""
    return "".join(part.text for part in parts(page) if part.language is None)
