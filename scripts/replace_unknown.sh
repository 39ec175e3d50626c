#!/usr/bin/env bash
# Replaces <unk> in the best hypotheses of fairseq-generate --print-alignment soft by the source words attended to.
#
# usage: bash scripts/replace_unknown.sh LOG OUT [--dictionary FILE] [--source FILE] [--unk SYMBOL]
#   OUT -: stdout;  VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/replace_unknown.py" "$@"
