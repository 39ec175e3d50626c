#!/usr/bin/env bash
# Trains on the reversal task, decodes unseen sequences with beam search, prints a table and draws pictures.
#
# usage: bash scripts/reversal.sh [compare|fifty|mechanisms|guided] [OPTION ...]
#   compare      with and without attention, letters a-d, lengths 5-20 (the default)
#   fifty        50 symbols, lengths 1-25, tested up to 30
#   mechanisms   every score, query and cell on lengths 5-10, greedy decoding
#   guided       300 updates with and without supervised alignments
#   OPTION ...   goes to every fairseq-train, after the script's own ones: --lr 0.002 --max-update 900
#   SEEDS="1 2"  one training per seed; unset: 1
#   OUT=DIR      where everything goes; unset: runs/reversal (compare), runs/reversal-<mode>
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
#
# Run again, it skips what is finished and resumes a training that was stopped.
set -euo pipefail

# The matrices are small: more than two threads would wait for each other.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) < 2 ? 1 : 2))}

TRAIN=(--task reversal --arch attn_lstm_reversal --criterion cross_entropy
  --optimizer adam --lr 0.005 --lr-scheduler polynomial_decay --end-learning-rate 0.0001 --clip-norm 1.0
  --max-tokens 2000
  --no-epoch-checkpoints --log-format json)
UPDATES=660 # the learning rate falls all the way: at a constant one accuracy goes up and down to the end
DECODE=(--beam 5 --scoring reversal --max-tokens 8000)
WEIGHTS=(--print-alignment soft)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
plugin=$root/fairseq_attn_plugin

say() { printf 'reversal: %s\n' "$*" >&2; }
die() { printf 'reversal.sh: %s\n' "$*" >&2; exit 1; }

# Shows fairseq-train's validations, one line each.
progress() {
  awk -F'"' '/"valid_num_updates"/ { line = ""
    for (i = 2; i < NF; i++) {
      if ($i == "epoch") { epoch = $(i + 1); gsub(/[^0-9]/, "", epoch) }
      if ($i ~ /^valid_.*(loss|accuracy)$/ && $i !~ /best/) { line = line "  " substr($i, 7) " " $(i + 2) }
    }
    if (line != last) { print "reversal:   epoch " epoch line; fflush() } last = line }'
}

# The line of a log's last command that says what went wrong.
reason() {
  awk '/^\$ / { error = "" } /^[A-Za-z_.]*(Error|Exception|Interrupt)(:|$)/ || /: error: / { error = $0 }
    NF { line = $0 } END { print error != "" ? error : line }' "$1"
}

# step FOLDER NAME COMMAND...: runs a command once; its output goes to FOLDER/NAME.log.
step() {
  local folder=$1 name=$2 rc=0
  shift 2
  if [ -e "$folder/$name.done" ]; then say "$folder: $name is done already"; return; fi
  say "$folder: $name"
  { printf '$'; printf ' %q' "$@"; echo; } >>"$folder/$name.log"
  "$@" 2>&1 | tee -a "$folder/$name.log" | progress >&2 || rc=$?
  [ "$rc" -lt 128 ] || die "$name in $folder was killed by signal $((rc - 128)); run this script again to go on"
  [ "$rc" -eq 0 ] || die "$name in $folder failed: $(reason "$folder/$name.log") (log: $folder/$name.log)"
  : >"$folder/$name.done"
}

# mend CHECKPOINT: removes one that a kill left half written; training then goes on without it.
mend() {
  [ -e "$1" ] && ! "$bin/python" -m zipfile -t "$1" >/dev/null 2>&1 || return 0
  say "$1 was left half written: removed, the training starts again"
  rm -- "$1"
}

# claim FOLDER SETTINGS: makes the folder; results of other settings are never mixed.
claim() {
  mkdir -p -- "$1"
  if [ ! -e "$1/settings" ]; then printf '%s\n' "$2" >"$1/settings"; return; fi
  [ "$(cat "$1/settings")" = "$2" ] && return
  diff <(tr ' ' '\n' <"$1/settings") <(printf '%s\n' "$2" | tr ' ' '\n') | grep '^[<>]' >&2 || true
  die "$1 holds results of other settings (above: < then, > now); remove that folder, or set OUT= to another"
}

