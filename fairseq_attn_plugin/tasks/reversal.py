"""The reversal task: copy a random sequence of symbols, back to front or as it is. It needs no data directory."""

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import torch
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II

from ..data.reversal_dataset import ReversalDataset
from ..data.reversal_generator import gold_positions
from ..data.reversal_problem import ORDERS, TRAIN_DATA, ReversalProblem, flag, parse_symbols
from ..evaluation import metrics
from ..processes import check_that_they_have_met
from .attention_report import ReportsAttention, report_attention_field
from .every_sentence import EverySentence
from .resumed_checkpoint import resumed_checkpoint
from .summed_metrics import log_of_sums, log_sums
from .typed_lines import TypedLines
from .validation_search import validation_search

DEFAULT = {f.name: f.default for f in dataclasses.fields(ReversalProblem)}
MAX_POSITIONS = 1024
# What a model was trained on: restored from its checkpoint, and an option that says otherwise is an error.
IDENTITY = ("symbols", "min_length", "max_length", "train_size", "train_data", "seed", "order")
SUMS = ("sentences", "correct", "distance", "length", "aligned", "alignable")


def _option(name: str, what: str, default: Optional[str] = None):
    unset = "from the checkpoint, else " + str(DEFAULT.get(name) if default is None else default)
    return field(default=None, metadata={"help": f"{what} (default: {unset})"})


@dataclass
class ReversalConfig(FairseqDataclass):
    """Options of the reversal task. The defaults are those of :class:`ReversalProblem`; an option that is left out is
    taken from the checkpoint where there is one, on resuming and on decoding."""

    reversal_symbols: Optional[str] = _option(
        "symbols", "alphabet: letters, or symbols with commas between them, or a number N for the symbols 0 to N-1"
    )
    reversal_min_length: Optional[int] = _option("min_length", "shortest training sentence, in symbols")
    reversal_max_length: Optional[int] = _option("max_length", "longest training sentence, in symbols")
    reversal_train_size: Optional[int] = _option("train_size", "training sentences an epoch")
    reversal_train_data: Optional[ChoiceEnum(list(TRAIN_DATA))] = _option(  # type: ignore[valid-type]
        "train_data", "draw the training sentences anew for each epoch (fresh) or once (fixed)"
    )
    reversal_valid_size: Optional[int] = _option("valid_size", "sentences in valid, all distinct")
    reversal_test_size: Optional[int] = _option("test_size", "sentences in test and in splits of other names")
    reversal_test_min_length: Optional[int] = _option(
        "test_min_length", "shortest sentence of those splits", "--reversal-min-length"
    )
    reversal_test_max_length: Optional[int] = _option(
        "test_max_length", "longest sentence of those splits", "--reversal-max-length"
    )
    reversal_long_size: Optional[int] = _option("long_size", "sentences in test_long and other splits named *_long")
    reversal_long_min_length: Optional[int] = _option(
        "long_min_length", "shortest sentence of those splits", "--reversal-max-length plus 1"
    )
    reversal_long_max_length: Optional[int] = _option(
        "long_max_length", "longest sentence of those splits", "twice --reversal-max-length"
    )
    reversal_exact_size: Optional[int] = _option(
        "exact_size", "sentences in test_N and other splits named *_N, which have N symbols each"
    )
    reversal_seed: Optional[int] = _option("seed", "seed of the data; --seed does not change them")
    reversal_order: Optional[ChoiceEnum(list(ORDERS))] = _option(  # type: ignore[valid-type]
        "order", "the target is the source back to front (reverse) or as it is (copy)"
    )
    reversal_source_padding: Optional[ChoiceEnum(["right", "left"])] = _option(  # type: ignore[valid-type]
        "source_padding", "side on which sources are padded", "right"
    )
    reversal_eval_beam: int = field(default=1, metadata={"help": "beam of the decoding in validation"})
    reversal_eval_max_len_a: float = field(
        default=1.0, metadata={"help": "validation decodes at most a*n+b tokens for a longest source of n: a"}
    )
    reversal_eval_max_len_b: int = field(
        default=5, metadata={"help": "validation decodes at most a*n+b tokens for a longest source of n: b"}
    )
    report_attention: bool = report_attention_field()
    max_source_positions: int = field(
        default=MAX_POSITIONS, metadata={"help": "max number of tokens in the source, </s> included"}
    )
    max_target_positions: int = field(
        default=MAX_POSITIONS, metadata={"help": "max number of tokens in the target, </s> included"}
    )
    # Where training resumes from; without help they are no options of the task.
    reversal_save_dir: str = II("checkpoint.save_dir")
    reversal_restore_file: str = II("checkpoint.restore_file")
    reversal_finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    reversal_reset_dataloader: Any = II("checkpoint.reset_dataloader")  # as bool, fairseq would make it true
    reversal_no_last_checkpoints: Any = II("checkpoint.no_last_checkpoints")


