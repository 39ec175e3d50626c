"""Files that get their name only when they are complete, and never that of an input."""

import json
import os
from pathlib import Path
from typing import Any

STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/null", "/dev/fd/", "/proc/self/fd/")


def check_output(path, *inputs, streams: bool = True) -> None:
    """To be called before any work. A link is as good as what it points to.

    Args:
        path: of a file that is going to be written.
        inputs: paths of files that are read; those that are not there do not count.
        streams: whether a pipe or a stream of the process will do.

    Raises:
        ValueError: it is an input, a folder, a device, or in no folder.
    """
    real = Path(os.path.realpath(path))
    for written in filter(Path.is_file, (real, half_of(real))):
        if any(os.path.exists(each) and written.samefile(each) for each in inputs):
            raise ValueError(f"{path}: this is an input; name another file for the output")
    if real.is_file():
        return
    if real.is_dir():
        raise ValueError(f"{path}: a folder; name a file")
    elif real.exists() or str(path).startswith(STREAMS):
        if not streams or not (str(path).startswith(STREAMS) or real.is_fifo()):
            raise ValueError(f"{path}: a device; name a file")
    elif not real.parent.is_dir():
        raise ValueError(f"{path}: no folder {real.parent}; make it first")


def check_name(option: str, name: str) -> None:
    """ValueError where what an option names would be a file outside the folder that it is for."""
    if name in ("", ".", "..") or "\0" in name or os.path.basename(name) != name:
        raise ValueError(f"{option}: got {name!r}; give a name, without {os.sep}")


def half_of(path: Path) -> Path:
    """Where a file is until it is complete."""
    return path.with_name(f"{path.name}.part")


def write(path, content: bytes) -> None:
    """Writes a file; what has the name already stays until then. A link stays one, a device is written to.

    Raises:
        OSError: it cannot be written, with this name.
    """
    real = Path(path).resolve()
    half = half_of(real)
    try:
        if str(path).startswith("/dev/") or Path(path).exists() and not real.is_file():
            with open(path, "ab") as device:
                device.write(content)
            return
        half.write_bytes(content)
        half.replace(real)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        half.unlink(missing_ok=True)


def write_text(path, text: str) -> None:
    """The same for a text."""
    write(path, text.encode("utf-8"))


def write_json(path, value: Any) -> None:
    """The same for plain values."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
