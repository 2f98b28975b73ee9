"""The lines of a CSV that says which pictures show the same thing."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("query", "db", "distractor", "train")
LONGEST_NAME = 4096  # characters of a path


@dataclass(frozen=True)
class LabelRow:
    """One line of a label file; `split` is None where the file has no such column."""

    line: int
    file: str
    label: str
    split: str | None


def read_label_rows(path: Path | str) -> list[LabelRow]:
    """The lines of a CSV with columns file, label and optionally split, whose values are those of `SPLITS`.

    Comma, semicolon or tab between the columns; further columns are ignored, and a first line "sep=;" is obeyed. Raises
    `ValueError` naming the line.
    """
    path = Path(path)
    records = _records(path)
    _, header = next(records)
    columns = _columns(header)
    twice = [name for name in ("file", "label", "split") if columns.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: {columns.count(twice[0])} columns are called {twice[0]!r}; one is wanted")
    if not {"file", "label"} <= set(columns):
        raise ValueError(
            f"{path}: columns 'file', 'label' and perhaps 'split' are wanted; found {','.join(header)[:200]!r}"
        )
    rows = []
    seen: dict[tuple, int] = {}
    for line, values in records:
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(columns):
            raise ValueError(f"{path}, line {line}: {len(values)} values for {len(columns)} columns")
        row = _row(f"{path}, line {line}", line, dict(zip(columns, values, strict=True)))
        first = seen.setdefault((row.file, row.split), line)
        if first != line:
            raise ValueError(f"{path}, line {line}: {row.file} was already listed in line {first}")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} lists no files")
    return rows


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line on which each record of a CSV begins, and its values; the header comes first."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    stream = io.StringIO(text, newline="")  # line ends inside a field stay what they are
    header = stream.readline()
    told = re.fullmatch(r'"?sep=(.)"?\s*', header)
    stream.seek(len(header) if told else 0)
    read = 1 if told else 0
    marks = [
        mark for mark in ",;\t" if {"file", "label"} <= set(_columns(next(csv.reader([header], delimiter=mark), [])))
    ]
    reader = csv.reader(stream, delimiter=told[1] if told else (*marks, ",")[0], strict=True)
    while True:
        line = read + reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {line}: {error}; is a quotation mark left open there?") from error
        if values is None:
            break
        yield line, values
    if line == read + 1:
        yield line, []  # an empty file has an empty header


def _columns(header: Sequence[str]) -> list[str]:
    return [column.strip().lower() for column in header]


def _row(where: str, line: int, record: dict[str, str]) -> LabelRow:
    file, split = record["file"].strip(), record.get("split")
    if not file:
        raise ValueError(f"{where}: no file name")
    if len(file) > LONGEST_NAME or "\0" in file:
        raise ValueError(f"{where}: {file[:40]!r}… of {len(file):,} characters is no file name")
    if split is not None and split.strip() not in SPLITS:
        raise ValueError(f"{where}: split is {split.strip()!r}; one of {', '.join(SPLITS)} is wanted")
    label = unicodedata.normalize("NFC", record["label"].strip())
    return LabelRow(line, file, label, None if split is None else split.strip())
