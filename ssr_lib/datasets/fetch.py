"""A public data set by name: downloaded, verified, unpacked, labelled, checked. Nothing is fetched unless asked for.

A download that breaks off begins again with its file; what is whole is not fetched twice. Without a network each file
may be put into the data set's folder by hand.
"""

import json
import re
import shutil
import tarfile
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pooch
import requests
import yaml

from ssr_lib.datasets.folder import check_there
from ssr_lib.datasets.gldv2 import read_clean
from ssr_lib.datasets.revisited import OFFICIAL, read_ground_truth
from ssr_lib.files import locked, one_line, write_atomic

GLDV2 = "google-landmarks-v2-clean"  # also called gldv2
ROUNDS = 3  # times that every address is asked before a file is given up
WAIT = 2.0  # seconds after an address that gave nothing
TIMEOUT = 60.0  # seconds without a byte
BOMB = 10  # an archive that would unpack to more than this multiple of itself and 1 GB is refused


@dataclass(frozen=True)
class Source:
    """One file of a data set."""

    file: str
    urls: tuple[str, ...]  # best address first
    checksum: str | None = None  # "sha256:…"
    md5_url: str | None = None  # of a text that begins with the file's MD5


def _sources(name: str, files: list[dict]) -> Iterator[Source]:
    for file in files:
        checksum = f"sha256:{OFFICIAL[name]}" if file["urls"][0].endswith(".pkl") else None
        for number in range(*file.get("numbers", [1])):
            urls = tuple(url.format(number) for url in file["urls"])
            md5_url = file["md5"].format(number) if "md5" in file else None
            yield Source(urls[0].rpartition("/")[2], urls, checksum, md5_url)


_RECORDS = yaml.safe_load(Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8"))
# Each with the keys that catalogue.yaml explains, and its sources.
DATA_SETS = {name: record | {"sources": [*_sources(name, record["files"])]} for name, record in _RECORDS.items()}


def fetch(
    name: str, to: Path | str = "data", *, shards: str | Iterable[int] | None = None, progress: bool = True, tell=None
) -> Path:
    """The folder `to`/`name` with the data set in it.

    `shards`: of Google Landmarks the archives that are wanted, as "0-4,7" or by their numbers; labels.csv then lists
    what these hold. `tell` is called with one line that says what it costs, before it begins. An interrupted call goes
    on with the file where it stopped. A file put there by hand is used if its checksum, where one is known, is right.
    Raises `ValueError` for a name or shards that there are not and for a wrong file, `ConnectionError` where no address
    gives one, `FileNotFoundError` where pictures are missing in the end, `FolderBusyError`, `OSError`.
    """
    name = GLDV2 if name == "gldv2" else name
    if name not in DATA_SETS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(DATA_SETS)}")
    data_set, folder = DATA_SETS[name], Path(to) / name
    sources = data_set["sources"] if shards is None else _chosen(name, shards)
    with locked(folder):
        for left in folder.glob("tmp????????"):  # of a download that was killed
            left.unlink()
        unpacked = folder / "unpacked"  # for each archive a list of the files that it gave
        total, free = len(data_set["sources"]), shutil.disk_usage(folder).free / 1e9
        cost = f"{len(sources)} of {total} files, all together about {data_set['size']} to download"
        cost += f" and {data_set['kept'] or '?'} GB on disk afterwards; {free:,.1f} GB are free in {to}"
        if tell is not None:
            tell(f"{data_set['about']}: {cost}")
        if not unpacked.exists() and data_set["kept"] * len(sources) / total > free:
            raise OSError(f"{name}: {cost}")
        files, landmarks = [], None
        for source in sources:
            record = unpacked / f"{source.file}.json"
            with suppress(FileNotFoundError, ValueError):  # a record that a full disk has cut off counts for nothing
                if given := json.loads(record.read_bytes()):
                    files += given
                    continue
            path = bring(source, folder, progress)
            if source.file == "train_clean.csv":
                listed, labels = read_clean(path)
                if len(listed) != data_set["pictures"]:
                    told = f"{path} lists {len(listed):,} pictures; {data_set['pictures']:,} are published"
                    raise ValueError(f"{told}; delete it and try again")
                landmarks = {f"jpg/{file}": label for file, label in zip(listed, labels.tolist(), strict=True)}
            elif source.file.endswith((".tar", ".tar.gz", ".tgz")):
                write_atomic(record, json.dumps(given := unpack(path, folder, data_set["entries"], landmarks)))
                path.unlink()
                files += given
        try:
            check_there(folder, files)
            published = data_set.get("pictures", len(files))
            if shards is None and published != len(files):
                raise ValueError(f"{folder} has {len(files):,} pictures; {published:,} are published")
            _describe(data_set, folder, sorted(files), landmarks)
        except (FileNotFoundError, ValueError) as error:
            raise FileNotFoundError(f"{error}; delete {unpacked} to have the archives fetched again") from error
    return folder


