"""The report of an experiment: reads what the plan says was run, and writes the measures, the tables, the pictures and
the page."""

import json
import shlex
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..data.reversal_problem import ReversalProblem
from ..data.segmenter import Segmenter
from . import measures, plots, report_figures, report_tables, whole_files, word_pieces
from .attention_page import Panel, attention_section
from .generation_log import Sentence
from .html_page import Section, table, write_page
from .measures import Line
from .report_keys import Maps, ReportKeys, read_report_keys
from .report_tables import Column

NEEDED = ("title", "experiment", "task", "runs", "versions")


@dataclass
class Results:
    """What the runs left.

    Attributes:
        lines: the measures of every run, in the order of the plan.
        drawn: the attention of the first run with numbers of each row.
        notes: why there is none, a sentence each.
    """

    plan: Dict[str, Any]
    keys: ReportKeys
    lines: List[Line] = field(default_factory=list)
    drawn: List[report_figures.Drawn] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)


def write_experiment_report(out: Path) -> str:
    """Writes ``measures.jsonl``, ``report.md``, ``report.json``, ``report.html`` and a PNG file for each figure into
    the folder of an experiment; returns the tables in Markdown. Runs that are not finished have a gap with the reason.

    Raises:
        ValueError: no plan in the folder, or a damaged one.
        OSError: something cannot be written.
    """
    out = Path(out)
    plan = read_plan(out)
    splits = list(dict.fromkeys(split for run in plan["runs"] for split in run["decodings"]))
    keys = read_report_keys(plan.get("report") or {}, plan["task"], splits)
    results = read_results(plan, keys, out)
    text = report_tables.report_text(keys, results.lines)
    rows = report_tables.rows_of(report_tables.columns_of(keys), results.lines)
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in results.lines)
    whole_files.write_text(out / "measures.jsonl", lines)
    whole_files.write_text(out / "report.md", text)
    whole_files.write_json(out / "report.json", rows)
    figures = curve_sections(results, out)
    maps = attention_sections(results, out)
    sections = [summary(results), *figures, *maps, everything(results), reproduction(results, out)]
    write_page(out / "report.html", plan["title"], sections, plan.get("about") or "")
    return text


def read_plan(out: Path) -> Dict[str, Any]:
    """ValueError: there is none, or it is damaged."""
    path = out / "plan.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{out}: no plan.json; is this the folder of an experiment? compare.sh makes it") from None
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); run the experiment again, finished runs are kept") from None
    missing = [name for name in NEEDED if name not in plan]
    if missing:
        raise ValueError(f"{path}: no {missing[0]!r}; run the experiment again, finished runs are kept")
    return plan


def read_results(plan: Dict[str, Any], keys: ReportKeys, out: Path) -> Results:
    """Measures every run, one after the other: their logs are large."""
    results, drawing = Results(plan, keys), Drawing(keys.maps)
    for run in plan["runs"]:
        line, splits = measures.measure_run(run, out, plan["task"])
        results.lines.append(line)
        if splits and keys.maps is not None:
            segmented = "attn_translation" in run["train"]
            drawing.add(line, splits, keys.maps.split or keys.test, line["data"] if segmented else None)
    results.drawn, results.notes = drawing.drawn, drawing.notes
    return results


# Attention


