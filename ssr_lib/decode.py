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
# What a file is that is none of `FORMATS`, by its first bytes: place, bytes, name.
_KINDS = (
    (0, b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` brings the picture)"),
    *((4, b"ftyp" + brand, "HEIC/HEIF") for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    *(
        (4, b"ftyp" + brand, name)
        for brand, name in ((b"avi", "AVIF"), (b"crx", "a camera's raw data"), (b"", "a video"))
    ),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw data"),
    *((place, mark, "JPEG XL") for place, mark in ((0, b"\xff\x0a"), (4, b"JXL "))),
    *(
        (0, mark, name)
        for mark, name in ((b"%PDF", "PDF"), (b"%!PS", "PostScript"), (b"<svg", "SVG"), (b"<?xml", "XML"))
    ),
    *((0, mark, "a web page") for mark in (b"<!DOCTYPE html", b"<!doctype html", b"<html")),
)


class ImageError(ValueError):
    """A picture that cannot be used; the message begins with its file name."""


def load_image(path: Path | str, *, exif_orientation: bool = True) -> np.ndarray:
    """Decode a picture of any common kind to RGB, (H, W, 3) uint8.

    Grey is repeated; of 16 bits the upper 8 are kept, of fewer in 16 the upper 8 that the file declares; palettes and
    CMYK are converted; what is transparent shows white behind it; of an animation the first frame. Raises `ImageError`
    naming the file where it is missing, empty, no picture, truncated, damaged, has grey levels of no certain scale, or
    declares more than 178,956,970 pixels (Pillow's limit against bombs).
    """
    path = Path(path)

    def read(picture: Image.Image) -> np.ndarray:
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


def may_pass(reason: str) -> bool:
    """Whether the text of an `ImageError` tells of the system (permission, disk, open files), not of the picture."""
    return reason.rpartition(": ")[2] in _SYSTEM


def _read(path: Path, read: Callable[[Image.Image], T]) -> T:
    """What `read` makes of the opened picture; all kinds of errors that decoders raise become an `ImageError`."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{path}: a folder, a pipe or a device, not a file")
        if found.st_size == 0:
            raise ImageError(f"{path}: the file is empty (0 bytes)")
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
        head = file.read(64).removeprefix(b"\xef\xbb\xbf")  # a mark before UTF-8 text
    kind = next((name for place, mark, name in _KINDS if head.startswith(mark, place)), None)
    if kind is not None and kind not in FORMATS:
        return f"not a picture that is read here but {kind}"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture that is read here"
    return f"truncated or damaged ({type(error).__name__}: {error})"


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
        wanted = intact and kind in (b"tRNS", b"eXIf")  # transparency and orientation
        if wanted or kind[:1].isupper():  # a capital marks what belongs to the picture itself
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
    """Grey of more than 8 bits brought to 8, by the level of white that the file declares."""
    levels = np.asarray(picture).astype(np.int64)
    low, high = int(levels.min()), int(levels.max())
    white = _declared_white(picture)
    if white is None and picture.mode == "I":
        raise ImageError(f"{path}: 32 bits with values {low} to {high}, no range declared; save it with 8 or 16 bits")
    if white is None:
        _want_bright(high, path)
        white = 65535
    if low < 0 or high > white:
        raise ImageError(f"{path}: values {low} to {high} where 0 to {white} are declared; save it with 8 or 16 bits")
    return Image.fromarray((levels * 256 // (white + 1)).astype(np.uint8))


def _declared_white(picture: Image.Image) -> int | None:
    """None where nothing but 16 or 32 bits of storage is known."""
    if picture.format in ("PPM", "JPEG2000"):  # their headers say how many levels there are, and Pillow scales by them
        return 65535
    tags = getattr(picture, "tag_v2", {})  # of TIFF
    for maximum in (341, 281):  # SMaxSampleValue, MaxSampleValue
        if maximum in tags:
            return int(np.max(tags[maximum]))
    bits = int(np.max(tags.get(258, 16)))  # BitsPerSample
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
