#!/usr/bin/env bash
# From raw parallel text to a trained model, translations, their scores and pictures of the attention.
#
# usage: bash scripts/nmt.sh --source de --target en [--from DIR | --train PREFIX | --tsv FILE] [PREPARE_OPTION ...]
#          [-- OPTION ...]
#   --from DIR ...     raw text, as data-prep/prepare_corpus.sh takes it; without it: Multi30k, which is downloaded
#   PREPARE_OPTION     goes to data-prep/prepare_corpus.sh: --segmentation unigram --vocab-size 4000; of tables of words
#                      --train T.tsv --valid T.tsv --test T.tsv --columns 1+3,2 --source-segmentation char,features
#                      --target-segmentation char --vocabulary joint
#   OPTION             goes to fairseq-train, after the script's own ones: --dropout 0.4 --arch attn_gru_additive;
#                      --user-dir DIR, of a score of your own, also to fairseq-generate
#   UPDATES=N          of the training, over which the learning rate falls to zero; unset: 6000. More text wants more
#   AVERAGE=N          the model is the mean of the last N epochs, the last of which may be a part of one; 0: the checkpoint
#                      with the best BLEU in validation, of words (docs/transduction.md) with the most exact matches
#   BEAM=N             of the decoding; unset: 5
#   SPLITS="test"      what is decoded and scored; unset: every test set. To choose settings, SPLITS=valid
#   NPROC=N            processes that train together, see train_distributed.sh; unset: 1
#   OUT=DIR            where everything goes; unset: runs/nmt/<set>.<source>-<target>
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
#
# Run again, it skips what is finished and resumes a training that was stopped.
set -euo pipefail

UPDATES=${UPDATES:-6000} # 5.7 passes over Multi30k; the learning rate falls to zero
AVERAGE=${AVERAGE:-0}
BEAM=${BEAM:-5}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

script=nmt
# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

# decide VERB WORD...: see nmt_options.py.
decide() { "$bin/python" "$root/scripts/nmt_options.py" "$@"; }

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

# Stands for the data folder: its data.json has the checksums of the raw text, dictionaries and sentencepiece models.
data_sum() { sha256sum <"$data/data.json" | cut -d' ' -f1; }

# Makes the folder with all that decoding needs. While it trained, another run may have made the data folder anew.
make_model() {
  local model=$out/model found checkpoints files
  found=$(decide checkpoints "$out/checkpoints" "$AVERAGE") || return 1
  mapfile -t checkpoints <<<"$found"
  found=$(decide files "$data" "$trained_on") || return 1
  mapfile -t files <<<"$found"
  rm -rf -- "$model.part" && mkdir -- "$model.part" &&
    "$bin/python" -W ignore "$root/scripts/average_checkpoints.py" "$model.part/checkpoint.pt" "${checkpoints[@]}" &&
    cp -t "$model.part" -- "${files[@]}" && decide files "$data" "$trained_on" >/dev/null &&
    decide seal "$model.part" checkpoint.pt || return 1
  printf '%s\n' "${train[*]}" >"$model.part/train.options" && rm -rf -- "$model" && mv -- "$model.part" "$model"
}

# Translates the splits. No sentence is too long for a recurrent model.
decode() {
  local split weights words
  weights=$("$bin/python" -W ignore "$root/scripts/attention_options.py" "$out/model/checkpoint.pt") ||
    die "$out/model/checkpoint.pt cannot be read (see above)"
  words=(--task attn_translation --beam "$BEAM" --max-len-a 2 --max-len-b 50 --max-tokens 4000 --scoring sacrebleu
    --max-source-positions 100000 --max-target-positions 100000 $weights)
  for split in "${splits[@]}"; do
    renew "$out" "generate-$split" "${words[*]}"
    step "$out" "generate-$split" "$bin/fairseq-generate" "$data" --user-dir "$plugin" "${words[@]}" \
      --path "$out/model/checkpoint.pt" --gen-subset "$split" --results-path "$out"
  done
}

main() {
  local preparing=() found own plugin train splits trained_on
  number UPDATES 1
  number AVERAGE 0
  number BEAM 1
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;; esac
    preparing+=("$1")
    shift
  done
  [ $# -eq 0 ] || shift
  refuse "$@"
  case "$AVERAGE $* " in
    0\ *) ;;
    *' --no-epoch-checkpoints '*) die "--no-epoch-checkpoints: AVERAGE=$AVERAGE wants checkpoints of epochs" ;;
  esac
  limit_threads 1
  bash "$root/scripts/setup.sh" >&2
  bin=${VENV:-$root/.venv}/bin
  choose_trainer
  data=$(prepare "${preparing[@]}") || exit 1
  found=$(decide splits "$data" "${SPLITS:-}" 2>&1) || die "$found"
  mapfile -t splits <<<"$found"

  out=${OUT:-$root/runs/nmt/$(basename -- "$data")}
  lock "$out"
  own=$(value_of --user-dir "$@")
  plugin=${own:-$root/fairseq_attn_plugin}
  found=$(decide train "$data" "$UPDATES" "$AVERAGE" "$@")
  mapfile -t train <<<"$found"
  train+=("$@")
  trained_on=$(data_sum)
  claim "$out" "data $trained_on | average $AVERAGE | train ${train[*]}$processes"
  SHOWN=--updates step "$out" train "${train_with[@]}" "$data" --user-dir "$plugin" "${train[@]}" \
    --save-dir "$out/checkpoints" --log-file "$out/train.jsonl"
  step "$out" model make_model
  decode
  report "$out" "$root/scripts/nmt_report.py" run "$out" "$data" "${splits[@]}"
  case "$(value_of --task "${train[@]}") ${train[*]}" in
    'attn_translation --task attn_translation --arch '*)
      say "translate with:$(printf ' %q' bash scripts/translate.sh ${own:+--user-dir "$own"} "$out/model")" ;;
  esac
  say "translations, scores, pictures and logs: $out"
}

main "$@"
