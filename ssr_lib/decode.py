"""From a picture file to its pixels, or to one line that says what the file is instead."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

T = TypeVar("T")
Image.init()  # registers TIFF and WebP, which Pillow otherwise loads late
warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no file; what matters is raised here, and names it
_SAFE = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "AVIF", "JPEG2000", "PSD")  # run no other program
FORMATS = tuple(name for name in _SAFE if name in Image.OPEN)
TARGA = (".tga", ".vda", ".icb", ".vst")  # a format without a mark of its own: believed by extension only
LEAST_BRIGHT = 1 << 14  # of 16 bits: below, the file may hold 10, 12 or 14 bits in 16, or a dark picture
_SYSTEM = {os.strerror(number) for number in errno.errorcode}  # how `load_image` ends where the file was not to be had
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"tRNS", b"eXIf")  # of what is not the picture itself: transparency and orientation
_TIFF_BITS = 258
_TIFF_MAXIMUM = (341, 281)  # SMaxSampleValue, MaxSampleValue
# What a file is by its first bytes, where it is none of `FORMATS` or cannot be read as one: place, bytes, name.
_KINDS = (
    (0, b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` brings the picture)"),
    *((4, b"ftyp" + brand, "HEIC/HEIF") for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftypcrx", "a camera's raw data"),
    (4, b"ftyp", "a video"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw data"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG or other XML"),
    *((0, page, "a web page") for page in (b"<!DOCTYPE html", b"<!doctype html", b"<html")),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "gzip"),
)


class ImageError(ValueError):
    """A picture that cannot be used; the message begins with its file name."""


def load_image(path: Path | str, *, exif_orientation: bool = True, longest: int | None = None) -> np.ndarray:
    """Decode a picture of any common kind to RGB, (H, W, 3) uint8.

    Grey is repeated; of 16 bits the upper 8 are kept, of fewer in 16 the upper 8 that the file declares; palettes and
    CMYK are converted; what is transparent shows white behind it; of an animation the first frame. `longest`: wanted is
    a thumbnail of that many pixels, for which a larger JPEG is decoded at a half, a quarter or an eighth of its size.
    Raises `ImageError` naming the file where it is missing, empty, no picture, truncated, damaged, has grey levels of
    no certain scale, or declares more than 178,956,970 pixels (Pillow's limit against bombs).
    """
    path = Path(path)

    def read(picture: Image.Image) -> np.ndarray:
        if longest is not None:
            picture.draft("RGB", (longest, longest))
        rgb = _to_rgb(picture, path)
        return np.array(_upright(rgb, _orientation(picture)) if exif_orientation else rgb)

    return _read(path, read)


def declared_sizes(path: Path | str) -> list[tuple[int, int]]:
    """Width and height in pixels as a picture's header declares them, and upright where its EXIF note turns it.

    Raises `ImageError` as `load_image`.
    """

    def read(picture: Image.Image) -> list[tuple[int, int]]:
        on_its_side = _orientation(picture) in (5, 6, 7, 8)
        return [picture.size, picture.size[::-1]] if on_its_side else [picture.size]

    return _read(Path(path), read)


def what_it_is(path: Path | str) -> str | None:
    """What a file is that is no picture to be read here, as its first bytes say; None for one that begins like one.

    Raises `OSError` where it cannot be opened.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        return "the file is empty (0 bytes)"
    try:
        with Image.open(path, formats=_formats(Path(path))):
            return None
    except UnidentifiedImageError:
        return _kind(head) or "no picture"
    except Exception:  # it has the mark of a picture, and is damaged: whoever loads it will say how
        return None


def may_pass(reason: str) -> bool:
    """Whether the text of an `ImageError` tells of the system (permission, disk, open files), not of the picture."""
    return reason.rpartition(": ")[2] in _SYSTEM


def _read(path: Path, read: Callable[[Image.Image], T]) -> T:
    """What `read` makes of the opened picture; all kinds of errors that decoders raise become an `ImageError`."""
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size == 0:
            raise ImageError(f"{path}: the file is empty (0 bytes)")
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise ImageError(f"{path}: a pipe or a device, not a file")
        try:
            with Image.open(path, formats=_formats(path)) as picture:
                return read(picture)
        except (ImageError, MemoryError, Image.DecompressionBombError):
            raise
        except Exception:
            bare = _bare_png(path)
            if bare is None:
                raise
        with Image.open(bare, formats=("PNG",)) as picture:
            return read(picture)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS
        raise ImageError(f"{path}: declares more than {limit:,} pixels; shrink it with another program") from error
    except Exception as error:  # decoders fed with damaged bytes raise all kinds: struct.error, SyntaxError, zlib.error
        raise ImageError(f"{path}: {_reason(path, error)}") from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    with open(path, "rb") as file:
        kind = _kind(file.read(64))
    if kind is not None and kind not in FORMATS:
        return f"not a picture that is read here but {kind}; wanted is one of {', '.join(FORMATS)}"
    if isinstance(error, UnidentifiedImageError):
        return f"not a picture; none of {', '.join(FORMATS)} begins like this"
    return f"truncated or damaged ({type(error).__name__}: {error})"


def _kind(head: bytes) -> str | None:
    head = head.removeprefix(b"\xef\xbb\xbf")
    return next((name for place, mark, name in _KINDS if head.startswith(mark, place)), None)


def _formats(path: Path) -> tuple[str, ...]:
    return (*FORMATS, "TGA") if path.suffix.lower() in TARGA else FORMATS


def _bare_png(path: Path) -> io.BytesIO | None:
    """A PNG without its text and profiles, which may be large or damaged while the picture is whole; else None."""
    with open(path, "rb") as file:
        if file.read(len(_PNG)) != _PNG:
            return None
        data = _PNG + file.read()
    kept, place = [_PNG], len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + length + 12]  # with its length, name and checksum
        intact = len(chunk) == length + 12 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        critical = kind[:1].isupper()
        if critical or (intact and kind in _PNG_KEPT):
            kept.append(chunk)
        place += length + 12
    return io.BytesIO(b"".join(kept))


