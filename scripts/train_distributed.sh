#!/usr/bin/env bash
# fairseq-train in several processes, on one machine or on several, through torch's launcher (torchrun).
#
# usage: bash scripts/train_distributed.sh --nproc N [--nnodes M --node-rank R --master HOST:PORT] -- OPTION ...
#   --nproc N            processes on this machine, one for each GPU; without a GPU, or with --cpu among the options, on
#                        the CPU
#   --nnodes M           machines; the same command is started on each, with its own --node-rank; left out: 1
#   --node-rank R        number of this machine, from 0 on; machine 0 writes the checkpoints
#   --master HOST:PORT   name or address of machine 0 as the others reach it, and a port that is free there
#   OPTION               of fairseq-train; --user-dir is this plugin where it is left out
#   OMP_NUM_THREADS=N    threads of each process; unset: 1
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see setup.sh
#
# Together they take batches N*M times as large as one process. Run again, it resumes from --save-dir, which all machines
# have to see. Where a process dies, all of them end with an error.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

script=train_distributed
# shellcheck source=scripts/pipeline.sh
. "$root/scripts/pipeline.sh"

case ${1:-} in -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;; esac
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/scripts/train_distributed.py" "$@"
