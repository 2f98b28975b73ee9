"""The pickled ground truth of a benchmark: what it lists, and nothing that it asks for.

A pickle can run any program, so only the names below are looked up; of arrays those of numbers and text are read, since
an array of objects can be made to read memory astray.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssr_lib.benchmark import LISTS

_ALLOWED = {
    "numpy": ("dtype", "ndarray"),
    "collections": ("OrderedDict",),
    "_codecs": ("encode",),  # protocols 0 to 2 spell bytes _codecs.encode(text, "latin1")
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED |= {f"{_core}.multiarray": ("_reconstruct", "scalar"), f"{_core}.numeric": ("_frombuffer",)}
for _builtins in ("builtins", "__builtin__"):
    _ALLOWED[_builtins] = ("set", "frozenset", "bytes")


def _dtype(code: str | bytes, *options: Any) -> np.dtype:
    if not re.fullmatch(r"[<>|=]?([iufb][1248]|[US]\d{1,4})", str(_text(code))):
        raise pickle.UnpicklingError(f"it holds an array of {_text(code)!r:.20}; only numbers and text are read")
    return np.dtype(code, *options)


def _empty(*_: Any) -> np.ndarray:
    """An array that is filled from the bytes that follow; numpy.ndarray itself can be told to take any memory."""
    return np.empty(0)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no number, text, list or array")
        ours = {"dtype": _dtype, "ndarray": _empty, "_reconstruct": _empty}
        return ours.get(name) or super().find_class(module, name)


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
    """A list, set or array of entries of certain kinds, as a list."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple, set, frozenset)):
        entries = [_text(entry) for entry in value]
        if all(isinstance(entry, kinds) and not isinstance(entry, bool) for entry in entries):
            return entries
    raise ValueError(f"{where} is no list of {what}")


def _dictionary(record: Any, keys: Sequence[str], where: str) -> dict[str, Any]:
    what = f"{where}: a dictionary of {', '.join(keys)} is wanted"
    if not isinstance(record, Mapping):
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
    truths = _entries(record["gnd"], f"{path}: gnd", (Mapping,), "dictionaries")
    if not queries or len(truths) != len(queries):
        raise ValueError(f"{path}: {len(truths)} entries in gnd for {len(queries)} queries; one for each is wanted")
    return database, queries, [_query(truth, f"{path}, query {i}") for i, truth in enumerate(truths)]


def _query(truth: Mapping, where: str) -> dict:
    truth = _dictionary(truth, LISTS, where)
    box = truth.get("bbx")
    parsed = {"bbx": None}
    try:
        for key in LISTS:
            ids = _entries(truth[key], f"{where}: {key}", (int, np.integer), "whole numbers")
            parsed[key] = np.sort(np.array(ids, dtype=np.int64))
        if box is not None:
            numbers = _entries(box, f"{where}: bbx", (int, float, np.number), "numbers")
            parsed["bbx"] = tuple(float(number) for number in numbers)
    except OverflowError as error:
        raise ValueError(f"{where} holds a number that is too large ({error})") from error
    return parsed


def stays_inside(name: str) -> bool:
    """Whether a file's name can lie nowhere but below the folder that it is relative to."""
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in Path(name).parts and "\0" not in name
