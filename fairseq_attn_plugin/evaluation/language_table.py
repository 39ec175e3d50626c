"""Word error rates over many languages: of single models, of their vote, of their ensemble; and which models are taken.

The rule looks at validation words alone, and takes one recipe for all languages: members are put in the order of their
mean WER (over seeds, then over languages), the lowest first; of the ensembles of the first member, of the first two,
and so on, all seeds of each, the one with the lowest mean WER over languages is taken, of equal ones the smallest.
"""

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Sequence

import numpy as np

from . import error_rates, tables

JOINT = "+"
"""Between the members of an ensemble, in its name."""

Winner = Callable[[Sequence[str], Sequence[float]], int]


@dataclass
class Decoded:
    """The best hypotheses of N words: texts, and scores (mean log2 probability of a symbol)."""

    texts: List[str]
    scores: List[float]


@dataclass
class Language:
    """What became of one language.

    Attributes:
        name: of the language.
        references: split → N texts; splits are ``valid`` and ``test``.
        singles: split → member → seed → hypotheses.
        ensembles: split → names of the members with + between them → hypotheses.
    """

    name: str
    references: Dict[str, List[str]]
    singles: Dict[str, Dict[str, Dict[str, Decoded]]]
    ensembles: Dict[str, Dict[str, Decoded]] = field(default_factory=dict)

    def counts(self, split: str, texts: Sequence[str]) -> np.ndarray:
        """N×2: whether each word is wrong, and 1."""
        return error_rates.line_counts("WER", self.references[split], texts)

    def wer(self, split: str, texts: Sequence[str]) -> float:
        """Words that are wrong, in percent."""
        wrong, words = self.counts(split, texts).sum(axis=0).tolist()
        return 100.0 * wrong / words

    def member_wer(self, split: str, member: str) -> float:
        """The mean over seeds."""
        return mean([self.wer(split, each.texts) for each in self.singles[split][member].values()])

    def vote(self, split: str, members: Sequence[str], winner: Winner) -> List[str]:
        """What most of the models of some members have."""
        models = [each for member in members for each in self.singles[split][member].values()]
        found = []
        for texts, scores in zip(zip(*(each.texts for each in models)), zip(*(each.scores for each in models))):
            found.append(texts[winner(texts, scores)])
        return found


    def parts(self, names: Dict[str, Sequence[str]]) -> List["Language"]:
        """The languages that one model was trained for.

        Args:
            names: split → the language of each of the N words.
        """
        return [self._part(name, {split: [number for number, each in enumerate(all_of) if each == name]
                                  for split, all_of in names.items()})
                for name in dict.fromkeys(names["test"])]  # fmt: skip

    def _part(self, name: str, rows: Dict[str, List[int]]) -> "Language":
        """Some words of each split."""

        def of(split: str, each: Decoded) -> Decoded:
            return Decoded([each.texts[row] for row in rows[split]], [each.scores[row] for row in rows[split]])

        references = {split: [texts[row] for row in rows[split]] for split, texts in self.references.items()}
        singles = {split: {member: {seed: of(split, each) for seed, each in seeds.items()}
                           for member, seeds in members.items()} for split, members in self.singles.items()}
        ensembles = {split: {names: of(split, each) for names, each in there.items()}
                     for split, there in self.ensembles.items()}
        return Language(name, references, singles, ensembles)  # fmt: skip


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def order(languages: Sequence[Language], members: Sequence[str]) -> List[str]:
    """Members by their mean WER in validation, the lowest first; equal ones as they are given."""
    return sorted(members, key=lambda member: mean([each.member_wer("valid", member) for each in languages]))


def candidates(ordered: Sequence[str]) -> List[str]:
    """Names of the ensembles that the rule chooses from, the smallest first."""
    return [JOINT.join(ordered[:number]) for number in range(1, len(ordered) + 1)]


def ensemble_wer(languages: Sequence[Language], split: str, name: str) -> float:
    """The mean over languages."""
    return mean([each.wer(split, each.ensembles[split][name].texts) for each in languages])


def choose(languages: Sequence[Language], names: Sequence[str]) -> str:
    """The ensemble with the lowest mean WER in validation, of equal ones the first."""
    return min(names, key=lambda name: ensemble_wer(languages, "valid", name))


