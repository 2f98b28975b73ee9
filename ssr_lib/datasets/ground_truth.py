"""The pickled ground truth of a benchmark: what it lists, and nothing that it asks for.

A pickle can run any program, and the state of a NumPy array can point anywhere in memory. So nothing that it names is
looked up: the few names that lists, arrays, numbers and text need lead to what stands here.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import reprlib
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, FailFast, Field, ValidationError, model_validator


class _Kind:
    """Stands for numpy.dtype: numbers and text only."""

    def __init__(self, code: str | bytes, *_: Any):
        self.dtype = np.dtype(_text(code))
        if self.dtype.kind not in "iufbSU":
            raise pickle.UnpicklingError(f"it holds an array of {self.dtype!s:.40}; only numbers and text are read")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(_text(state[1]))


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


_READ_AS = {"ndarray": _Array, "_reconstruct": _Array, "_frombuffer": _frombuffer, "dtype": _Kind, "scalar": _scalar,
            "encode": _bytes, "bytes": _bytes, "set": set, "frozenset": frozenset, "OrderedDict": dict}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _READ_AS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _READ_AS[name]


def _text(value: Any) -> Any:
    """Text of Python 2, which comes as bytes: UTF-8, or else Latin-1; all else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin1")


def stays_inside(name: str) -> bool:
    """Whether a file's name lies below the folder that it is relative to, on every system."""
    path = PureWindowsPath(name)  # which knows the ways out of all of them: /, \, C: and ..
    return not path.anchor and ".." not in path.parts


class _Fields(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _named(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            fields = {_text(key): value for key, value in fields.items()}
            if "ok" in fields:  # the benchmarks before they were revisited
                fields = {"easy": fields["ok"], "hard": [], **fields}
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
    wanted = f"{path} is refused: a pickle of imlist, qimlist and gnd is wanted"
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if "PUT" in opcode.name and int(argument) > len(data):
                raise pickle.UnpicklingError(f"it claims {int(argument):,} entries of memory")
        record = GroundTruth.model_validate(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(["record", *map(str, fault["loc"])])
        raise ValueError(f"{wanted}; {where}: {fault['msg']}, found {reprlib.repr(fault['input'])}") from error
    except Exception as error:  # damaged pickles raise all kinds: EOFError, KeyError, IndexError, TypeError
        told = f"this is another file, compressed, damaged or hostile ({type(error).__name__}: {error})"
        raise ValueError(f"{wanted}; {told}") from error
    for name in (*record.imlist, *record.qimlist):
        if not stays_inside(name):
            raise ValueError(f"{path}: {name!r} is not the name of a picture inside its folder")
    if len(record.gnd) != len(record.qimlist):
        raise ValueError(f"{path}: {len(record.gnd)} entries in gnd for {len(record.qimlist)} queries")
    return record
