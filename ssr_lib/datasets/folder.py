"""Your own photographs: a folder of them, or a CSV that says which show the same thing."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssr_lib.benchmark import Benchmark, LabelledImages
from ssr_lib.datasets.table import LabelRow, read_label_rows
from ssr_lib.decode import TARGA, ImageError, opened

# Believed unopened; of other names the content decides.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib",
              ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".jpx", ".j2k", ".psd", *TARGA)  # fmt: skip
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw")  # some hold a small preview
NAMES_SHOWN = 20  # file names an error message lists


def list_pictures(folder: Path | str) -> tuple[list[str], dict[str, int]]:
    """Names of all pictures below a folder, and how many of its other files are left out for which reason.

    Names are relative to the folder, with "/" between, sorted. Links are followed; a folder or a file that several
    names lead to counts once. Whatever begins with a dot is passed over. Raises `NotADirectoryError` where it is no
    folder, `FileNotFoundError` where it holds no picture, `PermissionError` where a part of it may not be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder" if folder.exists() else f"{folder}: no such folder")
    names, skipped = [], Counter()
    waiting, seen = [folder], {file_identity(folder)}
    while waiting:
        inside = [path for path in waiting.pop().iterdir() if not path.name.startswith(".")]
        for path in sorted(inside, key=lambda path: (path.is_symlink(), path)):  # a link is the second name
            reason = _why_not(path, seen)
            if reason is not None:
                skipped[reason] += 1
                continue
            seen.add(file_identity(path))
            if path.is_dir():
                waiting.append(path)
            else:
                names.append(path.relative_to(folder).as_posix())
    if not names:
        left_out = "".join(f"; {count} left out: {reason}" for reason, count in skipped.items())
        raise FileNotFoundError(f"{folder} holds no pictures{left_out}")
    return sorted(names), dict(skipped)


