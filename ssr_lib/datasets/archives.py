"""Archives from elsewhere, unpacked so that no entry can leave the folder, link, or fill the disk."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from ssr_lib.files import replacing

MAX_FILES = 2_000_000
MAX_HEADER = 1 << 20  # bytes of a name or of attributes; real ones have hundreds
CHUNK = 1 << 20


class ArchiveError(ValueError):
    """An archive that is damaged, or holds what may not be unpacked; the message names archive and entry."""


def unpack(
    archive: Path | str,
    folder: Path | str,
    wanted: Callable[[PurePosixPath], str | None],
    *,
    max_bytes: int | None = None,
) -> int:
    """Write the files of a .zip, .tar, .tar.gz or .tgz that are wanted below `folder`; return how many.

    `wanted`: an entry's path → its name below `folder`, or None to leave it out. Each file is written under a temporary
    name and moved. `max_bytes`: of all entries together, by default 10 times the archive and 1 GB. Links, devices and
    further entries of one name are refused. Raises `ArchiveError`.
    """
    archive, folder = Path(archive), Path(folder)
    limit = 10 * archive.stat().st_size + 10**9 if max_bytes is None else max_bytes
    entries = _zip_entries if zipfile.is_zipfile(archive) else _tar_entries
    total, names = 0, set()
    try:
        for n, (path, size, is_file, source) in enumerate(entries(archive)):
            total += size
            if size < 0 or total > limit or n >= MAX_FILES:
                what = f"{MAX_FILES:,} entries" if n >= MAX_FILES else f"{limit:,} bytes"
                raise ArchiveError(f"{archive}: holds more than {what}; it is refused as a bomb")
            _refuse_outside(path, archive)
            name = wanted(PurePosixPath(path))
            if name is None:
                continue
            _refuse_outside(name, archive)
            if not is_file:
                raise ArchiveError(f"{archive}: {path} is a link or a device; only files are unpacked")
            if name in names:
                raise ArchiveError(f"{archive}: two entries would become {name}")
            names.add(name)
            _write(source(), folder / name, size, f"{archive}: {path}")
    except ArchiveError:
        raise
    except Exception as error:  # damaged archives raise all kinds: TarError, BadZipFile, EOFError, LZMAError
        if isinstance(error, OSError) and error.errno is not None:  # a full disk; gzip's BadGzipFile has no number
            raise
        reason = str(error).partition("\n")[0].removesuffix(":") or type(error).__name__
        raise ArchiveError(f"{archive} is no archive or is damaged ({reason})") from error
    return len(names)


Entry = tuple[str, int, bool, Callable[[], IO[bytes]]]  # path, bytes when unpacked, whether a plain file, opens it


class _Member(tarfile.TarInfo):
    """A tar entry whose long names and attributes, which tarfile reads into memory, have a limit too.

    tarfile takes a damaged header behind the first entry, or none, for the end of the archive; here it is damage.
    """

    @classmethod
    def fromtarfile(cls, tar):
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            if tar.offset == 0:  # not a tar of this compression: the next one is tried
                raise
            raise ArchiveError(f"{tar.name} is damaged or cut off at byte {tar.offset:,} ({error})") from error

    def _proc_pax(self, tar):
        return super()._proc_pax(self._checked(tar))

    def _proc_gnulong(self, tar):
        return super()._proc_gnulong(self._checked(tar))

    def _checked(self, tar):
        if self.size > MAX_HEADER:
            raise ArchiveError(f"{tar.name}: a header of {self.size:,} bytes; it is refused as a bomb")
        return tar


def _tar_entries(archive: Path) -> Iterator[Entry]:
    with tarfile.open(archive, "r:*", tarinfo=_Member) as tar:
        for member in tar:
            if not member.isdir():
                yield member.name, member.size, member.isreg(), lambda m=member: tar.extractfile(m)
            tar.members.clear()  # the list of half a million entries is of no use here
        while tar.fileobj.read(CHUNK):  # to the end, where the compression's checksum is
            pass


def _zip_entries(archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as bundle:
        for info in bundle.infolist():
            if not info.is_dir():
                mode = info.external_attr >> 16
                is_file = stat.S_IFMT(mode) in (0, stat.S_IFREG)
                yield info.filename, info.file_size, is_file, lambda i=info: bundle.open(i)


def _refuse_outside(name: str, archive: Path) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise ArchiveError(f"{archive}: entry {name!r} would leave the folder; nothing more is unpacked")


def _write(source: IO[bytes], path: Path, size: int, what: str) -> None:
    """Copy one entry, no more than the size it declared."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, source, open(temporary, "wb") as file:
        left = size
        while chunk := source.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise ArchiveError(f"{what} is longer than the {size:,} bytes it declares")
            file.write(chunk)
        if left:
            raise ArchiveError(f"{what} is cut off, {left:,} bytes are missing; delete the archive and fetch it again")
