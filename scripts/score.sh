#!/usr/bin/env bash
# Scores translations: BLEU, chrF, TER of sacrebleu, error rates, with intervals and signatures; of several, tests against
# the first.
#
# usage: bash scripts/score.sh REFERENCE HYPOTHESES [HYPOTHESES ...] [--names NAME ...] [--json FILE]
#          [--metric bleu,chrf,ter,wer,cer,ser] [--lowercase] [--tokenize NAME] [--characters] [--symbols]
#          [--sentences K]
#   wer: lines that differ; cer, ser: edits over characters, over symbols that blanks separate; all of them in percent
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/score.py" "$@"
