"""The public data sets that catalogue.yaml lists, and how they become folders this project reads."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from ssr_lib.datasets.folder import EXTENSIONS, check_there, list_pictures
from ssr_lib.datasets.gldv2 import read_clean
from ssr_lib.datasets.revisited import OFFICIAL, read_distractors, read_ground_truth
from ssr_lib.files import write_atomic

Rows = list[tuple[str, str, str]]  # file, label, split


@dataclass(frozen=True)
class Source:
    """One file of a data set."""

    urls: tuple[str, ...]  # the same file, best address first
    checksum: str | None = None  # "sha256:…"
    md5_url: str | None = None  # of a text that begins with the file's MD5

    @property
    def file(self) -> str:
        return self.urls[0].rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A public data set; catalogue.yaml says what the values mean."""

    about: str
    size: str
    kept: float | None
    entries: str
    becomes: str
    sources: tuple[Source, ...]
    labels: str | None = None
    pictures: int | None = None

    def place(self, entry: str, listed: Collection[str] | None = None) -> str | None:
        """Where in the folder an archive's entry belongs; None for what is not used, or not `listed`."""
        path = PurePosixPath(entry)
        found = re.fullmatch(self.entries, path.as_posix())
        if found is None or path.name.startswith(".") or not path.name.lower().endswith(EXTENSIONS):
            return None
        name = found.expand(self.becomes)
        return name if listed is None or name in listed else None

    def rows(self, folder: Path) -> Rows:
        """File, label and split of its pictures. Raises `ValueError` where they are not as many as published."""
        if self.labels == "landmarks":
            files, landmarks = read_clean(folder / "train_clean.csv")
            rows = [(f"jpg/{file}", str(label), "train") for file, label in zip(files, landmarks, strict=True)]
        elif self.labels == "none":
            rows = [(file, "", "distractor") for file in read_distractors(folder)]
        elif self.labels == "numbers":  # without its last two digits the scene; 00 is the query
            names = sorted(path.name for path in (folder / "jpg").iterdir() if path.stem.isdecimal())
            rows = [(f"jpg/{name}", f"scene-{name[:-6]}", "query" if name[-6:-4] == "00" else "db") for name in names]
        else:
            files = [PurePosixPath("images", name) for name in list_pictures(folder / "images")[0]]
            rows = [(str(file), file.parent.name, "train") for file in files]
        if self.pictures not in (None, len(rows)):
            raise ValueError(f"{folder} has, or lists, {len(rows):,} pictures; {self.pictures:,} are published")
        return rows

    def finish(self, folder: Path) -> None:
        """Check that all pictures are in `folder`, and write labels.csv, or the ground truth as JSON, beside them."""
        if self.labels is None:
            benchmark = read_ground_truth(folder / f"gnd_{folder.name}.pkl", folder)
            benchmark.save(folder / f"{folder.name}.json")  # for whoever reads no pickles
            return
        rows = self.rows(folder)
        check_there(folder, [file for file, _, _ in rows])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("file", "label", "split"), *rows])
        write_atomic(folder / "labels.csv", text.getvalue())


def _data_set(name: str, record: dict) -> DataSet:
    sources = []
    for file in record.pop("files"):
        checksum = f"sha256:{OFFICIAL[name]}" if file["urls"][0].endswith(".pkl") else None
        for number in range(*file.get("numbers", [1])):
            urls = tuple(url.format(number) for url in file["urls"])
            sources.append(Source(urls, checksum, file["md5"].format(number) if "md5" in file else None))
    return DataSet(**record, sources=tuple(sources))


_RECORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
DATA_SETS: dict[str, DataSet] = {name: _data_set(name, record) for name, record in _RECORDS.items()}
