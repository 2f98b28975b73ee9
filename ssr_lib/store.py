"""An array of N rows made piece by piece on disk: resumable after any interruption, checked before it is trusted.

While it is being made, a folder holds `shard-00000.npy` with `shard-00000.json`, …; when all are there they become
one `array.npy`, memory-mapped, with `array.json`. `made_by.json` says what made the rows, and a folder made by
something else is refused. A piece counts only if its SHA-256 is the recorded one and its items have not changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ssr_lib.files import digest, folder_lock, read_json, remove_leftovers, replacing, write_atomic


def save_npy(path: Path, shape: tuple[int, ...], dtype: np.dtype, parts: Iterable[np.ndarray]) -> None:
    """Write an array that comes in parts along its first axis as one .npy file, atomically."""
    remove_leftovers(path)
    # not through a memory map: a full disk would end the process
    with replacing(path) as temporary, open(temporary, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype=dtype).data)


def save_sound(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy with its SHA-256 beside it (.npy.sha256), which is written last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_npy(path, array.shape, array.dtype, [array])
    write_atomic(_checksum_file(path), hashlib.sha256(np.ascontiguousarray(array)).hexdigest() + "\n")


def load_sound(path: Path) -> np.ndarray | None:
    """What `save_sound` wrote; None, with a warning where something is there, unless every byte is as it was."""
    array = _load(path)
    if array is None and not path.is_file():
        return None
    wanted = _checksum_file(path).read_text(encoding="utf-8").strip() if _checksum_file(path).is_file() else ""
    if array is None or hashlib.sha256(np.ascontiguousarray(array)).hexdigest() != wanted:
        warnings.warn(f"{path} is damaged; it is made again", stacklevel=2)
        return None
    return array


def _checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def stacked(path: Path, parts: Sequence[np.ndarray], block: int = 65536) -> np.memmap:
    """Arrays (n, D) float32 under one another in the file `path`, memory-mapped; copied `block` rows at a time.

    Copied once, and again where a part is a memory-mapped file that was made anew since.
    """
    sources = [Path(part.filename) for part in parts if getattr(part, "filename", None)]
    if not path.is_file() or any(path.stat().st_mtime_ns < source.stat().st_mtime_ns for source in sources):
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = (part[at : at + block] for part in parts for at in range(0, len(part), block))
        save_npy(path, (sum(map(len, parts)), parts[0].shape[1]), np.dtype(np.float32), blocks)
    return np.load(path, mmap_mode="r")


def made_by_of(directory: Path | str) -> dict | None:
    """What made the rows of a `ShardedArray` in `directory`, as its `made_by` says it; None where that is not known."""
    record = read_json(Path(directory) / "made_by.json")
    return record and {key: value for key, value in record.items() if key != "shard_size"}


def stored_shape(directory: Path | str) -> tuple[int, ...] | None:
    """The shape of a row in the finished array of `directory`; None where there is none."""
    whole = _load(Path(directory) / "array.npy", mmap_mode="r")
    return None if whole is None else whole.shape[1:]


class ShardedArray:
    """N rows of one shape and dtype in `directory`, a shard of them at a time.

    `made_by`: JSON-able, what determines the rows (model, preprocessing, file names). `items`: one string for each
    row that changes when the row's source does; its shard is then made again. An existing folder keeps the shard size
    it began with. Raises `ValueError` naming what differs where the folder was made by something else.
    """

    def __init__(self, directory: Path | str, made_by: dict, items: Sequence[str], row_shape, dtype, shard_size: int):
        self.directory = Path(directory)
        self.made_by = json.loads(json.dumps(made_by))  # tuples become lists, as they will be read
        self.row_shape, self.dtype, self.n_rows = tuple(row_shape), np.dtype(dtype), len(items)
        stored, self.shard_size = read_json(self.directory / "made_by.json"), int(shard_size)
        self._unknown = stored is None  # nothing says what made the rows that may lie there: they do not count
        if stored is not None:
            size = stored.pop("shard_size", self.shard_size)
            self.shard_size = size if isinstance(size, int) and size > 0 else self.shard_size
            self._refuse_other(stored)
        starts = range(0, self.n_rows, self.shard_size)
        self.shards = [slice(start, min(start + self.shard_size, self.n_rows)) for start in starts]
        self._sources = [digest(list(items[shard])) for shard in self.shards]

    def _refuse_other(self, stored: dict) -> None:
        for key in dict.fromkeys((*self.made_by, *stored)):
            if stored.get(key) != self.made_by.get(key):
                found, wanted = (json.dumps(record.get(key))[:200] for record in (stored, self.made_by))
                raise ValueError(
                    f"{self.directory} was made by something else: {key} is {found} there, {wanted} now; "
                    "choose another folder, or delete this one"
                )

    def prepare(self) -> None:
        """Write down what makes the rows, before the first of them; rows of an unknown maker are removed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._unknown:
            for path in (self.directory / "array.json", *self.directory.glob("shard-*")):
                path.unlink(missing_ok=True)
            self._unknown = False
        record = {**self.made_by, "shard_size": self.shard_size}
        write_atomic(self.directory / "made_by.json", json.dumps(record, indent=1) + "\n")

    def rows(self, shard: int) -> range:
        """Numbers of a shard's rows in the whole array."""
        return range(self.shards[shard].start, self.shards[shard].stop)

    def _shape(self, shard: int) -> tuple[int, ...]:
        return (len(self.rows(shard)), *self.row_shape)

    def _path(self, shard: int) -> Path:
        return self.directory / f"shard-{shard:05d}.npy"

    def _is_sound(self, rows: np.ndarray, shard: int, record: dict | None) -> bool:
        return (
            isinstance(record, dict)
            and isinstance(record.get("failed"), dict)
            and record.get("source") == self._sources[shard]
            and rows.shape == self._shape(shard)
            and rows.dtype == self.dtype
            and hashlib.sha256(np.ascontiguousarray(rows)).hexdigest() == record.get("sha256")
        )

    def write(self, shard: int, rows: np.ndarray, failed: dict[int, str] | None = None) -> None:
        """Store a shard's rows; `failed`: for rows that could not be made, their number in the whole array and why."""
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        if rows.shape != self._shape(shard):
            raise ValueError(f"shard {shard} has shape {rows.shape}; {self._shape(shard)} is wanted")
        buffer = io.BytesIO()
        np.save(buffer, rows)
        write_atomic(self._path(shard), buffer.getvalue())
        record = {
            "source": self._sources[shard],
            "sha256": hashlib.sha256(rows).hexdigest(),
            "failed": {str(row): reason for row, reason in (failed or {}).items()},
        }
        write_atomic(self._path(shard).with_suffix(".json"), json.dumps(record))

    def _read(self, shard: int, whole: np.ndarray | None, records: list) -> tuple[np.ndarray, dict] | None:
        """A shard's sound rows with their record, from its own file or from the finished array; else None."""
        found = [(_load(self._path(shard)), read_json(self._path(shard).with_suffix(".json")))]
        if whole is not None and shard < len(records):
            found.append((whole[self.shards[shard]], records[shard]))
        for rows, record in found:
            if rows is not None and self._is_sound(rows, shard, record):
                return rows, record
        if any(isinstance(record, dict) and record.get("source") == self._sources[shard] for _, record in found):
            warnings.warn(f"{self.directory}: shard {shard} is damaged; it is made again", stacklevel=3)
        return None

    def _finished(self) -> tuple[np.memmap | None, list]:
        whole = _load(self.directory / "array.npy", mmap_mode="r")
        records = (read_json(self.directory / "array.json") or {}).get("shards")
        return whole, records if isinstance(records, list) else []

    def missing(self, *, retry_failed: bool = False) -> list[int]:
        """Numbers of the shards that must be made (again): absent, damaged, of changed items, or with failed rows."""
        whole, records = self._finished()
        if self._unknown:
            if whole is not None or any(self.directory.glob("shard-*")):
                warnings.warn(f"{self.directory}: nothing says what made the rows there; made again", stacklevel=2)
            return list(range(len(self.shards)))
        # of each shard only its record is kept: all rows together need not fit in memory
        stored = [(self._read(shard, whole, records) or (None, None))[1] for shard in range(len(self.shards))]
        return [i for i, record in enumerate(stored) if record is None or (retry_failed and record["failed"])]

    def completed(
        self, fill: Callable[[list[int]], None], *, retry_failed: bool = False
    ) -> tuple[np.memmap, dict[int, str]]:
        """The finished array with its failed rows, as `open` gives it, after `fill` has written the missing shards.

        `fill` gets their numbers. Raises `FolderBusyError` where another process is at it; what is finished is only read.
        """
        finished = self.open()
        if finished is not None and not (retry_failed and finished[1]):
            return finished
        with folder_lock(self.directory):
            missing = self.missing(retry_failed=retry_failed)
            self.prepare()
            fill(missing)
            return (None if missing else self.open()) or self.finish()

    def open(self) -> tuple[np.memmap, dict[int, str]] | None:
        """The finished array (N, …), read-only and memory-mapped, with its failed rows; None unless it is all sound."""
        whole, records = self._finished()
        if (
            self._unknown
            or whole is None
            or whole.shape != (self.n_rows, *self.row_shape)
            or len(records) != len(self.shards)
        ):
            return None
        if not all(self._is_sound(whole[rows], i, records[i]) for i, rows in enumerate(self.shards)):
            return None
        return whole, _failed_rows(records)

    def finish(self) -> tuple[np.memmap, dict[int, str]]:
        """Join the shards into one array, then remove them. Raises `RuntimeError` where one is missing."""
        whole, old_records = self._finished()
        records = []

        def parts() -> Iterator[np.ndarray]:
            for shard in range(len(self.shards)):
                found = self._read(shard, whole, old_records)
                if found is None:
                    raise RuntimeError(f"{self._path(shard)} is missing or damaged; run again to make it")
                records.append(found[1])
                yield found[0]

        target = self.directory / "array.npy"
        save_npy(target, (self.n_rows, *self.row_shape), self.dtype, parts())
        write_atomic(self.directory / "array.json", json.dumps({"shards": records}))
        for path in self.directory.glob("shard-*"):
            path.unlink()
        return np.load(target, mmap_mode="r"), _failed_rows(records)


def _failed_rows(records: list[dict]) -> dict[int, str]:
    return {int(row): reason for record in records for row, reason in record["failed"].items()}


def _load(path: Path, mmap_mode: str | None = None) -> np.ndarray | None:
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):  # absent, cut off, or no array
        return None
