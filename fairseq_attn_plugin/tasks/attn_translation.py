"""The translation task: fairseq's, that takes the segmentation of text from the data folder and speaks raw text."""

import logging
import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from ..data.data_folder import NORMALIZATION, UNKNOWN, dictionary_file, kinds, read_data_settings
from ..data.segmenter import RawText, Segmenter, SourcePieces
from ..evaluation import metrics
from ..processes import check_that_they_have_met
from .attention_report import ReportsAttention, report_attention_field
from .every_sentence import EverySentence
from .resumed_checkpoint import resumed_checkpoint
from .summed_metrics import log_of_sums, log_sums
from .typed_lines import ConstraintSegmenter, TypedLines
from .validation_search import validation_search

logger = logging.getLogger(__name__)

# What a model was trained on: saved with its checkpoints, and a data folder that differs is an error.
IDENTITY = ("source", "target", "targets", "tag_target", "segmentation", "normalization", "sha256")
SCORES = [metrics.CorpusScore(name) for name in ("bleu", "chrf")]
SUMS = {score.name: [f"_translation_{score.name}_{i}" for i in range(score.size)] for score in SCORES}
SYMBOL_SUMS = [f"_translation_{name}" for name in ("correct", "sentences", "distance", "length")]
BETTER = {"bleu": "higher", "chrf": "higher", "exact_match": "higher", "error_rate": "lower"}
LOSSES = ("loss", "nll_loss", "ppl")
NEVER = "\ufffe"  # no character: what is unknown in a reference is in no hypothesis


class SourceDictionary(Dictionary):
    """fairseq's, whose texts are known as those of the source where they are decoded."""

    def string(self, *args, **kwargs):
        return SourcePieces(super().string(*args, **kwargs))


@dataclass
class AttnTranslationConfig(TranslationConfig):
    """Options of the task beside those of fairseq's ``translation``."""

    left_pad_source: bool = field(default=False, metadata={"help": "pad the source on the left"})
    translation_valid_beam: int = field(
        default=1, metadata={"help": "beam of the decoding in validation; 0: validation decodes nothing"}
    )
    translation_valid_max_len_a: float = field(
        default=1.5, metadata={"help": "validation decodes at most a*n+b tokens for a longest source of n: a"}
    )
    translation_valid_max_len_b: int = field(
        default=10, metadata={"help": "validation decodes at most a*n+b tokens for a longest source of n: b"}
    )
    report_attention: bool = report_attention_field()
    translate_to: Optional[str] = field(
        default=None,
        metadata={"help": "language that raw text is translated to, for a model with several target languages"},
    )
    # What other configs say; without help these are no options of the task.
    translation_save_dir: str = II("checkpoint.save_dir")
    translation_restore_file: str = II("checkpoint.restore_file")
    translation_finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    translation_reset_dataloader: Any = II("checkpoint.reset_dataloader")  # as bool, fairseq would make it true
    translation_no_last_checkpoints: Any = II("checkpoint.no_last_checkpoints")
    translation_best_metric: str = II("checkpoint.best_checkpoint_metric")
    translation_maximize: Any = II("checkpoint.maximize_best_checkpoint_metric")
    translation_post_process: Optional[str] = II("common_eval.post_process")


