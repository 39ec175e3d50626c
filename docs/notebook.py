"""A hook of mkdocs: a notebook becomes a page of its name, with the outputs that are stored in it; nothing is executed.

``$...$`` and ``$$...$$``, as notebooks write formulas, become what docs/formulas.py reads.
"""

import base64
import json
import re
from itertools import groupby
from typing import Dict, Tuple

from mkdocs.structure.files import File

PICTURE = "image/png"
DOWNLOAD = 'The notebook, to run yourself: <a href="{0}.ipynb" download>{0}.ipynb</a> (`docs/{0}.ipynb`).\n'


def text_of(lines) -> str:
    """Of a field that nbformat has as a string or as a list of lines."""
    return lines if isinstance(lines, str) else "".join(lines)


def formulas(markdown: str) -> str:
    """The Markdown of a cell with its formulas as ```math blocks and $`...`$."""
    markdown = re.sub(r"^\$\$\s*(.*?)\s*\$\$$", r"```math\n\1\n```", markdown, flags=re.S | re.M)
    return re.sub(r"(?<![$`\w])\$([^$`\n]+)\$(?![$`\w])", r"$`\1`$", markdown)


def fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"


def page(notebook: dict, name: str) -> Tuple[str, Dict[str, bytes]]:
    """Markdown of a notebook, and its pictures by the names of their files.

    Raises:
        ValueError: an output that is neither printed nor a picture.
    """
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = text_of(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(formulas(source) + "\n")
            continue
        parts.append(fenced("python", source))
        for printed, outputs in groupby(cell["outputs"], lambda output: output.get("name") == "stdout"):
            if printed:
                parts.append(fenced("text", "".join(text_of(output["text"]) for output in outputs)))
                continue
            for output in outputs:
                data = output.get("data", {})
                if PICTURE not in data:
                    raise ValueError(f"{name}.ipynb: an output is {output['output_type']}; execute the notebook anew")
                file = f"{name}_{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(text_of(data[PICTURE]))
                parts.append(f"![{output['metadata'][PICTURE]['alt']}]({file})\n")
    title, *rest = parts
    return "\n".join([title, DOWNLOAD.format(name), *rest]), pictures


def on_files(files, config):
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = file.src_uri.removesuffix(".ipynb")
        markdown, pictures = page(json.loads(file.content_string), name)
        for path, content in {f"{name}.md": markdown, **pictures}.items():
            files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """What links to the notebook leads to its page."""
    return re.sub(r"\]\((\w+)\.ipynb(?=[#)])", r"](\1.md", markdown)
