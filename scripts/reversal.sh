#!/usr/bin/env bash
# Trains on the reversal task, decodes unseen sequences with beam search, prints a table and draws pictures.
#
# usage: bash scripts/reversal.sh [MODE] [OPTION ...]
#   compare      with and without attention, letters a-d, lengths 5-20 (the default)
#   fifty        50 symbols, lengths 1-25, tested up to 30
#   mechanisms   every score, query and cell on lengths 5-10, greedy decoding
#   normalizers  every score, query and normaliser, likewise
#   lengths      every score on lengths 5-20, tested up to 40, greedy decoding
#   guided       300 updates with and without supervised alignments
#   sampling     50 symbols with and without scheduled sampling, tested up to 50
#   OPTION ...   goes to every fairseq-train, after the script's own ones: --lr 0.002 --max-update 900
#   SEEDS="1 2"  one training per seed; unset: 1
#   JOBS=2       so many trainings at once, each on one thread; unset: 1
#   OUT=DIR      where everything goes; unset: runs/reversal (compare), runs/reversal-<mode>
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
#
# Run again, it skips what is finished and resumes a training that was stopped.
set -euo pipefail

MODES="compare fifty mechanisms normalizers lengths guided sampling"

TRAIN=(--task reversal --arch attn_lstm_reversal --criterion cross_entropy
  --optimizer adam --lr 0.005 --lr-scheduler polynomial_decay --end-learning-rate 0.0001 --clip-norm 1.0
  --max-tokens 2000
  --no-epoch-checkpoints --log-format json)
UPDATES=660 # the learning rate falls all the way: at a constant one accuracy goes up and down to the end
DECODE=(--beam 5 --scoring reversal --max-tokens 8000)
GREEDY=(--beam 1 "${DECODE[@]:2}")
WEIGHTS=(--print-alignment soft)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
plugin=$root/fairseq_attn_plugin

script=reversal
# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

# train_and_decode FOLDER SPLITS OPTION...: one training and its decodings. WEIGHTS and DECODE apply.
train_and_decode() {
  local folder=$1 splits=$2 split train decode
  shift 2
  train=("${TRAIN[@]}" --max-update "$UPDATES" --total-num-update "$UPDATES" "$@")
  decode=("${DECODE[@]}" "${WEIGHTS[@]}")
  claim "$folder" "train ${train[*]} | generate ${decode[*]}"
  mend "$folder"
  step "$folder" train "$bin/fairseq-train" --user-dir "$plugin" "${train[@]}" \
    --save-dir "$folder/checkpoints" --log-file "$folder/train.jsonl"
  for split in $splits; do
    step "$folder" "generate-$split" "$bin/fairseq-generate" --user-dir "$plugin" --task reversal \
      --path "$folder/checkpoints/checkpoint_best.pt" --gen-subset "$split" "${decode[@]}" --results-path "$folder"
  done
}

# experiment LABEL NAME SPLITS OPTION...: trains and decodes once per seed.
experiment() {
  local label=$1 name=$2 splits=$3 seed
  shift 3
  for seed in ${SEEDS:-1}; do
    runs+=("$label=$out/$name-seed$seed")
    job train_and_decode "$out/$name-seed$seed" "$splits" "$@" --seed "$seed"
  done
}

# without_attention LABEL NAME SPLITS OPTION...: an experiment that has no weights to print.
without_attention() {
  local WEIGHTS=()
  experiment "$@" --attention-score none
}

