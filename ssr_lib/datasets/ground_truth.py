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

DEPTH = 6  # levels of lists and dictionaries; a ground truth has four


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


def _frombuffer(data: bytes, kind: _Kind, *_: Any) -> list:
    return np.frombuffer(data, kind.dtype).tolist()


def _scalar(kind: _Kind, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype)[0].item()


def _bytes(text: str = "", codec: str = "") -> bytes:
    return text.encode("latin1")  # protocols 0 to 2 spell them _codecs.encode(text, "latin1"), and none bytes()


_ALLOWED = {"numpy.ndarray": _Array, "numpy.dtype": _Kind, "_codecs.encode": _bytes, "__builtin__.bytes": _bytes,
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


def _unpickled(data: bytes) -> Any:
    """What a pickle holds, in lists, dictionaries, text and numbers."""
    for opcode, argument, _ in pickletools.genops(data):
        if "PUT" in opcode.name and int(argument) > len(data):
            raise pickle.UnpicklingError(f"it claims {int(argument):,} entries of memory")
    return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load(), DEPTH)


def _plain(value: Any, depth: int) -> Any:
    if depth == 0:
        raise pickle.UnpicklingError("lists within lists")
    if isinstance(value, Mapping):
        return {_text(key): _plain(entry, depth - 1) for key, entry in value.items()}
    if isinstance(value, _Array):
        value = value.values
    if isinstance(value, (set, frozenset)):
        value = sorted(value)
    return [_plain(entry, depth - 1) for entry in value] if isinstance(value, (list, tuple)) else _text(value)


def _text(value: Any) -> Any:
    """Text of Python 2, which comes as bytes: UTF-8, or else Latin-1; all else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin1")


def read_record(data: bytes, path: Path) -> tuple[list[str], list[str], list[dict]]:
    """Names of database images, names of queries, and each query's easy, hard, junk (int64 ids) and bbx, or None.

    `path` is for messages. "ok" counts as easy. Raises `ValueError` naming what is missing or of another kind.
    """
    if data.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path} is compressed (gzip); unpack it first")
    try:
        record = _unpickled(data)
    except MemoryError as error:
        raise ValueError(f"{path} is refused: it claims more memory than there is") from error
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except Exception as error:  # damaged pickles raise all kinds: EOFError, KeyError, IndexError, TypeError
        what = "damaged" if data.endswith(b".") else "cut off"
        raise ValueError(f"{path} is refused: it is {what} ({type(error).__name__}: {error})") from error
    _want(record, ("gnd", "imlist", "qimlist"), f"{path} is no ground truth")
    for key in ("imlist", "qimlist"):
        if not isinstance(record[key], list) or not all(isinstance(name, str) for name in record[key]):
            raise ValueError(f"{path}: {key} is no list, or holds something that is not a name")
        for name in record[key]:
            if not stays_inside(name):
                raise ValueError(f"{path}: {name!r} is not the name of a picture inside its folder")
    truths, queries = record["gnd"], record["qimlist"]
    if not queries or not isinstance(truths, list) or len(truths) != len(queries):
        found = len(truths) if isinstance(truths, list) else "no list of"
        raise ValueError(f"{path}: {found} entries in gnd for {len(queries)} queries; one for each is wanted")
    return record["imlist"], queries, [_query(truth, f"{path}, query {i}") for i, truth in enumerate(truths)]


def stays_inside(name: str) -> bool:
    """Whether a file's name can lie nowhere but below the folder that it is relative to."""
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in Path(name).parts and "\0" not in name


def _query(truth: Any, where: str) -> dict:
    if isinstance(truth, dict) and "ok" in truth and not {"easy", "hard"} & set(truth):
        truth = {**truth, "easy": truth["ok"], "hard": []}  # the benchmarks before they were revisited
    _want(truth, LISTS, where)
    box, parsed = truth.get("bbx"), {}
    for key in LISTS:
        if not isinstance(truth[key], list) or not all(type(i) is int and abs(i) < 2**63 for i in truth[key]):
            raise ValueError(f"{where}: {key} is no list, or holds something that is no whole number")
        parsed[key] = np.array(truth[key], dtype=np.int64)
    if box is None:
        return {**parsed, "bbx": None}
    if not isinstance(box, list) or [type(v) in (int, float) and abs(v) < 2**63 for v in box] != [True] * 4:
        raise ValueError(f"{where}: bbx is {box!r:.60}; four numbers are wanted")
    return {**parsed, "bbx": tuple(float(v) for v in box)}


def _want(record: Any, keys: Sequence[str], where: str) -> None:
    what = f"{where}: a dictionary of {', '.join(keys)} is wanted"
    if not isinstance(record, dict):
        raise ValueError(f"{what}, it is a {type(record).__name__}")
    missing = [repr(key) for key in keys if key not in record]
    if missing:
        raise ValueError(
            f"{what}; {', '.join(missing)} missing, found {', '.join(map(repr, [*record][:20])) or 'nothing'}"
        )