@register_task("attn_translation", dataclass=AttnTranslationConfig)
class AttnTranslationTask(EverySentence, TypedLines, ReportsAttention, TranslationTask):
    """Translation from a data folder of ``data-prep/``, or from a model's folder, which has the same files.

    ``data.json`` says which languages, dictionaries and sentencepiece models there are. They are checked when the task
    is set up, and against each checkpoint that is loaded or resumed.

    Args:
        cfg: the options; languages that are not given are those of ``data.json``.
        src_dict: source dictionary.
        tgt_dict: target dictionary.

    Raises:
        ValueError: options that contradict each other or the data folder, and what ``read_data_settings`` raises.
    """

    saved_as = "translation"
    """Where its data is described in the ``task_state`` of a checkpoint."""

    def __init__(self, cfg: AttnTranslationConfig, src_dict, tgt_dict):
        super().__init__(cfg, src_dict, tgt_dict)
        self.folder = _folders(cfg.data)[0]
        self.settings = read_data_settings(self.folder)
        self.segmenter = RawText(self.folder, cfg.translate_to)
        self._decode_target = Segmenter(self.folder, "target").decode
        self.state.merge_state_dict({"translation": _identity(self.settings)})
        self._search = validation_search(cfg, "translation_valid", least_beam=0)
        self._target_kind = kinds(self.settings["segmentation"], "target")[0]
        self._restored = False
        self._generator = None
        self._signatures_logged = False

    @classmethod
    def setup_task(cls, cfg: AttnTranslationConfig, **kwargs):
        _check_options(cfg)
        folders = _folders(cfg.data)
        settings = read_data_settings(folders[0])
        for folder in folders[1:]:
            _check_identity(_identity(settings), folders[0], _identity(read_data_settings(folder)), folder)
        for name, option in (("source", "source_lang"), ("target", "target_lang")):
            given = getattr(cfg, option)
            if given not in (None, settings[name]):
                raise ValueError(
                    f"--{option.replace('_', '-')}: got {given!r}, but {folders[0]} is "
                    f"{settings['source']}-{settings['target']}; leave the option out, or give another data folder"
                )
            setattr(cfg, option, settings[name])
        source, target = (os.path.join(folders[0], dictionary_file(settings[side])) for side in ("source", "target"))
        return cls(cfg, SourceDictionary.load(source), cls.load_dictionary(target))

    def load_state_dict(self, state_dict: Dict[str, Any]):
        """Checks that a checkpoint is of this data folder; called once for each of an ensemble."""
        saved = state_dict.get("translation")
        if saved is not None:
            _check_identity(saved, "the checkpoint", _identity(self.settings), self.folder)
        self._restored = True

    # Data

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        _check_path(self.cfg.data)
        super().load_dataset(split, epoch, combine, **kwargs)
        if split == "test":
            self.datasets[split].shuffle = False

    def can_reuse_epoch_itr(self, dataset) -> bool:
        """False for the training data: batches are made anew for each epoch, and a resumed training finds the same."""
        return dataset is not self.datasets.get("train") and super().can_reuse_epoch_itr(dataset)

    def build_dataset_for_inference(self, src_tokens, src_lengths, constraints=None, **kwargs):
        return LanguagePairDataset(
            src_tokens,
            src_lengths,
            self.source_dictionary,
            tgt_dict=self.target_dictionary,
            left_pad_source=self.cfg.left_pad_source,
            constraints=constraints,
        )

    def get_interactive_tokens_and_lengths(self, lines: List[str], encode_fn):
        """Of source text; what ``build_bpe`` gives may be for constraints."""
        return super().get_interactive_tokens_and_lengths(lines, self.segmenter.encode)

    def build_bpe(self, args):
        """The segmenter: encodes source text, or the constraints that fairseq-interactive will read; decodes pieces of
        either side.

        Raises:
            ValueError: ``--bpe`` was given; the data folder says how text is segmented.
        """
        self._no_other("--bpe", args)
        return ConstraintSegmenter(self.folder, self.tgt_dict) if self._constrained else self.segmenter

    def build_tokenizer(self, args):
        """None: text needs no other tokenizer.

        Raises:
            ValueError: ``--tokenizer`` was given.
        """
        self._no_other("--tokenizer", args)
        return None

    def _no_other(self, option: str, args):
        name = getattr(args, "_name", None)
        if name is not None:
            raise ValueError(
                f"{option}: got {name!r}, but {self.folder} says how text is segmented "
                f"({self.settings['segmentation']}); leave the option out"
            )

    # Model

    def build_model(self, cfg, from_checkpoint=False):
        if not self._restored and not from_checkpoint:
            check_that_they_have_met()
            _check_path(self.cfg.data)  # before fairseq-train looks for validation sets that were not named
            _check_best_metric(self.cfg, self._logged_scores())
            resumed = resumed_checkpoint(self.cfg, "translation_")
            saved = resumed.task_state.get("translation") if resumed else None
            if resumed and saved is not None:
                mine = _identity(self.settings)
                _check_identity(saved, "the checkpoint", mine, self.folder, f", or {resumed.remedy}")
        model = super().build_model(cfg, from_checkpoint)
        if self.cfg.translation_valid_beam:
            self._generator = self.build_generator([model], self._search)
        return model

    # Validation

    def _logged_scores(self) -> List[str]:
        """Names of what validation logs beside the loss."""
        if not self.cfg.translation_valid_beam:
            return []
        return list(BETTER) if self._target_kind in ("char", "none") else [score.name for score in SCORES]

    def valid_step(self, sample, model, criterion):
        """Loss, and the statistics behind the scores: every sentence is decoded once."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if self._generator is not None:
            found = self.inference_step(self._generator, [model], sample)
            hypotheses = [self._text(each[0]["tokens"], UNKNOWN) if each else "" for each in found]
            references = [self._text(utils.strip_pad(row, self.tgt_dict.pad()), NEVER) for row in sample["target"]]
            logging_output.update(self._sums(references, hypotheses))
            self._log_signatures()
        return loss, sample_size, logging_output

    def _text(self, tokens, unknown: str) -> str:
        """Token numbers with ``</s>`` → text."""
        return self._decode_target(self.tgt_dict.string(tokens.int().cpu(), unk_string=unknown))

    def _sums(self, references: List[str], hypotheses: List[str]) -> Dict[str, float]:
        sums: Dict[str, float] = {}
        for score in SCORES:
            sums.update(zip(SUMS[score.name], map(float, score.statistics(references, hypotheses)), strict=True))
        if "error_rate" in self._logged_scores():
            expected, found = ([self._symbols(text) for text in texts] for texts in (references, hypotheses))
            counts = metrics.count(expected, found)
            values = (counts.correct, counts.sentences, counts.distance, sum(map(len, expected)))
            sums.update(zip(SYMBOL_SUMS, map(float, values), strict=True))
        return sums

    def _symbols(self, text: str) -> List[str]:
        """What the error rate counts: characters, or what blanks separate."""
        return list(text.replace(UNKNOWN, "\ufffd")) if self._target_kind == "char" else text.split()

    def _log_signatures(self):
        if not self._signatures_logged:
            self._signatures_logged = True
            for score in SCORES:
                logger.info(f"{score.name} of validation, of detokenised text: {score.signature}")

    def reduce_metrics(self, logging_outputs, criterion):
        """Logs ``bleu`` and ``chrf``, sacrebleu's of the detokenised text over the whole of a validation split and all
        processes; for text in characters or ready symbols ``exact_match`` (percent of the sentences) and ``error_rate``
        (edit distance over reference length, percent) as well.

        References are the split's target tokens, detokenised; an unknown token in them matches nothing.
        """
        super().reduce_metrics(logging_outputs, criterion)
        for score in SCORES:
            if log_sums(logging_outputs, SUMS[score.name]):
                log_of_sums(score.name, score.score, *SUMS[score.name])
        if log_sums(logging_outputs, SYMBOL_SUMS):
            log_of_sums("exact_match", metrics.sentence_accuracy, *SYMBOL_SUMS[:2])
            log_of_sums("error_rate", metrics.error_rate, *SYMBOL_SUMS[2:])


def _folders(data: Optional[str]) -> List[str]:
    """The data folders; fairseq writes several as one string with colons, and one may have a colon in its name."""
    if not data:
        raise ValueError("data: no folder given; give the one that data-prep/prepare_corpus.sh made")
    return [data] if os.path.isdir(data) else utils.split_paths(data)


def _check_path(data: str):
    """Raises a ValueError where fairseq would look for binarised text in two folders; text alone can be served."""
    if len(_folders(data)) < len(utils.split_paths(data)):
        raise ValueError(f"{data}: fairseq takes {os.pathsep!r} for the end of a data folder's path; "
                         "give a path without it")  # fmt: skip


def _identity(settings: Dict[str, Any]) -> Dict[str, Any]:
    return {name: {"normalization": NORMALIZATION, **settings}[name] for name in IDENTITY}


def _check_identity(theirs: Dict[str, Any], who: str, ours: Dict[str, Any], folder: str, remedy: str = ""):
    """Raises a ValueError where a data folder is not the one that a checkpoint, or another folder, goes with."""
    if isinstance(theirs, dict):
        theirs = {"normalization": NORMALIZATION, **theirs}  # which checkpoints of older versions do not name
    for name in IDENTITY:
        if not isinstance(theirs, dict) or name not in theirs:
            raise ValueError(f"{who}: what it says of its data lacks {name}: it is damaged; use another")
        if theirs[name] != ours[name]:
            their_value, our_value = _first_difference(theirs[name], ours[name])
            raise ValueError(
                f"{folder}: {name} is {our_value}, but {who} has {their_value}; "
                f"give the data folder that the model was trained on{remedy}"
            )


def _first_difference(theirs: Any, ours: Any) -> Tuple[str, str]:
    """Two values as text; of two tables the first entry that differs."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        name = next(key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key))
        theirs, ours = (f"{str(table.get(name))[:12]} of {name}" for table in (theirs, ours))
        return theirs, ours
    return repr(theirs), repr(ours)


