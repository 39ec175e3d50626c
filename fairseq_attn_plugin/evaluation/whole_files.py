"""Files that get their name only when they are complete."""

import json
from pathlib import Path
from typing import Any


def write(path, content: bytes) -> None:
    """Writes a file; what has the name already stays until then. A link stays one, a device is written to.

    Raises:
        OSError: it cannot be written, with this name.
    """
    real = Path(path).resolve()
    half = real.with_name(f"{real.name}.part")
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
