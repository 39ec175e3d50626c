"""Runs this folder's benchmark over the models of any checkout: ``python serve.py CHECKOUT``, started by ``checkout``.

Two packages of one name cannot live in one process. Here the plugin comes from the checkout that is named, and only
``fairseq_attn_plugin.benchmark`` is taken from the folder of this file, so that the same code measures all checkouts,
older ones too.
"""

import importlib.util
import logging
import sys
from pathlib import Path

PLUGIN = "fairseq_attn_plugin"
BENCHMARK = f"{PLUGIN}.benchmark"


def load_benchmark(checkout: str) -> None:
    """Imports the checkout's plugin, and this folder as its benchmark.

    Raises:
        ImportError: Python finds another plugin first.
    """
    sys.path[0] = checkout  # instead of this folder, whose files are no modules by themselves
    plugin = importlib.import_module(PLUGIN)
    found = Path(plugin.__path__[0]).parent
    if found.resolve() != Path(checkout).resolve():
        raise ImportError(f"{PLUGIN}: got that of {found} instead of that of {checkout}")
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        BENCHMARK, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None  # as for any file that ends in .py
    sys.modules[BENCHMARK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[BENCHMARK])


if __name__ == "__main__":
    logging.disable(logging.INFO)  # fairseq logs while it is imported
    load_benchmark(sys.argv[1])
    importlib.import_module(f"{BENCHMARK}.checkout").serve()
