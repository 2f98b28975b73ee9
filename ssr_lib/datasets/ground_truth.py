"""The pickled ground truth of a benchmark: what it lists, and nothing that it asks for.

A pickle can run any program, so only the names below are looked up, and NumPy's arrays are read by the two classes
below: the state of its own can be made to point anywhere in memory.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import reprlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, FailFast, Field, ValidationError, model_validator


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


def _text(value: Any) -> Any:
    """Text of Python 2, which comes as bytes: UTF-8, or else Latin-1; all else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin1")


def stays_inside(name: str) -> bool:
    """Whether a file's name can lie nowhere but below the folder that it is relative to."""
    return bool(name) and not name.startswith(("/", "\\")) and ".." not in Path(name).parts and "\0" not in name


class _Fields(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _named(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        fields = {_text(key): value for key, value in fields.items()}
        if "ok" in fields and not {"easy", "hard"} & set(fields):
            fields |= {"easy": fields["ok"], "hard": []}  # the benchmarks before they were revisited
        return fields


_Name = Annotated[str, BeforeValidator(_text), Field(strict=True)]
_Number = Annotated[float, Field(strict=True)]
_Ids = Annotated[list[Annotated[int, Field(strict=True, ge=0, lt=2**63)]], FailFast()]


class Query(_Fields):
    """Ids of database images that are right for a query, or neither right nor wrong, and its box in pixels."""

    easy: _Ids
    hard: _Ids
    junk: _Ids
    bbx: tuple[_Number, _Number, _Number, _Number] | None = None


class GroundTruth(_Fields):
    """Names of the database images and of the queries, and what is right for each query."""

    imlist: Annotated[list[_Name], FailFast()]
    qimlist: Annotated[list[_Name], FailFast()]
    gnd: Annotated[list[Query], FailFast()]


def read_record(data: bytes, path: Path) -> GroundTruth:
    """What a pickled ground truth lists: imlist, qimlist, and in gnd each query's easy, hard, junk, and bbx or None.

    `path` is for messages. "ok" counts as easy. Raises `ValueError` naming what is missing or of another kind.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if "PUT" in opcode.name and int(argument) > len(data):
                raise pickle.UnpicklingError(f"it claims {int(argument):,} entries of memory")
        record = GroundTruth.model_validate(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        found = f"{where}: {fault['msg']}, found {reprlib.repr(fault['input'])}"
        raise ValueError(f"{path} is no ground truth of imlist, qimlist and gnd: {found}") from error
    except Exception as error:  # damaged pickles raise all kinds: EOFError, KeyError, IndexError, TypeError
        told = f"this is another file, compressed, damaged or hostile ({type(error).__name__}: {error})"
        raise ValueError(f"{path} is refused: a pickle of imlist, qimlist and gnd is wanted; {told}") from error
    for name in (*record.imlist, *record.qimlist):
        if not stays_inside(name):
            raise ValueError(f"{path}: {name!r} is not the name of a picture inside its folder")
    if not record.qimlist or len(record.gnd) != len(record.qimlist):
        counts = f"{len(record.gnd)} entries in gnd for {len(record.qimlist)} queries"
        raise ValueError(f"{path}: {counts}; one for each, and one or more, are wanted")
    return record
