"""The pickled ground truth of a benchmark: what it lists, and nothing that it asks for.

A pickle can run any program, so only the names below are looked up, and NumPy's arrays are read by the two classes
below: the state of its own can be made to point anywhere in memory.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssr_lib.benchmark import LISTS


class _Kind:
    """Stands for numpy.dtype while a pickle is read: numbers and text only."""

    def __init__(self, code: str | bytes, *_: Any):
        if not re.fullmatch(r"[<>|=]?([iufb][1248]|[US]\d{1,4})", str(_text(code))):
            raise pickle.UnpicklingError(f"it holds an array of {_text(code)!r:.20}; only numbers and text are read")
        self.dtype = np.dtype(_text(code))

    def __setstate__(self, state: tuple) -> None:
        order = _text(state[1])
        self.dtype = self.dtype.newbyteorder(order if order in ("<", ">") else "=")


class _Array(list):
    """Stands for numpy.ndarray: a list, filled from plain bytes whatever its shape."""

    def __init__(self, *_: Any):
        super().__init__()

    def __setstate__(self, state: tuple) -> None:
        *_, kind, _, data = state
        self[:] = _frombuffer(data, kind)


def _frombuffer(data: bytes, kind: _Kind, *_: Any) -> list:
    return np.frombuffer(data, kind.dtype).tolist()


def _scalar(kind: _Kind, data: bytes) -> Any:
    return _frombuffer(data, kind)[0]


def _bytes(text: str = "", codec: str = "") -> bytes:
    return text.encode("latin1")  # protocols 0 to 2 spell them _codecs.encode(text, "latin1"), and none bytes()


_ALLOWED = {"numpy.ndarray": _Array, "numpy.dtype": _Kind, "_codecs.encode": _bytes, "__builtin__.bytes": _bytes,
            "collections.OrderedDict": dict}  # fmt: skip
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED |= {f"{_core}.multiarray._reconstruct": _Array, f"{_core}.multiarray.scalar": _scalar}
    _ALLOWED[f"{_core}.numeric._frombuffer"] = _frombuffer
for _builtins in ("builtins", "__builtin__"):
    _ALLOWED |= {f"{_builtins}.set": set, f"{_builtins}.frozenset": frozenset}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no number, text, list or array")
        return _ALLOWED[f"{module}.{name}"]


def _unpickled(data: bytes, path: Path) -> Any:
    if data.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path} is compressed (gzip); unpack it first")
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if "PUT" in opcode.name and int(argument) > len(data):
                raise pickle.UnpicklingError(f"it claims {int(argument):,} entries of memory")
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except Exception as error:  # damaged pickles raise all kinds: EOFError, KeyError, IndexError, TypeError
        raise ValueError(f"{path} is refused: it is cut off or damaged ({type(error).__name__}: {error})") from error


def _text(value: Any) -> Any:
    """Text of Python 2, which comes as bytes: UTF-8, or else Latin-1; all else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin1")


def _entries(value: Any, where: str, kinds: tuple[type, ...], what: str) -> list:
    """A list or set of entries of certain kinds, as a list."""
    if isinstance(value, (list, tuple, set, frozenset)):
        entries = [_text(entry) for entry in value]
        if all(isinstance(entry, kinds) and not isinstance(entry, bool) for entry in entries):
            return entries
    raise ValueError(f"{where} is no list of {what}")


def _dictionary(record: Any, keys: Sequence[str], where: str) -> dict[str, Any]:
    what = f"{where}: a dictionary of {', '.join(keys)} is wanted"
    if not isinstance(record, dict):
        raise ValueError(f"{what}, it is a {type(record).__name__}")
    record = {_text(key): value for key, value in record.items()}
    if "easy" in keys and "ok" in record and not {"easy", "hard"} & set(record):
        record |= {"easy": record["ok"], "hard": []}  # the benchmarks before they were revisited
    missing = [repr(key) for key in keys if key not in record]
    if missing:
        raise ValueError(f"{what}; {', '.join(missing)} missing, found {', '.join(map(repr, record)) or 'nothing'}")
    return record


def read_record(data: bytes, path: Path) -> tuple[list[str], list[str], list[dict]]:
    """Names of database images, names of queries, and each query's easy, hard, junk (int64 ids) and bbx, or None.

    `path` is for messages. "ok" counts as easy. Raises `ValueError` naming what is missing or of another kind.
    """
    record = _dictionary(_unpickled(data, path), ("gnd", "imlist", "qimlist"), f"{path} is no ground truth")
    database, queries = (_entries(record[key], f"{path}: {key}", (str,), "names") for key in ("imlist", "qimlist"))
    for name in (*database, *queries):
        if not stays_inside(name):
            raise ValueError(f"{path}: {name!r} is not the name of a picture inside its folder")
    truths = _entries(record["gnd"], f"{path}: gnd", (dict,), "dictionaries")
    if not queries or len(truths) != len(queries):
        raise ValueError(f"{path}: {len(truths)} entries in gnd for {len(queries)} queries; one for each is wanted")
    return database, queries, [_query(truth, f"{path}, query {i}") for i, truth in enumerate(truths)]


def _query(truth: dict, where: str) -> dict:
    truth = _dictionary(truth, LISTS, where)
    box = truth.get("bbx")
    parsed = {"bbx": None}
    try:
        for key in LISTS:
            ids = _entries(truth[key], f"{where}: {key}", (int,), "whole numbers")
            parsed[key] = np.sort(np.array(ids, dtype=np.int64))
        if box is not None:
            numbers = _entries(box, f"{where}: bbx", (int, float), "numbers")
            parsed["bbx"] = tuple(float(number) for number in numbers)
    except OverflowError as error:
        raise ValueError(f"{where} holds a number that is too large ({error})") from error
    return parsed


def stays_inside(name: str) -> bool:
    """Whether a file's name can lie nowhere but below the folder that it is relative to."""
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in Path(name).parts and "\0" not in name
