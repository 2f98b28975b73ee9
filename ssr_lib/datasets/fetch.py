"""A public data set by name: downloaded, verified, unpacked, labelled, checked. Nothing is fetched unless asked for.

A download that breaks off begins again with its file; what is whole is not fetched twice. Without a network each file
may be put into the data set's folder by hand.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pooch
import requests

from ssr_lib.datasets.catalogue import DATA_SETS, DataSet, Source
from ssr_lib.datasets.ground_truth import stays_inside
from ssr_lib.files import hash_file, locked, read_json, write_atomic

ROUNDS = 3  # times that every address is asked before a file is given up
WAIT = 2.0  # seconds after an address that gave nothing
TIMEOUT = 60.0  # seconds without a byte
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)  # what archives raise
BOMB = 10  # an archive that would unpack to more than this multiple of itself and 1 GB is refused


class TransferError(OSError):
    """A file that could not be had from any of its addresses; the message says how to go on by hand."""


def fetch(name: str, to: Path | str = "data", *, progress: bool = True) -> Path:
    """The folder `to`/`name` with the data set in it.

    An interrupted call goes on with the file where it stopped. A file put there by hand is verified and used. Archives
    are deleted when they are unpacked. Raises `ValueError` for an unknown name and for a wrong or damaged file,
    `TransferError` where the network does not give one, `FileNotFoundError` where pictures are missing in the end,
    `OSError` for a full disk, `FolderBusyError` where another run is at work.
    """
    if name not in DATA_SETS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(DATA_SETS)}")
    data_set, folder = DATA_SETS[name], Path(to) / name
    with locked(folder):
        for left in folder.glob("tmp????????"):  # of a download that was killed
            left.unlink()
        state_file = folder / "unpacked.json"  # archive → number of files it gave
        unpacked = read_json(state_file) or {}
        if not unpacked and data_set.kept is not None:
            there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            needed = data_set.kept - there / 1e9
            free = shutil.disk_usage(folder).free / 1e9
            if needed > free:
                told = f"{name} needs about {needed:,.1f} GB more of disk, {free:,.1f} GB are free"
                raise OSError(errno.ENOSPC, f"{told}; make room or choose another folder", str(folder))
        for source in data_set.sources:
            if source.file not in unpacked:
                path = bring(source, folder, progress)
                given = _used(path, source, data_set)
                if source.archive:
                    unpacked[source.file] = given
                    write_atomic(state_file, json.dumps(unpacked, indent=1) + "\n")
                    path.unlink()
        try:
            data_set.finish(folder)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; delete {state_file} to have the archives fetched again") from error
    return folder


def _used(path: Path, source: Source, data_set: DataSet) -> int | None:
    """Check a text, or unpack an archive and return how many files it gave; a wrong file is set aside."""
    try:
        if source.check is not None:
            source.check(path)
        return unpack(path, path.parent, data_set.place) if source.archive else None
    except ValueError as error:
        aside = path.rename(f"{path}.refused")
        came = f"it came from {source.urls[0]} or by hand, and is now {aside.name}"
        raise ValueError(f"{error}; {came}: run the same again") from error


def bring(source: Source, folder: Path, progress: bool = True) -> Path:
    """The file of `source` in `folder`, from the first address that gives it whole, unless it is there already.

    It gets its name when its checksum is right. Raises `TransferError` where no address gives it, `ValueError` where
    a file put there by hand is another one.
    """
    path, known = folder / source.file, _known_hash(source, folder)
    if path.is_file():
        algorithm, _, wanted = (known or "").partition(":")
        if wanted and hash_file(path, algorithm) != wanted:
            raise ValueError(f"{path} has not the published {algorithm.upper()} {wanted}; delete it")
        return path
    pooch.get_logger().setLevel("WARNING")  # it tells of every file
    load = pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 20, timeout=TIMEOUT)
    problems = {}
    for url in source.urls * ROUNDS:
        try:
            return Path(pooch.retrieve(url, known, source.file, folder, downloader=load))
        except requests.ConnectionError:
            problems[url] = "cannot be reached, or broke off"
        except (requests.RequestException, ValueError) as error:  # not there, cut short, or another file
            problems[url] = str(error).partition(". Deleted")[0]
        time.sleep(WAIT)
    told = "; ".join(f"{url}: {problem}" for url, problem in problems.items())
    raise TransferError(f"{told}. Fetch it by other means, put it at {path}, and run the same again")


def _known_hash(source: Source, folder: Path) -> str | None:
    if source.md5_url is None:
        return None if source.sha256 is None else f"sha256:{source.sha256}"
    (folder / "md5").mkdir(exist_ok=True)
    text = bring(Source((source.md5_url,)), folder / "md5", progress=False)
    found = re.match(r"[0-9a-fA-F]{32}\b", text.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        text.unlink()
        raise ValueError(f"{source.md5_url} gave no MD5 checksum; run the same again to ask anew")
    return f"md5:{found[0].lower()}"


def unpack(archive: Path, folder: Path, place: Callable[[PurePosixPath, Path], str | None]) -> int:
    """Write the wanted files of a .zip, .tar, .tar.gz or .tgz below `folder`; return how many.

    `place`: an entry's path and `folder` → its name there, or None to leave it out. Raises `ValueError` naming the
    archive where it is damaged, cut off, or holds a link, a device, a way out of the folder, or more than it should.
    """
    names: set[str] = set()
    left = BOMB * archive.stat().st_size + 10**9  # bytes

    def target(path: str, is_file: bool, size: int) -> str | None:
        nonlocal left
        left -= size
        if left < 0:
            raise ValueError(f"more than {BOMB} times its size would be unpacked; it is refused as a bomb")
        if not stays_inside(path) or "\\" in path or ":" in path.partition("/")[0]:
            raise ValueError(f"entry {path!r} would leave the folder")
        if not is_file:
            raise ValueError(f"entry {path!r} is a link or a device; only files are unpacked")
        name = place(PurePosixPath(path), folder)
        if name in names:
            raise ValueError(f"two entries would become {name}")
        names.update([] if name is None else [name])
        return name

    def admitted(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo | None:
        name = None if member.isdir() else target(member.name, member.isreg(), member.size)
        return None if name is None else tarfile.data_filter(member.replace(name=name, deep=False), str(folder))

    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                for info in bundle.infolist():
                    is_file = (info.external_attr >> 28) in (0, 8)  # kind of file on Unix: none told, or regular
                    name = None if info.is_dir() else target(info.filename, is_file, info.file_size)
                    if name is not None:
                        info.filename = name
                        bundle.extract(info, folder)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter=admitted)
                if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:  # the block that marks the end
                    raise ValueError("it ends early")
                while tar.fileobj.read(1 << 20):  # to the end, where the compression's checksum is
                    pass
    except (*DAMAGED, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # a full disk; a bad checksum has no number
            raise
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{archive} is refused: it is no archive, damaged or dangerous ({reason})") from error
    return len(names)
