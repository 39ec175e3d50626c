"""A trained model from Python: raw sentences in, translations with score and attention out."""

import copy
import difflib
import math
import os
import re
from argparse import Namespace
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

import numpy as np
import torch
from fairseq import hub_utils, utils
from torch import nn

from ..models.attn_rnn import AttnRNNModel
from ..tasks.attn_translation import IDENTITY

EOS = "</s>"
END = re.compile(r"""[.!?…।؟]["'»”’)\]]*$""")
"""The end of a sentence, if a blank comes after it."""

UNSPACED_ENDS = "。！？"
"""Ends of sentences that no blank comes after."""

LENGTH_FACTOR = 2
"""A translation may have this many pieces for each of the source, and some more (``Translator.extra_length``)."""

WHOLE, NUMBER, SWITCH = "a whole number", "a finite number", "True or False"
OPTIONS = {
    "max_len_a": NUMBER, "max_len_b": WHOLE, "min_len": WHOLE, "lenpen": NUMBER, "unnormalized": SWITCH,
    "unkpen": NUMBER, "temperature": NUMBER, "no_repeat_ngram_size": WHOLE, "match_source_len": SWITCH,
    "sampling": SWITCH, "sampling_topk": WHOLE, "sampling_topp": NUMBER, "diverse_beam_groups": WHOLE,
    "diverse_beam_strength": NUMBER, "diversity_rate": NUMBER,
}  # fmt: skip
"""Of fairseq's generation options those that a request may set, and what each of them takes."""

OFF = -1
LIMITS = {
    "max_len_a": (0, math.inf), "max_len_b": (0, math.inf), "min_len": (0, math.inf), "temperature": (1e-6, math.inf),
    "no_repeat_ngram_size": (0, math.inf), "sampling_topk": (1, math.inf), "sampling_topp": (1e-6, 1),
    "diverse_beam_groups": (1, math.inf),
}  # fmt: skip
"""Least and largest value; the last three may be ``OFF``, too."""


@dataclass(frozen=True, eq=False)
class Translation:
    """What became of one line.

    Attributes:
        text: the translation, in one line.
        score: mean of the base-2 logarithms of the probabilities of the target pieces, ``</s>`` included: the second
            column of fairseq-generate's H lines; 0 of an empty line.
        source: pieces that the model read, tag and ``</s>`` included, in all S; of a split line those of all parts.
        target: pieces that it wrote, ``</s>`` included, in all T; of a split line those of all parts.
        attention: T×S, rows sum to one; None of an empty or a split line, of a model without attention, and where it
            was not asked for; of several models decoded together their mean.
        parts: how many parts the line was split into because it is too long for the model; 0 of an empty line.
        unknown: source pieces that the model does not know.
        cut: parts whose translation did not come to an end within the allowed length.
        votes: models whose best hypothesis this is, of a ``Vote``; else 1.
    """

    text: str
    score: float
    source: List[str]
    target: List[str]
    attention: Optional[np.ndarray] = field(repr=False)
    parts: int = 1
    unknown: int = 0
    cut: int = 0
    votes: int = 1


class Part(NamedTuple):
    """What the model reads at once."""

    pieces: List[str]
    joint: str
    """What comes between the translation before and this one: a blank, or nothing in the middle of a word."""


