"""Multi30k task 1, raw: downloads it, or takes a folder of the same files, checks it and prepares it: see
prepare_multi30k.sh."""

import gzip
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Dict, Sequence

from like import take_over
from prepare_corpus import DATA_BIN, prepare, run
from raw_text import find_file, read_bytes
from settings import make_parser
from stages import lock, make_folder, say

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw"
PREFIXES = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
TIMEOUT = 60  # seconds without a byte

# SHA-256 of the text, unpacked
SUMS = {
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.fr": "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
}
LANGUAGES = sorted({name.rpartition(".")[2] for name in SUMS})


def check_sum(text: bytes, expected: str, place: object) -> None:
    """Raises: ValueError if ``text`` is not what the checksum says"""
    found = hashlib.sha256(text).hexdigest()
    if found != expected:
        raise ValueError(f"{place}: SHA-256 of the text is {found}, not {expected}; another version, or damaged")


def download(base: str, names: Sequence[str], sums: Dict[str, str], folder: Path) -> None:
    """Fetches ``base/NAME.gz`` for each name into ``folder``; files that are there and right are not fetched again.

    Raises: ValueError, one line, if a file cannot be had or is not the right one; nothing is then left of it
    """
    for number, name in enumerate(names, start=1):
        path, url = folder / f"{name}.gz", f"{base.rstrip('/')}/{name}.gz"
        try:
            check_sum(read_bytes(path), sums[name], path)
            continue
        except ValueError:  # not there, or not whole
            pass
        say(f"download: {url} ({number} of {len(names)})")
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as stream:
                data = stream.read()
            text = gzip.decompress(data)
        except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as error:
            why = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
            raise ValueError(f"{url}: cannot be downloaded: {why}; try again, or give --from DIR") from None
        check_sum(text, sums[name], url)
        part = path.with_name(path.name + ".part")
        part.write_bytes(data)
        part.replace(path)


def main() -> None:
    parser = make_parser(
        "prepare_multi30k.sh",
        "Makes a data folder of Multi30k task 1 (raw text, test 2016 flickr). Without --from it is downloaded; "
        "MULTI30K_URL= names another place. Takes every other option of prepare_corpus.sh.",
    )
    args = parser.parse_args()
    for option in ("train", "valid", "test", "tsv"):
        if getattr(args, option):
            raise ValueError(f"--{option}: the text is Multi30k's; use prepare_corpus.sh for other text")
    take_over(args)
    languages = [args.source, *args.target.split(",")]
    for language in languages:
        if language not in LANGUAGES:
            raise ValueError(f"--source, --target: got '{language}'; Multi30k is here in {', '.join(LANGUAGES)}")
    names = [f"{prefix}.{language}" for prefix in PREFIXES.values() for language in languages]
    if args.from_:
        folder = args.from_
        for prefix, language in (name.rsplit(".", 1) for name in names):
            path = find_file(str(folder / prefix), language, "--from")
            check_sum(read_bytes(path), SUMS[f"{prefix}.{language}"], path)
    else:
        folder = (args.out or DATA_BIN) / "multi30k.raw"
        make_folder(folder, "--out")
        with lock(folder):
            download(os.environ.get("MULTI30K_URL") or URL, names, SUMS, folder)
    args.from_, args.set = None, args.set or "multi30k"
    args.train, args.valid, args.test = (str(folder / prefix) for prefix in PREFIXES.values())
    print(prepare(args))


if __name__ == "__main__":
    run(main)
