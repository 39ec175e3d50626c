"""Model ``attn_rnn``, as fairseq knows it."""

from typing import Any, Callable, ClassVar, Optional, Tuple

from fairseq import hub_utils
from fairseq.dataclass.utils import merge_with_parent
from fairseq.models import MODEL_DATACLASS_REGISTRY, FairseqEncoderDecoderModel, register_model
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ..modules.attention.addressings import ADDRESSINGS
from ..modules.attention.normalizers import NORMALIZERS
from ..modules.attention.scores import ATTENTION_SCORES
from ..modules.attention.windows import WINDOWS
from ..modules.trial import lacks_memory
from .checks import check_config, check_names
from .config import REGISTRIES, compose, option_of, resolved
from .factory import build_encoder_decoder, initialize
from .presets import check_task, register_presets
from .sizes import Sizes

NAME = "attn_rnn"
AttnRNNConfig = compose()


@register_model(NAME, dataclass=AttnRNNConfig)
class AttnRNNModel(FairseqEncoderDecoderModel):
    """Recurrent encoder, attention decoder; every mechanism is an option of its own."""

    alignment_loss_error: Optional[str] = None
    """Why a criterion that takes the logarithm of attention weights cannot be used; None where it can."""

    load_pretrained: ClassVar[Callable[..., hub_utils.GeneratorHubInterface]]
    """What ``from_pretrained`` calls; ``serving`` sets it, because models import nothing of what serves them."""

    @classmethod
    def build_model(cls, cfg, task) -> "AttnRNNModel":
        """Builds the model of ``cfg`` for the dictionaries of ``task``.

        Raises:
            ValueError: an option or a combination of options that cannot be, with flag, value and remedy; a part of
                another package that does not fit; a task that asks for several models.
        """
        check_task(type(task))
        given = OmegaConf.to_container(cfg, enum_to_str=True)
        cfg, sizes = cls.checked_options(given, task.source_dictionary, task.target_dictionary)
        try:
            model = cls(*build_encoder_decoder(cfg, sizes, task))
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            raise ValueError("the model does not fit into memory; give smaller sizes, as --encoder-embed-dim") from None
        initialize(model, cfg)
        model.alignment_loss_error = alignment_loss_error(cfg)
        if model.alignment_loss_error and getattr(getattr(task, "cfg", None), "load_alignments", False):
            raise ValueError(f"--load-alignments: {model.alignment_loss_error}")
        return model

    @classmethod
    def checked_options(cls, given, source_dictionary, target_dictionary) -> Tuple[DictConfig, Sizes]:
        """Options by name, those of others left out, as a model of such dictionaries takes them, and its sizes.

        Raises:
            ValueError: an option or a combination of options that cannot be, with flag, value and remedy.
        """
        # not of the class that the options had when it was made: a part may have brought some since
        cfg = merge_with_parent(MODEL_DATACLASS_REGISTRY[NAME](), OmegaConf.create(given), remove_missing=True)
        check_names(cfg)
        cfg = resolved(cfg)
        sizes = Sizes.of(cfg)
        check_config(cfg, sizes, source_dictionary, target_dictionary)
        return cfg, sizes

    def load_state_dict(self, state_dict, *args, **kwargs):
        """fairseq's.

        Raises:
            ValueError: the parameters are those of another model.
        """
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        except RuntimeError:  # a table of them all
            mine = self.state_dict()
            names = sorted({*mine, *state_dict})
            sizes = {name: (_size(state_dict.get(name)), _size(mine.get(name))) for name in names}
            name = next((name for name, (theirs, ours) in sizes.items() if theirs != ours), None)
            if name is None:
                raise
        theirs, ours = sizes[name]
        raise ValueError(
            f"the checkpoint has other parameters than this model: {name} is {theirs} there and {ours} here; give the "
            "options and the data that it was trained with"
        )

    @classmethod
    def from_pretrained(
        cls, model_name_or_path, checkpoint_file: str = "checkpoint.pt", data_name_or_path: str = ".", **kwargs
    ) -> hub_utils.GeneratorHubInterface:
        """Loads a trained model, or an ensemble, for decoding.

        Args:
            model_name_or_path: folder of the model: checkpoint, dictionaries, sentencepiece models, ``data.json``; or a
                list of such folders, whose models are decoded together.
            checkpoint_file: name of the checkpoint in it; several with colons between them.
            data_name_or_path: where the other files are, if not in the same folder.
            kwargs: values that replace those of the checkpoint's options.

        Returns:
            A ``serving.translator.Translator`` where the task knows how raw text is segmented (``attn_translation``),
            else fairseq's own interface.

        Raises:
            OSError: the folder or the checkpoint is not there.
            ValueError: the folder's files are damaged, or not those that the model was trained with; models of several
                folders whose text is cut into other pieces.
        """
        several = isinstance(model_name_or_path, (list, tuple))
        folders = list(map(str, model_name_or_path)) if several else str(model_name_or_path)
        return cls.load_pretrained(folders, checkpoint_file, str(data_name_or_path), **kwargs)


def _size(tensor: Any) -> str:
    """Of a parameter, for a message."""
    return " × ".join(map(str, tensor.shape)) or "one number" if isinstance(tensor, Tensor) else "missing"


def alignment_loss_error(cfg) -> Optional[str]:
    """Why no criterion can take the logarithm of the attention weights, in one line; None where it can."""
    criterion = "--criterion label_smoothed_cross_entropy_with_alignment takes the logarithm of attention weights"
    if cfg.attention_score == "none":
        return f"{criterion}, and --attention-score none has none; use another --attention-score"
    if not ATTENTION_SCORES[cfg.attention_score].reads_query:
        return f"{criterion}, and those of --attention-score {cfg.attention_score} are fixed; use general or additive"
    for registry, neutral in ((NORMALIZERS, "softmax"), (WINDOWS, "none"), (ADDRESSINGS, "none")):
        name = cfg[option_of(registry)]
        if getattr(registry.get(name), "sparse", False):
            return f"{criterion}, and those of {registry.flag} {name} can be zero; use {registry.flag} {neutral}"
    return None


def recompose() -> None:
    """Gives fairseq the options as they are now: a part that was registered by another package may have brought some.

    Raises:
        ValueError: see ``config.compose``.
    """
    config = compose()
    if list(config.__dataclass_fields__) == list(MODEL_DATACLASS_REGISTRY[NAME].__dataclass_fields__):
        return
    node = config()
    node._name = NAME
    MODEL_DATACLASS_REGISTRY[NAME] = config
    setattr(AttnRNNModel, "__dataclass", config)  # noqa: B010 - where fairseq's parser looks
    ConfigStore.instance().store(name=NAME, group="model", node=node, provider="fairseq")


for _registry in REGISTRIES:
    _registry.listeners.append(recompose)
register_presets()