def _chosen(name: str, shards: str | Iterable[int]) -> list[Source]:
    """The list of Google Landmarks, and those of its archives that are wanted."""
    if name != GLDV2:
        raise ValueError(f"{name} has no shards to choose from; gldv2 has")
    table, *archives = DATA_SETS[name]["sources"]
    text, numbers = shards if isinstance(shards, str) else ",".join(map(str, shards)), set()
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        asked = range(int(found[1]), int(found[2] or found[1]) + 1) if found else ()
        if not asked or asked[-1] >= len(archives):
            raise ValueError(f"shards {text!r}: numbers from 0 to {len(archives) - 1} are wanted, as 0-4 or 0,3,7")
        numbers.update(asked)
    return [table, *(archives[i] for i in sorted(numbers))]


def bring(source: Source, folder: Path, progress: bool = True) -> Path:
    """The file of `source` in `folder`, from the first address that gives it whole, unless it is there already.

    It gets its name when its checksum is right; `md5_url` is asked once. Raises `ConnectionError` where none gives it.
    """
    pooch.get_logger().setLevel("WARNING")  # it tells of every file
    load = pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 20, timeout=TIMEOUT)
    checksum, problem = source.checksum, ""
    for url in source.urls * ROUNDS:
        try:
            if source.md5_url is not None and not (folder / source.file).exists():
                answer = requests.get(source.md5_url, timeout=TIMEOUT)
                answer.raise_for_status()
                checksum = f"md5:{answer.text[:32]}"
            return Path(pooch.retrieve(url, checksum, source.file, folder, downloader=load))
        except (requests.RequestException, ValueError) as error:  # not reached, not there, cut short, or another file
            problem = str(error).partition(". Deleted")[0]
        time.sleep(WAIT)
    wanted = f"Fetch it ({checksum or 'no checksum is published'}) by other means, put it at {folder / source.file}"
    there = ", where another file is now" if (folder / source.file).exists() else ""
    raise ConnectionError(f"{url}: {problem}. {wanted}{there}, and run the same again")


def unpack(archive: Path, folder: Path, entries: str, listed: Collection[str] | None = None) -> list[str]:
    """Write the wanted files of an archive below `folder`/jpg; return their names in `folder`.

    `entries`: a regular expression of their paths, whose group is the name below jpg; `listed`: names that are wanted
    of them. Links and devices are left out. Raises `ValueError` naming the archive where it is damaged or dangerous.
    """
    names, left = [], BOMB * archive.stat().st_size + 10**9  # bytes
    told = f"{archive} is damaged, dangerous or no archive; delete it and try again"
    with one_line(told), tarfile.open(archive) as tar:
        for entry in tar:
            found = re.fullmatch(entries, PurePosixPath(entry.name).as_posix())
            if found is None or not entry.isreg() or (listed is not None and f"jpg/{found[1]}" not in listed):
                continue
            left -= entry.size
            if left < 0:
                raise ValueError(f"more than {BOMB} times its size would be unpacked; it is refused as a bomb")
            tar.extract(entry.replace(name=found[1]), folder / "jpg", set_attrs=False, filter="data")
            names.append(f"jpg/{found[1]}")
        while tar.fileobj.read(1 << 20):  # to the end, where the compression's checksum is
            pass
    return names


def _describe(data_set: dict, folder: Path, files: list[str], landmarks: dict[str, int] | None) -> None:
    """Write labels.csv, or the ground truth as JSON for whoever reads no pickles, beside the pictures."""
    for path in folder.glob("gnd_*.pkl"):
        read_ground_truth(path, folder).save(folder / f"{folder.name}.json")
    table = pd.DataFrame({"file": files, "label": None, "split": "train"})
    if landmarks is not None:
        table["label"] = table["file"].map(landmarks)
    elif "label" in data_set:
        table["label"] = table["file"].str.extract(data_set["label"])
    if "query" in data_set:
        table["split"] = np.where(table["file"].str.fullmatch(data_set["query"]), "query", "db")
    if table["label"].notna().any():
        write_atomic(folder / "labels.csv", table.to_csv(index=False, lineterminator="\n"))
