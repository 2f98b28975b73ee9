"""Tables of pictures in CSV: which show the same thing."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("query", "db", "distractor", "train")
csv.field_size_limit(2**24)  # a landmark of GLDv2 has more pictures than the library's own limit holds


@dataclass(frozen=True)
class LabelRow:
    """One line of a label file; `split` is None where the file has no such column."""

    line: int
    file: str
    label: str
    split: str | None


def read_label_rows(path: Path | str) -> list[LabelRow]:
    """The lines of a CSV with columns file, label and optionally split, whose values are those of `SPLITS`.

    Raises `ValueError` naming the line.
    """
    rows, seen = [], {}
    for line, record in read_records(path, ("file", "label")):
        where, file, split = f"{path}, line {line}", record["file"], record.get("split")
        if not 1 <= len(file) <= 4096 or "\0" in file:
            raise ValueError(f"{where}: {file[:40]!r}… of {len(file):,} characters is no file name")
        if split is not None and split not in SPLITS:
            raise ValueError(f"{where}: split is {split!r}; one of {', '.join(SPLITS)} is wanted")
        first = seen.setdefault((unicodedata.normalize("NFC", file), split), line)
        if first != line:
            raise ValueError(f"{where}: {file} was already listed in line {first}")
        rows.append(LabelRow(line, file, unicodedata.normalize("NFC", record["label"]), split))
    if not rows:
        raise ValueError(f"{path} lists no files")
    return rows


def read_records(path: Path | str, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The line on which each record of a CSV begins, and its values by column.

    Comma, semicolon or tab between the columns, or what a first line "sep=|" says; further columns are ignored. Raises
    `ValueError` naming the line.
    """
    table = f"a CSV table with columns {', '.join(wanted)} is wanted"
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {table}, saved as UTF-8 ({error.reason} at byte {error.start})") from error
    stream = io.StringIO(text, newline="")  # line ends inside a field stay what they are
    first = stream.readline()
    told = re.fullmatch(r'"?sep=(.)"?\s*', first)
    if told is None:
        stream.seek(0)
    reader = csv.reader(stream, delimiter=told[1] if told else max(",;\t", key=first.count), strict=True)
    begin = line = 2 if told else 1
    columns = None
    try:
        for record in reader:
            values = [value.strip() for value in record]
            if columns is None and any(values):
                columns = [name.lower() for name in values]
                if any(columns.count(name) != 1 for name in wanted) or columns.count("split") > 1:
                    raise ValueError(f"{path}: {table}, each once; found {', '.join(values)[:200]!r}")
            elif any(values):
                if len(values) != len(columns):
                    raise ValueError(f"{path}, line {line}: {len(values)} values for {len(columns)} columns")
                yield line, dict(zip(columns, values, strict=True))
            line = begin + reader.line_num
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}; is a quotation mark left open there?") from error
    if columns is None:
        raise ValueError(f"{path}: {table}; it is empty")