def results(languages: Sequence[Language], members: Sequence[str], winner: Winner) -> Dict[str, Any]:
    """All numbers: the rule's choice and what led to it, then WER of each language and their mean, in percent.

    Args:
        languages: with the ensembles of all candidates decoded in ``valid``, and the chosen one in ``test``.
        members: as they were given.
        winner: (texts, scores) of the models → number of the one that the vote falls on.
    """
    ordered = order(languages, members)
    names = candidates(ordered)
    chosen = choose(languages, names)
    rows = [_numbers(each, members, chosen, winner) for each in languages]
    counts = [each.counts("test", each.ensembles["test"][chosen].texts) for each in languages]
    voted = [each.counts("test", each.vote("test", chosen.split(JOINT), winner)) for each in languages]
    return {
        "validation WER of members": {name: mean([each.member_wer("valid", name) for each in languages])
                                      for name in ordered},
        "validation WER of ensembles": {name: ensemble_wer(languages, "valid", name) for name in names},
        "ensemble": chosen.split(JOINT),
        "languages": rows,
        "mean": {
            "words": sum(row["words"] for row in rows),
            "members": {name: mean([row["members"][name] for row in rows]) for name in members},
            "vote": _overall([row["vote"]["score"] for row in rows], voted),
            "ensemble": _overall([row["ensemble"]["score"] for row in rows], counts),
        },
        "signature": error_rates.signature("WER"),
    }  # fmt: skip


def _numbers(language: Language, members: Sequence[str], chosen: str, winner: Winner) -> Dict[str, Any]:
    """Of one language, in ``test``: WER, and the seeds behind the means."""
    ensemble = language.counts("test", language.ensembles["test"][chosen].texts)
    voted = language.counts("test", language.vote("test", chosen.split(JOINT), winner))
    seeds = {member: {seed: language.wer("test", each.texts) for seed, each in language.singles["test"][member].items()}
             for member in members}  # fmt: skip
    return {
        "language": language.name,
        "words": len(language.references["test"]),
        "members": {member: language.member_wer("test", member) for member in members},
        "seeds": seeds,
        "vote": error_rates.compare([voted])[0],
        "ensemble": error_rates.compare([ensemble])[0],
    }


def _overall(scores: Sequence[float], counts: Sequence[np.ndarray]) -> Dict[str, float]:
    """The mean over languages, and half of the 95 % interval over all words of all of them."""
    return {"score": mean(scores), "ci": error_rates.compare([np.concatenate(counts)])[0]["ci"]}


def markdown(found: Dict[str, Any], seeds: Sequence[str], failed: Sequence[str] = ()) -> str:
    """The table of ``results``, and below it what the columns are and how the ensemble was chosen."""
    members = list(found["mean"]["members"])
    lines = [["language", "words", *members, "vote", "ensemble"]]
    for row in (*found["languages"], {"language": "mean", **found["mean"]}):
        cells = [f"{row['members'][name]:.2f}" for name in members] + [_cell(row["vote"]), _cell(row["ensemble"])]
        lines.append([row["language"], f"{row['words']:,}", *cells])
    lines += [[name, *["–"] * (len(members) + 3)] for name in failed]
    ensembles = ", ".join(f"{name} {value:.2f}" for name, value in found["validation WER of ensembles"].items())
    single = ", ".join(f"{name} {value:.2f}" for name, value in found["validation WER of members"].items())
    many = f"mean of seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}"
    notes = [
        f"WER in percent: words that differ from the reference. {', '.join(members)}: single models, {many}; vote and "
        f"ensemble: all models of {' and '.join(found['ensemble'])}.",
        "± 95 % interval of 1,000 bootstrap resamples; that of the mean is over all words.",
        f"Validation WER, mean over languages: {single}; ensembles: {ensembles}. The lowest is taken for all of them.",
        f"WER: {found['signature']}",
    ]
    notes += [f"Without {', '.join(failed)}, where a step failed."] if failed else []
    return tables.markdown(lines) + "\n" + "\n".join(notes) + "\n"


def _cell(value: Dict[str, float]) -> str:
    return f"{value['score']:.2f} ± {value['ci']:.2f}"
