"""Imports point one way, over the syntax trees; no file is long; nothing loads a checkpoint that may run code."""

import ast
import re
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "fairseq_attn_plugin"
FAIRSEQ = ("fairseq", "fairseq_cli")
MAX_LINES = 400
DATA_NAMES = re.compile(r"data\.json|\bdict\.|sentencepiece(\.\w*)*\.?model|<2")

# file or folder: (what it may import of the plugin, what it may not import of others); the longest path counts
RULES = {
    f"{PLUGIN}/modules": ((f"{PLUGIN}.modules",), FAIRSEQ),
    f"{PLUGIN}/models": ((f"{PLUGIN}.models", f"{PLUGIN}.modules", f"{PLUGIN}.data.data_folder"), ()),
    f"{PLUGIN}/checkpoints": (
        (f"{PLUGIN}.checkpoints", f"{PLUGIN}.models", f"{PLUGIN}.modules", f"{PLUGIN}.evaluation.whole_files"), ()
    ),
    f"{PLUGIN}/serving": (tuple(f"{PLUGIN}.{room}" for room in ("serving", "tasks", "models", "checkpoints")), ()),
    f"{PLUGIN}/criterions": ((f"{PLUGIN}.criterions", f"{PLUGIN}.modules"), ()),
    f"{PLUGIN}/data": ((f"{PLUGIN}.data",), ()),
    f"{PLUGIN}/evaluation": ((f"{PLUGIN}.evaluation", f"{PLUGIN}.data.data_folder"), ()),
    f"{PLUGIN}/evaluation/experiment_report.py": ((f"{PLUGIN}.evaluation", f"{PLUGIN}.data"), ()),
    f"{PLUGIN}/evaluation/metrics.py": ((), (*FAIRSEQ, "torch")),
    f"{PLUGIN}/experiments": ((f"{PLUGIN}.experiments", f"{PLUGIN}.modules"), ()),
    f"{PLUGIN}/tasks": (
        tuple(
            f"{PLUGIN}.{name}" for name in ("tasks", "data", "evaluation.metrics", "checkpoints.files", "processes")
        ),
        (),
    ),
    f"{PLUGIN}/processes.py": ((f"{PLUGIN}.checkpoints.files",), ()),
    f"{PLUGIN}/benchmark": (
        (f"{PLUGIN}.benchmark", f"{PLUGIN}.evaluation.plots", f"{PLUGIN}.evaluation.whole_files"), ()
    ),
    "data-prep": ((), ()),
}
# the public entry: importing it registers everything
ENTRY = {f"{PLUGIN}/benchmark": (PLUGIN,)}


def files(*patterns: str) -> List[Path]:
    """Files of the project that match, without environments and build leftovers."""
    folders = [ROOT / name for name in (PLUGIN, "scripts", "data-prep", "tests", ".ci")]
    return sorted(path for folder in folders for pattern in patterns for path in folder.rglob(pattern))


def imports(source: str, path: str) -> Iterator[Tuple[int, str]]:
    """Yields (line, absolute dotted name) of everything that ``source`` imports, wherever it stands."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def is_within(name: str, prefixes: Tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def rule_of(path: str) -> Optional[str]:
    """The longest path in RULES that ``path`` lies in."""
    return max((room for room in RULES if path == room or path.startswith(room + "/")), key=len, default=None)


def import_violations(source: str, path: str) -> List[str]:
    """Lines of ``source`` that import what the room of ``path`` may not import."""
    room = rule_of(path)
    if room is None:
        return []
    allowed, forbidden = RULES[room]
    found = []
    for line, name in imports(source, path):
        wrong_room = is_within(name, (PLUGIN,)) and not is_within(name, allowed) and name not in ENTRY.get(room, ())
        if wrong_room or is_within(name, forbidden):
            found.append(f"{path}:{line}: {room} may not import {name}")
    return found


def unsafe_loads(source: str, path: str) -> List[str]:
    """Lines of ``source`` that pass ``weights_only=False``."""
    return [
        f"{path}:{node.value.lineno}: weights_only=False"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.keyword) and node.arg == "weights_only" and getattr(node.value, "value", None) is False
    ]


def test_imports_point_one_way():
    found = [v for path in files("*.py") for v in import_violations(path.read_text(), str(path.relative_to(ROOT)))]
    assert not found, "\n".join(found)


def test_no_checkpoint_may_run_code():
    found = [v for path in files("*.py") for v in unsafe_loads(path.read_text(), str(path.relative_to(ROOT)))]
    found += [str(path) for path in files("*.sh", "run") if "weights_only" in path.read_text()]
    assert not found, "\n".join(found)


def test_no_python_inside_bash():
    """But for setup.sh, which asks a Python about itself before there is an environment."""
    found = [path.name for path in files("*.sh", "run") if re.search(r'python"?\s[^\n|;#]*-c\s', path.read_text())]
    assert found == ["setup.sh"]


def names_of_the_data_folder(source: str, path: str) -> List[str]:
    """Lines of ``source`` that spell a name of the data folder's files, other than in a docstring."""
    tree = ast.parse(source)
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found = [node for node in texts if id(node) not in said and DATA_NAMES.search(node.value)]
    return [f"{path}:{node.lineno}: {node.value!r}" for node in found]


