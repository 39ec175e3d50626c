#!/usr/bin/env bash
# From raw parallel text to a trained model, translations, their scores and pictures of the attention.
#
# usage: bash scripts/nmt.sh --source de --target en [--from DIR | --train PREFIX | --tsv FILE] [PREPARE_OPTION ...]
#          [-- OPTION ...]
#   --from DIR ...     raw text, as data-prep/prepare_corpus.sh takes it; without it: Multi30k, which is downloaded
#   PREPARE_OPTION     goes to data-prep/prepare_corpus.sh: --segmentation unigram --vocab-size 4000
#   OPTION             goes to fairseq-train, after the script's own ones: --dropout 0.4 --arch attn_gru_additive;
#                      --user-dir DIR, of a score of your own, also to fairseq-generate
#   UPDATES=N          of the training, over which the learning rate falls to zero; unset: 6000. More text wants more
#   AVERAGE=N          the model is the mean of the last N epochs, the last of which may be a part of one; 0: the checkpoint
#                      with the best BLEU in validation
#   BEAM=N             of the decoding; unset: 5
#   SPLITS="test"      what is decoded and scored; unset: every test set. To choose settings, SPLITS=valid
#   OUT=DIR            where everything goes; unset: runs/nmt/<set>.<source>-<target>
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
#
# Run again, it skips what is finished and resumes a training that was stopped.
set -euo pipefail

RECIPE=(--optimizer adam --lr 0.002 --lr-scheduler polynomial_decay --warmup-updates 400 --clip-norm 1.0
  --label-smoothing 0.1 --max-tokens 500)
OURS=(--arch attn_lstm_multi30k --criterion chunked_cross_entropy)
OTHERS=(--criterion label_smoothed_cross_entropy) # with an --arch of fairseq's own
UPDATES=${UPDATES:-6000} # 5.7 passes over Multi30k; the learning rate falls to zero
AVERAGE=${AVERAGE:-0}
BEAM=${BEAM:-5}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

script=nmt
# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

# The recipe's own model shares every table of embeddings that it can.
share_embeddings() {
  if cmp -s "$data"/dict.*.txt; then OURS+=(--share-all-embeddings); else OURS+=(--share-decoder-input-output-embed); fi
}

# value_of OPTION WORD...: what the words say last about an option, as --option value or --option=value.
value_of() {
  local option=$1 value=
  shift
  while [ $# -gt 0 ]; do
    case $1 in "$option") value=${2:-} ;; "$option="*) value=${1#*=} ;; esac
    shift
  done
  printf '%s' "$value"
}

# prepare OPTION...: prints the data folder.
prepare() {
  local set words=("$@") with=prepare_corpus.sh
  set=$(value_of --set "$@")
  if [ -z "$(value_of --from "$@")$(value_of --train "$@")$(value_of --tsv "$@")" ]; then
    case $set in '' | multi30k) set=multi30k ;; *) die "--set $set: give its text with --from, --train or --tsv" ;; esac
  fi
  if [ "$set" = multi30k ]; then with=prepare_multi30k.sh; fi
  tied bash "$root/data-prep/$with" "${words[@]}"
}

# The last epochs, as many as are averaged, the end of a training within an epoch being one; or the best one.
chosen_checkpoints() {
  local last=$out/checkpoints/checkpoint_last.pt epochs newest
  if [ "$AVERAGE" -eq 0 ]; then echo "$out/checkpoints/checkpoint_best.pt"; return; fi
  epochs=$(find "$out/checkpoints" -regex '.*/checkpoint[0-9]+\.pt' | sort -V)
  newest=${epochs##*$'\n'}
  {
    [ -z "$epochs" ] || echo "$epochs"
    [ ! "$last" -nt "$newest" ] || cmp -s "$last" "$newest" || echo "$last"
  } | tail -n "$AVERAGE"
}

# Stands for the data folder: its data.json has the checksums of the raw text, dictionaries and sentencepiece models.
data_sum() { sha256sum <"$data/data.json" | cut -d' ' -f1; }

# Makes the folder with all that decoding needs. While it trained, another run may have made the data folder anew.
make_model() {
  local model=$out/model checkpoints
  mapfile -t checkpoints < <(chosen_checkpoints)
  [ ${#checkpoints[@]} -gt 0 ] || { echo "AVERAGE=$AVERAGE: $out/checkpoints has no checkpoint of an epoch"; return 1; }
  rm -rf -- "$model.part" && mkdir -- "$model.part" &&
    "$bin/python" -W ignore "$root/scripts/average_checkpoints.py" "$model.part/checkpoint.pt" "${checkpoints[@]}" &&
    find "$data" -maxdepth 1 \( -name 'dict.*.txt' -o -name 'sentencepiece*.model' -o -name data.json \) \
      -exec cp -t "$model.part" -- {} + || return 1
  if [ "$(data_sum)" != "$trained_on" ]; then
    rm -rf -- "$model.part"
    echo "$data was made anew with other options while the model was trained; run this script again"
    return 1
  fi
  printf '%s\n' "${train[*]}" >"$model.part/train.options" && rm -rf -- "$model" && mv -- "$model.part" "$model"
}

# The test sets of the data folder, one name a line.
test_splits() {
  local path
  for path in "$data"/text/test*."$source"; do basename -- "$path" ".$source"; done
}

# What the model can print of its attention, as options of fairseq-generate.
weights_of() {
  "$bin/python" -W ignore -c '
import logging, sys; logging.disable(logging.INFO)
from fairseq_attn_plugin.checkpoints.averaging import has_attention
if has_attention(sys.argv[1]): print("--print-alignment soft")' "$1"
}

# Sets train: the recipe's options, then those of the words.
train_options() {
  local metric
  case $arch in
    attn_lstm_multi30k) share_embeddings; train=("${OURS[@]}") ;;
    attn_* | seq2seq_lstm) train=("${OURS[@]}") ;;
    *) train=("${OTHERS[@]}") ;;
  esac
  metric=$(value_of --best-checkpoint-metric --best-checkpoint-metric bleu "$@")
  train=(--task attn_translation "${train[@]}" "${RECIPE[@]}" --max-update "$UPDATES" --log-format json --log-interval 200
    --save-interval-updates 2000 --keep-interval-updates 1 --best-checkpoint-metric "$metric")
  case $metric in bleu | chrf | exact_match) train+=(--maximize-best-checkpoint-metric) ;; esac # cannot be undone
  if [ "$AVERAGE" -eq 0 ]; then train+=(--no-epoch-checkpoints); else train+=(--keep-last-epochs "$AVERAGE"); fi
  case $(value_of --lr-scheduler "${RECIPE[@]}" "$@") in
    polynomial_decay) train+=(--total-num-update "$UPDATES") ;; # others do not know it
  esac
  train+=("$@")
}