@dataclass
class Drawing:
    """Collects the attention of each row: the sentences that the first run has for it, by every other one, too."""

    keys: Optional[Maps]
    drawn: List[report_figures.Drawn] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    numbers: List[int] = field(default_factory=list)

    def add(self, line: Line, splits: Dict[str, List[Sentence]], split: Optional[str], data: Optional[str]) -> None:
        """Takes the first run of a row in.

        Args:
            split: of which the sentences are; None: ``test``, or the first that there is.
            data: see :func:`drawer`.
        """
        assert self.keys is not None
        if any(each.facts == line["facts"] for each in self.drawn):
            return
        name = split or ("test" if "test" in splits else next(iter(splits)))
        sentences = {sentence.id: sentence for sentence in splits.get(name, [])}
        label, panels = report_tables.label_of(line["facts"]), {}
        if not self.numbers:
            self.numbers = [sentence.id for sentence in report_figures.chosen(list(sentences.values()), self.keys)]
        try:
            draw = drawer(data)
            found = [sentences[number] for number in self.numbers if number in sentences]
            panels = {sentence.id: draw(label, sentence) for sentence in found if has_weights(sentence)}
            if not panels:
                self.notes.append(f"{label}: no attention weights in the log of {name}.")
        except (OSError, ValueError) as error:
            self.notes.append(f"{label}: {error}")
        self.drawn.append(report_figures.Drawn(line["facts"], panels))


def has_weights(sentence: Sentence) -> bool:
    """Whether the best hypothesis was printed with them."""
    return sentence.hypotheses[0].weights is not None


def drawer(data: Optional[str]) -> Callable[[str, Sentence], plots.HeatMap]:
    """How the sentences of a run become panels.

    Args:
        data: the data folder of a task that has a segmenter; None where the log has the symbols that the model read.

    Raises:
        ValueError, OSError: there is no such folder.
    """
    if data is None:
        return lambda label, sentence: report_figures.heat_map(label, sentence, sentence.hypotheses[0])
    pieces_of = Segmenter(data, "source").logged_pieces
    return lambda label, sentence: word_pieces.heat_map(label, sentence, sentence.hypotheses[0], pieces_of, False)


def attention_sections(results: Results, out: Path) -> List[Section]:
    """The heat maps of the page, and their picture; none where nothing has weights."""
    if results.keys.maps is None:
        return []
    sentences = report_figures.side_by_side(results.drawn)
    why = "".join(f"<p>{escape(note)}</p>\n" for note in results.notes)
    if not sentences:
        return [Section("Attention", why or "<p>No run has attention weights.</p>")]
    maps = report_figures.still(results.drawn, results.keys.maps)
    columns = 3
    if results.keys.maps.rows == "all":
        pivot, facts = results.keys.pivot, [each.facts for each in results.drawn]
        columns = min(len(report_tables.pivot_titles(pivot.line, facts)), 8) if pivot else 4
    plots.save(plots.attention_heat_maps(maps, columns), out / "attention.png")
    panels = [[Panel(each.title, each.source, each.target, rounded(each)) for each in row] for row in sentences]
    section = attention_section("Attention", panels)
    return [Section(section.title, section.body + why, section.figures)]


def rounded(heat: plots.HeatMap) -> List[List[float]]:
    """Weights with three decimals."""
    return heat.weights.round(3).tolist()


# Curves


def curve_sections(results: Results, out: Path) -> List[Section]:
    """Learning curves over updates and over seconds, accuracy by length, and their pictures."""
    sections = [learning_section(results, out, over, title) for over, title in OVER.items()]
    sections.append(length_section(results, out))
    return [section for section in sections if section is not None]


OVER = {"num_updates": "updates", "seconds": "seconds"}


def learning_section(results: Results, out: Path, over: str, x: str) -> Optional[Section]:
    """None where no validation tells anything."""
    panels, figures = {}, []
    for statistic in results.keys.learning:
        curves = report_figures.learning_curves(results.lines, statistic, over)
        title = report_figures.TITLES.get(statistic, statistic)
        if curves:
            panels[title] = curves
            what = f"In validation: {title}, over {x}."
            figures.append(report_figures.interactive(f"learning-{statistic}-{x}", what, curves, x, title))
    if not panels:
        return None
    plots.save(plots.learning_curves(panels, x), out / f"learning_{x}.png")
    return Section(f"Learning, over {x}", "<p>In validation, mean over seeds.</p>", figures)