# experiment LABEL NAME SPLITS OPTION...: trains and decodes once per seed. WEIGHTS and DECODE apply.
experiment() {
  local label=$1 name=$2 splits=$3 seed split folder settings
  shift 3
  for seed in ${SEEDS:-1}; do
    folder=$out/$name-seed$seed
    train=("${TRAIN[@]}" --max-update "$UPDATES" --total-num-update "$UPDATES" "$@" --seed "$seed")
    decode=("${DECODE[@]}" "${WEIGHTS[@]}")
    claim "$folder" "train ${train[*]} | generate ${decode[*]}"
    mend "$folder/checkpoints/checkpoint_last.pt"
    step "$folder" train "$bin/fairseq-train" --user-dir "$plugin" "${train[@]}" \
      --save-dir "$folder/checkpoints" --log-file "$folder/train.jsonl"
    for split in $splits; do
      step "$folder" "generate-$split" "$bin/fairseq-generate" --user-dir "$plugin" --task reversal \
        --path "$folder/checkpoints/checkpoint_best.pt" --gen-subset "$split" "${decode[@]}" --results-path "$folder"
    done
    runs+=("$label=$folder")
  done
}

compare() {
  experiment "with attention" attention "test test_long" "$@"
  WEIGHTS=()
  experiment "without attention" no_attention "test test_long" "$@" --attention-score none
}

fifty() {
  TRAIN+=(--reversal-symbols 50 --reversal-min-length 1 --reversal-max-length 25 --reversal-test-max-length 30
    --reversal-train-size 50000 --reversal-train-data fixed --max-epoch 6
    --input-feeding on --lr 0.004)
  UPDATES=2190 # six passes
  experiment "50 symbols" fifty test "$@"
}

mechanisms() {
  local scores score query cell
  scores=$("$bin/python" -W ignore -c 'from fairseq_attn_plugin.modules.attention_scores import ATTENTION_SCORES
print("none", *ATTENTION_SCORES.names())') || die "the plugin does not load (see above)"
  DECODE=(--beam 1 --scoring reversal --max-tokens 8000)
  TRAIN+=(--reversal-min-length 5 --reversal-max-length 10)
  UPDATES=400
  for score in $scores; do
    for query in previous current; do
      for cell in lstm gru; do
        WEIGHTS=(--print-alignment soft)
        [ "$score" != none ] || WEIGHTS=()
        experiment "$score, $query, $cell" "$score-$query-$cell" test "$@" \
          --attention-score "$score" --attention-query "$query" --cell "$cell"
      done
    done
  done
}

guided() {
  local common=(--attention-score additive --attention-query previous --label-smoothing 0)
  UPDATES=300
  experiment guided guided test "$@" "${common[@]}" --criterion label_smoothed_cross_entropy_with_alignment \
    --alignment-lambda 1
  experiment unguided unguided test "$@" "${common[@]}" --criterion label_smoothed_cross_entropy
}

main() {
  local mode=compare
  case ${1:-} in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; exit 0 ;;
    compare | fifty | mechanisms | guided) mode=$1; shift ;;
    -* | '') ;;
    *) die "got '$1'; choose from compare, fifty, mechanisms, guided" ;;
  esac
  bash "$root/scripts/setup.sh" >&2
  bin=${VENV:-$root/.venv}/bin
  out=$root/runs/reversal
  [ "$mode" = compare ] || out+=-$mode
  out=${OUT:-$out}
  mkdir -p -- "$out"
  runs=()
  exec 9>"$out/.lock" # inherited by the trainings: held for as long as one of them lives
  ! command -v flock >/dev/null || flock -n 9 || die "another run works in $out; wait for it, or set OUT= to another folder"
  "$mode" "$@"
  "$bin/python" -W ignore "$root/scripts/reversal_report.py" "$mode" "$out" "${runs[@]}" \
    2>"$out/report.log" || die "the report failed: $(reason "$out/report.log") (log: $out/report.log)"
  grep '^warning' "$out/report.log" >&2 || true
  say "table, pictures and logs: $out"
}

main "$@"
