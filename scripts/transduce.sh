#!/usr/bin/env bash
# Trains models of every language of a folder of tables, decodes them alone and together, and prints one table of word
# error rates.
#
# usage: bash scripts/transduce.sh [MODE] --from DIR [--together] [PREPARE_OPTION ...] [-- OPTION ...]
#   g2p                grapheme-to-phoneme: word TAB phones with blanks (the default)
#   inflection         lemma TAB form TAB features;with;semicolons
#   --from DIR         LANGUAGE_train.tsv, LANGUAGE_dev.tsv and LANGUAGE_test.tsv for each language; also with - for _,
#                      with .gz, and with a size behind train (german-train-high.tsv.gz)
#   --together         one model for all languages: the name of the language is the first symbol of every word
#   PREPARE_OPTION     goes to data-prep/prepare_corpus.sh, after those of the mode: --normalization nfc
#   OPTION             goes to every fairseq-train, after the script's own ones: --dropout 0.3
#   LANGUAGES="ady vie"   unset: all of the folder
#   SIZE=high          which training file, where a language has several
#   MEMBERS="base wide"   the models, each with every seed; unset: all of the mode (docs/transduction.md)
#   SEEDS="1 2 3"      one training of each model per seed; unset: 1
#   UPDATES=N          of a training, over which the learning rate falls to zero; unset: 2000, with --together for
#                      each language
#   BEAM=N             of the decoding; unset: 5
#   JOBS=2             so many trainings at once, each on one thread; unset: 1
#   NPROC=2            each training in so many processes, see train_distributed.sh; unset: 1
#   PROGRESS=N         seconds from one line on how far all trainings are to the next; unset: 60
#   OUT=DIR            where everything goes; unset: runs/transduce-<mode>
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
#
# Members are put in the order of their WER in validation (mean over seeds and languages); of the ensembles of the best
# one, of the best two, ... with all their seeds, the one with the lowest WER in validation is decoded in test: one
# recipe for all languages. A language that fails is reported, and the others go on; the status is 1 then. Run again, it
# skips what is finished and resumes a training that was stopped.
set -euo pipefail

MODES="g2p inflection"
UPDATES=${UPDATES:-}
BEAM=${BEAM:-5}
PROGRESS=${PROGRESS:-60}
progress= # process that says how far the trainings are

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
plugin=$root/fairseq_attn_plugin

script=transduce
# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

# ask VERB WORD...: see transduce.py.
ask() { "$bin/python" -W ignore "$root/scripts/transduce.py" "$@"; }

# fail LANGUAGE WHAT LOG: notes what went wrong; nothing more is done for this language.
fail() {
  local why
  why=$(reason "$3")
  case $why in *'(log: '*) ;; *) why+=" (log: $3)" ;; esac # nmt.sh names a log of its own
  printf '%s: %s\n' "$2" "$why" >"$out/$1/failed"
}

failed() { [ -e "$out/$1/failed" ]; }

# sum FILE...: one checksum of what they hold.
sum() { cat -- "$@" | sha256sum | cut -d' ' -f1; }

# prepare_words LANGUAGE TRAIN DEV TEST: sets words, the options of prepare_corpus.sh.
prepare_words() {
  words=(--train "$2" --valid "$3" --test "$4" --set "$1" --out "$out/data" "${prepare[@]}" "${preparing[@]}")
}

# prepare_language LANGUAGE TRAIN DEV TEST: makes its data folder; OUT/LANGUAGE/data says where.
prepare_language() {
  local words log=$out/$1/prepare.log
  prepare_words "$@"
  mkdir -p -- "$out/$1"
  if (tied bash "$root/data-prep/prepare_corpus.sh" "${words[@]}") >"$out/$1/data.part" 2>"$log"; then
    mv -- "$out/$1/data.part" "$out/$1/data"
  else
    fail "$1" "the data" "$log"
  fi
}

# train_model LANGUAGE TRAIN DEV TEST MEMBER SEED OPTION...: one run of nmt.sh, and never again with the same settings.
train_model() {
  local words settings language=$1 run=$out/$1/$5-seed$6 seed=$6
  ! failed "$language" || return 0
  prepare_words "${@:1:4}"
  shift 6
  words+=(-- "${train[@]}" "${training[@]}" "$@" --seed "$seed")
  settings="data $(sum "$(cat "$out/$language/data")/data.json") | updates $UPDATES | beam $BEAM | ${words[*]} | $NPROC"
  [ "$(cat "$run.done" 2>/dev/null || true)" != "$settings" ] || return 0
  if (OUT=$run SPLITS="valid test" AVERAGE=0 tied bash "$root/scripts/nmt.sh" "${words[@]}") \
    >/dev/null 2>"$run.log"; then
    printf '%s\n' "$settings" >"$run.done"
  else
    fail "$language" "${run##*/}" "$run.log"
  fi
}