# Sets scores, normalizers and cells to the names that the plugin knows, fixed to the scores with weights of their own.
read_registries() {
  local lines
  lines=$("$bin/python" -W ignore -c '
import logging; logging.disable(logging.INFO)
from fairseq_attn_plugin.models.attn_rnn_config import ATTENTION_SCORES, CELLS, NORMALIZERS
for table in ATTENTION_SCORES, NORMALIZERS, CELLS: print(*table.names())
print(*(name for name in ATTENTION_SCORES.names() if not ATTENTION_SCORES[name].reads_query))') || die "the plugin does not load (see above)"
  { read -ra scores; read -ra normalizers; read -ra cells; read -ra fixed; } <<<"$lines"
}

compare() {
  experiment "with attention" attention "test test_long" "$@"
  without_attention "without attention" no_attention "test test_long" "$@"
}

fifty_symbols() {
  TRAIN+=(--reversal-symbols 50 --reversal-min-length 1 --reversal-max-length 25 --reversal-test-max-length 30
    --reversal-train-size 50000 --reversal-train-data fixed --max-epoch 6
    --input-feeding on --lr 0.004)
  UPDATES=2190 # six passes
}

fifty() {
  fifty_symbols
  experiment "50 symbols" fifty test "$@"
}

short_sentences() {
  DECODE=("${GREEDY[@]}")
  TRAIN+=(--reversal-min-length 5 --reversal-max-length 10)
  UPDATES=400
}

# The report splits the labels of the next two at ", ".
mechanisms() {
  local score query cell
  short_sentences
  read_registries
  for cell in "${cells[@]}"; do without_attention "none, $cell" "none-$cell" test "$@" --cell "$cell"; done
  for score in "${scores[@]}"; do
    for query in previous current; do
      for cell in "${cells[@]}"; do
        experiment "$score, $query, $cell" "$score-$query-$cell" test "$@" \
          --attention-score "$score" --attention-query "$query" --cell "$cell"
      done
    done
  done
}

normalizers() {
  local score query normalizer
  short_sentences
  read_registries
  without_attention none none test "$@"
  for score in "${scores[@]}"; do
    for query in previous current; do
      if [[ " ${fixed[*]} " = *" $score "* ]]; then # no normaliser changes its weights
        experiment "$score, $query" "$score-$query" test "$@" --attention-score "$score" --attention-query "$query"
        continue
      fi
      for normalizer in "${normalizers[@]}"; do
        experiment "$score, $query, $normalizer" "$score-$query-$normalizer" test "$@" \
          --attention-score "$score" --attention-query "$query" --attention-normalizer "$normalizer"
      done
    done
  done
}

lengths() {
  local score
  DECODE=("${GREEDY[@]}") # a beam would measure hypotheses that stop too early
  read_registries
  without_attention none none "test test_long" "$@"
  for score in "${scores[@]}"; do
    experiment "$score" "$score" "test test_long" "$@" --attention-score "$score"
  done
}

guided() {
  local common=(--attention-score additive --attention-query previous --label-smoothing 0)
  UPDATES=300
  experiment guided guided test "$@" "${common[@]}" --criterion label_smoothed_cross_entropy_with_alignment \
    --alignment-lambda 1
  experiment unguided unguided test "$@" "${common[@]}" --criterion label_smoothed_cross_entropy
}

sampling() {
  fifty_symbols
  TRAIN+=(--reversal-long-min-length 31 --reversal-long-max-length 50)
  experiment "teacher forcing" teacher_forcing "test test_long" "$@"
  # a true word with probability 1 at first, 0.75 after the last update
  experiment "scheduled sampling" scheduled_sampling "test test_long" "$@" --scheduled-sampling linear \
    --scheduled-sampling-k 1.0 --scheduled-sampling-slope 0.000114 --scheduled-sampling-floor 0.75
}

main() {
  local mode=compare
  case ${1:-} in
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    -* | '') ;;
    *) mode=$1; shift ;;
  esac
  case " $MODES " in *" $mode "*) ;; *) die "got '$mode'; choose from ${MODES// /, }" ;; esac
  share_cores
  bash "$root/scripts/setup.sh" >&2
  bin=${VENV:-$root/.venv}/bin
  out=$root/runs/reversal
  [ "$mode" = compare ] || out+=-$mode
  out=${OUT:-$out}
  runs=()
  lock "$out"
  "$mode" "$@"
  finish
  report "$out" "$root/scripts/reversal_report.py" "$mode" "$out" "${runs[@]}"
  say "table, pictures and logs: $out"
}

main "$@"
