"""``--like``: new text with the languages, sentencepiece models and dictionaries of a folder that is there already."""

import dataclasses
from pathlib import Path
from typing import Dict, Optional

from data_folder import NORMALIZATION, NORMALIZATIONS, dictionary_file, join_kinds, kinds, read_data_settings

FIXED = ("vocab_size", "min_count")
"""What the pieces and dictionaries of another folder leave nothing to say about."""


@dataclasses.dataclass(frozen=True)
class Like:
    """The folder whose files are taken.

    sha256: {name of a dictionary or a sentencepiece model: its checksum}
    models: {side: name of its sentencepiece model}; empty where text is ready symbols
    """

    folder: Path
    sha256: Dict[str, str]
    models: Dict[str, str]


def segmentation_of(args, default: str) -> str:
    """What the options say of both sides together, in the form of ``data_folder.join_kinds``; that of each side goes
    before ``--segmentation``, which every column of the source has."""
    both = args.segmentation or default
    columns = (args.columns or "1").split(",")[0].count("+") + 1 if not isinstance(args.columns, list) else 1
    source = args.source_segmentation.split(",") if args.source_segmentation else kinds(both, "source")
    source = source * columns if len(source) == 1 and not args.source_segmentation else source
    return join_kinds(source, args.target_segmentation or kinds(both, "target")[0])


def normalization_of(args) -> Optional[str]:
    """The option as ``data.json`` has it."""
    form = args.normalization
    return next((name for name in NORMALIZATIONS if form and name.lower() == form.lower()), form)


def take_over(args) -> Optional[Like]:
    """Fills in what the parsed options leave open: from ``--like``, or the defaults.

    Raises: ValueError for a damaged folder, for an option that contradicts it, and where a language is missing
    """
    if args.like is None:
        if args.source is None or args.target is None:
            raise ValueError("--source and --target: give both, such as --source de --target en")
        args.segmentation = segmentation_of(args, "bpe")
        args.vocabulary = args.vocabulary or ("joint" if ":" not in args.segmentation else "separate")
        args.normalization = normalization_of(args) or NORMALIZATION
        return None
    data = read_data_settings(args.like)
    dictionaries = {data["sha256"][dictionary_file(data[side])] for side in ("source", "target")}
    taken = {
        "source": data["source"],
        "target": ",".join(data["targets"]),
        "segmentation": data["segmentation"],
        "normalization": data.get("normalization", NORMALIZATION),
        "vocabulary": "joint" if len(dictionaries) == 1 else "separate",
    }
    if args.segmentation or args.source_segmentation or args.target_segmentation:
        args.segmentation = segmentation_of(args, data["segmentation"])
    args.normalization = normalization_of(args)
    for name, value in taken.items():
        given = getattr(args, name)
        if given not in (None, value):
            raise ValueError(f"--{name}: got '{given}', but --like {args.like} has {value}; leave the option out")
        setattr(args, name, value)
    for name in FIXED:
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')}: --like {args.like} has its pieces and dictionaries already; "
                             "leave the option out")  # fmt: skip
    if args.tag_target and not data["tag_target"]:
        raise ValueError(f"--tag-target: --like {args.like} has no tags; leave the option out")
    args.tag_target = data["tag_target"]
    return Like(args.like, data["sha256"], data["sentencepiece"])