# decode_together LANGUAGE NAMES SPLIT: what the models of some members, with + between them, say together.
decode_together() {
  local folder=$out/$1/ensemble-$2 member seed models=() words path
  ! failed "$1" || return 0
  for member in ${2//+/ }; do
    for seed in "${seeds[@]}"; do models+=("$out/$1/$member-seed$seed/model/checkpoint.pt"); done
  done
  path=$(IFS=:; printf %s "${models[*]}")
  words=(--task attn_translation --beam "$BEAM" --max-len-a 2 --max-len-b 50 --max-tokens 4000
    --max-source-positions 100000 --max-target-positions 100000)
  mkdir -p -- "$folder"
  renew "$folder" "generate-$3" "${words[*]} | $(sum "${models[@]}")"
  (step "$folder" "generate-$3" "$bin/fairseq-generate" "$(cat "$out/$1/data")" --user-dir "$plugin" "${words[@]}" \
    --path "$path" --gen-subset "$3" --results-path "$folder") 2>"$folder/$3.log" ||
    fail "$1" "ensemble-$2" "$folder/$3.log"
}

# join_tables: files of all languages into one for each split, with the language as first column; nothing but that is
# trained from here on.
join_tables() {
  local language split folder=$out/together paths
  mkdir -p -- "$folder"
  for split in 0 1 2; do
    for language in "${languages[@]}"; do
      IFS=$'\t' read -ra paths <<<"${files[$language]}"
      zcat -f -- "${paths[split]}" | LC_ALL=C LANGUAGE=$language awk '
        NR == 1 { sub(/^\357\273\277/, "") }
        NF { sub(/\r$/, ""); print ENVIRON["LANGUAGE"] "\t" $0 }
        END { exit !NR }' ||
        die "${paths[split]}: empty, or no file that can be read"
    done >"$folder/$split.part"
  done
  mv -- "$folder/0.part" "$folder/train.tsv"
  mv -- "$folder/1.part" "$folder/dev.tsv"
  mv -- "$folder/2.part" "$folder/test.tsv"
  languages=(together)
  files=([together]="$folder/train.tsv"$'\t'"$folder/dev.tsv"$'\t'"$folder/test.tsv")
}

# for_each COMMAND WORD...: a job for each language; they are waited for.
for_each() {
  local language
  for language in "${languages[@]}"; do job "$1" "$language" "${@:2}"; done
  await
}

await() { finish; started=(); }

# read_plan: sets UPDATES, prepare, train, members, languages, options by member and files by language.
read_plan() {
  local printed line words
  printed=$(ask plan $together "$mode" "$from" "$UPDATES" "${LANGUAGES:-}" "${MEMBERS:-}" "${SIZE:-}" 2>&1) ||
    die "$(tail -n 1 <<<"$printed")"
  while IFS= read -r line; do
    IFS=$'\t' read -ra words <<<"$line"
    case ${words[0]} in
      updates) UPDATES=${words[1]} ;;
      prepare) prepare=("${words[@]:1}") ;;
      train) train=("${words[@]:1}") ;;
      member) members+=("${words[1]}"); options[${words[1]}]=${words[*]:2} ;;
      language) languages+=("${words[1]}"); files[${words[1]}]=$(printf '%s\t' "${words[@]:2}") ;;
    esac
  done <<<"$printed"
}

# train_all: every model of every language.
train_all() {
  local language member seed paths own runs=()
  for language in "${languages[@]}"; do
    for member in "${members[@]}"; do
      for seed in "${seeds[@]}"; do runs+=("$out/$language/$member-seed$seed"); done
    done
  done
  tied "$bin/python" "$root/scripts/transduce_progress.py" "$PROGRESS" "$UPDATES" "${runs[@]}" 9>&- &
  progress=$!
  disown "$progress"
  for language in "${languages[@]}"; do
    IFS=$'\t' read -ra paths <<<"${files[$language]}"
    for member in "${members[@]}"; do
      read -ra own <<<"${options[$member]}"
      for seed in "${seeds[@]}"; do job train_model "$language" "${paths[@]}" "$member" "$seed" "${own[@]}"; done
    done
  done
  await
  end_progress
}

