"""Files that get their name only when they are complete."""

from pathlib import Path


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
