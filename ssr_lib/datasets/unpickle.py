"""Pickles from elsewhere: what a program wrote as numbers, text, lists and arrays is read, and nothing else happens.

A pickle can call any function, and NumPy's own functions, called with forged arguments, read memory that is not theirs. So
arrays are made by the stand-ins below, from plain bytes; and the interpreter of pickles is the one in Python, whose
memory grows with the file and not with what the file claims.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

MAX_BYTES = 64 * 2**20  # of a pickle and of any part of it


class NumberType:
    """Stands for numpy.dtype: whole numbers, floats and booleans of 1 to 8 bytes."""

    def __init__(self, code: str, *_: Any):
        if not re.fullmatch(r"[<>|=]?[iufb][1248]", str(code)):
            raise pickle.UnpicklingError(f"an array of {str(code)[:20]!r}; only numbers are read")
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1] if state[1] in ("<", ">") else "=")


class ArrayType:
    """Stands for numpy.ndarray, which a pickle may name but not call: it could claim all memory."""

    def __init__(self, *_: Any):
        raise pickle.UnpicklingError("it calls numpy.ndarray")


class Array:
    """Stands for an array while a pickle is read; `array` (None until its bytes have come) is what it became."""

    def __init__(self, kind: type = ArrayType, shape: tuple = (0,), code: bytes = b"b"):
        if kind is not ArrayType or tuple(shape) != (0,):  # as NumPy writes it; the shape comes with the bytes
            raise pickle.UnpicklingError(f"an array made as {getattr(kind, '__name__', 'something else')}")
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        *_, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: bytes, kind: NumberType, shape: tuple, order: str) -> None:
        if not isinstance(kind, NumberType) or not isinstance(data, (bytes, bytearray)):
            raise pickle.UnpicklingError("an array whose content is not plain bytes of numbers")
        self.array = np.frombuffer(bytes(data), kind.dtype).reshape(shape, order=order)


def number(kind: NumberType, data: bytes) -> np.generic:
    """Stands for NumPy's scalar(dtype, bytes)."""
    if not isinstance(kind, NumberType) or not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        raise pickle.UnpicklingError("a number whose content is not its bytes")
    return np.frombuffer(data, kind.dtype)[0]


def array_of(data: bytes, kind: NumberType, shape: tuple, order: str) -> Array:
    """Stands for NumPy's _frombuffer(bytes, dtype, shape, order), as arrays are written from protocol 5 on."""
    found = Array()
    found.fill(data, kind, shape, order)
    return found


def latin1(text: str, codec: str) -> bytes:
    """Stands for codecs.encode: how protocols 0 to 2 spell bytes."""
    if codec != "latin1":
        raise pickle.UnpicklingError(f"bytes in the codec {codec!r}")
    return text.encode("latin1")


def no_bytes() -> bytes:
    """Stands for bytes(), as protocols 0 to 2 spell none; with a number it would claim memory."""
    return b""


def plain_keys(keys: Any) -> Any:
    """`keys`, if hashing them takes no time: that of nested tuples may take for ever."""
    if not all(isinstance(key, (str, bytes, int, float, np.generic)) for key in keys):
        raise pickle.UnpicklingError("a key that is neither text nor number")
    return keys


def plain_set(keys: Any = ()) -> set:
    """Stands for set and frozenset."""
    return set(plain_keys(keys))


STAND_INS: dict[str, Any] = {
    "numpy.ndarray": ArrayType,
    "numpy.dtype": NumberType,
    "_codecs.encode": latin1,
    "__builtin__.bytes": no_bytes,
    "builtins.set": plain_set,
    "builtins.frozenset": plain_set,
    "__builtin__.set": plain_set,
}
for _core in ("numpy.core", "numpy._core"):
    STAND_INS |= {f"{_core}.multiarray._reconstruct": Array, f"{_core}.multiarray.scalar": number}
    STAND_INS |= {f"{_core}.numeric._frombuffer": array_of}


class _Unpickler(pickle._Unpickler):  # the one in Python: in C, nine bytes of a pickle can claim all memory
    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no number, text, list or array")
        return STAND_INS[f"{module}.{name}"]

    def load_bytearray8(self) -> None:
        (size,) = np.frombuffer(self.read(8), "<u8")
        if size > MAX_BYTES:
            raise pickle.UnpicklingError(f"it claims {size:,} bytes")
        data = bytearray(int(size))
        self.readinto(data)
        self.append(data)

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _after_a_look(opcode: int, keys: Callable[[_Unpickler], list]) -> Callable[[_Unpickler], None]:
    """What the unpickler does for `opcode`, once the keys that it would hash are known to be plain."""
    as_ever = pickle._Unpickler.dispatch[opcode]

    def load(unpickler: _Unpickler) -> None:
        plain_keys(keys(unpickler))
        as_ever(unpickler)

    return load


# The stack holds key and value of SETITEM last, and for the other opcodes nothing but keys and values, or keys.
_Unpickler.dispatch[pickle.SETITEM[0]] = _after_a_look(pickle.SETITEM[0], lambda self: self.stack[-2:-1])
for _name, _step in (("SETITEMS", 2), ("DICT", 2), ("ADDITEMS", 1), ("FROZENSET", 1)):
    _code = getattr(pickle, _name)[0]
    _Unpickler.dispatch[_code] = _after_a_look(_code, lambda self, step=_step: self.stack[::step])


def unpickle(data: bytes) -> object:
    """What a pickle holds; arrays are `Array`. Raises `pickle.UnpicklingError`, and what damaged ones raise."""
    return _Unpickler(io.BytesIO(data), encoding="latin1").load()
