"""``--like``: new text with the languages, sentencepiece models and dictionaries of a folder that is there already."""

import dataclasses
from pathlib import Path
from typing import Dict, Optional

from data_folder import dictionary_file, read_data_settings

DEFAULTS = {"segmentation": "bpe", "vocabulary": "joint"}
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


def take_over(args) -> Optional[Like]:
    """Fills in what the parsed options leave open: from ``--like``, or the defaults.

    Raises: ValueError for a damaged folder, for an option that contradicts it, and where a language is missing
    """
    if args.like is None:
        if args.source is None or args.target is None:
            raise ValueError("--source and --target: give both, such as --source de --target en")
        for name, value in DEFAULTS.items():
            setattr(args, name, getattr(args, name) if getattr(args, name) is not None else value)
        return None
    data = read_data_settings(args.like)
    dictionaries = {data["sha256"][dictionary_file(data[side])] for side in ("source", "target")}
    taken = {
        "source": data["source"],
        "target": ",".join(data["targets"]),
        "segmentation": data["segmentation"],
        "vocabulary": "joint" if len(dictionaries) == 1 else "separate",
    }
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
