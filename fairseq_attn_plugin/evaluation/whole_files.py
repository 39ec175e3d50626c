"""Files that get their name only when they are complete."""

import json
from pathlib import Path
from typing import Any


def write(path, content: bytes) -> None:
    """Writes a file; what has the name already stays until then.

    Raises:
        OSError: it cannot be written, with this name.
    """
    half = Path(f"{path}.part")
    try:
        half.write_bytes(content)
        half.replace(path)
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
