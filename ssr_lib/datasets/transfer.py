"""One file from the network: resumed where it broke off, verified before it gets its name."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ssr_lib import __version__
from ssr_lib.files import read_json, write_atomic

CHUNK = 1 << 20  # bytes read at a time
RESERVE = 64 << 20  # bytes of disk left free where nobody says how many will come
LONGEST_WAIT = 60.0  # seconds between two attempts
MOST = 64 << 30  # bytes of one file: more than any archive known here
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP answers after which the same address is tried again


class TransferError(OSError):
    """A file that could not be had from any of its addresses; the message says how to go on by hand."""


class WrongFileError(ValueError):
    """A file whose bytes are not those that were published or first seen."""


@dataclass(frozen=True)
class Patience:
    """How long to go on: attempts without a new byte at one address, first wait and time-out in seconds."""

    attempts: int = 6
    wait: float = 1.0
    timeout: float = 60.0


PATIENCE = Patience()


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fetch_file(
    urls: Sequence[str],
    path: Path | str,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    room: float = 1.0,
    most: int | None = None,
    patience: Patience = PATIENCE,
    progress: bool = True,
) -> Path:
    """The file at `path`, from the first of `urls` that gives it, unless it is there already.

    A download that broke off goes on where it stopped, also in a later run. `sha256`, `md5`: what it must have. Where
    no SHA-256 is known the first one seen is noted in `checksums.json` beside the file, and wanted ever after. A file
    put there by hand is verified in the same way. `room`: free disk wanted, in sizes of the file (unpacking takes
    another). `most`: bytes that are taken at most, `MOST` if None. Raises `TransferError` where no address gives it,
    `WrongFileError` for other bytes, `OSError` for a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        verify_file(path, sha256, md5)
        return path
    part = path.with_name(path.name + ".part")
    problems = []
    for url in urls:
        try:
            _download(url, part, room, MOST if most is None else most, patience, progress)
            verify_file(part, sha256, md5, name=path.name)
        except _GivenUpError as error:
            problems.append(f"{url}: {' '.join(str(error).split())}")
            continue
        except WrongFileError as error:
            _forget(part)
            problems.append(f"{url}: {error}")
            continue
        part.replace(path)
        _forget(part)
        return path
    if any("SHA-256" in problem or "MD5" in problem for problem in problems):
        raise WrongFileError("; ".join(problems))
    raise TransferError(f"{'; '.join(problems)}. Fetch it by other means, put it at {path}, and run the same again")


def verify_file(path: Path, sha256: str | None, md5: str | None = None, name: str | None = None) -> None:
    """Compare a file with the checksums it must have, or with that noted when it was first seen, which is noted now.

    Raises `WrongFileError`.
    """
    name = name or path.name
    notes = path.parent / "checksums.json"
    noted = _noted(notes)
    found = hash_file(path)
    wanted, why = (sha256, "published") if sha256 else (noted.get(name), f"noted in {notes} when it was first seen")
    if wanted is not None and found != wanted:
        raise WrongFileError(f"{name} has SHA-256 {found}; {wanted} is {why}; delete the one that is wrong")
    if md5 is not None and (found_md5 := hash_file(path, "md5")) != md5:
        raise WrongFileError(f"{name} has MD5 {found_md5}; {md5} is published; delete it")
    if noted.get(name) != found:
        write_atomic(notes, json.dumps({**noted, name: found}, indent=1, sort_keys=True) + "\n")


def _noted(notes: Path) -> dict[str, str]:
    """The checksums noted so far. Raises `WrongFileError` for a damaged file: what it vouched for would pass unseen."""
    noted = read_json(notes) if notes.is_file() else {}
    if noted is None:
        raise WrongFileError(f"{notes} is damaged; delete it, and the files beside it count as seen for the first time")
    return noted


def set_aside(path: Path) -> Path:
    """Rename a file that turned out to be useless, and forget its noted checksum, so that it can be fetched anew."""
    forget_checksum(path)
    return path.rename(path.with_name(path.name + ".refused"))


def forget_checksum(path: Path) -> None:
    """Let the next file of that name count as seen for the first time."""
    notes = path.parent / "checksums.json"
    noted = _noted(notes)
    if noted.pop(path.name, None):
        write_atomic(notes, json.dumps(noted, indent=1, sort_keys=True) + "\n")


