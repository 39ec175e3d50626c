"""Draws attention heat maps from the output of fairseq-generate --print-alignment soft, of any model: a PNG file, or a
page (HTML) to step through word by word. The maps of several logs of the same sentences stand side by side.

With --data, of a model that reads pieces of words, the pieces of each word become one: the weight of a source word is
the sum over its pieces, that of a target word the mean over its pieces."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Callable, Dict, List

logging.disable(logging.INFO)  # fairseq logs while it is imported, matplotlib while it looks for fonts

from fairseq_attn_plugin.data.data_folder import UNKNOWN, dictionary_file, read_data_settings  # noqa: E402
from fairseq_attn_plugin.data.segmenter import Segmenter  # noqa: E402
from fairseq_attn_plugin.evaluation import plots, report_figures, word_pieces  # noqa: E402
from fairseq_attn_plugin.evaluation.attention_page import Panel, attention_section  # noqa: E402
from fairseq_attn_plugin.evaluation.generation_log import Hypothesis, Sentence, read_generation_log  # noqa: E402
from fairseq_attn_plugin.evaluation.html_page import write_page  # noqa: E402
from fairseq_attn_plugin.evaluation.whole_files import check_output  # noqa: E402

Log = Dict[int, Sentence]
PAGE = (".html", ".htm")
SENTENCES = {True: 20, False: 6}
"""How many are drawn where --ids does not say: in a page, in a picture."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="plot_attention.sh", description=__doc__)
    parser.add_argument("logs", nargs="+", metavar="LOG",
                        help="stdout of fairseq-generate, or generate-SPLIT.txt of --results-path")  # fmt: skip
    parser.add_argument("output", metavar="OUT", help="file to write: a page where it ends in .html, else PNG")
    parser.add_argument(
        "--ids", nargs="+", type=int, metavar="ID", help="sentences to draw (default: the first six, in a page 20)"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of several logs (default: the files' paths)")
    parser.add_argument("--nbest", action="store_true", help="of one log: draw every printed hypothesis, not the best")
    folder = "data folder or model's folder of task attn_translation; once, or once for each log"
    parser.add_argument("--data", action="append", metavar="DIR", help=folder)
    pieces = "with --data: draw pieces, not words; a page, where one may switch, begins with them"
    parser.add_argument("--pieces", action="store_true", help=pieces)
    args = parser.parse_intermixed_args()
    try:
        check(args)
        check_output(args.output, *args.logs, *(path for folder in args.data or () for path in Path(folder).glob("*")))
        draw(args)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"error: {error}")


def check(args) -> None:
    """ValueError where options do not go together; fills in those that are left out."""
    count = len(args.logs)
    if args.pieces and not args.data:
        raise ValueError("--pieces: give the folder that says what pieces are with --data")
    if args.nbest and count > 1:
        raise ValueError(f"--nbest: got {count} logs; give one")
    if args.names and (len(args.names) != count or len(set(args.names)) != count):
        raise ValueError(f"--names: got {' '.join(args.names)!r} for {count} logs; give each its own name")
    if args.data and len(args.data) not in (1, count):
        raise ValueError(f"--data: given {len(args.data)} times for {count} logs; give it once, or once for each log")
    args.names = args.names or args.logs
    args.folders = (args.data or [None]) * (count if len(args.data or ()) < 2 else 1)


def draw(args) -> None:
    page = args.output.lower().endswith(PAGE)
    logs = {path: {sentence.id: sentence for sentence in read_generation_log(path)} for path in args.logs}
    ids = args.ids or list(logs[args.logs[0]])[: SENTENCES[page]]
    check_ids(logs, ids)
    systems = [
        panels_of(args, name, path, logs[path], ids, folder, words=not page)
        for name, path, folder in zip(args.names, args.logs, args.folders)
    ]
    sentences = [[panel for panels in per_sentence for panel in panels] for per_sentence in zip(*systems)]
    if page:
        panels = [[Panel(p.title, p.source, p.target, p.weights.tolist()) for p in each] for each in sentences]
        write_page(args.output, "Attention", [attention_section("Heat maps", panels, merged=not args.pieces)],
                   about="\n".join(args.logs))  # fmt: skip
    else:
        every = [panel for panels in sentences for panel in panels]
        plots.save(plots.attention_heat_maps(every, len(args.logs) if len(args.logs) > 1 else 3), args.output)


def check_ids(logs: Dict[str, Log], ids: List[int]) -> None:
    """ValueError: a sentence that a log lacks, or that is another one there."""
    (first_path, first), *others = logs.items()
    for ident in ids:
        if ident not in first:
            raise ValueError(f"--ids: {first_path} has no sentence {ident}; ids go from {min(first)} to {max(first)}")
        for path, log in others:
            if ident not in log:
                raise ValueError(f"{path}: no sentence {ident}, which {first_path} has; give logs of the same test set")
            texts = [source_text(each[ident]) for each in (log, first)]
            if texts[0] != texts[1] and UNKNOWN not in "".join(texts):
                raise ValueError(f"{path}: sentence {ident} is {start(log[ident])}, but in {first_path} "
                                 f"{start(first[ident])}; give logs of the same test set")  # fmt: skip


def source_text(sentence: Sentence) -> str:
    """The source without blanks: the same however it is cut into pieces."""
    return "".join(sentence.source).replace(word_pieces.BLANK, "").replace(word_pieces.JOINER, "")


def start(sentence: Sentence) -> str:
    return repr(" ".join(sentence.source)[:40])


def panels_of(args, name: str, path: str, log: Log, ids: List[int], folder, words: bool) -> List[List[plots.HeatMap]]:
    """For each sentence the panels of one log, one per hypothesis that the options ask for.

    Args:
        words: whether the pieces of a word are one, unless ``--pieces``.
    """
    panel = with_pieces(log, folder, words and not args.pieces) if folder else report_figures.heat_map
    several = len(args.logs) > 1
    try:
        return [
            [panel(title(name, log[ident], hypothesis, several), log[ident], hypothesis)
             for hypothesis in log[ident].hypotheses[: None if args.nbest else 1]]
            for ident in ids
        ]  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def title(name: str, sentence: Sentence, hypothesis: Hypothesis, several: bool) -> str:
    about = f"sentence {sentence.id}, score {hypothesis.score:.2f}"
    return f"{name}\n{about}" if several else about


def with_pieces(log: Log, folder: str, words: bool) -> Callable[[str, Sentence, Hypothesis], plots.HeatMap]:
    """Makes a panel of a hypothesis of a task that has a segmenter."""
    segmenter = Segmenter(folder, "source")
    dictionary = dictionary_file(read_data_settings(folder)["target"])
    word_pieces.check_symbols(log.values(), Path(folder, dictionary))
    words = words and segmenter.segmentation in word_pieces.SEGMENTATIONS
    return lambda *panel: word_pieces.heat_map(*panel, segmenter.logged_pieces, words)


if __name__ == "__main__":
    main()
