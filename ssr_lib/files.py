"""Files that are never half-written, folders with one writer at a time, and names made of what a thing was made by."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

IDLE = 600  # seconds; a process that writes has written within them
_held: set[TextIO] = set()  # lock files that this process has open
if hasattr(os, "register_at_fork"):  # a forked worker would hold its parent's locks, also when that is killed
    os.register_at_fork(after_in_child=lambda: [handle.close() for handle in _held])


def digest(record: object) -> str:
    """SHA-256 in hexadecimal of a record's canonical JSON; what JSON does not know counts by its text."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()


def write_atomic(path: Path | str, data: str | bytes) -> None:
    """Write text or bytes under a temporary name, then move it to `path`: readers see the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if isinstance(data, str):
            temporary.write_text(data, encoding="utf-8", newline="\n")
        else:
            temporary.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`: what the block writes there moves to `path` at its end, or goes if it fails."""
    temporary = path.with_name(f"{_temporary_prefix(path)}{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left when they wrote `path`; of large arrays it may be gigabytes.

    Untouched for `IDLE` seconds, too: in two containers of one host name a process number may be another's.
    """
    prefix = _temporary_prefix(path)
    for left in path.parent.glob(f"{glob.escape(prefix)}*.part"):
        pid = left.name.removeprefix(prefix).removesuffix(".part")
        with suppress(OSError):  # another's, in a folder where only its owner may remove it
            if pid.isdecimal() and not _is_running(int(pid)) and time.time() - left.stat().st_mtime > IDLE:
                left.unlink()


def _temporary_prefix(path: Path) -> str:
    """Names the machine: on a shared disk, a process that does not run here may run elsewhere."""
    return f".{path.name}.{platform.node()}."


def _is_running(pid: int) -> bool:
    if fcntl is None:  # Windows, where os.kill would interrupt the process instead of asking
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    return True


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
    another process or thread holds it: `wait`, or raise `FolderBusyError` naming the folder and the holder. Raises
    `PermissionError` naming a folder that cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "a+", encoding="utf-8") as handle:
        if not os.access(directory, os.W_OK):  # though the file of an earlier run may be
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
        _held.add(handle)
        try:
            if not _lock(handle, wait):
                handle.seek(0)
                raise FolderBusyError(
                    f"{directory}: another run is writing here (process {handle.read().strip() or 'unknown'}); "
                    "wait for it, or choose another folder"
                )
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield
        finally:
            _held.discard(handle)
