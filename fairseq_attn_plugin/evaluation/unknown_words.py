"""Unknown words of a hypothesis, replaced with the help of the source words that they attend to.

The model writes ``<unk>`` where the word is not in its vocabulary. Attention says which source word it is for: that
word's entry in a dictionary takes its place, or the source word itself, which is right for names and numbers (Luong et
al., 2015, "Addressing the Rare Word Problem in Neural Machine Translation", with a model trained to emit positions;
Jean et al., 2015, "On Using Very Large Target Vocabulary for Neural Machine Translation", with the largest attention
weight, as here).
"""

import dataclasses
import io
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ..data.data_folder import UNKNOWN
from .generation_log import Hypothesis, Sentence, attention_axes, attention_weights


@dataclasses.dataclass
class Counts:
    """What became of the unknown words.

    Attributes:
        dictionary: replaced by the entry of a source word.
        copied: replaced by the source word.
        unattended: left, since no source word has any weight: it is all on ``</s>``, or the source is empty.
        lost: left, since the source word is known as ``<unk>`` only.
    """

    dictionary: int = 0
    copied: int = 0
    unattended: int = 0
    lost: int = 0

    def __str__(self) -> str:
        left = self.unattended + self.lost
        text = f"{left + self.dictionary + self.copied} unknown words: {self.dictionary} from the dictionary, "
        text += f"{self.copied} copied, {left} left"
        reasons = ((self.unattended, "without attention on a source word"), (self.lost, "for an unknown source word"))
        given = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
        return f"{text} ({given})" if given else text


def attended_positions(sentence: Sentence, hypothesis: Hypothesis) -> List[Optional[int]]:
    """The source position that each target token attends to most; never that of ``</s>``.

    Returns:
        for each of ``hypothesis.tokens`` an index into ``sentence.source``; None if no source word has any weight.
    Raises:
        ValueError: no alignments in the log, or symbols that are not those which the alignments belong to.
    """
    if hypothesis.weights is None and hypothesis.links is not None:
        return _linked_positions(sentence, hypothesis, hypothesis.links)
    attention_axes(sentence, hypothesis)
    rows = attention_weights(hypothesis)[: len(hypothesis.tokens), : len(sentence.source)]
    return [int(row.argmax()) if row.size and row.max() > 0 else None for row in rows]


def _linked_positions(
    sentence: Sentence, hypothesis: Hypothesis, links: List[Tuple[int, int]]
) -> List[Optional[int]]:
    """Hard alignments: fairseq writes one link per target token but ``</s>``, and none for an empty source."""
    expected = range(len(hypothesis.tokens)) if sentence.source else ()
    source_of = {target: source for source, target in links}
    # fairseq-generate undoes --bpe and --tokenizer in S, T and D lines, not in H lines; fairseq-interactive in D lines
    undone = sentence.target is not None and hypothesis.text not in (None, " ".join(hypothesis.tokens))
    inside = all(source < len(sentence.source) for source in source_of.values())
    if undone or not inside or sorted(target for _, target in links) != list(expected):
        raise ValueError(f"sentence {sentence.id}: {len(links)} links for {len(sentence.source)} source and "
                         f"{len(hypothesis.tokens)} target symbols: symbols joined by --post-process, --remove-bpe, "
                         "--bpe or --tokenizer, or <s> in the hypothesis")  # fmt: skip
    return [source_of.get(target) for target in range(len(hypothesis.tokens))]


def replace_unknown_words(
    sentence: Sentence, hypothesis: Hypothesis, counts: Counts, dictionary: Dict[str, str], unk: str = UNKNOWN
) -> List[str]:
    """The tokens of the hypothesis, with each ``unk`` replaced where that can be done.

    Args:
        counts: what became of the unknown words is added here.
        dictionary: target word by source word; a source word that it lacks is copied.
    Raises:
        ValueError: as ``attended_positions``. The weights of a hypothesis without ``unk``, in a symbol or as one, are
            not looked at; hard alignments always are, for one alone does not show that symbols were joined.
    """
    if hypothesis.weights is not None and not any(unk in token for token in hypothesis.tokens):
        return list(hypothesis.tokens)
    tokens = []
    for token, position in zip(hypothesis.tokens, attended_positions(sentence, hypothesis)):
        word = None if position is None else sentence.source[position]
        if token != unk:
            tokens.append(token)
        elif word is None or word == unk:
            counts.unattended += word is None
            counts.lost += word is not None
            tokens.append(unk)
        else:
            counts.dictionary += word in dictionary
            counts.copied += word not in dictionary
            tokens.append(dictionary.get(word, word))
    return tokens


