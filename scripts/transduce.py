"""What transduce.sh asks: what is to be trained, which models are decoded together, and the table."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Dict, List, Sequence

logging.disable(logging.INFO)  # fairseq logs while it is imported

from fairseq_attn_plugin.data.data_folder import read_data_settings, reference_file  # noqa: E402
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
    plan = verbs.add_parser("plan", help="lines of words with tabs between them: prepare, train, member, language")
    plan.add_argument("mode", choices=list(transduction.MODES))
    plan.add_argument("folder")
    plan.add_argument("updates", type=int)
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
    print("prepare", *mode.preparing.split(), sep="\t")
    print("train", *transduction.shared_options(mode, args.updates), sep="\t")
    for name in transduction.chosen("MEMBERS", args.members, list(mode.members)):
        print("member", name, *mode.members[name].split(), sep="\t")
    for language, files in transduction.find_languages(args.folder, args.languages, args.size or None).items():
        print("language", language, *files, sep="\t")


def print_candidates(args) -> None:
    ordered = language_table.order(read_languages(args, []), args.members)
    print(*language_table.candidates(ordered), sep="\n")


def candidates_read(args) -> tuple:
    """(languages with the ensembles of validation, names of these)"""
    names = language_table.candidates(language_table.order(read_languages(args, []), args.members))
    return read_languages(args, names), names


def print_choice(args) -> None:
    print(language_table.choose(*candidates_read(args)))


def print_report(args) -> None:
    languages, names = candidates_read(args)
    chosen = language_table.choose(languages, names)
    for language in languages:
        language.ensembles["test"] = {chosen: read_ensemble(args.out, language, "test", chosen)}
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


def read_languages(args, names: Sequence[str]) -> List[Language]:
    """Those that did not fail, with the ensembles of validation that are named."""
    found = []
    for name in args.languages:
        if reason(args.out, name):
            continue
        folder = Path(args.out, name)
        data = (folder / "data").read_text(encoding="utf-8").strip()
        source = read_data_settings(data)["source"]
        splits = ("valid", "test")
        references = {split: scoring.read_lines(reference_file(data, split, source)) for split in splits}
        singles: Dict[str, Dict[str, Dict[str, Decoded]]] = {}
        for split in splits:
            singles[split] = {
                member: {seed: decoded(folder / f"{member}-seed{seed}", split, references) for seed in args.seeds}
                for member in args.members
            }
        language = Language(name, references, singles)
        language.ensembles["valid"] = {each: read_ensemble(args.out, language, "valid", each) for each in names}
        found.append(language)
    if not found:
        raise ValueError("every language failed")
    return found


def read_ensemble(out: str, language: Language, split: str, name: str) -> Decoded:
    return decoded(Path(out, language.name, f"ensemble-{name}"), split, language.references)


def decoded(folder: Path, split: str, references: Dict[str, List[str]]) -> Decoded:
    """What a log of fairseq-generate has."""
    log = folder / f"generate-{split}.txt"
    sentences = read_generation_log(log)
    texts = translation_report.hypotheses(sentences, len(references[split]), log)
    return Decoded(texts, [sentence.hypotheses[0].score for sentence in sentences])


if __name__ == "__main__":
    main()