# Translates the test sets, and sets splits to their names. No sentence is too long for a recurrent model.
decode() {
  local split weights words
  weights=$(weights_of "$out/model/checkpoint.pt") || die "$out/model/checkpoint.pt cannot be read (see above)"
  words=(--task attn_translation --beam "$BEAM" --max-len-a 2 --max-len-b 50 --max-tokens 4000 --scoring sacrebleu
    --max-source-positions 100000 --max-target-positions 100000 $weights)
  read -ra splits <<<"${SPLITS:-$(test_splits | tr '\n' ' ')}"
  for split in "${splits[@]}"; do
    renew "$out" "generate-$split" "${words[*]}"
    step "$out" "generate-$split" "$bin/fairseq-generate" "$data" --user-dir "$plugin" "${words[@]}" \
      --path "$out/model/checkpoint.pt" --gen-subset "$split" --results-path "$out"
  done
}

# Ends the script where a name in SPLITS is none of the data folder's.
check_splits() {
  local split splits
  read -ra splits <<<"${SPLITS:-}"
  for split in "${splits[@]}"; do
    [ -e "$data/text/$split.$source" ] || die "SPLITS: got '$split'; choose from valid $(test_splits | paste -sd ' ')"
  done
}

# Ends the script where a variable that is a number is none.
check_numbers() {
  local name
  for name in UPDATES AVERAGE BEAM; do
    case ${!name} in '' | *[!0-9]*) die "$name: got '${!name}'; give a number" ;; esac
    [ "$name" = AVERAGE ] || [ "${!name}" -gt 0 ] || die "$name: got '${!name}'; give a number, 1 or more"
  done
}

main() {
  local preparing=() arch own plugin train splits trained_on
  check_numbers
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;; esac
    preparing+=("$1")
    shift
  done
  [ $# -eq 0 ] || shift
  case "$AVERAGE $* " in
    0\ *) ;;
    *' --no-epoch-checkpoints '*) die "--no-epoch-checkpoints: AVERAGE=$AVERAGE wants checkpoints of epochs" ;;
  esac
  limit_threads 1
  bash "$root/scripts/setup.sh" >&2
  bin=${VENV:-$root/.venv}/bin
  data=$(prepare "${preparing[@]}") || exit 1
  source=$(value_of --source "${preparing[@]}")
  check_splits

  out=${OUT:-$root/runs/nmt/$(basename -- "$data")}
  lock "$out"
  arch=$(value_of --arch "${OURS[@]}" "$@")
  own=$(value_of --user-dir "$@")
  plugin=${own:-$root/fairseq_attn_plugin}
  train_options "$@"
  trained_on=$(data_sum)
  claim "$out" "data $trained_on | average $AVERAGE | train ${train[*]}"
  mend "$out"
  SHOWN=--updates step "$out" train "$bin/fairseq-train" "$data" --user-dir "$plugin" "${train[@]}" \
    --save-dir "$out/checkpoints" --log-file "$out/train.jsonl"
  step "$out" model make_model
  decode
  report "$out" "$root/scripts/nmt_report.py" run "$out" "$data" "${splits[@]}"
  case ${train[*]} in
    *"${OURS[*]}"*) say "translate with: bash scripts/translate.sh ${own:+--user-dir $own }$out/model" ;;
  esac
  say "translations, scores, pictures and logs: $out"
}

main "$@"