@register_task("reversal", dataclass=ReversalConfig)
class ReversalTask(EverySentence, TypedLines, ReportsAttention, FairseqTask):
    """Source: symbols and ``</s>``; target: the symbols back to front, or by option as they are, and ``</s>``. Both
    sides share one dictionary.

    The settings are saved with every checkpoint (``task_state``) and come back from there: before the model is built,
    in training from the checkpoint that will be resumed, in decoding from the one that is loaded.

    Args:
        cfg: the options; ``None`` means from the checkpoint, else the default of :class:`ReversalProblem`.
    """

    saved_as = "reversal"
    """Where its settings are in the ``task_state`` of a checkpoint."""

    def __init__(self, cfg: ReversalConfig):
        super().__init__(cfg)
        names = [*DEFAULT, "source_padding"]
        values = {name: getattr(cfg, "reversal_" + name) for name in names}
        for name in ("max_source_positions", "max_target_positions"):
            values[name] = getattr(cfg, name) if getattr(cfg, name) != MAX_POSITIONS else None
        self._explicit = {k: v if isinstance(v, int) else str(v) for k, v in values.items() if v is not None}
        self._restored = False
        self._generator = None
        self._model_error: Optional[str] = None
        self._lines_read = 0
        self.dictionary = Dictionary()
        self._search = validation_search(cfg, "reversal_eval")
        self._settle({})

    @classmethod
    def setup_task(cls, cfg: ReversalConfig, **kwargs):
        return cls(cfg)

    # Settings

    def _settle(self, saved: Dict[str, Any]):
        """Fixes the settings: options first, then ``saved``, then defaults; the dictionary object stays the same."""
        defaults = {
            "source_padding": "right",
            "max_source_positions": MAX_POSITIONS,
            "max_target_positions": MAX_POSITIONS,
        }
        self.settings = {**DEFAULT, **defaults, **saved, **self._explicit}
        self.state.merge_state_dict({"reversal": self.settings})
        dictionary = Dictionary()
        for symbol in parse_symbols(self.settings["symbols"]):
            dictionary.add_symbol(symbol)
        self.dictionary.__dict__.update(dictionary.__dict__)

    def _restore(self, saved: Optional[Dict[str, Any]], names=IDENTITY, remedy: str = ""):
        """Takes over the settings of a checkpoint; of the fields ``names``, an option that differs is an error."""
        self._restored = True
        if saved is None:
            return
        saved = _checked_settings(saved)
        for name in names:
            ours, theirs = self._explicit.get(name, saved[name]), saved[name]
            if name == "symbols":
                ours, theirs = ",".join(parse_symbols(ours)), ",".join(parse_symbols(theirs))
            if ours != theirs:
                raise ValueError(
                    f"{flag(name)}: got {self._explicit[name]!r}, but the checkpoint was trained with {saved[name]!r}; "
                    f"leave the option out{remedy}"
                )
        self._settle(saved)

    def problem(self) -> ReversalProblem:
        """Alphabet, lengths, sizes, seed, order; a ValueError if they contradict each other."""
        return ReversalProblem(**{name: self.settings[name] for name in DEFAULT})

    def load_state_dict(self, state_dict: Dict[str, Any]):
        """Restores the settings of a checkpoint that is loaded for decoding; called once for each of an ensemble."""
        saved = state_dict.get("reversal")
        if self._restored and saved is not None:
            saved = _checked_settings(saved)
            first, other = self.settings["symbols"], saved["symbols"]
            if parse_symbols(first) != parse_symbols(other):
                raise ValueError(
                    f"--path: its checkpoints have the alphabets {first!r} and {other!r}; "
                    "give checkpoints of one alphabet"
                )
            if self.settings["order"] != saved["order"]:
                raise ValueError(
                    "--path: some of its checkpoints reverse and some copy; give checkpoints of one --reversal-order"
                )
            return
        self._restore(saved)
        self.problem()

    def _restore_for_training(self):
        """Restores the settings of the checkpoint that fairseq will resume, before the model is built for them."""
        resumed = resumed_checkpoint(self.cfg, "reversal_")
        saved = resumed.task_state.get("reversal") if resumed else None
        if resumed is None or saved is None:
            return
        names = ("symbols",) if resumed.starts_anew else IDENTITY  # the weights may go on with data of their own
        positions = {name: getattr(self.cfg, name) for name in ("max_source_positions", "max_target_positions")}
        self._restore({**saved, **positions}, names, f", or {resumed.remedy}")  # as the model reads them

    # Data

    @property
    def source_dictionary(self) -> Dictionary:
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        return self.dictionary

    def max_positions(self):
        """Longest source and target, in tokens with ``</s>``."""
        return self.settings["max_source_positions"], self.settings["max_target_positions"]

    @property
    def left_pad_source(self) -> bool:
        return self.settings["source_padding"] == "left"

    def load_dataset(self, split: str, combine: bool = False, epoch: int = 1, task_cfg=None, **kwargs):
        """Draws a split; any name is a split (see :meth:`ReversalProblem.split` and ``reversal_generator.buckets``).

        Raises:
            ValueError: its sentences are longer than the model may read or write, or too few exist.
        """
        if "," in split:
            raise ValueError(f"--gen-subset: got {split!r}; name one split at a time")
        problem = self.problem()
        spec = problem.split(split)
        limits = {"--max-source-positions": self.max_positions()[0], "--max-target-positions": self.max_positions()[1]}
        for name, limit in limits.items():
            if spec.longest + 1 > limit:
                raise ValueError(
                    f"{spec.longest_flag}: {spec.longest} symbols and </s> are more than {name} {limit} allows; "
                    "lower the one or raise the other"
                )
        self.datasets[split] = ReversalDataset(problem, split, self.dictionary, self.left_pad_source)
        self.datasets[split].set_epoch(epoch)

    def may_lose_sentences(self, dataset) -> bool:
        return getattr(dataset, "training", False)

    def get_batch_iterator(self, dataset, *args, **kwargs):
        if not self.is_split(dataset) and self._lines_read:  # a line that is too long was reported: no end of a session
            kwargs["ignore_invalid_inputs"] = True
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def build_dataset_for_inference(self, src_tokens, src_lengths, constraints=None, **kwargs):
        return LanguagePairDataset(
            src_tokens,
            src_lengths,
            self.dictionary,
            tgt_dict=self.dictionary,
            left_pad_source=self.left_pad_source,
            constraints=constraints,
        )

    def get_interactive_tokens_and_lengths(self, lines: List[str], encode_fn):
        """Typed lines (``a b c d``; also ``abcd`` where every symbol is one character) as tokens with ``</s>``.

        Empty lines, unknown symbols (read as ``<unk>``) and lines that are too long (left out) are reported on stderr
        with their line number, counted from 1 over the session.
        """
        self.refuse_soft_alignment()
        tokens = [self._encode(encode_fn(line)) for line in lines]
        return tokens, [t.numel() for t in tokens]

    def _encode(self, line: str) -> torch.Tensor:
        self._lines_read += 1
        known = set(parse_symbols(self.settings["symbols"]))
        symbols = line.split()
        if all(len(symbol) == 1 for symbol in known):
            symbols = list("".join(symbols))
        unknown = sorted(set(symbols) - known)
        limit = self.max_positions()[0]
        if not symbols:
            self._warn("is empty; type symbols such as " + " ".join(self.dictionary.symbols[-2:]))
        if unknown:
            self._warn(f"has unknown symbols, read as {self.dictionary.unk_word}: {' '.join(unknown)}")
        if len(symbols) + 1 > limit:
            self._warn(f"has {len(symbols)} symbols, with </s> more than --max-source-positions {limit}; left out")
        indices = [self.dictionary.index(s) if s in known else self.dictionary.unk() for s in symbols]
        return torch.tensor(indices + [self.dictionary.eos()])

    def _warn(self, what: str):
        print(f"warning: line {self._lines_read} {what}", file=sys.stderr, flush=True)

    # Model and criterion

    def build_model(self, cfg, from_checkpoint=False):
        if not self._restored and not from_checkpoint:
            check_that_they_have_met()
            self._restore_for_training()
        self.problem()  # contradictions come out before the model
        model = super().build_model(cfg, from_checkpoint)
        self._model_error = getattr(model, "alignment_loss_error", None)
        self._generator = self.build_generator([model], self._search)
        return model

    def build_criterion(self, cfg, *args, **kwargs):
        """fairseq's; a ValueError if the alignment loss would take the logarithm of a sparse model's zero weights."""
        if self._model_error and getattr(cfg, "_name", None) == "label_smoothed_cross_entropy_with_alignment":
            raise ValueError(self._model_error)
        return super().build_criterion(cfg, *args, **kwargs)

    # Validation

    def valid_step(self, sample, model, criterion):
        """Loss, and the sums behind the accuracies: every sentence is decoded, by default greedily."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        hypotheses = self.inference_step(self._generator, [model], sample)
        for name, value in self._sums(sample, [h[0] if h else None for h in hypotheses]).items():
            logging_output["_reversal_" + name] = float(value)
        return loss, sample_size, logging_output

    def _sums(self, sample, hypotheses: List[Optional[Dict[str, torch.Tensor]]]) -> Dict[str, int]:
        """Sums over a batch. Sources are B×S, targets B×T; the attention of a hypothesis is S×T', T' its length."""
        counts, aligned, alignable = metrics.Counts(), 0, 0
        width = sample["net_input"]["src_tokens"].size(1)
        targets, eos, pad = sample["target"].tolist(), self.dictionary.eos(), self.dictionary.pad()
        for target, hypothesis in zip(targets, hypotheses, strict=True):
            reference = [token for token in target if token not in (eos, pad)]
            tokens = hypothesis["tokens"].tolist() if hypothesis else []
            counts.add(reference, tokens[:-1] if tokens[-1:] == [eos] else tokens)
            attention = hypothesis["attention"] if hypothesis else None
            if attention is not None and attention.numel():
                offset = width - len(reference) - 1 if self.left_pad_source else 0
                gold = [offset + source for source in gold_positions(len(reference), self.settings["order"])]
                aligned += metrics.aligned(attention.argmax(dim=0).tolist(), gold)
                alignable += len(reference)
        return {**dataclasses.asdict(counts), "aligned": aligned, "alignable": alignable}

    def reduce_metrics(self, logging_outputs, criterion):
        """Logs ``token_accuracy``, ``sentence_accuracy`` and, if the model returns attention, ``alignment_accuracy``.

        All are percentages over the whole of a validation split, over all processes. For each target position of a
        reference the alignment accuracy asks whether the source position with the largest weight, of all positions
        that the model sees, is the right one; a position that the hypothesis does not reach is wrong.
        """
        super().reduce_metrics(logging_outputs, criterion)
        total = log_sums(logging_outputs, ["_reversal_" + name for name in SUMS])
        if total.get("_reversal_sentences"):
            _log_ratio("token_accuracy", metrics.token_accuracy, "distance", "length")
            _log_ratio("sentence_accuracy", metrics.sentence_accuracy, "correct", "sentences")
        if total.get("_reversal_alignable"):
            _log_ratio("alignment_accuracy", metrics.alignment_accuracy, "aligned", "alignable")


def _checked_settings(saved: Any) -> Dict[str, Any]:
    """The settings of a checkpoint. ValueError: they are not whole."""
    saved = {"order": DEFAULT["order"], **saved} if isinstance(saved, dict) else {}  # checkpoints of 0.1.0 have none
    for name in IDENTITY:
        if not isinstance(saved.get(name), type(DEFAULT[name])):
            raise ValueError(f"the checkpoint's settings of the task lack {flag(name)}: it is damaged; use another")
    return saved


def _log_ratio(name: str, accuracy, part: str, whole: str):
    log_of_sums(name, accuracy, "_reversal_" + part, "_reversal_" + whole)
