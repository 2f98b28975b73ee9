"""Your own photographs: a folder of them, or a CSV that says which show the same thing."""

import csv
import io
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ssr_lib.benchmark import Benchmark, LabelledImages
from ssr_lib.decode import TARGA, ImageError, opened

# Believed unopened; of other names the content decides.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib",
              ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".jpx", ".j2k", ".psd", *TARGA)  # fmt: skip
RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw")  # some hold a small preview
SPLITS = ("query", "db", "distractor", "train")
Rows = list[tuple[str, str, str | None]]  # file, label, split; None where the table has no such column
NAMES_SHOWN = 20  # file names an error message lists
csv.field_size_limit(2**24)  # a landmark of GLDv2 has more pictures than the library's own limit holds


def list_pictures(folder: Path | str) -> tuple[list[str], dict[str, int]]:
    """Names of all pictures below a folder, and how many of its other files are left out for which reason.

    Names are relative to the folder, with "/" between, sorted. Links are followed; a folder or a file that several
    names lead to counts once. Whatever begins with a dot is passed over. Raises `FileNotFoundError` where it holds no
    picture, and what else the system says of a folder that it cannot read.
    """
    folder = Path(folder)
    names, skipped = [], Counter()
    waiting, seen = [folder], {file_identity(folder)}
    while waiting:
        inside = [path for path in waiting.pop().iterdir() if not path.name.startswith(".")]
        for path in sorted(inside, key=lambda path: (path.is_symlink(), path)):  # a link is the second name
            if not path.exists():
                skipped["a link to nothing"] += 1
            elif file_identity(path) in seen:
                skipped[f"another name of a {'folder' if path.is_dir() else 'picture'} that is listed"] += 1
            elif path.is_dir():
                waiting.append(path)
                seen.add(file_identity(path))
            elif reason := _why_not(path):
                skipped[reason] += 1
            else:
                names.append(path.relative_to(folder).as_posix())
                seen.add(file_identity(path))
    if not names:
        left_out = "".join(f"; {count} left out: {reason}" for reason, count in skipped.items())
        raise FileNotFoundError(f"{folder} holds no pictures{left_out}")
    return sorted(names), dict(skipped)


def file_identity(path: Path | str) -> tuple[int, int]:
    """What two names of one file have in common, links included: its device and its number there."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _why_not(path: Path) -> str | None:
    """Why a file is no picture that is read, with its extension; None for one that is."""
    extension = path.suffix.lower()
    if extension in EXTENSIONS and path.is_file():
        return None
    kind = f"({extension or 'no extension'})"
    if extension in RAW:
        return f"a camera's raw data {kind}"
    try:
        with opened(path):
            return None
    except ImageError as error:
        return f"{str(error).removeprefix(f'{path}: ')} {kind}"


def read_labels(path: Path | str, images: Path | str | None = None, *, on_lonely="raise", whole=True) -> Benchmark:
    """A benchmark from a CSV of file, label[, split]: same label, same thing.

    With a split column, "query" rows are queries and "db" rows the database; "distractor" rows join the database
    without a label; "train" rows are left out (`read_training_labels` reads those). Without one, every picture that
    shares its label with another is a query against all others, itself excluded (`query_ids`); an empty label marks a
    distractor. All positives are listed as easy: one list, so that Easy and Medium are the same and Hard is empty.
    Groups are the labels. `images`: folder of the files, by default that of the CSV, or `images` in it.
    A query whose label no database picture has is an error that names it, unless `on_lonely="keep"`: it then has no
    positives, and the metrics leave it out. Raises, or leaves out where not `whole`, as `find_files` does.
    """
    path = Path(path)
    root, rows = _read_rows(path, images, (None, "query", "db", "distractor"), whole)
    database, by_label = [], defaultdict(list)
    for file, label, split in rows:
        if label and split in (None, "db"):
            by_label[label].append(len(database))
        if split != "query":
            database.append(file)
    shared = {label for label, ids in by_label.items() if len(ids) > 1}
    queries = [(file, label) for file, label, split in rows if split == "query" or (split is None and label in shared)]
    if not queries or not database:
        wanted = "some of each, or without splits a label that two pictures share, are wanted"
        raise ValueError(f"{path} has {len(queries)} queries, {len(database)} database pictures; {wanted}")
    ids = {file: i for i, file in enumerate(database)}
    asked, groups = (list(column) for column in zip(*queries, strict=True))
    own = [ids.get(file, -1) for file in asked]
    easy = [[i for i in by_label[label] if i != mine] for label, mine in zip(groups, own, strict=True)]
    lonely = [f"{file}: {label!r}" for (file, label), right in zip(queries, easy, strict=True) if not right]
    if lonely and (on_lonely == "raise" or len(lonely) == len(queries)):
        raise ValueError(f"{path}: no database picture has the label of {listed(lonely, 'queries')}")
    name = path.stem if path.stem != "labels" else path.resolve().parent.name
    none = [[]] * len(queries)
    return Benchmark(name, root, database, asked, easy, none, none, groups=groups, query_ids=own)


def read_training_labels(path: Path | str, images: Path | str | None = None) -> LabelledImages:
    """Training pictures and their classes 0, 1, …: the labelled "train" rows of a CSV, or all if it has no split.

    Raises as `read_labels` does, and `ValueError` for fewer than two classes.
    """
    root, rows = _read_rows(Path(path), images, (None, "train"))
    rows = [(file, label) for file, label, _ in rows if label]
    classes = {label: i for i, label in enumerate(sorted({label for _, label in rows}))}
    if len(classes) < 2:
        raise ValueError(f"{path} has {len(classes)} labels in its training rows; two or more are wanted")
    return LabelledImages(root, [file for file, _ in rows], np.array([classes[label] for _, label in rows]))


def _read_rows(path: Path, images: Path | str | None, splits: Sequence[str | None], whole=True) -> tuple[Path, Rows]:
    """The folder of a table's pictures, and those of its rows that have one of `splits`, with the names found there."""
    rows, seen = [], {}
    for line, record in read_records(path, ("file", "label")):
        where = f"{path}, line {line}"
        file, split = record["file"], record.get("split")
        if not 1 <= len(file) <= 4096:
            raise ValueError(f"{where}: {file[:40]!r}… of {len(file):,} characters is no file name")
        if split not in (None, *SPLITS):
            raise ValueError(f"{where}: split is {split!r}; one of {', '.join(SPLITS)} is wanted")
        first = seen.setdefault((unicodedata.normalize("NFC", file), split), line)
        if first != line:
            raise ValueError(f"{where}: {file} was already listed in line {first}")
        if split in splits:
            rows.append((file, unicodedata.normalize("NFC", record["label"]), split))
    folders = [path.parent, path.parent / "images"] if images is None else [Path(images)]
    forms = ("NFC", "NFD")  # accents may be composed or not
    spellings = {file: [file, *(unicodedata.normalize(form, file) for form in forms)] for file, _, _ in rows}
    root, names = find_files(path, folders, spellings, whole)
    return root, [(names[file], label, split) for file, label, split in rows if file in names]


