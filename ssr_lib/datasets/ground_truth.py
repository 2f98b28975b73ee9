"""The pickled ground truth of a benchmark: what it lists, and nothing that it asks for.

A pickle can run any program. So numbers, text, lists, sets, dictionaries and NumPy's arrays are read, these by the
stand-ins below, since NumPy's own functions can be made to read memory astray; any other name is refused.
"""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssr_lib.benchmark import LISTS


class _Kind:
    """Stands for numpy.dtype while a pickle is read: numbers, text, and objects that are themselves in the pickle."""

    def __init__(self, code: Any, *_: Any):
        if not re.fullmatch(r"[<>|=]?([iufb][1248]|[US]\d{1,4}|O8?)", str(_text(code))):
            raise pickle.UnpicklingError(f"an array of {_text(code)!r:.20}; only numbers and text are read")
        self.dtype = np.dtype(_text(code))

    def __setstate__(self, state: tuple) -> None:
        order = _text(state[1])
        self.dtype = self.dtype.newbyteorder(order if order in ("<", ">") else "=")


class _Array:
    """Stands for numpy.ndarray: made empty, filled from plain bytes or a list; its shape is of no interest here."""

    def __init__(self, *_: Any):
        self.values: list = []

    def __setstate__(self, state: tuple) -> None:
        *_, kind, _, data = state
        self.values = data if isinstance(data, list) else np.frombuffer(data, kind.dtype).tolist()


def _frombuffer(data: bytes, kind: _Kind, *_: Any) -> _Array:
    array = _Array()
    array.__setstate__((kind, None, data))
    return array


def _scalar(kind: _Kind, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype)[0].item()


def _encode(text: str, codec: str) -> bytes:
    return text.encode("latin1")  # how protocols 0 to 2 spell bytes


def _no_bytes() -> bytes:
    return b""  # and none


_ALLOWED = {"numpy.ndarray": _Array, "numpy.dtype": _Kind, "_codecs.encode": _encode, "__builtin__.bytes": _no_bytes,
            "collections.OrderedDict": collections.OrderedDict}  # fmt: skip
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


def _unpickle(data: bytes, path: Path) -> object:
    if data.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path} is compressed (gzip); unpack it first")
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if "PUT" in opcode.name and int(argument) > len(data):
                raise pickle.UnpicklingError(f"it claims {int(argument):,} entries of memory")
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()  # text of Python 2 stays bytes, for `_text`
    except MemoryError as error:
        raise ValueError(f"{path} is refused: it claims more memory than there is") from error
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except Exception as error:  # damaged pickles raise all kinds: EOFError, KeyError, IndexError, TypeError
        what = "damaged" if data.endswith(b".") else "cut off"
        raise ValueError(f"{path} is refused: it is {what} ({type(error).__name__}: {error})") from error


def _text(value: object) -> object:
    """Text of Python 2, which came as bytes: UTF-8, or else Latin-1; all else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin1")


def read_record(data: bytes, path: Path) -> tuple[list[str], list[str], list[dict]]:
    """Names of the database images, names of the queries, and each query's easy, hard, junk (int64 ids) and bbx, or None.

    `path` is for messages. "ok" counts as easy. Raises `ValueError` naming what is missing or of another kind.
    """
    fields = _fields(_unpickle(data, path), ("gnd", "imlist", "qimlist"), f"{path} is no ground truth")
    names = {key: [_text(name) for name in _values(fields[key], f"{path}: {key}")] for key in ("imlist", "qimlist")}
    for key, listed in names.items():
        for name in listed:
            if not isinstance(name, str):
                raise ValueError(f"{path}: {key} holds something that is not a name ({type(name).__name__})")
            if not stays_inside(name):
                raise ValueError(f"{path}: {name!r} is not the name of a picture inside its folder")
    truths, queries = _values(fields["gnd"], f"{path}: gnd"), names["qimlist"]
    if not queries or len(truths) != len(queries):
        raise ValueError(f"{path}: {len(truths)} entries in gnd for {len(queries)} queries; one for each is wanted")
    return names["imlist"], queries, [_query(truth, f"{path}, query {i}") for i, truth in enumerate(truths)]


def stays_inside(name: str) -> bool:
    """Whether a file's name can lie nowhere but below the folder that it is relative to."""
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in Path(name).parts and "\0" not in name


def _query(record: object, where: str) -> dict:
    truth = _fields(record, (), where)
    if "ok" in truth and not {"easy", "hard"} & set(truth):
        truth |= {"easy": truth["ok"], "hard": []}  # the benchmarks before they were revisited
    truth = _fields(truth, LISTS, where)
    parsed = {key: _ids(truth[key], f"{where}: {key}") for key in LISTS}
    if truth.get("bbx") is None:
        return parsed | {"bbx": None}
    box = _values(truth["bbx"], f"{where}: bbx")
    try:
        numbers = [float(value) for value in box if isinstance(value, (int, float))]
    except OverflowError as error:
        raise ValueError(f"{where}: bbx holds a number beyond any pixel's; four numbers are wanted") from error
    if len(box) != 4 or len(numbers) != 4:
        kinds = ", ".join(type(value).__name__ for value in box[:5])
        raise ValueError(f"{where}: bbx has {len(box)} entries ({kinds}); four numbers are wanted")
    return parsed | {"bbx": tuple(numbers)}


def _ids(value: object, where: str) -> np.ndarray:
    ids = list(value) if isinstance(value, (set, frozenset)) else _values(value, where)
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise ValueError(f"{where} holds something that is no whole number")
    try:
        found = np.array(ids, dtype=np.int64)
    except OverflowError as error:
        raise ValueError(f"{where} holds a number beyond any picture's") from error
    return np.sort(found) if isinstance(value, (set, frozenset)) else found


def _fields(record: object, wanted: Sequence[str], where: str) -> dict:
    """A dictionary with text for keys. Raises `ValueError` naming those that are missing."""
    what = f"{where}: a dictionary of {', '.join(wanted or LISTS)} is wanted"
    if not isinstance(record, Mapping):
        raise ValueError(f"{what}, it is a {type(record).__name__}")
    found = {_text(key): value for key, value in record.items()}
    missing = [repr(key) for key in wanted if key not in found]
    if missing:
        there = ", ".join(map(repr, [*found][:20])) or "nothing"
        raise ValueError(f"{what}; {', '.join(missing)} missing, found {there}")
    return found


def _values(value: object, where: str) -> list:
    if isinstance(value, _Array):
        return value.values
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where} is a {type(value).__name__}; a list is wanted")
    return list(value)
