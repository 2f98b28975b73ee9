"""Files that are never half-written, folders with one writer at a time, and names made of what a thing was made by."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None


def digest(record: object) -> str:
    """SHA-256 in hexadecimal of a record's canonical JSON; what JSON does not know counts by its text."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()


def write_atomic(path: Path | str, data: str | bytes) -> None:
    """Write text or bytes under a temporary name, then move it to `path`: readers see the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if isinstance(data, str):
            temporary.write_text(data, encoding="utf-8", newline="\n")
        else:
            temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict | None:
    """A JSON object, or None where there is none to trust: absent, or cut off by a full disk."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


class FolderBusyError(RuntimeError):
    """Another process is writing in the folder."""


def _lock(handle, wait: bool) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        else:
            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


@contextmanager
def folder_lock(directory: Path | str, *, wait: bool = False) -> Iterator[None]:
    """Hold the right to write in `directory`, which is made where missing; released also by `kill -9`.

    The file .lock stays behind on purpose: removing it would let two processes lock two files of that name. Where
    another process or thread holds it: `wait`, or raise `FolderBusyError` naming the folder and the holder.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "a+", encoding="utf-8") as handle:
        if not _lock(handle, wait):
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise FolderBusyError(
                f"{directory}: another run is writing here (process {holder}); wait for it, or choose another folder"
            )
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
