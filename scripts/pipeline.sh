# What the scripts that run a pipeline share: say, die, number, refuse, value_of, reason, step, renew, report, claim, lock,
# limit_threads, choose_trainer, share_cores, job, finish. Sourced by them; before any of these functions is called,
# `script` (its name without .sh) and `root` (of the project) are set, and before step, report and choose_trainer `bin` (of
# the environment).

say() { printf '%s: %s\n' "$script" "$*" >&2; }
die() { printf '%s.sh: %s\n' "$script" "$*" >&2; exit 1; }

# The comment at the top of a script.
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$1"; }

# number NAME LEAST: ends the script where the variable is no number, or a smaller one; zeros before it are taken off,
# as others would read it by eights.
number() {
  case ${!1} in
    '' | *[!0-9]*) die "$1: got '${!1}'; give a number, $2 or more" ;;
    ??????????*) die "$1: got '${!1}'; give a number of at most 9 digits" ;;
  esac
  [ "$((10#${!1}))" -ge "$2" ] || die "$1: got '${!1}'; give a number, $2 or more"
  printf -v "$1" %s "$((10#${!1}))"
}

# refuse WORD...: ends the script where a word is an option that it gives fairseq-train itself.
refuse() {
  local word
  for word in "$@"; do
    case ${word%%=*} in
      --save-dir | --log-file)
        die "${word%%=*}: checkpoints and logs are in the folder of the run; leave it out, or set OUT=" ;;
    esac
  done
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

# The line of a log's last command that says what went wrong.
reason() {
  awk '/^\$ / { error = "" } /^[A-Za-z_.]*(Error|Exception|Interrupt)(:|$)/ || /: error: / { error = $0 }
    NF { line = $0 }
    END { if (error != "") line = error; print substr(line, 1, 500) (length(line) > 500 ? "..." : "") }' "$1"
}

# tied COMMAND...: in place of this process; where setpriv is, it ends with the parent, so that a training does not go on
# when the script is killed. The functions of a script are run as they are.
tied() {
  if [ -n "$(type -P -- "$1")" ] && setpriv --pdeathsig KILL true 2>/dev/null; then
    exec setpriv --pdeathsig KILL "$@"
  fi
  "$@"
}

# step FOLDER NAME COMMAND...: runs a command once. Its output goes to FOLDER/NAME.log, how long it took to
# FOLDER/seconds. Of a training the validations are shown, with SHOWN=--updates also what lies between them.
step() {
  local folder=$1 name=$2 rc=0 begin=$SECONDS
  shift 2
  if [ -e "$folder/$name.done" ]; then say "$folder: $name is done already"; return; fi
  say "$folder: $name"
  { printf '$'; printf ' %q' "$@"; echo; } >>"$folder/$name.log"
  tied "$@" 2>&1 | tee -a "$folder/$name.log" |
    "$bin/python" "$root/scripts/training_progress.py" "$script:   ${folder##*/}" ${SHOWN:-} >&2 || rc=$?
  printf '%s %s\n' "$name" "$((SECONDS - begin))" >>"$folder/seconds"
  [ "$rc" -lt 128 ] || die "$name in $folder was killed by signal $((rc - 128)); run this script again to go on"
  [ "$rc" -eq 0 ] || die "$name in $folder failed: $(reason "$folder/$name.log") (log: $folder/$name.log)"
  : >"$folder/$name.done"
}

# renew FOLDER NAME SETTINGS: a step that is done with other settings is to be done again.
renew() {
  [ "$(cat "$1/$2.settings" 2>/dev/null || true)" != "$3" ] || return 0
  rm -f -- "$1/$2.done"
  printf '%s\n' "$3" >"$1/$2.settings"
}

# report FOLDER SCRIPT...: runs a Python script that prints a table; its warnings are shown, its log is FOLDER/report.log.
report() {
  local folder=$1
  shift
  "$bin/python" -W ignore "$@" 2>"$folder/report.log" ||
    die "the report failed: $(reason "$folder/report.log") (log: $folder/report.log)"
  grep '^warning' "$folder/report.log" >&2 || true
}

# make_folder FOLDER: for results; the script ends where it cannot be made.
make_folder() {
  local why
  why=$(mkdir -p -- "$1" 2>&1) || die "$1: cannot be made (${why##*: }); set OUT= to a folder that can be written"
}

# claim FOLDER SETTINGS: makes the folder; results of other settings are never mixed. A training that left no checkpoint
# is no result.
claim() {
  make_folder "$1"
  if [ ! -e "$1/settings" ] || ! compgen -G "$1/checkpoints/*.pt" >/dev/null && ! compgen -G "$1/*.done" >/dev/null; then
    printf '%s\n' "$2" >"$1/settings.part" && mv -- "$1/settings.part" "$1/settings"
    return
  fi
  [ "$(cat "$1/settings")" = "$2" ] && return
  diff <(tr ' ' '\n' <"$1/settings") <(printf '%s\n' "$2" | tr ' ' '\n') | grep '^[<>]' >&2 || true
  die "$1 holds results of other settings (above: < then, > now); remove that folder, or set OUT= to another"
}

# lock FOLDER: one run at a time, in a folder that is new, or that of such runs. Trainings inherit the lock: it is held for
# as long as one of them lives. Those that a killed run has left behind are waited for.
lock() {
  local owner
  make_folder "$1"
  [ -e "$1/.lock" ] || [ -z "$(ls -A -- "$1")" ] || die "$1 holds other files; set OUT= to a new folder"
  { exec 9>>"$1/.lock"; } 2>/dev/null || die "$1: cannot be written; set OUT= to another folder"
  command -v flock >/dev/null || return 0
  if ! flock -n 9; then
    owner=$(cat "$1/.lock")
    if [ -z "$owner" ] || kill -0 "$owner" 2>/dev/null; then
      die "another run works in $1; wait for it, or set OUT= to another folder"
    fi
    say "what a killed run has started still works in $1: waiting for its end"
    flock 9
  fi
  echo $$ >"$1/.lock"
}

# limit_threads JOBS: the matrices are small, more than two threads would wait for each other. Each job trains in NPROC=
# processes.
limit_threads() {
  NPROC=${NPROC:-1}
  number NPROC 1
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) < 2 || $1 * NPROC > 1 ? 1 : 2))}
}

# Sets train_with, the command that trains, and processes, what settings say of it.
choose_trainer() {
  train_with=("$bin/fairseq-train") processes=
  [ "$NPROC" -gt 1 ] || return 0
  train_with=(bash "$root/scripts/train_distributed.sh" --nproc "$NPROC" --)
  processes=" | processes $NPROC"
}

# Makes ready for jobs: JOBS= says how many run at once.
share_cores() {
  JOBS=${JOBS:-1} started=()
  number JOBS 1
  limit_threads "$JOBS"
  trap stop EXIT
}

# job COMMAND...: starts it, once fewer than JOBS are at work; one that failed ends the script.
job() {
  while [ "$(jobs -pr | wc -l)" -ge "$JOBS" ]; do wait -n || exit 1; done
  set -m # a process group of its own, so that stop reaches all that it has started
  "$@" &
  set +m
  started+=($!)
}

# Waits for every job; `wait -n` alone misses one that was killed in between.
finish() {
  local pid
  while [ -n "$(jobs -pr)" ]; do wait -n || exit 1; done
  for pid in "${started[@]}"; do wait "$pid" || exit 1; done
}

# Ends the jobs that are still at work: after an error, and when the script itself is ended.
stop() {
  local pid
  for pid in $(jobs -pr); do kill -- "-$pid" 2>/dev/null || true; done
  wait
}
