#!/usr/bin/env bash
# Draws attention heat maps from the output of fairseq-generate --print-alignment soft.
#
# usage: bash scripts/plot_attention.sh LOG PICTURE.png [--ids ID ...] [--nbest] [--data DIR [--pieces]]
#   --data DIR: data folder or model's folder of task attn_translation; words are drawn, or --pieces
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/plot_attention.py" "$@"