class Translator(hub_utils.GeneratorHubInterface):
    """Translates raw text with one model or an ensemble; ``from_pretrained`` makes it. In an ensemble
    each next piece has the mean of the models' probabilities, as in ``fairseq-generate --path a.pt:b.pt``.

    ``translator.to("cuda")`` moves it to a GPU. Besides ``translate_lines`` there is what fairseq's interface has.

    ``translate_lines`` and ``translate`` may be called by several threads at once: a request changes nothing that
    another one sees, and leaves nothing behind. What is fairseq's (``generate``, ``sample``, ``score``) is for one
    thread at a time.
    """

    def __init__(self, cfg, task, models):
        super().__init__(cfg, task, models)
        self.bpe, self.tokenizer = task.build_bpe(None), None
        source, target = self.max_positions
        self.extra_length = min(50, target // 4)
        self.window = min(source, (target - 1 - self.extra_length) // LENGTH_FACTOR)
        """Longest source that is read at once, in tokens with tag and ``</s>``: no translation of it is cut."""

    def translate_lines(
        self,
        lines: Iterable[str],
        beam: int = 5,
        target: Optional[str] = None,
        attention: bool = True,
        max_tokens: int = 4000,
        **options,
    ) -> List[Translation]:
        """Translates lines of raw text.

        A blank line stays empty. A line that is longer than the model can take is split, after the last end of a
        sentence that fits, else before a word, else anywhere, and the translations of the parts are put together.

        Args:
            lines: raw text, each line one item, white space of any kind counts as a blank.
            beam: hypotheses kept in the search, 1: greedy.
            target: language to translate to, for a model that has several; None: what ``translate_to`` said, or the
                only one.
            attention: return the attention weights as well; without them long lines take less time.
            max_tokens: source tokens in one batch, padding included.
            options: more of fairseq's generation options (``OPTIONS``: ``lenpen``, ``sampling``, ...).

        Returns:
            One translation for each line, in their order.

        Raises:
            ValueError: ``lines`` that are one string, or a line that is no text; ``beam`` or ``max_tokens`` below 1; an
                option of another type; a target that the model does not have, or none given where it has several.
            TypeError: an option that there is not.
        """
        for name, value in (("beam", beam), ("max_tokens", max_tokens)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: got {_short(value)}; give a whole number, at least 1")
        if not isinstance(attention, bool):
            raise ValueError(f"attention: got {_short(attention)}; give {SWITCH}")
        _check_options(options)
        prefix = self.bpe.prefix(target)
        parts = [self._split(self.bpe.pieces(line), prefix) for line in _checked_lines(lines)]
        sources = [prefix + part.pieces + [EOS] for split in parts for part in split]
        done = iter(self._search(sources, max_tokens, attention, {"beam": beam, **options}))
        return [_joined([next(done) for _ in split], [part.joint for part in split]) for split in parts]

    def translate(self, sentences, beam: int = 5, verbose: bool = False, **options):
        """The texts alone: a list for a list, a string for a string; ``verbose`` says nothing more."""
        lines = [sentences] if isinstance(sentences, str) else sentences
        texts = [done.text for done in self.translate_lines(lines, beam, attention=False, **options)]
        return texts[0] if isinstance(sentences, str) else texts

    def _split(self, pieces: List[str], prefix: List[str]) -> List[Part]:
        """Parts that fit into the window; none of no pieces."""
        room = max(1, self.window - len(prefix) - 1)
        parts: List[Part] = []
        start = 0
        while start < len(pieces):
            end = self._cut(pieces, start, start + room)
            whole = not parts or self.bpe.starts_word(pieces[start]) or pieces[start - 1][-1] in UNSPACED_ENDS
            parts.append(Part(pieces[start:end], " " if whole else ""))
            start = end
        return parts

    def _cut(self, pieces: List[str], start: int, limit: int) -> int:
        """Where a part that begins at ``start`` ends: at ``limit`` or before."""
        if len(pieces) <= limit:
            return len(pieces)
        words = [place for place in range(limit, start, -1) if self.bpe.starts_word(pieces[place])]
        ends = [place for place in words if END.search("".join(pieces[max(start, place - 4) : place]))]
        ends += [place for place in range(limit, start, -1) if pieces[place - 1][-1] in UNSPACED_ENDS]
        return max(ends or words or [limit])

    def _search(self, sources: List[List[str]], max_tokens: int, attention: bool, options: dict) -> List[Translation]:
        """Translations of what the model can read at once."""
        given = {name: self.cfg.generation[name] for name in OPTIONS if name in self.cfg.generation}
        generation = Namespace(**{**given, "max_len_a": LENGTH_FACTOR, "max_len_b": self.extra_length, **options})
        models = [_returning_attention(model, attention) for model in self.models]
        generator = self.task.build_generator(models, generation)
        done: Dict[int, Translation] = {}
        for batch in self._batches(sources, max_tokens) if sources else ():
            batch = utils.apply_to_sample(lambda tensor: tensor.to(self.device), batch)
            width = batch["net_input"]["src_tokens"].size(1)
            longest = min(int(generation.max_len_a * width + generation.max_len_b), generator.max_len - 1)
            if options.get("min_len", 0) > longest:
                raise ValueError(f"min_len: got {options['min_len']}; a translation has {longest} pieces at most here")
            found = self.task.inference_step(generator, models, batch)
            for number, (best, *_) in zip(batch["id"].tolist(), found, strict=True):
                done[number] = self._translation(sources[number], best, longest)
        return [done[number] for number in range(len(sources))]

    def _batches(self, sources: List[List[str]], max_tokens: int) -> Iterator[dict]:
        """Sources of like length together, ``max_tokens`` with padding in a batch, or one that is longer. Without
        fairseq's iterator, which sets the seed of all threads for a moment."""
        tokens = [torch.tensor([self.src_dict.index(piece) for piece in source]) for source in sources]
        lengths = np.array([len(each) for each in tokens])
        dataset = self.task.build_dataset_for_inference(tokens, lengths)
        order = lengths.argsort(kind="stable")
        for batch in dataset.batch_by_size(order, max_tokens=max(max_tokens, int(lengths.max()))):
            yield dataset.collater([dataset[number] for number in batch])

    def _translation(self, source: List[str], best: dict, longest: int) -> Translation:
        """Of S source pieces and the best hypothesis, which had to end after ``longest`` tokens and ``</s>``."""
        tokens, weights = best["tokens"], best["attention"]
        if weights.numel():
            start = weights.size(0) - len(source) if self.task.cfg.left_pad_source else 0
            weights = weights[start : start + len(source)].float().cpu().numpy().T.copy()
        return Translation(
            text=self.bpe.decode(self.tgt_dict.string(tokens)),
            score=float(best["score"]) / math.log(2),
            source=source,
            target=[self.tgt_dict[token] for token in tokens.tolist()],
            attention=weights if len(weights) else None,
            unknown=sum(self.src_dict.index(piece) == self.src_dict.unk() for piece in source),
            cut=int(len(tokens) > longest),
        )


def _checked_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines; a ValueError where they are one string, or one of them is no text."""
    if isinstance(lines, (str, bytes)) or not isinstance(lines, Iterable):
        raise ValueError(f"lines: got {_short(lines)}, which is not a list; give [text], or call translate(text)")
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str):
            raise ValueError(f"lines: number {number} is {_short(line)}; give text")
        if any("\ud800" <= letter <= "\udfff" for letter in line):
            raise ValueError(f"lines: number {number} has half of a surrogate pair, which is no text; decode it anew")
        yield line


def _check_options(options: Dict[str, Any]) -> None:
    """TypeError for an option that there is not, ValueError for one of another type."""
    for name, value in options.items():
        if name == "print_alignment":
            raise TypeError(f"{name}: no option of a translation; translate_lines returns the attention weights")
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, ["beam", "target", "attention", "max_tokens", *OPTIONS], 1)
            choices = f"did you mean {near[0]}?" if near else f"choose from {', '.join(OPTIONS)}"
            raise TypeError(f"{name}: no option of a translation; {choices}")
        kind = OPTIONS[name]
        fits = isinstance(value, bool) if kind == SWITCH else isinstance(value, Integral if kind == WHOLE else Real)
        if not fits or not math.isfinite(value):
            raise ValueError(f"{name}: got {_short(value)}; give {kind}")
        least, most = LIMITS.get(name, (-math.inf, math.inf))
        may_be_off = name.startswith(("sampling_", "diverse_beam_g")) and value == OFF
        if not (least <= value <= most or may_be_off):
            limits = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
            raise ValueError(f"{name}: got {_short(value)}; give {kind}, {limits}")


def _short(value: Any) -> str:
    """A value as it is written, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _returning_attention(model: nn.Module, wanted: bool) -> nn.Module:
    """The same model for one request: parameters and parts are shared, whether its decoder returns attention is not."""
    model = copy.copy(model)
    decoder: Any = copy.copy(model.decoder)
    if getattr(decoder, "attention", None) is not None:
        decoder.need_attn = wanted
    model._modules = {**model._modules, "decoder": decoder}
    return model


def _joined(done: List[Translation], joints: List[str]) -> Translation:
    """One translation of the parts of a line."""
    if len(done) < 2:
        return done[0] if done else Translation("", 0.0, [], [], None, parts=0)
    sizes = [len(part.target) for part in done]
    return Translation(
        text="".join(joint + part.text for joint, part in zip(joints, done, strict=True) if part.text).strip(),
        score=sum(part.score * size for part, size in zip(done, sizes, strict=True)) / sum(sizes),
        source=[piece for part in done for piece in part.source],
        target=[piece for part in done for piece in part.target],
        attention=None,
        parts=len(done),
        unknown=sum(part.unknown for part in done),
        cut=sum(part.cut for part in done),
    )


def load_pretrained(
    folders: Union[str, Sequence[str]], checkpoint_file: str, data: str, **options
) -> hub_utils.GeneratorHubInterface:
    """Loads a trained model, or an ensemble: what ``AttnRNNModel.from_pretrained`` does, with its arguments.

    Args:
        folders: of one model, or of several, whose text must be cut into the same pieces.
    """
    folders = [folders] if isinstance(folders, str) else list(folders)
    if not folders:
        raise ValueError("no model given; give at least one folder")
    for folder in folders:
        check_files(folder, checkpoint_file)
    loaded = [hub_utils.from_pretrained(folder, checkpoint_file, data, **options) for folder in folders]
    for folder, other in zip(folders[1:], loaded[1:], strict=True):
        _check_same_pieces(folders[0], loaded[0]["task"], folder, other["task"])
    task = loaded[0]["task"]
    interface = Translator if hasattr(task, "segmenter") else hub_utils.GeneratorHubInterface
    return interface(loaded[0]["args"], task, [model for each in loaded for model in each["models"]])


def _check_same_pieces(first: str, task, folder: str, other) -> None:
    """Raises a ValueError where two models do not speak of the same pieces, so that no probability has a fellow."""
    ours, theirs = (getattr(each, "settings", None) for each in (task, other))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        different = [name for name in IDENTITY if ours.get(name) != theirs.get(name)]
    else:
        sides = {"source dictionary": "source_dictionary", "target dictionary": "target_dictionary"}
        different = [name for name, side in sides.items() if getattr(task, side) != getattr(other, side)]
        different += [] if type(task) is type(other) else ["task"]
    if different:
        raise ValueError(
            f"{folder}: decoded together with {first}, but of other {_what(different[0], ours, theirs)}; "
            "give models of one data folder, or let each decode alone and vote (--vote)"
        )


def _what(name: str, ours: Any, theirs: Any) -> str:
    """What two models differ in; of short values both of them."""
    if name == "sha256":
        return "pieces (dictionaries or sentencepiece model)"
    values = [each.get(name) for each in (theirs, ours)] if isinstance(ours, dict) and isinstance(theirs, dict) else []
    if all(isinstance(value, (str, bool)) for value in values) and values:
        return f"{name} ({values[0]}, not {values[1]})"
    return name


AttnRNNModel.load_pretrained = staticmethod(load_pretrained)


def check_files(folder, checkpoint_file: str) -> None:
    """Raises an OSError or a ValueError, in one line, where ``folder`` does not hold the checkpoints named (several
    with colons between them)."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the folder of a model, with {checkpoint_file} in it")
    for name in checkpoint_file.split(os.pathsep):
        path = folder / name
        if not path.is_file():
            if (folder / "model" / name).is_file():
                raise FileNotFoundError(f"{folder}: no {name}; give {folder / 'model'}")
            there = ", ".join(sorted(found.name for found in folder.glob("*.pt"))) or "none"
            raise FileNotFoundError(f"{folder}: no {name} (checkpoints there: {there}); checkpoint_file= names another")
