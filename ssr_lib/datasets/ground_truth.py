"""The pickled ground truth of a benchmark: what it lists, and nothing that it asks for.

A pickle can run any program, and the state of a NumPy array can point anywhere in memory. So nothing that it names is
looked up: the few names that lists, arrays, numbers and text need lead to what stands here.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from operator import index
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from ssr_lib.benchmark import LISTS


class _Kind:
    """Stands for numpy.dtype: numbers and text only."""

    def __init__(self, code: str | bytes, *_: Any):
        self.dtype = np.dtype(_text(code))
        if self.dtype.kind not in "iufSU":
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


def read_record(data: bytes, path: Path) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """imlist, qimlist and gnd (see `_truth`) of a pickled ground truth; `ValueError` naming its `path` for all else."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if "PUT" in opcode.name and int(argument) > len(data):
                raise pickle.UnpicklingError(f"it claims {int(argument):,} entries of memory")
        record = _named(_Unpickler(io.BytesIO(data), encoding="bytes").load())
        imlist, qimlist = ([_text(name) for name in record[key]] for key in ("imlist", "qimlist"))
        for name in (*imlist, *qimlist):
            if not stays_inside(name):
                raise ValueError(f"{name!r} is not the name of a picture inside its folder")
        return imlist, qimlist, [_truth(_named(entry)) for entry in record["gnd"]]
    except Exception as error:  # damaged pickles raise all kinds: EOFError, KeyError, IndexError, TypeError
        wanted = "wanted is a pickle of imlist, qimlist, gnd (easy, hard, junk, bbx), whole and not compressed"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{path} is refused ({reason}); {wanted}") from error


def _named(fields: dict) -> dict[str, Any]:
    return {_text(key): value for key, value in fields.items()}


def _truth(fields: dict[str, Any]) -> dict[str, Any]:
    """Ids of a query's database images in easy, hard and junk, int64, ascending, and its box in pixels, or None."""
    if "ok" in fields:  # the benchmarks before they were revisited
        fields = {"easy": fields["ok"], "hard": [], **fields}
    truth: dict[str, Any] = {key: np.array(sorted(map(index, fields[key])), dtype=np.int64) for key in LISTS}
    box = fields.get("bbx")
    return truth | {"boxes": None if box is None else tuple(map(float, box))}
