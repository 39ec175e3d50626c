#!/usr/bin/env bash
# Writes the data of the reversal task as text: SPLIT.src and SPLIT.tgt, one sentence a line, blanks between symbols.
#
# usage: bash scripts/export_reversal.sh OUT_DIR [--splits train valid test test_long] [--reversal-symbols abcd ...]
#   OPTIONS: those of the task; unset: its defaults (--help lists them). train is the data of the first epoch.
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/export_reversal.py" "$@"
