"""Files of JSON lines that outlive what stops their writer (no torch).

The first line says what the file is of; every other line is written when what it tells is finished.
A line that was cut off when the computer went down is passed over.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from merge_core.errors import StoreError


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file; none where there is no file.

    Raises:
        StoreError: it cannot be read.
    """
    if not path.exists():
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"The file {path} cannot be read ({error}); mend that, or delete it."
        ) from error
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            yield values


def mark(first: str) -> str:
    """Eight signs that tell a file from those with another first line."""
    return hashlib.sha256(first.encode()).hexdigest()[:8]


def opening(path: Path, keys: Collection[str], what: str) -> dict[str, Any]:
    """The first line of a file.

    Args:
        path: the file.
        keys: what the line must tell, and nothing else.
        what: what the file is of, e.g. "a table".

    Raises:
        StoreError: it begins otherwise, or cannot be read.
    """
    first = next(read(path), {})
    if first.keys() != set(keys):
        raise StoreError(
            f"The file {path} does not begin as {what} of netweld does; delete it or put it "
            f"elsewhere."
        )
    return first


def newest(directory: Path) -> list[Path]:
    """The files of a directory, the one that changed last first."""
    return sorted(directory.glob("*.jsonl"), key=lambda path: -path.stat().st_mtime_ns)


def begin(path: Path, first: str) -> None:
    """Write the first line of a file that is not there yet.

    Raises:
        StoreError: it cannot be written.
    """
    if not path.exists():
        append(path, first, [])


def append(path: Path, first: str, values: Iterable[Mapping[str, Any]]) -> None:
    """Write objects to the end of a file.

    Args:
        path: the file; it is made where there is none.
        first: its first line.
        values: a line each.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = path.exists() and path.stat().st_size > 0
        with path.open("a", encoding="utf-8") as file:
            lines = [] if begun else [first]
            lines += [json.dumps(each) for each in values]
            # An earlier last line may have been cut off in the middle.
            file.write(("\n" if begun else "") + "\n".join(lines) + "\n")
    except OSError as error:
        raise StoreError(
            f"The file {path} cannot be written ({error}); set NETWELD_HOME to a directory that "
            f"can."
        ) from error


def frozen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values from JSON, with tuples for lists."""
    return {key: tuple(each) if isinstance(each, list) else each for key, each in values.items()}
