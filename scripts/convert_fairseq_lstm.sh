#!/usr/bin/env bash
# Turns a checkpoint of fairseq's own lstm into one of attn_rnn that computes the same.
#
# usage: bash scripts/convert_fairseq_lstm.sh CHECKPOINT OUT
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/convert_fairseq_lstm.py" "$@"
