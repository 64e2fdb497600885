"""Files that people hand in: read whole, and never more of them than such a file could need.

The law of this file: a device that never ends, a file of the wrong kind and a name that no file can have end as one error.
"""

from pathlib import Path

MOST = 1 << 20
"""Bytes of a file that a person writes or passes on: settings, a policy, a key, a checkpoint, a receipt."""


class UnreadableError(Exception):
    """A file cannot be read, or is far larger than it could need to be; the text says why."""


def content(path: Path, most: int = MOST) -> bytes:
    """What is in the file.

    Raises:
        UnreadableError: it cannot be read, or has more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__) from None
    except ValueError as error:  # a name with a NUL in it
        raise UnreadableError(str(error)) from None
    if len(found) > most:
        raise UnreadableError(f"it has more than {most} bytes")
    return found


def text(path: Path, most: int = MOST) -> str:
    """The text in the file.

    Raises:
        UnreadableError: it cannot be read, has more than `most` bytes, or is no UTF-8.
    """
    try:
        return content(path, most).decode()
    except UnicodeDecodeError:
        raise UnreadableError("it is not UTF-8") from None
