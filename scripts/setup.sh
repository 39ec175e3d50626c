#!/usr/bin/env bash
# Makes a virtual environment that holds the plugin and all it needs. Run again, it does nothing.
#
# usage: bash scripts/setup.sh [EXTRA ...]      EXTRA: test, docs, dev (adds what tests, the documentation or both need)
#   PYTHON=python3.12      the Python to use; unset: the first of 3.12, 3.11, 3.13, 3.10 that runs
#   VENV=DIR               where the environment goes; unset: .venv beside this checkout's README
#   TORCH_INDEX_URL=URL    the package index that torch comes from, such as https://download.pytorch.org/whl/cpu
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$(realpath -m -- "${VENV:-$root/.venv}")
index=${TORCH_INDEX_URL:-}
stamp=$venv/.fairseq_attn_plugin   # what a finished setup leaves behind: see stamp_text
unfinished=$venv/.setup-unfinished # lies there from the first to the last step
extras=

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup.sh: %s\n' "$*" >&2; exit 1; }

read_extras() {
  local extra
  for extra in "$@"; do
    case $extra in
      test) extras="${extras/test/} test" ;;
      docs) extras="${extras/docs/} docs" ;;
      dev) extras="test docs dev" ;;
      -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
      *) die "EXTRA: got '$extra'; choose from test, docs, dev" ;;
    esac
  done
}

# Prints "3.12" for a Python that really runs (a pyenv shim may be there and fail).
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
supported() { case $1 in 3.10 | 3.11 | 3.12 | 3.13) ;; *) return 1 ;; esac; }
can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Sets python and version; PYTHON= or the first candidate that runs and can make an environment.
choose_python() {
  local candidate without=
  if [ -n "${PYTHON:-}" ]; then
    version=$(version_of "$PYTHON") || die "PYTHON: '$PYTHON' does not run; name a Python 3.10 to 3.13"
    supported "$version" || die "PYTHON: '$PYTHON' is Python $version; name a Python 3.10 to 3.13"
    can_make_venv "$PYTHON" ||
      die "PYTHON: '$PYTHON' cannot make environments; install python$version-venv (Debian, Ubuntu)"
    python=$PYTHON
    return
  fi
  for candidate in python3.12 python3.11 python3.13 python3.10 python3 python; do
    version=$(version_of "$candidate") && supported "$version" || continue
    if can_make_venv "$candidate"; then python=$candidate; return; fi
    without=${without:-$version}
  done
  [ -z "$without" ] || die "Python $without cannot make environments; install python$without-venv (Debian, Ubuntu)"
  die "no Python 3.10 to 3.13 found; install python3.12 and python3.12-venv, or name one with PYTHON="
}

# fairseq comes ready-made for CPython 3.12 on Linux x86_64 only; everywhere else pip compiles it.
has_fairseq_wheel() {
  "$python" -c '
import platform, sys
libc, number = platform.libc_ver()
modern = libc == "glibc" and tuple(map(int, number.split(".")[:2])) >= (2, 28)
here = (sys.platform, platform.machine(), sys.implementation.name, sys.version_info[:2])
sys.exit(not (modern and here == ("linux", "x86_64", "cpython", (3, 12))))'
}

check_compiler() {
  local headers why compiler=${CXX:-c++}
  why="Python $version: fairseq is compiled for it, and"
  headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  command -v "${compiler%% *}" >/dev/null ||
    die "$why there is no C++ compiler '$compiler'; install g++ (Fedora: gcc-c++) or set CXX="
  [ -f "$headers/Python.h" ] ||
    die "$why there is no $headers/Python.h; install python$version-dev (Fedora: python$version-devel)"
  printf '#include <vector>\n#include <Python.h>\n' | $compiler -x c++ -fsyntax-only "-I$headers" - ||
    die "$why '$compiler' fails (see above); install g++ (Fedora: gcc-c++) or set CXX="
}

# What a finished environment was made from, in one line; extras and the torch index follow on two more.
fingerprint() {
  local sum
  sum=$(cat "$root/pyproject.toml" "$root/constraints.txt" | sha256sum)
  printf '%s %s %s -> %s\n' "${sum%% *}" "$1" "$root" "$venv"
}

# Whether it was a script that started this one.
called_by_script() { { tr '\0' ' ' <"/proc/$PPID/cmdline"; } 2>/dev/null | grep -qF '.sh '; }

