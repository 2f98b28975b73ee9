"""Descriptors as search and re-ranking take them: validated once, their lengths known, on the device that computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

Array = np.ndarray | torch.Tensor

PIECE = 1 << 19  # numbers worked on at once: 4 MB of float64, which stay in a cache
MOST = 1 << 26  # images: an id has 26 bits of a code (see `codes`)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Descriptors (N, D) float32 that `prepare` validated; every function of search and re-ranking takes them.

    `data`: the array, in memory, on a device or mapped from a file. `norms` (N,): its lengths, float64, on the device
    that computes. `is_unit`: whether all are 1. `source`: the device that results go back to, None for NumPy.
    """

    data: Array
    norms: torch.Tensor
    is_unit: bool
    source: torch.device | None

    def __len__(self) -> int:
        return self.data.shape[0]

    @property
    def device(self) -> torch.device:
        return self.norms.device

    def raw(self, index: slice | torch.Tensor) -> torch.Tensor:
        """Some rows as they came; a view where that can be."""
        if isinstance(self.data, torch.Tensor):
            return self.data[index]
        part = np.ascontiguousarray(self.data[index if isinstance(index, slice) else index.cpu().numpy()])
        return torch.from_numpy(part if part.flags.writeable else part.copy()).to(self.device)

    def unit(self, index: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """Some rows at unit length, (n, D) float32; as they came where all have that length."""
        rows, norms = self.raw(index).contiguous(), self.norms[index]
        if self.is_unit:
            return rows
        out = torch.empty_like(rows)
        for part in blocks(len(rows), PIECE // rows.shape[1]):
            out[part] = rows[part].double().div_(norms[part, None])
        return out

    def take(self, ids: torch.Tensor) -> Prepared:
        """Some of the rows, in memory."""
        return Prepared(self.raw(ids), self.norms[ids], self.is_unit, self.source)

    def features(self) -> Array:
        """All rows at unit length, as the kind of array that came in; the array itself where that is what it holds."""
        mapped = self.is_unit and isinstance(self.data, np.ndarray)
        return self.data if mapped else self.like(self.unit())

    def like(self, result: torch.Tensor) -> Array:
        """A result as the kind of array that came in, on its device."""
        if self.source is None:
            return result.cpu().numpy()
        lost = self.source.type == "mps" and result.dtype == torch.float64  # Apple's GPU has no float64
        return (result.float() if lost else result).to(self.source)


def prepare(array: Array | Prepared, name: str = "descriptors", device: torch.device | str | None = None) -> Prepared:
    """Validate descriptors and measure their lengths, block by block: once for all calls that take the result.

    `array` (N, D) float32, NumPy (mapped files too, which stay where they are) or torch; `device`: where to compute.
    Raises `ValueError` for anything but a non-empty 2-D float32 array of finite rows that are not zero.
    """
    if isinstance(array, Prepared):
        return array
    if not isinstance(array, Array):
        raise ValueError(f"{name} are a {type(array).__name__}; wanted a float32 NumPy array or torch tensor")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} have shape {tuple(array.shape)}; wanted (rows, dimension), neither of them 0")
    if array.dtype not in (np.float32, torch.float32):
        raise ValueError(f"{name} are {array.dtype}; wanted float32: convert them first")
    check_integer(len(array), f"the number of {name}", 1, MOST, "search more in several parts")
    source = array.device if isinstance(array, torch.Tensor) else None
    home = torch.device(device or source or "cpu")
    home = torch.device("cpu") if home.type == "mps" else home
    if source is not None:
        array = array.detach().to(home)
    elif array.flags.c_contiguous and array.flags.writeable:
        array = torch.from_numpy(array).to(home)
    norms = torch.ones(len(array), dtype=torch.float64, device=home)
    rows = Prepared(array, norms, True, source)
    for part in blocks(len(array), PIECE // array.shape[1]):
        norms[part] = row_norms(rows.raw(part))
    wrong = (~torch.isfinite(norms) | (norms == 0)).nonzero()
    if len(wrong):
        bad = int(wrong[0])
        what = "is zero and has no direction" if norms[bad] == 0 else "holds NaN or infinity"
        raise ValueError(f"{name}: row {bad} {what}; look at the image it was extracted from")
    return Prepared(array, norms, bool(((norms - 1).abs() < 2.0**-21).all()), source)


def as_pair(queries: Array | Prepared, database: Array | Prepared) -> tuple[Prepared, Prepared]:
    """Queries and database, prepared, on the device where either of them lies."""
    here, there = (None if isinstance(x, np.ndarray) else getattr(x, "device", None) for x in (queries, database))
    d = prepare(database, "database descriptors", there or here)
    q = d if queries is database else prepare(queries, "queries", here or d.device)
    if q.device != d.device:
        raise ValueError(f"queries are on {q.device}, the database on {d.device}; move them to one device")
    if q.data.shape[1] != d.data.shape[1]:
        raise ValueError(
            f"database descriptors have dimension {d.data.shape[1]} but queries have {q.data.shape[1]}; "
            "extract both with the same model"
        )
    return q, d


def own_ids(ids: Array | None, q: Prepared, d: Prepared) -> torch.Tensor | None:
    """The queries' own database ids (Q,), validated, -1 where a query is no database image; None where none is one."""
    if ids is None:
        return None
    own = torch.as_tensor(ids).to(q.device)
    if own.shape != (len(q),) or own.is_floating_point() or own.dtype == torch.bool:
        raise ValueError(f"own ids are {own.dtype} of shape {tuple(own.shape)}; wanted ({len(q)},) integers")
    own = own.long()
    if bool(((own < -1) | (own >= len(d))).any()):
        raise ValueError(f"own ids go from {own.min()} to {own.max()}; wanted -1 (none) or 0 to {len(d) - 1}")
    return own if bool((own >= 0).any()) else None


def check_integer(value: int, name: str, low: int, high: int, why: str) -> None:
    """Raise `ValueError` unless `value` is an integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; wanted an integer from {low} to {high} ({why})")


def blocks(n: int, step: int) -> Iterator[slice]:
    """Slices that cover n rows, `step` at a time."""
    step = max(1, step)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def row_norms(rows: torch.Tensor) -> torch.Tensor:
    """Lengths (n,) float64 of rows: squares summed by halving, in an order that no device or shape changes."""
    squares = rows.to(torch.float64, copy=True).square_()
    while (width := squares.shape[1]) > 1:
        half = (width + 1) // 2
        squares[:, : width - half] += squares[:, half:]
        squares = squares[:, :half]
    return squares[:, 0].sqrt()
