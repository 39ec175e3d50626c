#!/usr/bin/env bash
# Translates raw text: sentences on stdin, one a line, their translations on stdout, line by line.
#
# usage: bash scripts/translate.sh MODEL_DIR... [--vote] [--beam 5] [--to LANGUAGE] [--buffer-size N] [--json]
#          [--user-dir DIR] <IN >OUT
#   several models are decoded together; with --vote each alone, and the text that most of them have is taken
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2 </dev/null
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/translate.py" "$@"
