"""Descriptor arrays as search and re-ranking take them: float32, NumPy or torch, one descriptor a row, validated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

Array = np.ndarray | torch.Tensor

PIECE = 1 << 15  # float64 numbers worked on at once: they stay in cache, and torch starts no threads for so few
PIECE_ON_GPU = 1 << 24  # 128 MB: fewer, longer kernels


@dataclass(frozen=True)
class Rows:
    """Validated descriptors (N, D), float32, in memory, memory-mapped or on a device, with their float64 norms (N,)."""

    data: Array
    norms: torch.Tensor
    device: torch.device

    def __len__(self) -> int:
        return self.data.shape[0]

    def raw(self, index: slice | torch.Tensor) -> torch.Tensor:
        """The rows as they are, on the device."""
        if isinstance(self.data, np.ndarray):  # a copy: memory-mapped and read-only arrays cannot be shared with torch
            index = index.cpu().numpy() if isinstance(index, torch.Tensor) else index
            return torch.from_numpy(np.array(self.data[index])).to(self.device)
        return self.data[index.to(self.data.device) if isinstance(index, torch.Tensor) else index].to(self.device)

    def unit(self, index: slice | torch.Tensor) -> torch.Tensor:
        """The rows divided by their norms, float64."""
        return self.raw(index).double().div_(self.norms[index, None])

    def normalised(self, rows: slice = slice(None)) -> torch.Tensor:
        """The rows at unit length, (n, D) float32."""
        start, stop, _ = rows.indices(len(self))
        out = torch.empty((stop - start, self.data.shape[1]), dtype=torch.float32, device=self.device)
        for part in self.pieces(len(out)):
            out[part] = self.unit(slice(start + part.start, start + part.stop))
        return out

    def pieces(self, n: int, per_row: int = 1) -> Iterator[slice]:
        """Slices that cover n rows, of so many at a time as are best worked on together, `per_row` descriptors each."""
        numbers = PIECE if self.device.type == "cpu" else PIECE_ON_GPU
        return blocks(n, max(1, numbers // (per_row * self.data.shape[1])))

    def take(self, ids: torch.Tensor) -> Rows:
        """Some of the rows, in memory."""
        return Rows(self.raw(ids), self.norms[ids], self.device)


def blocks(n: int, step: int) -> Iterator[slice]:
    """Slices that cover n rows, `step` at a time."""
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def row_sums(terms: torch.Tensor) -> torch.Tensor:
    """Sums over the last axis by halving, in an order that no device or shape changes; overwrites `terms`."""
    while (width := terms.shape[-1]) > 1:
        half = (width + 1) // 2
        terms[..., : width - half] += terms[..., half:]
        terms = terms[..., :half]
    return terms[..., 0]


def check_integer(value: int, name: str, low: int, high: int, why: str) -> None:
    """Raise `ValueError` unless `value` is an integer from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; wanted an integer from {low} to {high} ({why})")


def as_rows(array: Array, name: str, device: torch.device) -> Rows:
    """Validate descriptors and measure their norms, block by block.

    Raises `ValueError` for anything but a non-empty 2-D float32 array or tensor of finite rows with a direction.
    """
    if not isinstance(array, (np.ndarray, torch.Tensor)):
        raise ValueError(f"{name} are a {type(array).__name__}; wanted a float32 NumPy array or torch tensor")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} have shape {tuple(array.shape)}; wanted (rows, dimension), neither of them 0")
    if array.dtype not in (np.float32, torch.float32):
        raise ValueError(f"{name} are {array.dtype}; wanted float32: convert them first")
    rows = Rows(array.detach() if isinstance(array, torch.Tensor) else array, torch.empty(0), device)
    squares = torch.empty(len(rows), dtype=torch.float64, device=device)
    for piece in rows.pieces(len(rows)):
        squares[piece] = row_sums(rows.raw(piece).double().square_())
    if not bool((torch.isfinite(squares) & (squares > 0)).all()):
        bad = int((~torch.isfinite(squares) | (squares == 0)).nonzero()[0])
        what = "is zero and has no direction" if squares[bad] == 0 else "holds NaN or infinity"
        raise ValueError(f"{name}: row {bad} {what}; look at the image it was extracted from")
    return Rows(rows.data, squares.sqrt_(), device)


def as_pair(queries: Array, database: Array) -> tuple[Rows, Rows]:
    """Validate queries and database together and choose where to compute: where the tensors are, else the CPU."""
    devices = {array.device for array in (queries, database) if isinstance(array, torch.Tensor)}
    if len(devices) > 1:
        raise ValueError(f"queries and database are on {' and '.join(map(str, devices))}; move them to one device")
    device = devices.pop() if devices else torch.device("cpu")
    device = torch.device("cpu") if device.type == "mps" else device  # Apple's GPU has no float64
    d = as_rows(database, "database descriptors", device)
    q = d if queries is database else as_rows(queries, "queries", device)
    if q.data.shape[1] != d.data.shape[1]:
        raise ValueError(
            f"database descriptors have dimension {d.data.shape[1]} but queries have {q.data.shape[1]}; "
            "extract both with the same model"
        )
    return q, d


def like(result: torch.Tensor, original: Array) -> Array:
    """The result as the kind of array that came in, on its device."""
    if isinstance(original, np.ndarray):
        return result.cpu().numpy()
    if original.device.type == "mps" and result.dtype == torch.float64:
        result = result.float()
    return result.to(original.device)


def own_ids(ids: Array | None, q: Rows, d: Rows) -> torch.Tensor | None:
    """Validate the queries' own database ids (Q,), -1 where a query is no database image; None where none is one."""
    if ids is None:
        return None
    own = torch.as_tensor(ids).to(q.device)
    if own.shape != (len(q),) or own.is_floating_point() or own.dtype == torch.bool:
        raise ValueError(f"own ids are {own.dtype} of shape {tuple(own.shape)}; wanted ({len(q)},) integers")
    if bool(((own < -1) | (own >= len(d))).any()):
        raise ValueError(f"own ids go from {own.min()} to {own.max()}; wanted -1 (none) or 0 to {len(d) - 1}")
    return own.long() if bool((own >= 0).any()) else None
