"""Descriptors as search and re-ranking take them: validated once, their lengths known, on the device that computes."""

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
    that computes. `is_unit`: whether all are 1. `numpy`: whether results go back as NumPy arrays.
    """

    data: Array
    norms: torch.Tensor
    is_unit: bool
    numpy: bool

    def __len__(self) -> int:
        return self.data.shape[0]

    @property
    def device(self) -> torch.device:
        return self.norms.device

    def raw(self, index: slice | torch.Tensor) -> torch.Tensor:
        """Some rows as they came; a view where that can be."""
        if isinstance(self.data, torch.Tensor):
            return self.data[index] if isinstance(index, slice) else self.data.index_select(0, index)
        part = np.ascontiguousarray(self.data[index if isinstance(index, slice) else index.cpu().numpy()])
        return torch.from_numpy(part if part.flags.writeable else part.copy()).to(self.device)

    def unit(self, index: slice | torch.Tensor = slice(None)) -> torch.Tensor:
        """Some rows at unit length, (n, D) float32; as they came where all have that length."""
        rows = self.raw(index).contiguous()
        if not self.is_unit:
            norms, rows = self.norms[index], rows.clone()
            for part in blocks(len(rows), PIECE // rows.shape[1]):
                rows[part] = rows[part].double().div_(norms[part, None])
        return rows

    def take(self, ids: torch.Tensor) -> "Prepared":
        """Some of the rows, in memory."""
        return Prepared(self.raw(ids), self.norms[ids], self.is_unit, self.numpy)

    def features(self) -> Array:
        """All rows at unit length, as the kind of array that came in."""
        return self.like(self.unit())

    def like(self, result: torch.Tensor) -> Array:
        """A result as the kind of array that came in."""
        return result.cpu().numpy() if self.numpy else result


def prepare(array: Array | Prepared, name: str = "descriptors", device: torch.device | str | None = None) -> Prepared:
    """Validate descriptors and measure their lengths, block by block: once for all calls that take the result.

    `array` (N, D) float32, NumPy (mapped files too, which stay where they are) or torch; `device`: where to compute and
    to leave the results, by default where the array is; the CPU for Apple's GPU, which has no float64.
    Raises `ValueError` for anything but a non-empty 2-D float32 array of finite rows that are not zero.
    """
    if isinstance(array, Prepared):
        return array
    if not isinstance(array, Array) or array.dtype not in (np.float32, torch.float32):
        found = f"a {type(array).__name__}, {getattr(array, 'dtype', 'no array')}"
        raise ValueError(f"{name} are {found}; wanted float32, NumPy or torch: convert them first")
    if array.ndim != 2 or 0 in array.shape or len(array) > MOST:
        raise ValueError(f"{name} have shape {tuple(array.shape)}; wanted 1 to {MOST:,} rows of 1 dimension or more")
    numpy = isinstance(array, np.ndarray)
    home = torch.device(device or array.device)
    home = torch.device("cpu") if home.type == "mps" else home
    if not numpy:
        array = array.detach().to(home)
    elif array.flags.c_contiguous and array.flags.writeable:
        array = torch.from_numpy(array).to(home)
    norms = torch.empty(len(array), dtype=torch.float64, device=home)
    rows = Prepared(array, norms, True, numpy)
    for part in blocks(len(array), PIECE // array.shape[1]):
        norms[part] = row_norms(rows.raw(part))
    wrong = (~torch.isfinite(norms) | (norms == 0)).nonzero()
    if len(wrong):
        bad = int(wrong[0])
        what = "is zero and has no direction" if norms[bad] == 0 else "holds NaN or infinity"
        raise ValueError(f"{name}: row {bad} {what}; look at the image it was extracted from")
    return Prepared(array, norms, bool(((norms - 1).abs() < 2.0**-21).all()), numpy)


def as_pair(queries: Array | Prepared, database: Array | Prepared) -> tuple[Prepared, Prepared]:
    """Queries and database, prepared; an array goes to the device of the other."""
    here, there = (None if isinstance(x, np.ndarray) else getattr(x, "device", None) for x in (queries, database))
    d = prepare(database, "database descriptors", there or here)
    q = d if queries is database else prepare(queries, "queries", here or d.device)
    if q.data.shape[1] != d.data.shape[1]:
        sizes = f"database descriptors have dimension {d.data.shape[1]} but queries have {q.data.shape[1]}"
        raise ValueError(f"{sizes}; extract both with the same model")
    return q, d


def own_ids(ids: Array | None, q: Prepared, d: Prepared) -> torch.Tensor | None:
    """The queries' own database ids (Q,), validated, -1 where a query is no database image; None where none is one."""
    if ids is None:
        return None
    own = torch.as_tensor(ids).to(q.device)
    inside = own.shape == (len(q),) and bool(((own >= -1) & (own < len(d))).all())
    if not inside or own.is_floating_point() or own.dtype == torch.bool:
        found = f"{own.dtype} of shape {tuple(own.shape)}"
        raise ValueError(f"own ids are {found}; wanted {len(q)} integers from -1 (none) to {len(d) - 1}")
    return own.long() if bool((own >= 0).any()) else None


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
