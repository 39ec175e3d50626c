#!/usr/bin/env bash
# Sets up the environment with what tests need and runs them.
#
# usage: bash scripts/test.sh [fast|full] [PYTEST_ARGUMENT ...]
#   fast   without the slow tests, which train, start programs or take seconds
#   full   every combination of score, query, normaliser, cell and feeding, else every two values; hostile options by the
#          thousand
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$(realpath -m -- "${VENV:-$root/.venv}")
export VENV

script=test
# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

chosen=()
case ${1:-} in
  -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
  fast) chosen=(-m "not slow"); shift ;;
  full) export FULL_PRODUCT=1; shift ;;
  '' | -* | *[./]*) ;;
  *) die "got '$1'; choose from fast, full, or give an argument of pytest, such as tests/test_ladder.py" ;;
esac

bash "$root/scripts/setup.sh" test
cd "$root"
# One worker for every core, each on one thread; `-n 0` among the arguments runs all in one process. Each worker starts
# with tests that stand together, which share what a file's fixtures have made, and takes from another when it is done.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$VENV/bin/python" -m pytest -n auto --maxprocesses 8 --dist worksteal "${chosen[@]}" "$@"
