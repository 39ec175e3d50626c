#!/usr/bin/env bash
# Trains and decodes every combination of mechanisms, options and seeds, and reports on all of them.
#
# usage: bash scripts/compare.sh [EXPERIMENT] [--AXIS VALUES ...] [--seeds 1,2,3] [--jobs N] [-- OPTION ...]
#        bash scripts/compare.sh --gather OUT
#   EXPERIMENT           a file of experiments/, by its name, or the path of one of yours; left out: grid
#   --AXIS VALUES        values with commas between them, or all: --score general,additive,none --query current,previous
#                        --normalizer, --cell, --history, --window, --addressing; or any option of fairseq-train:
#                        --dropout 0.1,0.3. They join the axes of EXPERIMENT; without one they are the only axes
#   --seeds 1,2,3        each run once with each; SEEDS="1 2 3" says the same; left out: those of the file
#   --jobs N, JOBS=N     so many runs at once, each on one thread; unset: 1
#   --launcher           runs nothing; prints a command line for each run that is not done, for a queue or GNU parallel
#   --gather OUT         writes the report of what is in the folder
#   --beside FOLDER      of translations: a folder of nmt.sh whose row is shown as well
#   --prepare WORD ...   of translations: words up to -- go to data-prep/prepare_corpus.sh
#   OPTION ...           goes to every fairseq-train, after those of the file, before those of a run
#   NPROC=N              each training in so many processes, see train_distributed.sh; unset: 1
#   UPDATES=, AVERAGE=, BEAM=, SPLITS=   of translations: see nmt.sh
#   PROGRESS=N           seconds between lines on how far all runs are, where stderr is no terminal; unset: 60
#   OUT=DIR              where everything goes, a folder a run; unset: runs/compare-<experiment>, of axes alone
#                        runs/compare-axes
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
#
# Run again, it skips what is finished and resumes a training that was stopped. A run that fails is reported, and the
# others go on; the status is 1 then.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

for word in "$@"; do
  case $word in
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    --) break ;;
  esac
done
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/compare.py" "$@"
