"""fairseq's binary form: runs fairseq-preprocess and checks and counts what it wrote."""

import array
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Set

from data_folder import FEATURES, dictionary_file

INDEX_MAGIC = b"MMIDIDX\x00\x00"  # the index of fairseq's mmap data sets: magic, version, type, number, then sizes


def preprocess(encoded: Path, splits: List[str], out: Path, settings, held: int) -> None:
    """Runs fairseq-preprocess on ``encoded/<split>.<side>`` in the folder ``out``.

    Args:
        splits: train, valid, then the tests
        held: descriptor of the lock on the work folder, see ``stages.lock``
    Raises: ValueError, one line, if it fails
    """
    # Relative to ``out``: a comma or a blank in the path does no harm, and once the folder is gone, so is the way in.
    path = {split: os.path.relpath(encoded / split, out) for split in splits}
    command = [sys.executable, "-W", "ignore", "-m", "fairseq_cli.preprocess"]
    command += ["--source-lang", settings.source, "--target-lang", settings.target]
    command += ["--trainpref", path["train"], "--validpref", path["valid"]]
    command += ["--testpref", ",".join(path[split] for split in splits[2:]), "--destdir", "."]
    command += ["--padding-factor", "1", "--workers", str(settings.workers)]
    dictionaries = {side: dictionary_file(side) for side in (settings.source, settings.target)}
    if settings.like:
        for side, option in ((settings.source, "--srcdict"), (settings.target, "--tgtdict")):
            command += [option, str(settings.like.folder.resolve() / dictionaries[side])]
    else:
        command += ["--thresholdsrc", str(settings.min_count), "--thresholdtgt", str(settings.min_count)]
        command += ["--joined-dictionary"] if settings.vocabulary == "joint" else []
    log = out.parent / "fairseq-preprocess.log"
    with log.open("w") as stream:
        done = subprocess.run(command, cwd=out, stdout=stream, stderr=subprocess.STDOUT, pass_fds=(held,))
    if done.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise ValueError(f"fairseq-preprocess failed: {lines[-1] if lines else 'it said nothing'} (log: {log})")
    for name in dictionaries.values() if settings.like else ():
        shutil.copy(settings.like.folder / name, out / name)  # to the last byte, as their checksums are compared
    for number, split in enumerate(splits[2:]):
        for path in list(out.glob(f"test{number or ''}.{settings.pair}.*")):
            path.rename(out / f"{split}{path.name[path.name.index('.') :]}.named")
    for path in list(out.glob("*.named")):  # in two steps: test1 may become test_fr while another becomes test1
        path.rename(path.with_suffix(""))
    (out / "preprocess.log").unlink(missing_ok=True)


def sentence_sizes(index: Path) -> "array.array[int]":
    """Tokens of each sentence, </s> included, as the index of a binarised split says.

    Raises: ValueError if it is no such index
    """
    data = index.read_bytes()
    header = struct.calcsize("<QBQ")
    if not data.startswith(INDEX_MAGIC) or len(data) < len(INDEX_MAGIC) + header:
        raise ValueError(f"{index}: no index that fairseq-preprocess writes; run this again")
    _, _, number = struct.unpack_from("<QBQ", data, len(INDEX_MAGIC))
    sizes = array.array("i", data[len(INDEX_MAGIC) + header :][: 4 * number])
    if sys.byteorder == "big":
        sizes.byteswap()
    return sizes


def read_dictionary(path: Path) -> Set[str]:
    """The symbols of a dictionary that fairseq wrote; its four special ones are not in the file."""
    return {line.rpartition(" ")[0] for line in path.read_text(encoding="utf-8").split("\n") if line}


def count(encoded: Path, splits: List[str], binary: Path, settings) -> Dict[str, object]:
    """Lines of each split, tokens, types and unknown tokens of each side, and the sizes of the dictionaries.

    Raises: ValueError if a binarised split holds other sentences than its text
    """
    symbols = {side: read_dictionary(binary / dictionary_file(side)) for side in (settings.source, settings.target)}
    found: Dict[str, Dict[str, object]] = {split: {} for split in splits}
    for split in splits:
        for side in symbols:
            lines = (encoded / f"{split}.{side}").read_text(encoding="utf-8").removesuffix("\n").split("\n")
            tokens = [token for line in lines for token in line.split()]
            index = binary / f"{split}.{settings.pair}.{side}.idx"
            sizes = sentence_sizes(index)
            if len(sizes) != len(lines) or any(size != len(line.split()) + 1 for size, line in zip(sizes, lines)):
                raise ValueError(
                    f"{index}: {len(sizes):,} sentences of {sum(sizes):,} tokens, but the text has {len(lines):,} of "
                    f"{len(tokens) + len(lines):,}; run this again with --workers 1"
                )
            found[split]["lines"] = len(lines)
            unknown = sum(token not in symbols[side] for token in tokens)
            found[split][side] = {"tokens": len(tokens), "types": len(set(tokens)), "unknown": unknown}
            missed = sum(not symbols[side].issuperset(line.split()) for line in lines)
            found[split][side]["lines with unknown"] = missed
            if FEATURES in settings.kinds(side):
                features = {token for token in tokens if len(token) > 1 and token[0] == "[" and token[-1] == "]"}
                found[split][side]["unknown features"] = sorted(features - symbols[side])
    vocabulary = {side: len(names) + 4 for side, names in symbols.items()}
    return {"splits": found, "vocabulary": vocabulary}