def _to_rgb(picture: Image.Image, path: Path) -> Image.Image:
    sixteen_bits = any(";16" in str(tile.args) for tile in picture.tile)
    picture.load()
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        picture = _scaled(picture, path)
    elif picture.mode == "F":
        raise ImageError(f"{path}: floating-point pixels have no agreed range; save it with 8 or 16 bits")
    elif sixteen_bits:  # of colours Pillow has kept the upper 8 bits
        _want_bright(max(high for _, high in picture.convert("RGB").getextrema()) << 8, path)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    try:
        return picture.convert("RGB")
    except ValueError as error:
        raise ImageError(f"{path}: pixels of kind {picture.mode} are not read; save it as RGB") from error


def _scaled(picture: Image.Image, path: Path) -> Image.Image:
    """Grey of more than 8 bits brought to 8, by the range that the file declares."""
    levels = np.asarray(picture).astype(np.int64)
    low, high = int(levels.min()), int(levels.max())
    full = _declared_maximum(picture)
    if full is None and picture.mode == "I":
        raise ImageError(
            f"{path}: 32-bit grey with values {low} to {high}, no range declared; save it with 8 or 16 bits"
        )
    if full is None:
        _want_bright(high, path)
        full = 65535
    if low < 0 or high > full:
        raise ImageError(f"{path}: grey with values {low} to {high}, 0 to {full} declared; save it with 8 or 16 bits")
    return Image.fromarray((levels * 256 // (full + 1)).astype(np.uint8))


def _declared_maximum(picture: Image.Image) -> int | None:
    """The level of white as the file declares it; None where nothing but 16 or 32 bits of storage is known."""
    if picture.format in ("PPM", "JPEG2000"):  # their headers say how many levels there are, and Pillow scales by them
        return 65535
    tags = getattr(picture, "tag_v2", {})
    for tag in _TIFF_MAXIMUM:
        if tag in tags:
            return int(np.max(tags[tag]))
    bits = int(np.max(tags.get(_TIFF_BITS, 16)))
    return 2**bits - 1 if bits < 16 else None


def _want_bright(high: int, path: Path) -> None:
    if high < LEAST_BRIGHT:
        raise ImageError(
            f"{path}: 16 bits with values up to {high} of 65535: a dark picture, or fewer bits than it declares; "
            "save it with 8 bits"
        )


def _orientation(picture: Image.Image) -> int:
    """How the camera was held: the EXIF tag "Orientation", 1 to 8, and 1, upright, where there is none."""
    try:
        return picture.getexif().get(0x0112, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels, and OpenCV ignores it too
        return 1


def _upright(rgb: Image.Image, orientation: int) -> Image.Image:
    turn = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    turn |= {6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
    return rgb.transpose(Image.Transpose[turn[orientation]]) if orientation in turn else rgb