def length_section(results: Results, out: Path) -> Optional[Section]:
    """None where it is not wanted, or no run has numbers."""
    keys, reversal = results.keys, results.plan["task"] == "reversal"
    if keys.by_length is None or not report_tables.finished(results.lines):
        return None
    curves = report_figures.length_curves(results.lines, keys.by_length, 1 if reversal else report_figures.WIDTH)
    y = report_figures.TITLES[keys.by_length]
    y, x = (y, "source length in symbols") if reversal else (y.replace("symbols", "words"), "source length in words")
    trained = trained_lengths(results.lines) if reversal else None
    plots.save(plots.accuracy_by_length(curves, trained, x, y), out / "accuracy_by_length.png")
    figure = report_figures.interactive("by-length", f"Of the test sets: {y}, by source length.", curves, x, y, trained)
    return Section("By source length", "<p>All test sets and seeds together.</p>", [figure])


def trained_lengths(lines: Sequence[Line]) -> Optional[Tuple[int, int]]:
    """Shortest and longest training sentence, in symbols; None where the runs differ in it."""
    defaults = ReversalProblem()
    found = set()
    for shortest, longest in (line["trained_lengths"] for line in report_tables.finished(lines)):
        found.add((defaults.min_length if shortest is None else shortest, longest or defaults.max_length))
    return found.pop() if len(found) == 1 else None


# Tables of the page


def summary(results: Results) -> Section:
    """The table of the report, and the runs that have no numbers."""
    keys, columns = results.keys, report_tables.columns_of(results.keys)
    rows = report_tables.rows_of(columns, results.lines)
    body = summary_table(results, columns)
    if keys.pivot is not None and report_tables.has_line(keys.pivot, rows):
        chosen = [report_tables.column_of(name, keys.test) for name in keys.pivot.columns]
        for column in chosen:
            header, *body_rows = report_tables.pivot(keys.pivot.line, column, rows, keys.deviation)
            body += f"<h3>{escape(column.title)}</h3>\n" + table(header, body_rows)
    lost = "".join(f"<li>{escape(sentence)}</li>" for sentence in report_tables.failures(results.lines))
    return Section("Summary", body + (f'<ul class="failed">{lost}</ul>' if lost else ""))


def summary_table(results: Results, columns: Sequence[Column]) -> str:
    """Of these columns, with what its numbers are; what a row is made of has a column for each fact."""
    rows = report_tables.rows_of(columns, results.lines)
    deviation = any(row["seeds"] > 1 for row in rows)
    fullest = sorted(rows, key=lambda row: -len(row["facts"]))
    names = list(dict.fromkeys(name for row in fullest for name in row["facts"]))
    header = [*names, *(column.title for column in columns)]
    cells = report_tables.cells(columns, rows, deviation)[1:]
    body = [[*(row["facts"].get(name, "–") for name in names), *line[1:]] for row, line in zip(rows, cells)]
    return table(header, body) + f"<p>{escape(report_tables.note(rows, deviation).strip())}</p>\n"


def everything(results: Results) -> Section:
    """The measures that the table of the report lacks."""
    columns = report_tables.other_columns(results.keys, results.lines)
    return Section("More measures", summary_table(results, columns) if columns else "<p>None.</p>")


def reproduction(results: Results, out: Path) -> Section:
    """Versions, and the command lines of every run."""
    versions = table(["", "version"], [[name, str(value)] for name, value in results.plan["versions"].items()])
    runs = "".join(
        f"<details><summary>{escape(run['folder'])}</summary><pre>{escape(commands(run, out))}</pre></details>\n"
        for run in results.plan["runs"]
    )
    return Section("To reproduce", f"{versions}<p>The command lines of each run.</p>\n{runs}")


def commands(run: Dict[str, Any], out: Path) -> str:
    """Those that the run left, else those of the plan; a line each."""
    path = out / run["folder"] / "commands"
    if path.exists():
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return "\n".join(shlex.join(words) for words in [run["train"], *run["decodings"].values()])
