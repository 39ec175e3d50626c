#!/usr/bin/env bash
# Trains on the reversal task, decodes unseen sequences, prints a table and draws pictures.
#
# usage: bash scripts/reversal.sh [MODE] [OPTION ...]
#   compare      without attention, with attention, and with attention that remembers, letters a-d, lengths 5-20,
#                tested up to 40 and at 200 (the default)
#   fifty        50 symbols, lengths 1-25, tested up to 30
#   mechanisms   every score, query and cell on lengths 5-10, greedy decoding
#   normalizers  every score, query and normaliser, likewise
#   lengths      every score, history, window and addressing on lengths 5-20, tested up to 40, greedy decoding
#   parts        the other switches of a model, one at a time, likewise
#   extrapolation   trained on lengths 5-20, tested at 50 to 2,000: attention that remembers, and some that does less
#   ten_symbols  trained on lengths 5-10 of ten symbols, reversed and copied, tested at 50 and 100
#   guided       300 updates with and without supervised alignments
#   sampling     50 symbols with and without scheduled sampling, tested up to 50
#   OPTION ...   goes to every fairseq-train, after the script's own ones: --lr 0.002 --max-update 900
#   SEEDS="1 2"  one training per seed; unset: 1
#   JOBS=2       so many trainings at once, each on one thread; unset: 1
#   NPROC=2      each training in so many processes, see train_distributed.sh; unset: 1
#   OUT=DIR      where everything goes; unset: runs/reversal (compare), runs/reversal-<mode>
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
#
# Each mode is a file of experiments/, which compare.sh runs (see there). Run again, it skips what is finished and resumes
# a training that was stopped.
set -euo pipefail

MODES="compare fifty mechanisms normalizers lengths parts extrapolation ten_symbols guided sampling"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

script=reversal
# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

mode=compare
case ${1:-} in
  -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
  -* | '') ;;
  *) mode=$1; shift ;;
esac
case " $MODES " in *" $mode "*) ;; *) die "got '$mode'; choose from ${MODES// /, }" ;; esac
out=$root/runs/reversal
[ "$mode" = compare ] || out+=-$mode
OUT=${OUT:-$out} exec bash "$root/scripts/compare.sh" "$mode" -- "$@"
