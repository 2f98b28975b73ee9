"""Files that are never half-written, folders with one writer at a time, names made of content, parts by their name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import pkgutil
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import filelock


def digest(record: object) -> str:
    """SHA-256 in hexadecimal of a record's canonical JSON; what JSON does not know counts by its text."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()


def hash_file(path: Path | str, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary name beside `path`: what the block writes there moves to `path` at its end, or goes if it fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path | str, data: str | bytes) -> None:
    """Write text or bytes under a temporary name, then move it to `path`: readers see the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if isinstance(data, str):
            temporary.write_text(data, encoding="utf-8", newline="\n")
        else:
            temporary.write_bytes(data)


def read_json(path: Path | str) -> dict | None:
    """A JSON object, or None where there is none to trust: absent, or cut off by a full disk."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


class FolderBusyError(RuntimeError):
    """Another process is writing in the folder."""


@contextmanager
def locked(folder: Path | str) -> Iterator[None]:
    """Hold the right to write in `folder`, which is made where missing; released also by `kill -9`.

    Does not wait: raises `FolderBusyError` where another process or thread holds it, `PermissionError` for a folder
    that cannot be written. The file .lock stays: were it removed, two processes could lock two files of its name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise FolderBusyError(
            f"{folder}: another run is writing here; wait for it, or choose another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def load_part(name: str, package: str) -> ModuleType:
    """The module of a head, loss or re-ranker: "gfr" of ssr_lib.`package`, a dotted module path, or a .py file.

    `package`: "heads", "losses" or "rerank". Raises `ValueError` naming what was asked for and the parts there are.
    """
    if name.endswith(".py") and Path(name).is_file():
        return _load_file(Path(name), package)
    module = name if "." in name else f"ssr_lib.{package}.{name}"
    if all(word.isidentifier() for word in module.split(".")) and not name.endswith(".py"):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise  # the part is there, and something that it imports is not
    folder = importlib.import_module(f"ssr_lib.{package}").__path__
    parts = sorted(found.name for found in pkgutil.iter_modules(folder) if not found.name.startswith("_"))
    raise ValueError(
        f"no part {name!r} in {package}; there are {', '.join(parts)}, a module path as my_package.my_part, "
        "and a .py file"
    )


def _load_file(path: Path, package: str) -> ModuleType:
    name = f"{package}_{path.stem}_{digest(str(path.resolve()))[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while they are made
    spec.loader.exec_module(module)
    return module
