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
#   --from DIR, PREPARE_OPTION, OPTION: as for nmt.sh; OPTION comes last for every model
#   OUT=DIR      where everything goes, a folder a model; unset: runs/nmt-<mode>
#   JOBS=2       so many trainings at once, each on one thread; unset: 1
#   UPDATES=, AVERAGE=, BEAM=, SPLITS=, NPROC=, VENV=, PYTHON=, TORCH_INDEX_URL=: see nmt.sh
#
# Run again, it skips what is finished and resumes a training that was stopped.
set -euo pipefail

MODES="lstm mechanisms memory targets"
# fairseq's model in the sizes of attn_lstm_multi30k
LSTM=(--arch lstm --encoder-bidirectional --encoder-embed-dim 256 --encoder-hidden-size 256 --decoder-embed-dim 256
  --decoder-hidden-size 512 --decoder-out-embed-dim 256 --share-all-embeddings)
FIVE_EPOCHS=5255 # updates of mechanisms and memory: 1,051 batches make an epoch of Multi30k, 4,931 pieces

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

script=nmt_compare
# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

# model LABEL NAME SOURCE TARGET PREPARE_OPTION ... -- OPTION...: one run of nmt.sh; the user's words are among them.
model() {
  local label=$1 name=$2 source=$3 target=$4 more=()
  shift 4
  while [ "$1" != -- ]; do more+=("$1"); shift; done
  shift
  say "$label"
  runs+=("$label=$out/$name")
  job run_nmt "$out/$name" --source "$source" --target "$target" "${more[@]}" "${preparing[@]}" -- "$@" "${training[@]}"
}

run_nmt() { OUT=$1 tied bash "$root/scripts/nmt.sh" "${@:2}" >/dev/null; }

lstm() {
  local pair source target dropout
  for pair in de-en en-de; do
    source=${pair%-*} target=${pair#*-}
    for dropout in 0.3 0.2; do # usual for it, and that of attn_lstm_multi30k
      model "fairseq's lstm, dropout $dropout, $source→$target" "lstm-$dropout-$pair" "$source" "$target" -- \
        "${LSTM[@]}" --dropout "$dropout"
    done
    model "attn_lstm_multi30k, $source→$target" "attention-$pair" "$source" "$target" --
  done
}

mechanisms() {
  local plain=(--attention-value-inputs state) # as published
  export UPDATES=${UPDATES:-$FIVE_EPOCHS}
  model "without attention" none de en -- "${plain[@]}" --attention-score none --input-feeding off --readout-inputs state
  model "Luong" luong de en -- "${plain[@]}" --attention-score general --attention-query current --input-feeding on \
    --readout-inputs state,context --readout-activation tanh
  model "Bahdanau" bahdanau de en -- "${plain[@]}" --attention-score additive --attention-query previous \
    --input-feeding off --readout-inputs state,word,context --readout-activation maxout
}

memory() {
  export UPDATES=${UPDATES:-$FIVE_EPOCHS}
  model "attn_lstm_multi30k" base de en --
  model "coverage" coverage de en -- --attention-history coverage
  model "own past" past de en -- --attention-past on
  model "4 heads" heads de en -- --attention-heads 4
  model "location history" location de en -- --attention-history location
  model "local_p" local_p de en -- --attention-window local_p
  model "2 layers" layers de en -- --encoder-layers 2
  model "2 layers, pyramid" pyramid de en -- --encoder-layers 2 --encoder-pyramid 1
}

targets() {
  local pair folder twice folders=()
  if [ -n "${SINGLE:-}" ]; then read -ra folders <<<"$SINGLE"; else
    for pair in de-en de-fr; do
      for folder in "$root"/runs/nmt/*."$pair"; do [ ! -e "$folder/report.json" ] || folders+=("$folder"); done
    done
  fi
  twice=$(for folder in "${folders[@]}"; do basename -- "$folder"; done | sort | uniq -d)
  [ -z "$twice" ] || die "SINGLE: two folders are called $twice; the table names them so"
  model "de→{en,fr}" "de-en+fr" de en,fr --tag-target --
  for folder in "${folders[@]}"; do runs+=("$(basename -- "$folder")=$folder"); done
}

main() {
  local mode=${1:-} bin
  case $mode in -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;; esac
  case " $MODES " in *" $mode "*) [ -n "$mode" ] ;; *) false ;; esac || die "MODE: got '$mode'; choose from ${MODES// /, }"
  shift
  preparing=() training=() runs=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
      -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
      --source | --source=* | --target | --target=*)
        die "$1: the languages are those of $mode (see --help); for others use nmt.sh" ;;
      --vocabulary | --vocabulary=*)
        [ "$mode" != lstm ] || die "$1: fairseq's lstm shares one table here, for which joint makes the dictionary" ;;
    esac
    preparing+=("$1")
    shift
  done
  [ $# -eq 0 ] || { shift; training=("$@"); }
  refuse "${training[@]}"
  case "$mode ${training[*]}" in
    lstm*--dropout[\ =]*) die "--dropout: $mode compares two values of it; for another use nmt.sh" ;;
  esac
  out=${OUT:-$root/runs/nmt-$mode}
  share_cores
  lock "$out"
  bash "$root/scripts/setup.sh" >&2
  bin=${VENV:-$root/.venv}/bin
  "$mode"
  finish
  report "$out" "$root/scripts/nmt_report.py" compare "$out" "${runs[@]}"
  say "table: $out/report.md; models, translations, pictures and logs in its folders"
}

main "$@"
