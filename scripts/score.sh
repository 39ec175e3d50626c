#!/usr/bin/env bash
# Scores translations with sacrebleu: BLEU, chrF, TER with intervals and signatures; of several, tests against the first.
#
# usage: bash scripts/score.sh REFERENCE HYPOTHESES [HYPOTHESES ...] [--names NAME ...] [--json FILE]
#          [--lowercase] [--tokenize NAME] [--characters] [--symbols]
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/score.py" "$@"
