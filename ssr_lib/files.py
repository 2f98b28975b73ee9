"""Files that are never half-written, folders with one writer at a time, names made of content, parts by their name."""

import hashlib
import importlib.util
import inspect
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import filelock
from pydantic import ValidationError

STRICT = {"strict": True, "extra": "forbid", "allow_inf_nan": False}  # pydantic's: values are checked, not converted
ENTRIES = {"heads": "Head", "losses": "Loss", "rerank": "rerank"}  # what a part of each kind has


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """What the block raises becomes a `ValueError` of one line behind `what`; a full machine's stays as it is."""
    try:
        yield
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "it"
        raise ValueError(f"{what}: {place} is {fault['input']!r:.60}; {fault['msg'].lower()}") from error
    except (Exception, SystemExit) as error:  # damaged files, and code of a user's own, raise all kinds
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        kind = "" if isinstance(error, (ValueError, OSError, RuntimeError)) else f"{type(error).__name__}: "
        raise ValueError(f"{what}: {kind}{' '.join(str(error).split())[:400]}") from error


def digest(record: object) -> str:
    """SHA-256 in hexadecimal of a record's canonical JSON; what JSON does not know counts by its text."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()


def hash_file(path: Path | str, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def code_of(kind: type, /, **options: object) -> str:
    """A digest of the files of a class and its bases but PyTorch's, of parts beside those, of .py files in options."""
    files = [inspect.getsourcefile(base) for base in kind.__mro__[:-1] if not base.__module__.startswith("torch.")]
    parts = {Path(file).parent for file in files} & {Path(__file__).with_name(part) for part in ENTRIES}
    files = [*files, *(str(file) for folder in sorted(parts) for file in sorted(folder.glob("*.py")))]
    return digest([hash_file(file) for file in (*files, *map(str, options.values())) if file.endswith(".py")])


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary name beside `path`: what the block writes there moves to `path` at its end, or goes if it fails."""
    temporary = Path(path).with_name(f".{Path(path).name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path | str) -> None:
    """Raise `OSError` where no file `path` can be written, before the work that would be lost; nothing stays there."""
    try:
        tempfile.TemporaryFile(dir=next(filter(Path.exists, Path(path).absolute().parents))).close()
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error


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


def check_same(found: dict, wanted: dict, where: Path) -> None:
    """Raise `ValueError` naming an entry in which two records differ; `where` holds the found one."""
    wanted = json.loads(json.dumps(wanted))  # as a record is read again: no tuples
    for key in {**found, **wanted}:
        if found.get(key) != wanted.get(key):
            there, now = (json.dumps(record.get(key))[:200] for record in (found, wanted))
            told = f"{key} is {there} there, {now} now; choose another folder, or delete it"
            raise ValueError(f"{where} was made by something else: {told}")


def load_part(name: str, package: str) -> ModuleType:
    """The module of a part: "gfr" of ssr_lib.`package` (heads, losses, rerank), a dotted module path, or a .py file.

    Raises `ValueError` naming what was asked for and the parts there are, or what is wrong with it.
    """
    module = name if "." in name and name[0] != "." else f"ssr_lib.{package}.{name}"
    with one_line(f"{package}: {name}"):
        if name.endswith(".py") and Path(name).is_file():
            spec = importlib.util.spec_from_file_location(f"{package}_{digest(str(Path(name).resolve()))}", name)
            part = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look it up
            spec.loader.exec_module(part)
        else:
            try:
                part = importlib.import_module(module)
            except ModuleNotFoundError as error:
                if not f"{module}.".startswith(f"{error.name}."):
                    raise  # the part is there, and something that it imports is not
                parts = ", ".join(sorted(file.stem for file in Path(__file__).with_name(package).glob("[!_]*.py")))
                told = f"no part {name!r} in {package}; there are {parts}"
                raise ValueError(f"{told}; or name a .py file that is there") from error
        getattr(part, ENTRIES.get(package, "__name__"))  # ssr_lib/<package>/__init__.py says what one has
        return part
