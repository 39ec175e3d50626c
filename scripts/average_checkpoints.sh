#!/usr/bin/env bash
# Averages the parameters of checkpoints of one training, for decoding: without the state of the optimiser.
#
# usage: bash scripts/average_checkpoints.sh OUT CHECKPOINT ...
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/average_checkpoints.py" "$@"