def best_lines(
    sentences: List[Sentence], dictionary: Dict[str, str], unk: str = UNKNOWN, length: int = 0
) -> Tuple[List[str], Counts, List[int]]:
    """The best hypotheses as lines of text, unknown words replaced.

    Args:
        length: lines there are at least.
    Returns:
        lines: line i (from 0) is the sentence with id i, as in the files that fairseq read; empty if it is missing.
        counts: what became of the unknown words.
        missing: ids that no sentence has; fairseq leaves out, for one, what is longer than the model's limits.
    """
    counts = Counts()
    found = {s.id: " ".join(replace_unknown_words(s, s.hypotheses[0], counts, dictionary, unk)) for s in sentences}
    ids = range(max([length, *(ident + 1 for ident in found)]))
    return [found.get(ident, "") for ident in ids], counts, [ident for ident in ids if ident not in found]


def with_source_text(sentences: List[Sentence], lines: List[List[str]], path, unk: str = UNKNOWN) -> List[Sentence]:
    """The sentences with the source as it was before fairseq replaced its unknown words by ``unk``.

    Args:
        lines: tokens of every line that fairseq read; the id of a sentence is the index of its line.
        path: where they come from, for messages.
    Raises:
        ValueError: a line that cannot be what the log has as source.
    """
    found = []
    for sentence in sentences:
        if sentence.id >= len(lines):
            raise ValueError(f"{path}: {len(lines)} lines, but the log has sentence {sentence.id} (ids begin with 0)")
        tokens, where = lines[sentence.id], f"{path}:{sentence.id + 1}"
        if len(tokens) != len(sentence.source):
            raise ValueError(f"{where}: {len(tokens)} tokens, but {len(sentence.source)} in line S-{sentence.id} of "
                             "the log; give the tokenised text that fairseq read, and decode without --post-process, "
                             "--remove-bpe and --bpe")  # fmt: skip
        for token, logged in zip(tokens, sentence.source):
            if logged not in (token, unk):
                raise ValueError(f"{where}: {token!r}, but {logged!r} in line S-{sentence.id} of the log; is this the "
                                 "text that fairseq read?")  # fmt: skip
        found.append(dataclasses.replace(sentence, source=tokens))
    return found


def read_source_text(path) -> List[List[str]]:
    """Tokens of every line, split as fairseq splits them. ValueError: not UTF-8, with line; OSError: no such file."""
    return [line.split() for line in _text(path)]


def read_dictionary(path) -> Dict[str, str]:
    """Target word by source word, from a file with both on a line, a TAB or blanks between them.

    Empty lines are skipped, and an entry may come again.

    Raises:
        ValueError: more or less than two words, two entries for one source word, no entries, or not UTF-8; with line.
        OSError: the file cannot be read.
    """
    entries: Dict[str, str] = {}
    first: Dict[str, int] = {}
    for number, line in enumerate(_text(path), 1):
        words = line.removeprefix("\ufeff").split() if number == 1 else line.split()
        if len(words) not in (0, 2):
            raise ValueError(f"{path}:{number}: {len(words)} words in {line.strip()[:60]!r}; a line is a source word, "
                             "a TAB or blank, and a target word")  # fmt: skip
        if words:
            source, target = words
            if entries.setdefault(source, target) != target:
                raise ValueError(f"{path}:{number}: {source!r} is {target!r} here and {entries[source]!r} in line "
                                 f"{first[source]}")  # fmt: skip
            first.setdefault(source, number)
    if not entries:
        raise ValueError(f"{path}: no entries; a line is a source word, a TAB or blank, and a target word")
    return entries


def _text(path) -> io.StringIO:
    """The lines of a file, which end as fairseq lets them end: ``\\n``, ``\\r\\n``, ``\\r``."""
    data = Path(path).read_bytes()
    try:
        return io.StringIO(data.decode("utf-8"), newline=None)
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{number}: not UTF-8 ({error.reason})") from None