class _GivenUpError(Exception):
    """One address did not give the file."""


class _BrokenOffError(Exception):
    """A transfer stopped; it may be resumed."""


def _download(url: str, part: Path, room: float, most: int, patience: Patience, progress: bool) -> None:
    """Fill `part` from `url`, going on as often as it takes as long as bytes arrive."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise _GivenUpError("only http and https addresses are fetched")
    failures, furthest = 0, part.stat().st_size if part.is_file() else 0
    while True:
        try:
            return _transfer(url, part, room, most, patience.timeout, progress)
        except urllib.error.HTTPError as error:
            if error.code not in PASSING:
                raise _GivenUpError(f"the server answers {error.code} {error.reason}") from error
            reason = f"the server answers {error.code} {error.reason}"
        except urllib.error.URLError as error:
            reason = f"cannot be reached ({getattr(error.reason, 'strerror', None) or error.reason})"
        except (_BrokenOffError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        except ValueError as error:  # an answer that leads to no address
            raise _GivenUpError(f"the server's answer cannot be followed ({error})") from error
        size = part.stat().st_size if part.is_file() else 0
        failures = 1 if size > furthest else failures + 1
        furthest = max(furthest, size)
        if failures >= patience.attempts:
            raise _GivenUpError(reason)
        time.sleep(min(patience.wait * 2 ** (failures - 1), LONGEST_WAIT))


def _transfer(url: str, part: Path, room: float, most: int, timeout: float, progress: bool) -> None:
    """One request: append to `part` what it lacks, or begin again where the server's file is another one now."""
    have = part.stat().st_size if part.is_file() else 0
    stamp_file = part.with_name(part.name + ".json")
    stamp = (read_json(stamp_file) or {}) if have else {}
    if stamp.get("url") != url or not stamp.get("version"):
        have = 0  # nothing says that the rest would belong to this beginning
    elif stamp.get("total") == have:
        return  # all had come when the process ended
    request = urllib.request.Request(url, headers={"User-Agent": f"ssr-lib/{__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", stamp["version"])
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what is here: it was complete, or too long
            part.unlink()
            raise _BrokenOffError("the server has no more bytes than are here already") from error
        raise
    with response:
        if response.status == 206:
            start, total = _content_range(response.headers.get("Content-Range", ""))
            if start != have:
                raise _GivenUpError(f"asked for bytes from {have}, the server sends them from {start}")
        else:
            have, total = 0, _number(response.headers.get("Content-Length"))
        if total is not None and total > most:
            raise _GivenUpError(f"the server announces {total:,} bytes; at most {most:,} are taken of this file")
        if total is not None:
            want_room(part.parent, (total - have) + (room - 1) * total, url)
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        usable = version if version and not version.startswith("W/") else None
        write_atomic(stamp_file, json.dumps({"url": url, "version": usable, "total": total}))
        name = part.name.removesuffix(".part")
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, disable=not progress) as bar,
        ):
            # read1: what has come is kept also where the connection breaks before a whole chunk
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if total is not None:
                    continue
                if file.tell() > most:
                    _forget(part)
                    raise _GivenUpError(f"the server does not say how long the file is, and sent over {most:,} bytes")
                want_room(part.parent, RESERVE, url)
    size = part.stat().st_size
    if total is not None and size != total:  # a connection that closes early looks like an end
        if size > total:
            part.unlink()
        raise _BrokenOffError(f"ended after {size:,} of {total:,} bytes")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) <= 18 else None


def _content_range(text: str) -> tuple[int | None, int | None]:
    """Start and total of "bytes 100-199/1000"; None for what it does not say."""
    span, _, total = text.removeprefix("bytes ").partition("/")
    return _number(span.partition("-")[0]), _number(total)


def want_room(folder: Path, needed: float, what: str) -> None:
    """Raise `OSError` where the disk of `folder` has not the `needed` bytes that `what` takes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{what} needs about {needed / 1e9:,.1f} GB more of disk, {free / 1e9:,.1f} GB are free; make room or choose another folder",
            str(folder),
        )
