"""The public data sets: where they are, how large, and how they become folders this project reads.

Nothing of them is handed on: the pictures belong to others (see data/README.md).
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ssr_lib.datasets.folder import EXTENSIONS, list_pictures
from ssr_lib.datasets.gldv2 import read_clean
from ssr_lib.datasets.revisited import OFFICIAL, check_distractors, read_distractors, read_ground_truth
from ssr_lib.files import write_atomic

N_DISTRACTORS = 1_001_001  # as published; a list with fewer was cut off
N_LANDMARKS = 81_313


@dataclass(frozen=True)
class Source:
    """One file of a data set."""

    urls: tuple[str, ...]  # the same file, best address first
    archive: bool = False  # to be unpacked
    sha256: str | None = None
    md5_url: str | None = None  # of a text that begins with the file's MD5
    check: Callable[[Path], object] | None = None  # reads a text without published checksum; raises for another one

    @property
    def file(self) -> str:
        return self.urls[0].rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A public data set; sizes in GB, None where the source does not tell them: several hundred."""

    about: str
    gigabytes: float | None  # to download, about
    kept: float | None  # on disk afterwards
    sources: tuple[Source, ...]
    place: Callable[[PurePosixPath, Path], str | None]  # archive's entry, folder → its name there; None: left out
    finish: Callable[[Path], None]  # what to do in the folder when all is there; raises where something is missing

    @property
    def size(self) -> str:
        return "several hundred GB" if self.gigabytes is None else f"{self.gigabytes:g} GB"

    def announcement(self, folder: Path) -> str:
        """What a fetch costs, said before it begins: download, disk that is wanted, disk that is free."""
        kept = "as much" if self.kept is None else f"{self.kept:g} GB"
        free = shutil.disk_usage(folder).free / 1e9
        cost = f"about {self.size} to download, {kept} on disk afterwards, more while an archive is unpacked"
        return f"{self.about}: {cost}; {free:,.0f} GB are free in {folder}"


# ---- what becomes of an archive's entries


def _flat(path: PurePosixPath, _: Path) -> str | None:
    """Pictures of any subfolder side by side in jpg/: names are unique, and the ground truth knows no folders."""
    return f"jpg/{path.name}" if _is_picture(path) else None


def _below_jpg(path: PurePosixPath, _: Path) -> str | None:
    return f"jpg/{path}" if _is_picture(path) else None


def _clean(path: PurePosixPath, folder: Path) -> str | None:
    return f"jpg/{path}" if path.stem in _clean_ids(folder / "train_clean.csv") else None


@lru_cache(maxsize=1)  # for 500 archives
def _clean_ids(table: Path) -> set[str]:
    return {Path(file).stem for file in read_clean(table)[0]}


def _grocery(path: PurePosixPath, _: Path) -> str | None:
    """GroceryStoreDataset-…/dataset/train/Fruit/Apple/Golden-Delicious/x.jpg → images/train/Fruit/…/x.jpg."""
    used = path.parts[1:3] in (("dataset", "train"), ("dataset", "val")) and _is_picture(path)
    return PurePosixPath("images", *path.parts[2:]).as_posix() if used else None


def _is_picture(path: PurePosixPath) -> bool:
    return path.name.lower().endswith(EXTENSIONS) and not path.name.startswith(".")


# ---- what is done when all is there


def _store_ground_truth(folder: Path) -> None:
    """Check a set's ground truth against its pictures and store it as JSON, for whoever reads no pickles."""
    read_ground_truth(folder / f"gnd_{folder.name}.pkl", folder).save(folder / f"{folder.name}.json")


def _check_list(path: Path) -> None:
    _check_count(path, len(read_distractors(path.parent)), N_DISTRACTORS, "distractors")


def _check_clean(path: Path) -> None:
    _check_count(path, len(set(read_clean(path)[1])), N_LANDMARKS, "landmarks")


def _check_count(path: Path, found: int, published: int, what: str) -> None:
    if found != published:
        raise ValueError(f"{path} has {found:,} {what}; {published:,} are published")


def _check_distractors(folder: Path) -> None:
    check_distractors(folder, read_distractors(folder))


def _label_holidays(folder: Path) -> None:
    """INRIA's convention: the number without its last two digits is the scene; 00 is the query."""
    names = sorted(path.name for path in (folder / "jpg").iterdir() if path.stem.isdecimal())
    if len(names) != 1491:
        raise FileNotFoundError(f"{folder / 'jpg'} holds {len(names)} numbered pictures; INRIA Holidays has 1,491")
    _write_labels(folder, [(f"jpg/{n}", f"scene-{n[:-6]}", "query" if n[-6:-4] == "00" else "db") for n in names])


