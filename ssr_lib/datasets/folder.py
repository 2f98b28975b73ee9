"""Your own photographs: a folder of them, or a CSV that says which show the same thing."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssr_lib.benchmark import Benchmark

if TYPE_CHECKING:
    from drawn_landmarks import LabelledImages

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
# Pictures that are not read, but counted.
OTHER_EXTENSIONS = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".svg")
SPLITS = ("query", "db", "distractor", "train")
NAMES_SHOWN = 20  # file names an error message lists


def read_folder(path: Path | str) -> list[str]:
    """Names of all pictures below a folder, relative to it, with "/" between, sorted.

    A picture is a file with one of `EXTENSIONS`, upper or lower case; whatever begins with a dot is left out.
    Raises `NotADirectoryError` where it is no folder, `FileNotFoundError` where it holds no picture, `PermissionError`
    where a part of it may not be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is not a folder" if path.exists() else f"{path}: no such folder")
    names = [name for name in _walk(path) if name.lower().endswith(EXTENSIONS)]
    if not names:
        raise FileNotFoundError(f"{path} holds no pictures; files ending in {' '.join(EXTENSIONS)} are looked for")
    return sorted(names)


def count_unsupported(path: Path | str) -> dict[str, int]:
    """How many files below a folder are pictures of a kind that is not read, by extension: phones write .heic."""
    return dict(
        Counter(Path(name).suffix.lower() for name in _walk(Path(path)) if name.lower().endswith(OTHER_EXTENSIONS))
    )


def _walk(path: Path) -> Iterator[str]:
    """Names of all files below a folder, relative to it, but for those that begin with a dot or lie in such folders."""

    def fail(error: OSError):
        raise error

    for folder, subfolders, files in os.walk(path, onerror=fail):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = Path(folder).relative_to(path)
        yield from ((inside / name).as_posix() for name in files if not name.startswith("."))


@dataclass(frozen=True)
class LabelRow:
    """One line of a label file; `split` is None where the file has no such column."""

    line: int
    file: str
    label: str
    split: str | None


