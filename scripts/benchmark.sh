#!/usr/bin/env bash
# Measures this plugin's models beside fairseq's own lstm, in one run, and prints a Markdown table with the ratios.
#
# usage: bash scripts/benchmark.sh [MODE] [OPTION ...]      eight minutes on two cores; --quick: one
#   table        training steps, greedy and beam search, peak memory (the default)
#   scaling      time over source length and over beam, with a picture; six minutes
#   launches     calls that a GPU is given for a target step, and where the program waits for it; seconds
#   OPTION ...   --quick, --device cuda, --workloads nmt, --systems fairseq,feeding, ... (--help lists them)
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
#
# Every timing goes to runs/benchmark/MODE.json, unless --output names another file.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
mode=table
case ${1:-} in scaling | launches) mode=$1 ;; esac
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/benchmark.py" \
  --output "$root/runs/benchmark/$mode.json" "$@"