end_progress() { [ -z "$progress" ] || kill "$progress" 2>/dev/null || true; progress=; }

# some_succeeded: ends the script where every language failed.
some_succeeded() {
  local language
  for language in "${languages[@]}"; do failed "$language" || return 0; done
  report_failures || true
  die "every language failed"
}

# ask_rule VERB: names of ensembles; of one member there is but one.
ask_rule() {
  local printed
  some_succeeded
  if [ "${#members[@]}" -eq 1 ]; then echo "${members[0]}"; return; fi
  printed=$(ask "$1" "$out" "${names[@]}" 2>&1) || die "$(tail -n 1 <<<"$printed")"
  printf '%s\n' "$printed"
}

# report_failures: says what went wrong; status 1 where something did.
report_failures() {
  local language status=0
  for language in "${languages[@]}"; do
    ! failed "$language" || { say "$language failed: $(cat "$out/$language/failed")"; status=1; }
  done
  return "$status"
}

parse() {
  mode=g2p from= together=
  case ${1:-} in -* | '') ;; *) mode=$1; shift ;; esac
  case " $MODES " in *" $mode "*) ;; *) die "got '$mode'; choose from ${MODES// /, }" ;; esac
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
      -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
      --from) from=${2:-}; shift; [ $# -gt 0 ] || break ;;
      --from=*) from=${1#*=} ;;
      --together) together=--together ;;
      --train | --valid | --test | --tsv | --set | --out | --train=* | --valid=* | --test=* | --tsv=* | --set=* | \
        --out=*)
        die "${1%%=*}: the files are those of --from, and everything goes to OUT=; leave it out" ;;
      *) preparing+=("$1") ;;
    esac
    shift
  done
  [ -n "$from" ] || die "--from: not given; give the folder with LANGUAGE_train.tsv, _dev.tsv and _test.tsv"
  [ $# -eq 0 ] || { shift; training=("$@"); }
  refuse "${training[@]}"
  local word own
  own=$(value_of --user-dir "${training[@]}") # of a score of one's own, also for the ensembles
  plugin=${own:-$plugin}
  for word in "${training[@]}"; do
    case ${word%%=*} in
      --seed) die "--seed: give SEEDS=" ;;
      --max-update) die "--max-update: give UPDATES=" ;;
    esac
  done
}

main() {
  local mode from together preparing=() training=() prepare=() train=() members=() languages=() seeds
  local language paths found names name number
  local -A options=() files=()
  parse "$@"
  [ -z "$UPDATES" ] || number UPDATES 1
  number BEAM 1
  number PROGRESS 1
  read -ra seeds <<<"${SEEDS:-1}"
  for name in "${seeds[@]}"; do
    case $name in *[!0-9]*) die "SEEDS: got '$name'; give numbers with blanks between them" ;; esac
  done
  share_cores
  trap 'end_progress; stop' EXIT
  bash "$root/scripts/setup.sh" >&2
  bin=${VENV:-$root/.venv}/bin
  read_plan
  export UPDATES BEAM
  out=${OUT:-$root/runs/transduce-$mode}
  case $out in *:*) die "OUT: got '$out'; fairseq takes : for the end of a path; set it to another folder" ;; esac
  lock "$out"
  out=$(cd "$out" && pwd)
  rm -f -- "$out"/*/failed
  found="${#languages[@]} languages${together:+ together}, ${#members[@]} models, ${#seeds[@]} seeds"
  [ -z "$together" ] || join_tables
  say "$found: $((${#languages[@]} * ${#members[@]} * ${#seeds[@]})) trainings"
  for language in "${languages[@]}"; do
    IFS=$'\t' read -ra paths <<<"${files[$language]}"
    job prepare_language "$language" "${paths[@]}"
  done
  await
  train_all
  names=("${languages[*]}" "${members[*]}" "${seeds[*]}")
  found=$(ask_rule candidates) || exit 1
  for name in $found; do for_each decode_together "$name" valid; done
  found=$(ask_rule choose) || exit 1
  for_each decode_together "$found" test
  some_succeeded
  report "$out" "$root/scripts/transduce.py" report "$out" "${names[@]}"
  say "table: $out/report.md; models, hypotheses and logs in its folders"
  report_failures
}

main "$@"
