#!/usr/bin/env bash
# Trains several translation models by scripts/nmt.sh, with the same options each, and prints one table of them.
#
# usage: bash scripts/nmt_compare.sh MODE [--from DIR] [PREPARE_OPTION ...] [-- OPTION ...]
#   lstm         fairseq's own lstm with dropout 0.3, the same with 0.2, and this plugin's model (0.2), de→en and en→de:
#                same data, sizes, optimiser and updates
#   mechanisms   without attention, Luong's and Bahdanau's, de→en, 5 epochs of Multi30k
#   memory       attn_lstm_multi30k, and the same with each way to remember, several heads, or two layers and
#                a pyramid of them, likewise
#   targets      de→{en,fr} in one model, beside those of one pair that SINGLE="FOLDER ..." names (unset: those of nmt.sh)
#   --from DIR, PREPARE_OPTION, OPTION: as for nmt.sh; options of a model itself come last
#   OUT=DIR      where everything goes, a folder a model; unset: runs/nmt-<mode>
#   JOBS=2       so many trainings at once, each on one thread; unset: 1
#   UPDATES=, AVERAGE=, BEAM=, SPLITS=, NPROC=, VENV=, PYTHON=, TORCH_INDEX_URL=: see nmt.sh
#
# Each mode is a file of experiments/, nmt-<mode>, which compare.sh runs (see there). Run again, it skips what is finished
# and resumes a training that was stopped.
set -euo pipefail

MODES="lstm mechanisms memory targets"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

script=nmt_compare
# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

# Prints the folders that targets shows as well.
single() {
  local pair folder
  if [ -n "${SINGLE:-}" ]; then tr ' ' '\n' <<<"$SINGLE"; return; fi
  for pair in de-en de-fr; do
    for folder in "$root"/runs/nmt/*."$pair"; do [ ! -e "$folder/report.json" ] || echo "$folder"; done
  done
}

mode=${1:-}
case $mode in -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;; esac
case " $MODES " in *" $mode "*) [ -n "$mode" ] ;; *) false ;; esac || die "MODE: got '$mode'; choose from ${MODES// /, }"
shift
preparing=() beside=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;; esac
  preparing+=("$1")
  shift
done
if [ "$mode" = targets ]; then
  while read -r folder; do [ -z "$folder" ] || beside+=(--beside "$folder"); done < <(single)
fi
OUT=${OUT:-$root/runs/nmt-$mode} exec bash "$root/scripts/compare.sh" "nmt-$mode" "${beside[@]}" \
  --prepare "${preparing[@]}" "$@"
