"""What transduce.sh asks: what is to be trained, which models are decoded together, and the table."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Dict, List, Sequence

logging.disable(logging.INFO)  # fairseq logs while it is imported

from fairseq_attn_plugin.data.data_folder import read_data_settings, reference_file, text_file  # noqa: E402
from fairseq_attn_plugin.evaluation import language_table, scoring, translation_report, whole_files  # noqa: E402
from fairseq_attn_plugin.evaluation.generation_log import read_generation_log  # noqa: E402
from fairseq_attn_plugin.evaluation.language_table import Decoded, Language  # noqa: E402
from fairseq_attn_plugin.experiments import transduction  # noqa: E402
from fairseq_attn_plugin.serving.vote import winner  # noqa: E402

FAILED = "failed"
"""File in the folder of a language: what went wrong."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    text = "lines of words with tabs between them: updates, prepare, train, member, language"
    plan = verbs.add_parser("plan", help=text)
    plan.add_argument("--together", action="store_true", help="one model is of all languages")
    plan.add_argument("mode", choices=list(transduction.MODES))
    plan.add_argument("folder")
    plan.add_argument("updates", help="of a training, or nothing")
    plan.add_argument("languages", help="names, or nothing: all")
    plan.add_argument("members", help="names, or nothing: all")
    plan.add_argument("size", help="of the training files, or nothing")
    plan.set_defaults(run=print_plan)
    for verb, run, text in (
        ("candidates", print_candidates, "ensembles to be decoded in validation"),
        ("choose", print_choice, "the ensemble that the rule takes"),
        ("report", print_report, "the table, written to OUT as well"),
    ):
        each = verbs.add_parser(verb, help=text)
        each.add_argument("out")
        for name in ("languages", "members", "seeds"):
            each.add_argument(name, type=str.split, help="with blanks between them")
        each.set_defaults(run=run)
    args = parser.parse_args()
    try:
        args.run(args)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        sys.exit(str(error))


def print_plan(args) -> None:
    mode = transduction.MODES[args.mode]
    languages = transduction.find_languages(args.folder, args.languages, args.size or None)
    if args.together and transduction.TOGETHER in languages:
        raise ValueError(f"--together: one language is called '{transduction.TOGETHER}', as the whole is; rename it")
    updates = int(args.updates or transduction.UPDATES * (len(languages) if args.together else 1))
    preparing = transduction.with_a_tag(mode.preparing) if args.together else mode.preparing
    print("updates", updates, sep="\t")
    print("prepare", *preparing.split(), sep="\t")
    print("train", *transduction.shared_options(mode, updates), sep="\t")
    for name in transduction.chosen("MEMBERS", args.members, list(mode.members)):
        print("member", name, *mode.members[name].split(), sep="\t")
    for language, files in languages.items():
        print("language", language, *files, sep="\t")


def print_candidates(args) -> None:
    ordered = language_table.order(read_languages(args, []), args.members)
    print(*language_table.candidates(ordered), sep="\n")


def print_choice(args) -> None:
    names = language_table.candidates(language_table.order(read_languages(args, []), args.members))
    print(language_table.choose(read_languages(args, names), names))


def print_report(args) -> None:
    names = language_table.candidates(language_table.order(read_languages(args, []), args.members))
    languages = read_languages(args, names, language_table.choose(read_languages(args, names), names))
    found = language_table.results(languages, args.members, winner)
    failed = {name: reason(args.out, name) for name in args.languages if reason(args.out, name)}
    table = language_table.markdown(found, args.seeds, list(failed))
    whole_files.write_text(f"{args.out}/report.md", table)
    whole_files.write_json(f"{args.out}/report.json", {**found, "failed": failed})
    print(table, end="")


def reason(out: str, language: str) -> str:
    """Why a language failed; nothing where it did not."""
    path = Path(out, language, FAILED)
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def read_languages(args, names: Sequence[str], chosen: str = "") -> List[Language]:
    """Those that did not fail, with the ensembles of validation that are named, and the one of test that was chosen."""
    found: List[Language] = []
    for name in args.languages:
        if not reason(args.out, name):
            found += read_language(args, name, names, chosen)
    if not found:
        raise ValueError("every language failed")
    return found


def read_language(args, name: str, names: Sequence[str], chosen: str) -> List[Language]:
    """One language, or each of those of one model."""
    folder = Path(args.out, name)
    data = (folder / "data").read_text(encoding="utf-8").strip()
    source = read_data_settings(data)["source"]
    references = {split: scoring.read_lines(reference_file(data, split, source)) for split in ("valid", "test")}
    singles: Dict[str, Dict[str, Dict[str, Decoded]]] = {}
    ensembles: Dict[str, Dict[str, Decoded]] = {}
    for split, together in (("valid", names), ("test", [chosen] if chosen else [])):
        singles[split] = {
            member: {seed: decoded(folder / f"{member}-seed{seed}", split, references) for seed in args.seeds}
            for member in args.members
        }
        ensembles[split] = {each: decoded(folder / f"ensemble-{each}", split, references) for each in together}
    language = Language(name, references, singles, ensembles)
    if name != transduction.TOGETHER:
        return [language]
    sources = {split: scoring.read_lines(Path(data, text_file(split, source))) for split in references}
    return language.parts({split: [text.split("\t")[0] for text in texts] for split, texts in sources.items()})


def decoded(folder: Path, split: str, references: Dict[str, List[str]]) -> Decoded:
    """What a log of fairseq-generate has."""
    log = folder / f"generate-{split}.txt"
    sentences = read_generation_log(log)
    texts = translation_report.hypotheses(sentences, len(references[split]), log)
    return Decoded(texts, [sentence.hypotheses[0].score for sentence in sentences])


if __name__ == "__main__":
    main()
