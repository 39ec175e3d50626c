#!/usr/bin/env bash
# Sets up the environment with what tests need and runs them.
#
# usage: bash scripts/test.sh [PYTEST_ARGUMENT ...]      (PYTHON=, VENV=, TORCH_INDEX_URL=: see setup.sh)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$(realpath -m -- "${VENV:-$root/.venv}")
export VENV

bash "$root/scripts/setup.sh" test
cd "$root"
# one worker for every core, each on one thread; `-n 0` among the arguments runs all in one process
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$VENV/bin/python" -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