def read_label_rows(path: Path | str) -> list[LabelRow]:
    """The lines of a CSV with columns file, label and optionally split, whose values are those of `SPLITS`.

    Comma, semicolon or tab between the columns; further columns are ignored. Raises `ValueError` naming the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    header = text.partition("\n")[0]
    delimiter = next((mark for mark in (",", ";", "\t") if mark in header), ",")
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    columns = [column.strip().lower() for column in next(reader, [])]
    if not {"file", "label"} <= set(columns):
        raise ValueError(f"{path}: columns 'file', 'label' and perhaps 'split' are wanted; found {header.strip()!r}")
    has_split, rows = "split" in columns, []
    for values in reader:
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(columns):
            raise ValueError(f"{path}, line {reader.line_num}: {len(values)} values for {len(columns)} columns")
        record = {column: value.strip() for column, value in zip(columns, values, strict=True)}
        if not record["file"]:
            raise ValueError(f"{path}, line {reader.line_num}: no file name")
        if has_split and record["split"] not in SPLITS:
            raise ValueError(
                f"{path}, line {reader.line_num}: split is {record['split']!r}; one of {', '.join(SPLITS)} is wanted"
            )
        rows.append(LabelRow(reader.line_num, record["file"], record["label"], record.get("split")))
    if not rows:
        raise ValueError(f"{path} lists no files")
    seen: dict[tuple, LabelRow] = {}
    for row in rows:
        first = seen.setdefault((row.file, row.split), row)
        if first is not row:
            raise ValueError(f"{path}, line {row.line}: {row.file} was already listed in line {first.line}")
    return rows


def read_labels(path: Path | str, images: Path | str | None = None, *, on_lonely: str = "raise") -> Benchmark:
    """A benchmark from a CSV of file, label[, split]: same label, same thing.

    With a split column, "query" rows are queries and "db" rows the database; "distractor" rows join the database
    without a label; "train" rows are left out (`read_training_labels` reads those). Without one, every picture that
    shares its label with another is a query against all others, itself excluded (`query_ids`); an empty label marks a
    distractor. All positives are listed as easy: one list, so that Easy and Medium are the same and Hard is empty.
    Groups are the labels. `images`: folder of the files, by default that of the CSV, or `images` in it.
    A query whose label no database picture has is an error that names it, unless `on_lonely="keep"`: it then has no
    positives, and the metrics leave it out. Raises `FileNotFoundError` with the names of all files that are missing.
    """
    if on_lonely not in ("raise", "keep"):
        raise ValueError(f"on_lonely is {on_lonely!r}; 'raise' or 'keep' is wanted")
    path = Path(path)
    rows = [row for row in read_label_rows(path) if row.split != "train"]
    root = _images_folder(path, images, [row.file for row in rows])
    database = [row for row in rows if row.split != "query"]
    labels = ["" if row.split == "distractor" else row.label for row in database]
    if rows and rows[0].split is None:
        counts = Counter(labels)
        queries = [row for row in rows if row.label and counts[row.label] > 1]
        wanted = "a label that two pictures share"
    else:
        queries = [row for row in rows if row.split == "query"]
        wanted = "a row with split 'query'"
    if not queries or not database:
        raise ValueError(f"{path} has no {'queries' if database else 'database pictures'}; {wanted} is wanted")
    ids = {row.file: i for i, row in enumerate(database)}
    query_ids = [ids.get(row.file, -1) for row in queries]
    by_label: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        if label:  # a distractor is right for no query
            by_label.setdefault(label, []).append(i)
    easy = [[i for i in by_label.get(row.label, []) if i != own] for row, own in zip(queries, query_ids, strict=True)]
    lonely = [row for row, positives in zip(queries, easy, strict=True) if len(positives) == 0]
    if lonely and (on_lonely == "raise" or len(lonely) == len(queries)):
        shown = [f"{row.file} (line {row.line}, label {row.label!r})" for row in lonely]
        raise ValueError(f"{path}: no database picture has the label of {_listed(shown, 'queries')}")
    return Benchmark(
        name=path.stem if path.stem != "labels" else path.resolve().parent.name,
        root=root,
        database=[row.file for row in database],
        queries=[row.file for row in queries],
        easy=easy,
        hard=[[]] * len(queries),
        junk=[[]] * len(queries),
        groups=[row.label for row in queries],
        query_ids=query_ids,
    )


def read_training_labels(path: Path | str, images: Path | str | None = None) -> LabelledImages:
    """Training pictures with integer labels 0 … classes − 1: the "train" rows of a CSV, or all if it has no split.

    Rows without a label are left out. Raises as `read_labels` does, and `ValueError` for fewer than two classes.
    """
    from drawn_landmarks import LabelledImages

    path = Path(path)
    rows = [row for row in read_label_rows(path) if row.split in (None, "train") and row.label]
    classes = {label: i for i, label in enumerate(sorted({row.label for row in rows}))}
    if len(classes) < 2:
        raise ValueError(f"{path} has {len(classes)} labels in its training rows; two or more are wanted")
    files = [row.file for row in rows]
    labels = np.array([classes[row.label] for row in rows], dtype=np.int64)
    return LabelledImages(files=files, labels=labels, root=_images_folder(path, images, files))


def _images_folder(path: Path, images: Path | str | None, files: list[str]) -> Path:
    """The folder that holds all the files. Raises `FileNotFoundError` naming those missing where it is fullest."""
    folders = [path.parent, path.parent / "images"] if images is None else [Path(images)]
    missing = {folder: [file for file in files if not (folder / file).is_file()] for folder in folders}
    folder = min(folders, key=lambda f: len(missing[f]))
    if missing[folder]:
        raise FileNotFoundError(
            f"{_listed(missing[folder], f'of the {len(files)} files')} that {path} lists are not in {folder}; "
            "name the folder of the pictures (--images), or take the lines out"
        )
    return folder


def _listed(names: list[str], what: str) -> str:
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{more})"
