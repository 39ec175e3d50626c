"""Several models that decode each for itself, and vote: for those that cannot be decoded together."""

from dataclasses import replace
from typing import Dict, Iterable, List, Sequence

from .translator import Translation, Translator


def winner(texts: Sequence[str], scores: Sequence[float]) -> int:
    """Number of the member that the vote falls on: the first of those with the text that most of them have; of texts
    with as many votes the one whose members' scores sum to most; then that of the first member.

    Args:
        texts: the best hypothesis of each member.
        scores: mean log2 probability of a piece in each, so that members with short pieces and with long ones compare.

    Raises:
        ValueError: no member, or another number of scores.
    """
    if not texts or len(texts) != len(scores):
        raise ValueError(f"a vote of {len(texts)} texts with {len(scores)} scores; give a score for each, at least one")
    votes: Dict[str, List[int]] = {}
    for member, text in enumerate(texts):
        votes.setdefault(text, []).append(member)
    return max(votes.values(), key=lambda voters: (len(voters), sum(scores[member] for member in voters)))[0]


class Vote:
    """Translates raw text by the vote of several models (:func:`winner`), whatever their pieces are.

    ``translate_lines`` and ``translate`` take what those of a ``Translator`` take, and may be called by several threads
    at once. The attention, pieces and score of a translation are those of the first model that voted for it; ``votes``
    says how many did.

    Args:
        members: translators; an ensemble is one member.
    """

    def __init__(self, members: Iterable[Translator]):
        self.members = list(members)
        for member in self.members:
            if not isinstance(member, Translator):
                raise ValueError(f"members: got a {type(member).__name__}; give translators of attn_translation")
        if not self.members:
            raise ValueError("members: none given; give at least one translator")

    def to(self, device) -> "Vote":
        """Moves every model to a device."""
        for member in self.members:
            member.to(device)
        return self

    def translate_lines(self, lines: Iterable[str], *args, **options) -> List[Translation]:
        """One translation for each line, in their order; see ``Translator.translate_lines``."""
        lines = lines if isinstance(lines, (str, bytes)) else list(lines)
        found = zip(*(member.translate_lines(lines, *args, **options) for member in self.members), strict=True)
        return [self._elected(each) for each in found]

    def translate(self, sentences, beam: int = 5, verbose: bool = False, **options):
        """The texts alone: a list for a list, a string for a string."""
        lines = [sentences] if isinstance(sentences, str) else sentences
        texts = [done.text for done in self.translate_lines(lines, beam, attention=False, **options)]
        return texts[0] if isinstance(sentences, str) else texts

    @staticmethod
    def _elected(found: Sequence[Translation]) -> Translation:
        texts = [each.text for each in found]
        best = found[winner(texts, [each.score for each in found])]
        return replace(best, votes=texts.count(best.text))
