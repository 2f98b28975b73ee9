"""Files that are never half-written, and folders with one writer at a time."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock


def write_atomic(path: Path, text: str) -> None:
    """Write under a temporary name, then move it to `path`: readers see the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict | None:
    """A JSON object, or None where there is none to trust: absent, or cut off."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the right to draw into `folder`. Raises `RuntimeError` where another process has it."""
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise RuntimeError(f"{folder}: another run is drawing here; wait for it, or choose another folder") from error
    try:
        yield
    finally:
        lock.release()