def _check_options(cfg: AttnTranslationConfig):
    if cfg.eval_bleu:
        raise ValueError(
            "--eval-bleu: validation of this task logs bleu and chrf without it; leave it and --eval-bleu-* out "
            "(--translation-valid-beam is the beam)"
        )
    if cfg.translation_post_process:
        raise ValueError(
            f"--post-process: got {cfg.translation_post_process!r}, but text is put together by what the data folder "
            "says, on the D lines; leave the option out"
        )


def _check_best_metric(cfg: AttnTranslationConfig, logged: List[str]):
    """Raises a ValueError where training would end for want of the metric, or keep the worst checkpoint."""
    name = cfg.translation_best_metric
    better = "lower" if name in LOSSES else BETTER.get(name)
    if better is None:
        return
    if name not in (*logged, *LOSSES):
        remedy = f"choose from loss, {', '.join(logged)}" if logged else "give --translation-valid-beam 1 or more"
        raise ValueError(f"--best-checkpoint-metric: got {name!r}, which validation will not log; {remedy}")
    if bool(cfg.translation_maximize) != (better == "higher"):
        verb = "add" if better == "higher" else "leave out"
        raise ValueError(f"--best-checkpoint-metric {name}: {better} is better; {verb} "
                         "--maximize-best-checkpoint-metric")  # fmt: skip