def test_names_of_the_data_folder_are_known_in_one_file():
    home = ROOT / PLUGIN / "data" / "data_folder.py"
    assert len(names_of_the_data_folder(home.read_text(), "")) >= 5
    for link in (ROOT / "data-prep" / home.name, ROOT / "scripts" / home.name):
        assert link.is_symlink() and link.resolve() == home
    rooms = [path for path in files("*.py") if path.resolve() != home and ROOT / "tests" not in path.parents]
    found = [v for path in rooms for v in names_of_the_data_folder(path.read_text(), str(path.relative_to(ROOT)))]
    assert not found, "\n".join(found)


def test_no_file_is_long():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files("*.py", "*.sh", "run")}
    assert len(lengths) > 10
    assert not {path: length for path, length in lengths.items() if length > MAX_LINES}


@pytest.mark.parametrize(
    "path, source",
    [
        ("modules/planted.py", "import fairseq.utils"),
        ("modules/planted.py", "from ..models import attn_rnn"),
        ("modules/planted.py", "from fairseq_cli.train import main"),
        ("models/planted.py", "from ..tasks.reversal import Reversal"),
        ("models/planted.py", "def late():\n    from .. import data"),
        ("data/planted.py", "from .. import evaluation"),
        ("criterions/planted.py", "from ..models.attn_rnn import AttnRNN"),
        ("tasks/planted.py", "from ..models.attn_rnn import AttnRNN"),
        ("tasks/planted.py", "from ..evaluation import plots"),
        ("tasks/planted.py", "from fairseq_attn_plugin import models"),
        ("evaluation/planted.py", "from ..tasks import reversal"),
        ("evaluation/planted.py", "from ..data.segmenter import Segmenter"),
        ("evaluation/metrics.py", "import torch.nn as nn"),
        ("evaluation/metrics.py", "from .plots import heat_map"),
        ("benchmark/planted.py", "from ..models.attn_rnn import AttnRNNModel"),
        ("models/planted.py", "from ..serving.translator import Translator"),
        ("models/planted.py", "from ..checkpoints import files"),
        ("checkpoints/planted.py", "from ..serving import translator"),
        ("serving/planted.py", "from ..evaluation import plots"),
        ("experiments/planted.py", "from ..models.attn_rnn import AttnRNNModel"),
        ("../data-prep/planted.py", "import fairseq_attn_plugin"),
    ],
)
def test_a_planted_import_is_found(path, source):
    path = path.removeprefix("../") if path.startswith("../") else f"{PLUGIN}/{path}"
    assert len(import_violations(source, path)) == 1


@pytest.mark.parametrize(
    "path, source",
    [
        ("modules/planted.py", "import torch\nfrom .registry import Registry"),
        ("models/planted.py", "from fairseq.models import FairseqEncoder\nfrom ..modules.registry import Registry"),
        ("models/planted.py", "from ..data.data_folder import is_tag"),
        ("tasks/planted.py", "from ..evaluation import metrics\nfrom ..evaluation.metrics import edits"),
        ("checkpoints/planted.py", "from ..models import attn_rnn\nfrom .files import load_checkpoint"),
        ("serving/planted.py", "from ..checkpoints import files\nfrom ..tasks import attn_translation"),
        ("benchmark/planted.py", "import fairseq_attn_plugin\nfrom ..evaluation import plots"),
        ("../data-prep/planted.py", "import fairseq_attn_plugin_of_someone_else"),
    ],
)
def test_an_allowed_import_passes(path, source):
    path = path.removeprefix("../") if path.startswith("../") else f"{PLUGIN}/{path}"
    assert import_violations(source, path) == []


def test_a_planted_unsafe_load_is_found():
    assert unsafe_loads("torch.load(path,\n  weights_only=False)", "x.py") == ["x.py:2: weights_only=False"]
    assert unsafe_loads("torch.load(path, weights_only=True)", "x.py") == []
