#!/usr/bin/env bash
# Draws attention heat maps from the output of fairseq-generate --print-alignment soft, of any model of fairseq: as a
# picture, or as a page to step through; of several logs of the same sentences side by side.
#
# usage: bash scripts/plot_attention.sh LOG [LOG ...] OUT.png|OUT.html [--ids ID ...] [--names NAME ...] [--nbest]
#          [--data DIR [--data DIR ...] [--pieces]]
#   --ids ID ...: sentences to draw; else the first 6, in a page 20
#   --names NAME ...: of several logs; else their paths
#   --nbest: of one log, draw every hypothesis
#   --data DIR: data folder or model's folder of task attn_translation; words are drawn, or --pieces. Once, or for each log
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/plot_attention.py" "$@"
