#!/usr/bin/env bash
# Makes data-bin/multi30k.<src>-<tgt> of Multi30k task 1: raw text, de, en and fr, test 2016 flickr. Downloads it (3 MB)
# unless --from names a folder of its files (train, val, test_2016_flickr); both are checked against their SHA-256.
#
# usage: bash data-prep/prepare_multi30k.sh --source de --target en [--from DIR] [OPTION ...]
#   OPTION: those of prepare_corpus.sh      MULTI30K_URL=URL: where the files are, http, https or file
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see scripts/setup.sh
#
# Run again, it skips what is finished; a changed option redoes what depends on it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/data-prep/prepare_multi30k.py" "$@"