def read_records(path: Path | str, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The line on which each record of a CSV begins, and its values by column.

    Comma, semicolon or tab between the columns, or what a first line "sep=|" says; further columns are ignored. Raises
    `ValueError` naming the line.
    """
    line, columns = 1, None
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        first = re.match(r"[^\r\n]*", text)[0]
        told = re.fullmatch(r'"?sep=(.)"?\s*', first)
        if told is not None:
            text = text[len(first) :]  # its line is left, and empty
        delimiter = told[1] if told else max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for record in reader:
            values = [value.strip() for value in record]
            if columns is None and any(values):
                columns = [name.lower() for name in values]
                if any(columns.count(name) != 1 for name in wanted) or columns.count("split") > 1:
                    found = f"columns {', '.join(wanted)} are wanted, each once; found {', '.join(values)[:200]!r}"
                    raise ValueError(f"{path}: {found}")
            elif any(values):
                if len(values) != len(columns):
                    raise ValueError(f"{path}, line {line}: {len(values)} values for {len(columns)} columns")
                yield line, dict(zip(columns, values, strict=True))
            line = 1 + reader.line_num
    except (UnicodeDecodeError, csv.Error) as error:
        hint = "is it a CSV in UTF-8, and every quotation mark closed?"
        raise ValueError(f"{path}, from line {line} on: {error}; {hint}") from error


def find_files(table: Path, folders: list, spellings: dict[str, list[str]], whole=True) -> tuple[Path, dict[str, str]]:
    """The one of `folders` that holds the pictures of a table or ground truth, and the file there of each.

    `spellings`: what each may be called. Raises `FileNotFoundError` with the names of those that are missing,
    which are left out where not `whole`, and `ValueError` where two names lead to one file.
    """
    found = {}
    for folder in folders:
        there = {name: (way for way in ways if os.path.isfile(folder / way)) for name, ways in spellings.items()}
        found[folder] = {name: next(ways, None) for name, ways in there.items()}
    folder, files = min(found.items(), key=lambda pair: list(pair[1].values()).count(None))
    if whole and (missing := [name for name, file in files.items() if file is None]):
        told = listed(missing, f"of {len(files)} pictures")
        raise FileNotFoundError(f"{told} that {table} lists are not in {folder}; is it another one (--images)?")
    seen: dict[tuple, str] = {}
    files = {name: file for name, file in files.items() if file is not None}
    for name, file in files.items():
        first = seen.setdefault(file_identity(folder / file), name)
        if files[first] != file:
            raise ValueError(f"{table}: {first} and {name} are one file; list a picture under one name")
    return folder, files


def check_there(folder: Path | str, names: Sequence[str]) -> None:
    """Raise `FileNotFoundError` where any of `names` is not in `folder`."""
    if missing := [name for name in names if not os.path.isfile(Path(folder, name))]:
        raise FileNotFoundError(f"{listed(missing, f'of {len(names)} pictures')} are not in {folder}")


def listed(names: Sequence[str], what: str) -> str:
    """A count of things with the first of their names, for an error message."""
    more = f", and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{more})"
