#!/usr/bin/env bash
# Makes data-bin/<set>.<src>-<tgt> of raw parallel text: cleaned, cut into pieces, binarised for fairseq, with all that
# training, decoding and serving need. The last line of output is its path; progress goes to stderr.
#
# usage: bash data-prep/prepare_corpus.sh (--source de --target en | --like DATA)
#          (--from DIR | --train P [--valid P] [--test P,P] | --tsv FILE [--columns 1,2])
#          [--segmentation bpe|unigram|char|none] [OPTION ...]     (--help lists them all)
#        --train T.tsv --valid T.tsv --test T.tsv [--columns 1+3,2]
#          --source-segmentation char,features --target-segmentation char [--normalization nfd]
#   DATA is a folder made so before, or a model's folder: its languages, pieces and dictionaries are taken.
#   P is a prefix: P.de and P.en, or P.de.gz and P.en.gz; T.tsv, or T.tsv.gz, is a table of words. Valid and test are split off where they are not given.
#   VENV=, PYTHON=, TORCH_INDEX_URL=: see scripts/setup.sh
#
# Run again, it skips what is finished; a changed option redoes what depends on it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" >&2
exec "${VENV:-$root/.venv}/bin/python" -W ignore "$root/data-prep/prepare_corpus.py" "$@"