def file_identity(path: Path | str) -> tuple[int, int]:
    """What two names of one file have in common, links included: its device and its number there."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _why_not(path: Path, seen: set[tuple[int, int]]) -> str | None:
    """Why a path is left out, with its extension where it is no picture; None for what is read or entered."""
    if not path.exists():
        return "a link to nothing"
    if file_identity(path) in seen:
        return f"another name of a {'folder' if path.is_dir() else 'picture'} that is listed"
    extension = path.suffix.lower()
    if path.is_dir() or (extension in EXTENSIONS and path.is_file()):
        return None
    kind = f"({extension or 'no extension'})"
    if extension in RAW:
        return f"a camera's raw data {kind}"
    try:
        with opened(path):
            return None
    except ImageError as error:
        return f"{str(error).removeprefix(f'{path}: ')} {kind}"


def read_labels(path: Path | str, images: Path | str | None = None, *, on_lonely: str = "raise") -> Benchmark:
    """A benchmark from a CSV of file, label[, split]: same label, same thing.

    With a split column, "query" rows are queries and "db" rows the database; "distractor" rows join the database
    without a label; "train" rows are left out (`read_training_labels` reads those). Without one, every picture that
    shares its label with another is a query against all others, itself excluded (`query_ids`); an empty label marks a
    distractor. All positives are listed as easy: one list, so that Easy and Medium are the same and Hard is empty.
    Groups are the labels. `images`: folder of the files, by default that of the CSV, or `images` in it.
    A query whose label no database picture has is an error that names it, unless `on_lonely="keep"`: it then has no
    positives, and the metrics leave it out. Raises as `find_files` does.
    """
    path = Path(path)
    rows = [row for row in read_label_rows(path) if row.split != "train"]
    root, names = _find_listed(path, images, rows)
    database = [row for row in rows if row.split != "query"]
    by_label = defaultdict(list)
    for i, row in enumerate(database):
        if row.label and row.split != "distractor":
            by_label[row.label].append(i)
    queries = [row for row in rows if row.split == "query" or (row.split is None and len(by_label[row.label]) > 1)]
    if not queries or not database:
        wanted = "some of each, or without splits a label that two pictures share, are wanted"
        raise ValueError(f"{path} has {len(queries)} queries, {len(database)} database pictures; {wanted}")
    ids = {names[row.file]: i for i, row in enumerate(database)}
    query_ids = [ids.get(names[row.file], -1) for row in queries]
    easy, lonely = [], []
    for row, own in zip(queries, query_ids, strict=True):
        easy.append([i for i in by_label[row.label] if i != own])
        if not easy[-1]:
            lonely.append(f"{row.file} (line {row.line}, label {row.label!r})")
    if lonely and (on_lonely == "raise" or len(lonely) == len(queries)):
        raise ValueError(f"{path}: no database picture has the label of {listed(lonely, 'queries')}")
    none = [[]] * len(queries)
    return Benchmark(
        path.stem if path.stem != "labels" else path.resolve().parent.name,
        root,
        [names[row.file] for row in database],
        [names[row.file] for row in queries],
        easy,
        hard=none,
        junk=none,
        groups=[row.label for row in queries],
        query_ids=query_ids,
    )


def read_training_labels(path: Path | str, images: Path | str | None = None) -> LabelledImages:
    """Training pictures with integer labels 0 … classes − 1: the "train" rows of a CSV, or all if it has no split.

    Rows without a label are left out. Raises as `read_labels` does, and `ValueError` for fewer than two classes.
    """
    path = Path(path)
    rows = [row for row in read_label_rows(path) if row.split in (None, "train") and row.label]
    classes = {label: i for i, label in enumerate(sorted({row.label for row in rows}))}
    if len(classes) < 2:
        raise ValueError(f"{path} has {len(classes)} labels in its training rows; two or more are wanted")
    root, names = _find_listed(path, images, rows)
    return LabelledImages(root, [names[row.file] for row in rows], [classes[row.label] for row in rows])


def _find_listed(path: Path, images: Path | str | None, rows: Sequence[LabelRow]) -> tuple[Path, dict[str, str]]:
    folders = [path.parent, path.parent / "images"] if images is None else [Path(images)]
    spellings = {}
    for row in rows:  # accents may be composed or not
        spellings[row.file] = [row.file, *(unicodedata.normalize(form, row.file) for form in ("NFC", "NFD"))]
    return find_files(path, folders, spellings)


def find_files(
    table: Path, folders: Sequence[Path], spellings: Mapping[str, Sequence[str]]
) -> tuple[Path, dict[str, str]]:
    """The one of `folders` that holds the pictures of a table or ground truth, and the file there of each.

    `spellings`: what each may be called. Raises `FileNotFoundError` with the names of those that are missing,
    `ValueError` where two names lead to one file.
    """
    found = {}
    for folder in folders:
        found[folder] = {
            name: next((file for file in spelled if os.path.isfile(folder / file)), None)
            for name, spelled in spellings.items()
        }
    folder, files = min(found.items(), key=lambda pair: list(pair[1].values()).count(None))
    missing = [name for name, file in files.items() if file is None]
    if missing:
        told = listed(missing, f"of {len(files)} pictures")
        raise FileNotFoundError(f"{told} that {table} lists are not in {folder}; is it another one (--images)?")
    seen: dict[tuple, str] = {}
    for name, file in files.items():
        first = seen.setdefault(file_identity(folder / file), name)
        if files[first] != file:
            raise ValueError(f"{table}: {first} and {name} are one file; list a picture under one name")
    return folder, files


def check_there(folder: Path | str, names: Sequence[str]) -> None:
    """Raise `FileNotFoundError` where any of `names` is not in `folder`."""
    missing = [name for name in names if not os.path.isfile(Path(folder, name))]
    if missing:
        raise FileNotFoundError(f"{listed(missing, f'of {len(names)} pictures')} are not in {folder}")


def listed(names: Sequence[str], what: str) -> str:
    """A count of things with the first of their names, for an error message."""
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{more})"
