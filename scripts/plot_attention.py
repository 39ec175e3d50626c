"""Draws attention heat maps from the output of fairseq-generate --print-alignment soft.

With --data, of a model that reads pieces of words, the pieces of each word become one: the weight of a source word is
the sum over its pieces, that of a target word the mean over its pieces."""

import argparse
import logging
import sys
from pathlib import Path

logging.disable(logging.INFO)  # fairseq logs while it is imported, matplotlib while it looks for fonts

from fairseq_attn_plugin.data.data_folder import dictionary_file, read_data_settings  # noqa: E402
from fairseq_attn_plugin.data.segmenter import Segmenter  # noqa: E402
from fairseq_attn_plugin.evaluation import plots, report_figures, word_pieces  # noqa: E402
from fairseq_attn_plugin.evaluation.generation_log import read_generation_log  # noqa: E402
from fairseq_attn_plugin.evaluation.whole_files import check_output  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="plot_attention.sh", description=__doc__)
    parser.add_argument("log", help="stdout of fairseq-generate, or generate-SPLIT.txt of --results-path")
    parser.add_argument("picture", help="PNG file to write")
    parser.add_argument("--ids", nargs="+", type=int, metavar="ID", help="sentences to draw (default: the first six)")
    parser.add_argument("--nbest", action="store_true", help="draw every printed hypothesis, not only the best")
    parser.add_argument("--data", metavar="DIR", help="data folder or model's folder of task attn_translation")
    parser.add_argument("--pieces", action="store_true", help="with --data: draw pieces, not words")
    args = parser.parse_args()
    try:
        check_output(args.picture, args.log, *(Path(args.data).glob("*") if args.data else ()))
        plots.save(plots.attention_heat_maps(maps(args)), args.picture)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"error: {error}")


def maps(args) -> list:
    """One panel per hypothesis that the options ask for."""
    if args.pieces and not args.data:
        raise ValueError("--pieces: give the folder that says what pieces are with --data")
    sentences = {sentence.id: sentence for sentence in read_generation_log(args.log)}
    ids = args.ids or list(sentences)[:6]
    unknown = [ident for ident in ids if ident not in sentences]
    if unknown:
        raise ValueError(
            f"--ids: {args.log} has no sentence {unknown[0]}; ids go from {min(sentences)} to {max(sentences)}"
        )
    chosen = [(sentences[ident], h) for ident in ids for h in sentences[ident].hypotheses[: None if args.nbest else 1]]
    titled = [(f"sentence {s.id}, score {h.score:.2f}", s, h) for s, h in chosen]
    if not args.data:
        return [report_figures.heat_map(*panel) for panel in titled]
    segmenter = Segmenter(args.data, "source")
    dictionary = dictionary_file(read_data_settings(args.data)["target"])
    word_pieces.check_symbols(sentences.values(), Path(args.data, dictionary))
    words = segmenter.segmentation in word_pieces.SEGMENTATIONS and not args.pieces
    return [word_pieces.heat_map(*panel, segmenter.logged_pieces, words) for panel in titled]


if __name__ == "__main__":
    main()
