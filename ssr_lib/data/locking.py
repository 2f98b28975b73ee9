"""One writer at a time in a folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None


class FolderBusyError(RuntimeError):
    """Another process is writing in the folder."""


def _try_lock(handle) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


@contextmanager
def folder_lock(directory: Path | str) -> Iterator[None]:
    """Hold the right to write in `directory`, which is made where missing; released also by `kill -9`.

    The file .lock stays behind on purpose: removing it would let two processes lock two files of that name. Raises
    `FolderBusyError` naming the folder and the process that holds it.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "a+", encoding="utf-8") as handle:
        if not _try_lock(handle):
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise FolderBusyError(
                f"{directory}: another run is writing here (process {holder}); wait for it, or choose another folder"
            )
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
