"""A public data set by name: downloaded, verified, unpacked, labelled, checked. Nothing is fetched unless asked for.

A download that breaks off begins again with its file; what is whole is not fetched twice. Without a network each file
may be put into the data set's folder by hand.
"""

from __future__ import annotations

import errno
import functools
import json
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from ssr_lib.datasets.catalogue import DATA_SETS, Source
from ssr_lib.datasets.ground_truth import stays_inside
from ssr_lib.files import locked, read_json, write_atomic

ROUNDS = 3  # times that every address is asked before a file is given up
WAIT = 2.0  # seconds after an address that gave nothing
TIMEOUT = 60.0  # seconds without a byte
BOMB = 10  # an archive that would unpack to more than this multiple of itself and 1 GB is refused
ARCHIVES = (".tar", ".tar.gz", ".tgz")


def fetch(
    name: str, to: Path | str = "data", *, progress: bool = True, tell: Callable[[str], object] | None = None
) -> Path:
    """The folder `to`/`name` with the data set in it.

    `tell` is called with one line that says what it costs, before it begins. An interrupted call goes on with the file
    where it stopped. A file put there by hand is used if it is the published one. Archives are deleted when they are
    unpacked. Raises `ValueError` for an unknown name, a wrong or damaged file, or a list of another length than the
    published one, `ConnectionError` where no address gives a file, `FileNotFoundError` where pictures are missing in
    the end, `OSError` for a full disk or a file in the folder's place, `FolderBusyError` where another run is at work.
    """
    if name not in DATA_SETS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(DATA_SETS)}")
    data_set, folder = DATA_SETS[name], Path(to) / name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for left in folder.glob("tmp????????"):  # of a download that was killed
            left.unlink()
        state_file = folder / "unpacked.json"  # archive → number of files it gave
        unpacked = read_json(state_file) or {}
        free = shutil.disk_usage(folder).free / 1e9
        kept = "as much" if data_set.kept is None else f"{data_set.kept:,g} GB"
        cost = f"about {data_set.size} to download, {kept} on disk afterwards; {free:,.1f} GB are free in {to}"
        if tell is not None:
            tell(f"{data_set.about}: {cost}")
        if not unpacked and (data_set.kept or 0) > free:
            raise OSError(errno.ENOSPC, f"{name}: {cost}", str(folder))
        listed = None
        for source in data_set.sources:
            if source.file in unpacked:
                continue
            path = bring(source, folder, progress)
            try:
                if path.name.endswith(ARCHIVES):
                    unpacked[path.name] = unpack(path, folder, functools.partial(data_set.place, listed=listed))
                elif data_set.labels is not None:
                    listed = {file for file, _, _ in data_set.rows(folder)}
            except ValueError as error:
                aside = path.rename(f"{path}.refused")
                came = f"it came from {source.urls[0]} or by hand, and is now {aside.name}"
                raise ValueError(f"{error}; {came}: run the same again") from error
            if path.name in unpacked:
                write_atomic(state_file, json.dumps(unpacked, indent=1) + "\n")
                path.unlink()
        try:
            data_set.finish(folder)
        except (FileNotFoundError, ValueError) as error:
            raise FileNotFoundError(f"{error}; delete {state_file} to have the archives fetched again") from error
    return folder


def bring(source: Source, folder: Path, progress: bool = True) -> Path:
    """The file of `source` in `folder`, from the first address that gives it whole, unless it is there already.

    It gets its name when its checksum is right. Raises `ConnectionError` where no address gives it.
    """
    pooch.get_logger().setLevel("WARNING")  # it tells of every file
    load = pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 20, timeout=TIMEOUT)
    checksum, problems = source.checksum, {}
    for url in source.urls * ROUNDS:
        try:
            if source.md5_url is not None:
                answer = requests.get(source.md5_url, timeout=TIMEOUT)
                answer.raise_for_status()
                checksum = f"md5:{answer.text[:32]}"
            return Path(pooch.retrieve(url, checksum, source.file, folder, downloader=load))
        except (requests.RequestException, ValueError) as error:  # not reached, not there, cut short, or another file
            problems[url] = str(error).partition(". Deleted")[0]
        time.sleep(WAIT)
    told = "; ".join(f"{url}: {problem}" for url, problem in problems.items())
    wanted = f"Fetch it ({checksum or 'no checksum is published'}) by other means, put it at {folder / source.file}"
    raise ConnectionError(f"{told}. {wanted}, and run the same again")


def unpack(archive: Path, folder: Path, place: Callable[[str], str | None]) -> int:
    """Write the wanted files of a .tar, .tar.gz or .tgz below `folder`; return how many.

    `place`: an entry's path → its name in `folder`, or None to leave it out. Raises `ValueError` naming the archive
    where it is damaged, cut off, or holds a link, a device, a way out of the folder, or more than it should.
    """
    names: set[str] = set()
    left = BOMB * archive.stat().st_size + 10**9  # bytes
    try:
        with tarfile.open(archive) as tar:
            for entry in tar:
                left -= entry.size
                if left < 0:
                    raise ValueError(f"more than {BOMB} times its size would be unpacked; it is refused as a bomb")
                if entry.isdir():
                    continue
                if not stays_inside(entry.name) or "\\" in entry.name or ":" in entry.name.partition("/")[0]:
                    raise ValueError(f"entry {entry.name!r} would leave the folder")
                if not entry.isreg():
                    raise ValueError(f"entry {entry.name!r} is a link or a device; only files are unpacked")
                name = place(entry.name)
                if name is None:
                    continue
                if name in names:
                    raise ValueError(f"two entries would become {name}")
                names.add(name)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(entry) as packed, open(folder / name, "wb") as file:
                    shutil.copyfileobj(packed, file)
            if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:  # the block that marks the end
                raise ValueError("it ends early")
            while tar.fileobj.read(1 << 20):  # to the end, where the compression's checksum is
                pass
    except Exception as error:  # damaged archives raise all kinds: TarError, zlib.error, EOFError
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:  # a full disk has a number
            raise
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{archive} is refused: it is no archive, damaged or dangerous ({reason})") from error
    return len(names)
