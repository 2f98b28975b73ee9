"""Your own photographs: a folder of them, or a CSV that says which show the same thing."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ssr_lib.benchmark import Benchmark, LabelledImages
from ssr_lib.datasets.table import LabelRow, read_label_rows
from ssr_lib.decode import TARGA, ImageError, declared_sizes

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
    skipped: Counter[str] = Counter()
    names, seen = [], set()
    for path in sorted(_walk(folder, skipped), key=lambda path: (path.is_symlink(), path)):  # a link is the second name
        reason = _why_not(path)
        if reason is None and file_identity(path) in seen:
            reason = "another name of a picture that is listed"
        if reason is None:
            seen.add(file_identity(path))
            names.append(path.relative_to(folder).as_posix())
        else:
            skipped[reason] += 1
    if not names:
        left_out = "".join(f"; {count} left out: {reason}" for reason, count in skipped.items())
        raise FileNotFoundError(f"{folder} holds no pictures{left_out}")
    return sorted(names), dict(skipped)


def file_identity(path: Path | str) -> tuple[int, int]:
    """What two names of one file have in common, links included: its device and its number there."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _walk(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """All files below a folder whose names begin with no dot; each folder once, however many links lead to it."""

    def fail(error: OSError) -> None:
        raise error

    entered = {file_identity(folder)}
    for inside, subfolders, files in os.walk(folder, onerror=fail, followlinks=True):
        found = [name for name in subfolders if not name.startswith(".")]
        subfolders.clear()
        for name in sorted(found, key=lambda name: (os.path.islink(os.path.join(inside, name)), name)):
            identity = file_identity(os.path.join(inside, name))
            if identity in entered:
                skipped["a link to a folder that is listed"] += 1
            else:
                entered.add(identity)
                subfolders.append(name)
        yield from (Path(inside, name) for name in files if not name.startswith("."))


def _why_not(path: Path) -> str | None:
    """Why a file is no picture to be read, with its extension, and None for one that is."""
    extension = path.suffix.lower()
    kind = f"({extension})" if extension else "(no extension)"
    if path.is_symlink() and not path.exists():
        return "a link to nothing"
    if extension in RAW:
        return f"a camera's raw data {kind}"
    if extension in EXTENSIONS and path.is_file():
        return None
    try:
        declared_sizes(path)
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
    positives, and the metrics leave it out. Raises `FileNotFoundError` with the names of all files that are missing,
    `ValueError` where one file is listed under two names.
    """
    if on_lonely not in ("raise", "keep"):
        raise ValueError(f"on_lonely is {on_lonely!r}; 'raise' or 'keep' is wanted")
    path = Path(path)
    rows = [row for row in read_label_rows(path) if row.split != "train"]
    root, names = _find_files(path, images, rows)
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
    ids = {names[row.file]: i for i, row in enumerate(database)}
    query_ids = [ids.get(names[row.file], -1) for row in queries]
    by_label: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        if label:  # a distractor is right for no query
            by_label.setdefault(label, []).append(i)
    easy = []
    for row, own in zip(queries, query_ids, strict=True):
        easy.append([i for i in by_label.get(row.label, []) if i != own])
    lonely = [row for row, positives in zip(queries, easy, strict=True) if not positives]
    if lonely and (on_lonely == "raise" or len(lonely) == len(queries)):
        shown = [f"{row.file} (line {row.line}, label {row.label!r})" for row in lonely]
        raise ValueError(f"{path}: no database picture has the label of {listed(shown, 'queries')}")
    return Benchmark(
        name=path.stem if path.stem != "labels" else path.resolve().parent.name,
        root=root,
        database=[names[row.file] for row in database],
        queries=[names[row.file] for row in queries],
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
    path = Path(path)
    rows = [row for row in read_label_rows(path) if row.split in (None, "train") and row.label]
    classes = {label: i for i, label in enumerate(sorted({row.label for row in rows}))}
    if len(classes) < 2:
        raise ValueError(f"{path} has {len(classes)} labels in its training rows; two or more are wanted")
    root, names = _find_files(path, images, rows)
    labels = np.array([classes[row.label] for row in rows], dtype=np.int64)
    return LabelledImages(root, [names[row.file] for row in rows], labels)


def _find_files(path: Path, images: Path | str | None, rows: Sequence[LabelRow]) -> tuple[Path, dict[str, str]]:
    """The folder that holds all files of a table, and each one's name there: accents may be composed or not.

    Raises `FileNotFoundError` naming those missing where it is fullest, `ValueError` where two names are one file.
    """
    folders = [path.parent, path.parent / "images"] if images is None else [Path(images)]
    found = {}
    for folder in folders:
        found[folder] = {row.file: _on_disk(folder, row.file) for row in rows}
    folder = min(folders, key=lambda folder: list(found[folder].values()).count(None))
    missing = [file for file, name in found[folder].items() if name is None]
    if missing:
        raise FileNotFoundError(
            f"{listed(missing, f'of the {len(found[folder])} files')} that {path} lists are not in {folder}; "
            "name the folder of the pictures (--images), or take the lines out"
        )
    seen: dict[tuple, LabelRow] = {}
    for row in rows:
        first = seen.setdefault(file_identity(folder / found[folder][row.file]), row)
        if found[folder][first.file] != found[folder][row.file] or (first.split == row.split and first is not row):
            raise ValueError(
                f"{path}: {first.file} (line {first.line}) and {row.file} (line {row.line}) are one file; "
                "list a picture once, or under one name where it is both query and database"
            )
    return folder, found[folder]


def _on_disk(folder: Path, file: str) -> str | None:
    for name in (file, unicodedata.normalize("NFC", file), unicodedata.normalize("NFD", file)):
        if os.path.isfile(folder / name):
            return name
    return None


def listed(names: Sequence[str], what: str) -> str:
    """A count of things with the first of their names, for an error message."""
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{more})"