def _label_grocery(folder: Path) -> None:
    """The folder of a picture is its fine-grained class; all are for training."""
    files = [Path("images", name) for name in list_pictures(folder / "images")[0]]
    _write_labels(folder, [(file.as_posix(), file.parent.name, "train") for file in files])


def _label_landmarks(folder: Path) -> None:
    files, landmarks = read_clean(folder / "train_clean.csv")
    missing = sum(not (folder / "jpg" / file).is_file() for file in files)
    if missing:
        told = f"{missing:,} of {len(files):,} pictures of train_clean.csv"
        raise FileNotFoundError(f"{told} are not in {folder / 'jpg'}")
    _write_labels(folder, [(f"jpg/{file}", id, "train") for file, id in zip(files, landmarks, strict=True)])


def _write_labels(folder: Path, rows: list[tuple]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "label", "split"), *rows])
    write_atomic(folder / "labels.csv", text.getvalue())


# ---- where they are

_VGG = ("https://www.robots.ox.ac.uk/~vgg/data/", "https://thor.robots.ox.ac.uk/")
_CTU = ("http://cmp.felk.cvut.cz/revisitop/data/datasets/", "https://cmp.felk.cvut.cz/revisitop/data/datasets/")
_PTAK = "http://ptak.felk.cvut.cz/revisitop/revisitop1m/"
_GLD = "https://s3.amazonaws.com/google-landmark/"
_INRIA = "http://pascal.inrialpes.fr/data/holidays/"
_GROCERY = "https://github.com/marcusklasson/GroceryStoreDataset/archive/fc80ba90f803d79d0383df52c5a4ac5de99ff6fc.zip"


def _revisited(name: str, archives: tuple[str, ...], folder: str) -> tuple[Source, ...]:
    sha256 = next(official.sha256 for official in OFFICIAL if official.name == name)
    pictures = (Source(tuple(f"{host}{folder}/{a}" for host in _VGG), archive=True) for a in archives)
    return (Source(tuple(f"{host}{name}/gnd_{name}.pkl" for host in _CTU), sha256=sha256), *pictures)


def _landmarks(i: int) -> Source:
    md5 = f"{_GLD}md5sum/train/md5.images_{i:03d}.txt"
    return Source((f"{_GLD}train/images_{i:03d}.tar",), archive=True, md5_url=md5)


DATA_SETS: dict[str, DataSet] = {
    "roxford5k": DataSet(
        "Oxford buildings, revisited: 70 queries, 4,993 pictures (faces blurred by the owners)", 1.9, 1.9,
        _revisited("roxford5k", ("oxbuild_images-v1.tgz",), "oxbuildings"), _flat, _store_ground_truth,
    ),
    "rparis6k": DataSet(
        "Paris buildings, revisited: 70 queries, 6,322 pictures (faces blurred by the owners)", 2.5, 2.5,
        _revisited("rparis6k", ("paris_1-v1.tgz", "paris_2-v1.tgz"), "parisbuildings"), _flat, _store_ground_truth,
    ),
    "revisitop1m": DataSet(
        "1,001,001 distractors for both", None, None,
        (Source((f"{_PTAK}revisitop1m.txt",), check=_check_list),
         *(Source((f"{_PTAK}jpg/revisitop1m.{i}.tar.gz",), archive=True) for i in range(1, 101))),
        _below_jpg, _check_distractors,
    ),
    "google-landmarks-v2-clean": DataSet(
        "training pictures of landmarks; of 4.1 million those that train_clean.csv lists are kept", 500, 190,
        (Source((f"{_GLD}metadata/train_clean.csv",), check=_check_clean), *map(_landmarks, range(500))),
        _clean, _label_landmarks,
    ),
    "holidays": DataSet(
        "INRIA Holidays: 500 queries, 991 pictures", 2.8, 2.8,
        tuple(Source((f"{_INRIA}jpg{i}.tar.gz",), archive=True) for i in (1, 2)), _flat, _label_holidays,
    ),
    "grocery": DataSet(
        "GroceryStoreDataset: 81 fine-grained classes, for training", 0.1, 0.1,
        (Source((_GROCERY,), archive=True),), _grocery, _label_grocery,
    ),
}  # fmt: skip
