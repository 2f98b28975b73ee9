"""Files that are never half-written, folders with one writer at a time, names made of content, parts by their name."""

import hashlib
import importlib.util
import json
import os
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
    temporary = Path(path).with_name(f".{Path(path).name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path | str, data: str | bytes) -> None:
    """Write text or bytes under a temporary name, then move it to `path`: readers see the old file or the new one."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def read_json(path: Path | str) -> dict | None:
    """A JSON object, or None where there is none to trust: absent, or cut off by a full disk."""
    try:
        record = json.loads(Path(path).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


class FolderBusyError(RuntimeError):
    """Another process is writing in the folder."""


@contextmanager
def locked(folder: Path | str) -> Iterator[None]:
    """Hold the right to write in `folder`, which is made where missing; released also by `kill -9`.

    Raises `FolderBusyError` at once where another process or thread holds it. The file .lock stays: were it removed,
    two processes could lock two files of its name.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        lock = filelock.FileLock(Path(folder, ".lock"), blocking=False).acquire()
    except filelock.Timeout as error:
        raise FolderBusyError(f"{folder}: another run is writing here; wait, or choose another folder") from error
    with lock:
        yield


def load_part(name: str, package: str) -> ModuleType:
    """The module of a part: "gfr" of ssr_lib.`package` (heads, losses, rerank), a dotted module path, or a .py file.

    Raises `ValueError` naming what was asked for and the parts there are.
    """
    if name.endswith(".py") and Path(name).is_file():
        spec = importlib.util.spec_from_file_location(f"{package}_{digest(str(Path(name).resolve()))}", name)
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
        spec.loader.exec_module(sys.modules[spec.name])
        return sys.modules[spec.name]
    module = name if "." in name else f"ssr_lib.{package}.{name}"
    try:
        if all(name.split(".")):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # the part is there, and something that it imports is not
    parts = ", ".join(sorted(file.stem for file in Path(__file__).with_name(package).glob("[!_]*.py")))
    raise ValueError(f"no part {name!r} in {package}; there are {parts}; a module path or a .py file will do too")