# Ends the script if the environment is finished and holds what is asked for; sets has_venv and made...
skip_if_done() {
  local extra
  made= made_extras= made_index= has_venv= version=
  [ ! -f "$unfinished" ] && [ -x "$venv/bin/python" ] || return 0
  version=$(version_of "$venv/bin/python") && supported "$version" || return 0
  if [ -f "$stamp" ]; then { read -r made; read -r made_extras; read -r made_index; } <"$stamp" || true; fi
  case $made in '' | *" -> $venv") ;; *) return 0 ;; esac # moved: its scripts name the old place
  has_venv=yes
  if [ -n "${PYTHON:-}" ]; then
    [ "$(version_of "$PYTHON")" = "$version" ] ||
      die "PYTHON: '$PYTHON' is not the Python $version of $venv; remove that directory or name another with VENV="
  fi
  [ -z "$made" ] || [ -z "$index" ] || [ "$index" = "$made_index" ] ||
    die "TORCH_INDEX_URL: torch of $venv is from ${made_index:-the usual index}; remove that directory to change it"
  [ "$made" = "$(fingerprint "$version")" ] || return 0
  for extra in $extras; do case " $made_extras " in *" $extra "*) ;; *) return 0 ;; esac; done
  called_by_script || say "nothing to do: $venv is up to date (Python $version)"
  exit 0
}

make_venv() {
  [ ! -e "$venv" ] || [ -f "$unfinished" ] || [ -f "$venv/pyvenv.cfg" ] || rmdir -- "$venv" 2>/dev/null ||
    die "VENV: '$venv' is there and is no virtual environment; name another directory"
  choose_python
  has_fairseq_wheel || check_compiler
  if [ -e "$venv" ]; then
    say "removing $venv: unfinished, moved or broken"
    rm -rf -- "$venv"
  fi
  say "making $venv with Python $version ($(command -v "$python"))"
  mkdir -p -- "$venv"
  : >"$unfinished"
  "$python" -m venv "$venv" || die "VENV: '$venv' could not be made (see above)"
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check -qq "$@"; }

# fairseq 0.12.2 needs omegaconf 2.0, whose metadata pip refuses from 24.1 on.
hold_pip_back() {
  [ "$version" = 3.10 ] || return 0
  "$venv/bin/python" -c 'import pip, sys; sys.exit(pip.__version__.split(".")[:2] >= ["24", "1"])' && return
  say "replacing pip by one older than 24.1, for fairseq 0.12.2"
  pip install 'pip<24.1' || die "pip could not be replaced (see above)"
}

install() {
  local to_uri='import pathlib, sys; print(pathlib.Path(sys.argv[1]).as_uri())'
  # In builds, pip up to 25.2 reads the first, later ones the second. A URL, because pip splits both at blanks.
  PIP_CONSTRAINT=$("$venv/bin/python" -c "$to_uri" "$root/constraints.txt")
  export PIP_CONSTRAINT PIP_BUILD_CONSTRAINT=$PIP_CONSTRAINT
  # pip unpacks gigabytes while it builds: not into a /tmp that may be memory, and gone with the environment if killed.
  export TMPDIR=${TMPDIR:-$venv/tmp}
  mkdir -p -- "$TMPDIR"
  unset CUDA_HOME # with it, fairseq's build compiles CUDA kernels that nothing here uses
  if [ -n "$made" ]; then
    say "updating $venv (Python $version)"
  else
    [ -n "$index" ] || nvidia-smi >/dev/null 2>&1 ||
      say "no GPU seen: TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu bash scripts/setup.sh saves gigabytes"
    say "installing torch ${index:+from $index }(0.2 GB in a minute; with CUDA 5 GB in several)"
  fi
  # Each module is compiled when it is first imported: most never are, and to compile all takes a minute.
  pip install --no-compile ${index:+--no-deps --index-url "$index"} torch ||
    die "${index:+TORCH_INDEX_URL: }torch could not be installed${index:+ from '$index'} (see above)"
  [ -n "$made" ] || say "installing fairseq and the rest (a minute; up to five more where fairseq is compiled)"
  pip install --no-compile ${index:+--extra-index-url "$index"} -e "$root${extras:+[${extras// /,}]}" ||
    die "fairseq or the plugin could not be installed (see above)"
  rm -rf -- "$venv/tmp"
}

check_install() {
  local path
  path=$(cd / && "$venv/bin/python" -m fairseq_attn_plugin 2>"$venv/check.log") ||
    { cat "$venv/check.log" >&2; die "python -m fairseq_attn_plugin fails (see above)"; }
  rm -f -- "$venv/check.log"
  [ "$path" = "$root/fairseq_attn_plugin" ] ||
    die "python -m fairseq_attn_plugin: got '$path' instead of '$root/fairseq_attn_plugin'; unset PYTHONPATH"
}

main() {
  read_extras "$@"
  skip_if_done
  exec 9<"$root/pyproject.toml" # one setup of a checkout at a time
  if command -v flock >/dev/null && ! flock -n 9; then
    say "waiting for another setup of $root"
    flock 9
    skip_if_done
  fi
  [ -n "$has_venv" ] || make_venv
  hold_pip_back
  index=${index:-$made_index}
  extras=$(printf '%s\n' $extras $made_extras | sort -u | xargs)
  install
  check_install
  printf '%s\n%s\n%s\n' "$(fingerprint "$version")" "$extras" "$index" >"$stamp"
  rm -f -- "$unfinished"
  say "ready: . $(printf %q "$venv/bin/activate")"
}

main "$@"
